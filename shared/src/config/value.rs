//! One value: from the text of a variable, a flag or a default, its checks, and back into TOML.
//! A refusal says what is wrong and what would be right, never where: the layer that read it knows that.
//! Text from outside is quoted, escaped and cut before it enters a message.

use std::collections::BTreeMap;
use std::fmt;

use super::schema::{Key, Kind};
use crate::limits::{LABEL_KEY_BYTES_MAX, LABEL_VALUE_BYTES_MAX, LABELS_MAX};

/// A checked value. Its `Display` is TOML.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    Text(String),
    Bool(bool),
    Integer(i64),
    DurationMs(u64),
    SizeBytes(u64),
    List(Vec<String>),
    Labels(BTreeMap<String, String>),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(&toml_text(text)),
            Self::Bool(on) => write!(f, "{on}"),
            Self::Integer(number) => write!(f, "{number}"),
            Self::DurationMs(duration_ms) => write!(f, "\"{}\"", render_duration(*duration_ms)),
            Self::SizeBytes(bytes) => write!(f, "\"{}\"", render_size(*bytes)),
            Self::List(items) => {
                let items: Vec<String> = items.iter().map(|item| toml_text(item)).collect();
                write!(f, "[{}]", items.join(", "))
            }
            Self::Labels(labels) if labels.is_empty() => f.write_str("{}"),
            Self::Labels(labels) => {
                let pair = |(key, text): (&String, &String)| {
                    let key = if key.contains('.') { toml_text(key) } else { key.clone() };
                    format!("{key} = {}", toml_text(text))
                };
                let pairs: Vec<String> = labels.iter().map(pair).collect();
                write!(f, "{{ {} }}", pairs.join(", "))
            }
        }
    }
}

const DURATION_UNITS: &[(&str, u64)] = &[("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

const SIZE_UNITS: &[(&str, u64)] = &[
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
    ("B", 1),
    ("", 1),
];

/// "500ms", "10s", "5m", "2h", "7d".
pub fn parse_duration_ms(text: &str) -> Option<u64> {
    parse_with_unit(text, DURATION_UNITS)
}

/// "1024", "512KiB", "10MB".
pub fn parse_size_bytes(text: &str) -> Option<u64> {
    parse_with_unit(text, SIZE_UNITS)
}

/// Reads a value as it stands in a variable, a flag or a default.
pub(super) fn parse(key: &Key, text: &str) -> Result<Value, String> {
    let refuse = |what: &str| Err(format!("{} is not {what}; write it like {}", quote(text), example(key)));
    match key.kind {
        Kind::Text => checked_text(text).map(Value::Text),
        Kind::Bool => match text {
            "true" => Ok(Value::Bool(true)),
            "false" => Ok(Value::Bool(false)),
            _ => Err(format!("{} is neither true nor false", quote(text))),
        },
        Kind::Integer { .. } => match text.parse() {
            Ok(number) => integer(key, number),
            Err(_) => refuse("a whole number"),
        },
        Kind::Duration { min_ms, max_ms } => match parse_duration_ms(text) {
            Some(ms) if (min_ms..=max_ms).contains(&ms) => Ok(Value::DurationMs(ms)),
            Some(_) => Err(out_of_range(key, &quote(text))),
            None => refuse("a number with ms, s, m, h or d"),
        },
        Kind::Size { min, max } => match parse_size_bytes(text) {
            Some(bytes) if (min..=max).contains(&bytes) => Ok(Value::SizeBytes(bytes)),
            Some(_) => Err(out_of_range(key, &quote(text))),
            None => refuse("a number of bytes, or one with KB, MB, GB, KiB, MiB or GiB"),
        },
        Kind::List => split(text).map(checked_item).collect::<Result<_, _>>().map(Value::List),
        Kind::Labels => {
            let mut labels = BTreeMap::new();
            for pair in split(text) {
                let Some((name, text)) = pair.split_once('=') else {
                    return Err(format!("{} is no label; write labels like env=prod,role=web", quote(pair)));
                };
                insert_label(&mut labels, name.trim(), text.trim())?;
            }
            Ok(Value::Labels(labels))
        }
    }
}

pub(super) fn integer(key: &Key, number: i64) -> Result<Value, String> {
    match key.kind {
        Kind::Integer { min, max } if (min..=max).contains(&number) => Ok(Value::Integer(number)),
        _ => Err(out_of_range(key, &number.to_string())),
    }
}

pub(super) fn out_of_range(key: &Key, shown: &str) -> String {
    format!("{shown} is out of range; it must be {}", describe(key.kind))
}

pub(super) fn checked_text(text: &str) -> Result<String, String> {
    if text.chars().any(char::is_control) {
        return Err(format!("{} holds a control character, such as a line break", quote(text)));
    }
    Ok(text.to_owned())
}

pub(super) fn checked_item(text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Err("an item of the list is empty; leave it out".to_owned());
    }
    checked_text(text)
}

pub(crate) fn insert_label(labels: &mut BTreeMap<String, String>, name: &str, text: &str) -> Result<(), String> {
    let tail = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_.-".contains(&byte);
    let well_formed = name.starts_with(|first: char| first.is_ascii_lowercase()) && name.bytes().all(tail);
    if !well_formed || name.len() > LABEL_KEY_BYTES_MAX {
        return Err(format!(
            "{} is no label name; it begins with a-z, goes on with a-z, 0-9, _, . or - and has at most \
             {LABEL_KEY_BYTES_MAX} characters, like env",
            quote(name)
        ));
    }
    if text.len() > LABEL_VALUE_BYTES_MAX {
        return Err(format!("the label {name} is too long; at most {LABEL_VALUE_BYTES_MAX} bytes are kept"));
    }
    if labels.len() >= LABELS_MAX {
        return Err(format!("there are too many labels; a node has at most {LABELS_MAX}"));
    }
    if labels.insert(name.to_owned(), checked_text(text)?).is_some() {
        return Err(format!("the label {name} is given twice; keep one"));
    }
    Ok(())
}

/// What a value must be, to stand after "it must be".
pub(super) fn describe(kind: Kind) -> String {
    let size_range = |min, max| match max {
        u64::MAX => format!("of at least {}", render_size(min)),
        _ => format!("from {} to {}", render_size(min), render_size(max)),
    };
    match kind {
        Kind::Text => "text in quotes".to_owned(),
        Kind::Bool => "true or false".to_owned(),
        Kind::Integer { min, max } => format!("a whole number from {min} to {max}"),
        Kind::Duration { min_ms, max_ms } => {
            format!("a duration from {} to {}", render_duration(min_ms), render_duration(max_ms))
        }
        Kind::Size { min, max } => format!("a size {}", size_range(min, max)),
        Kind::List => "a list of texts".to_owned(),
        Kind::Labels => "a table of labels".to_owned(),
    }
}

/// A right value in TOML: the default, or one of the kind.
pub(super) fn example(key: &Key) -> String {
    match (key.kind, key.default) {
        (Kind::List, None | Some("")) => "[\"one\", \"two\"]".to_owned(),
        (Kind::Labels, None | Some("")) => "{ env = \"prod\" }".to_owned(),
        (Kind::Text, None | Some("")) => "\"text\"".to_owned(),
        (_, Some(default)) => default_toml(key, default),
        // The schema lets no other kind be without a default.
        (_, None) => describe(key.kind),
    }
}

/// The default in TOML. Durations and sizes keep the spelling of the schema.
pub(super) fn default_toml(key: &Key, default: &str) -> String {
    match key.kind {
        Kind::Duration { .. } | Kind::Size { .. } => toml_text(default),
        _ => parse(key, default).map_or_else(|_| toml_text(default), |value| value.to_string()),
    }
}

/// Quotes text from outside for a message: one line, no control characters, not long.
pub(crate) fn quote(text: &str) -> String {
    const SHOWN_CHARS_MAX: usize = 64;
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((end, _)) => format!("{:?}...", &text[..end]),
        None => format!("{text:?}"),
    }
}

fn parse_with_unit(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits_len = text.bytes().take_while(u8::is_ascii_digit).count();
    let (digits, unit) = text.split_at(digits_len);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    digits.parse::<u64>().ok()?.checked_mul(*factor)
}

/// As a person writes it: `5m`.
#[must_use]
pub fn render_duration(duration_ms: u64) -> String {
    if duration_ms == 0 {
        return "0s".to_owned();
    }
    render_with_unit(duration_ms, DURATION_UNITS)
}

fn render_size(bytes: u64) -> String {
    let binary_or_plain = [SIZE_UNITS[0], SIZE_UNITS[1], SIZE_UNITS[2], ("", 1)];
    if bytes == 0 { "0".to_owned() } else { render_with_unit(bytes, &binary_or_plain) }
}

fn render_with_unit(number: u64, units: &[(&str, u64)]) -> String {
    let (unit, factor) = units.iter().find(|(_, factor)| number.is_multiple_of(*factor)).unwrap_or(&("", 1));
    format!("{}{unit}", number / factor)
}

/// The items between commas; none in a blank text.
fn split(text: &str) -> impl Iterator<Item = &str> {
    let blank = text.trim().is_empty();
    text.split(',').map(str::trim).filter(move |_| !blank)
}

/// A basic TOML string. Control characters were refused before, so two escapes are enough.
fn toml_text(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}
