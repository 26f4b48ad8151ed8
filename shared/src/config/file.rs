//! The file layer: TOML text into checked values, each with the line it stands on.
//! Keys are matched whole: nothing in the file is passed over in silence. Depth is bounded before the text is parsed,
//! because the tree that the parser builds is freed recursively.

use std::collections::BTreeMap;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use super::position::{line_and_column, line_around, place};
use super::schema::{self, Key, Kind};
use super::value::{self, Value, describe, example, quote};
use super::{ConfigError, ERRORS_MAX, FILE_LEN_MAX, Place};

/// The parser allows 80 levels of braces with 80 dots in each key, together 6,400 tables in each
/// other; freeing those takes more than 1 MiB of stack. With this many braces it is 1,500 tables,
/// and 512 KiB are enough. A real file has a pair or two, for labels.
const BRACES_MAX: usize = 16;

/// A key's depth at which the parser refuses it, without saying where.
const KEY_PARTS_MAX: usize = 80;

/// A value from the file.
pub(super) struct Entry {
    pub(super) key: &'static Key,
    pub(super) value: Value,
    pub(super) line: usize,
}

/// Everything right and everything wrong in the file, the mistakes in the order of the file.
pub(super) fn read(schema: &'static [Key], file: &str, bytes: &[u8]) -> (Vec<Entry>, Vec<ConfigError>) {
    if bytes.len() > FILE_LEN_MAX {
        return (Vec::new(), vec![ConfigError::TooLong { file: file.to_owned(), len: bytes.len() }]);
    }
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            let valid = String::from_utf8_lossy(&bytes[..error.valid_up_to()]);
            let at = place(file, &valid, valid.len());
            return (Vec::new(), vec![ConfigError::NotUtf8 { at }]);
        }
    };
    if let Some(offset) = brace_too_many(text) {
        let reason = format!("more than {BRACES_MAX} tables in braces; write them as [tables]");
        return (Vec::new(), vec![ConfigError::Syntax { at: place(file, text, offset), reason }]);
    }
    let mut reader = Reader { schema, file, text, entries: Vec::new(), errors: Vec::new() };
    let (table, syntax_errors) = DeTable::parse_recoverable(text);
    // After a broken line the parser guesses, and complaints about its guesses would mislead.
    if !reader.take_syntax_errors(&syntax_errors) {
        reader.walk("", table.get_ref());
    }
    let Reader { entries, mut errors, .. } = reader;
    errors.sort_by_key(|(offset, _)| *offset);
    let more = errors.len() > ERRORS_MAX;
    errors.truncate(ERRORS_MAX);
    let mut errors: Vec<ConfigError> = errors.into_iter().map(|(_, error)| error).collect();
    if more {
        errors.push(ConfigError::More);
    }
    (entries, errors)
}

struct Reader<'a> {
    schema: &'static [Key],
    file: &'a str,
    text: &'a str,
    entries: Vec<Entry>,
    /// Each with its offset in the text, to sort by.
    errors: Vec<(usize, ConfigError)>,
}

impl Reader<'_> {
    /// Says whether the text is broken; a key given twice is a mistake, but leaves the rest readable.
    fn take_syntax_errors(&mut self, found: &[toml::de::Error]) -> bool {
        let mut broken = false;
        let mut lines: Vec<Range<usize>> = Vec::new();
        for error in found {
            let span = error.span().unwrap_or_else(|| self.deep_key());
            // One mistake often brings several complaints; the first on a line is the one that helps.
            if self.is_full() || lines.iter().any(|line| line.contains(&span.start)) {
                continue;
            }
            lines.push(line_around(self.text, span.start));
            let at = self.place(span.start);
            let error = if error.message() == "duplicate key" {
                let name = self.text.get(span.clone()).unwrap_or_default();
                ConfigError::Repeated { at, key: quote(name.trim_matches(['"', '\''])) }
            } else {
                broken = true;
                let reason = error.message().replace(char::is_control, " ");
                ConfigError::Syntax { at, reason: format!("not TOML: {reason}") }
            };
            self.errors.push((span.start, error));
        }
        broken
    }

    /// Goes no deeper than the schema has tables.
    fn walk(&mut self, above: &str, table: &DeTable<'_>) {
        for (name, value) in table.iter() {
            if self.is_full() {
                return;
            }
            let offset = name.span().start;
            let name = name.get_ref().as_ref();
            let path = join(above, name);
            let schema = self.schema;
            if name.contains('.') {
                // A quoted name with a dot is one name, not a table and a key.
                self.unknown(offset, &path, value.get_ref());
            } else if let Some(key) = schema.iter().find(|key| key.path == path) {
                match convert(key, offset, value) {
                    Ok(value) => {
                        let line = self.line(offset);
                        self.entries.push(Entry { key, value, line });
                    }
                    Err((offset, problem)) => self.bad_value(offset, key.path, problem),
                }
            } else if schema.iter().any(|key| schema::is_below(key.path, &path)) {
                match value.get_ref() {
                    DeValue::Table(inner) => self.walk(&path, inner),
                    other => self.not_a_table(offset, &path, other),
                }
            } else {
                self.unknown(offset, &path, value.get_ref());
            }
        }
    }

    fn unknown(&mut self, offset: usize, path: &str, value: &DeValue<'_>) {
        let at = self.place(offset);
        let is_table = value.is_table() || value.as_array().is_some_and(holds_tables);
        let tables = self.schema.iter().filter_map(|key| match (key.kind, key.table()) {
            (Kind::Labels, _) => Some(key.path.to_owned()),
            (_, "") => None,
            (_, table) => Some(table.to_owned()),
        });
        let error = match (is_table, schema::nearest(path, tables)) {
            (true, Some(nearest)) => {
                let table = format!("[{}]", quote(path).replace(['"'], ""));
                ConfigError::UnknownTable { at, table, hint: nearest.hint("[", "]") }
            }
            _ => {
                let hint = schema::nearest_key(self.schema, path);
                let hint = hint.map_or_else(|| "there are no keys".to_owned(), |near| near.hint("\"", "\""));
                ConfigError::UnknownKey { at, key: quote(path), hint }
            }
        };
        self.errors.push((offset, error));
    }

    fn not_a_table(&mut self, offset: usize, path: &str, value: &DeValue<'_>) {
        let keys: Vec<&str> =
            self.schema.iter().map(|key| key.path).filter(|key| schema::is_below(key, path)).collect();
        let problem = match value.as_array() {
            Some(array) if holds_tables(array) => {
                format!("there is one such table; write [{path}]")
            }
            _ => format!("{} is given where a table stands; its keys are {}", a_type(value), keys.join(", ")),
        };
        self.bad_value(offset, path, problem);
    }

    fn bad_value(&mut self, offset: usize, path: &str, problem: String) {
        let at = self.place(offset);
        self.errors.push((offset, ConfigError::BadValue { at, key: path.to_owned(), problem }));
    }

    /// One more than is shown, so that the end of the list can say so.
    fn is_full(&self) -> bool {
        self.errors.len() > ERRORS_MAX
    }

    fn place(&self, offset: usize) -> Place {
        place(self.file, self.text, offset)
    }

    fn line(&self, offset: usize) -> usize {
        line_and_column(self.text, offset).0
    }

    /// Where the first key stands that has too many parts; it cannot span lines.
    fn deep_key(&self) -> Range<usize> {
        let mut start = 0;
        for line in self.text.split_inclusive('\n') {
            if line.matches('.').count() >= KEY_PARTS_MAX {
                return start..start;
            }
            start += line.len();
        }
        0..0
    }
}

/// A TOML value as what the key wants; a refusal with its offset in the text.
fn convert(key: &Key, offset: usize, value: &Spanned<DeValue<'_>>) -> Result<Value, (usize, String)> {
    let at = value.span().start;
    let placed = |result: Result<Value, String>| result.map_err(|problem| (at, problem));
    match (key.kind, value.get_ref()) {
        (Kind::Text | Kind::Duration { .. } | Kind::Size { .. }, DeValue::String(text)) => {
            placed(value::parse(key, text))
        }
        (Kind::Bool, DeValue::Boolean(on)) => Ok(Value::Bool(*on)),
        (Kind::Integer { .. }, DeValue::Integer(number)) => {
            let parsed = i64::from_str_radix(number.as_str(), number.radix());
            placed(match parsed {
                Ok(number) => value::integer(key, number),
                Err(_) => Err(value::out_of_range(key, &quote(&number.to_string()))),
            })
        }
        // A plain number of bytes needs no quotes.
        (Kind::Size { .. }, DeValue::Integer(number)) if number.radix() == 10 => {
            placed(value::parse(key, number.as_str()))
        }
        (Kind::List, DeValue::Array(array)) => {
            let item = |item: &Spanned<DeValue<'_>>| {
                let at = item.span().start;
                match item.get_ref() {
                    DeValue::String(text) => value::checked_item(text).map_err(|problem| (at, problem)),
                    other => Err((at, wrong_type(key, other))),
                }
            };
            array.iter().map(item).collect::<Result<_, _>>().map(Value::List)
        }
        (Kind::Labels, DeValue::Table(table)) => labels(table),
        (_, other) => Err((if other.is_table() { offset } else { at }, wrong_type(key, other))),
    }
}

fn labels(table: &DeTable<'_>) -> Result<Value, (usize, String)> {
    let mut labels = BTreeMap::new();
    for (name, text) in table.iter() {
        let shown = quote(name.get_ref());
        let result = match text.get_ref() {
            DeValue::String(text) => value::insert_label(&mut labels, name.get_ref(), text),
            DeValue::Table(_) => {
                Err(format!("the label {shown} is a table; put a name with a dot in quotes, like \"a.b\" = \"text\""))
            }
            other => {
                Err(format!("the label {shown} is {}; it must be text in quotes, like env = \"prod\"", a_type(other)))
            }
        };
        result.map_err(|problem| (name.span().start, problem))?;
    }
    Ok(Value::Labels(labels))
}

fn wrong_type(key: &Key, given: &DeValue<'_>) -> String {
    let wanted = describe(key.kind);
    format!("{} is given; it must be {wanted}, like {} = {}", a_type(given), key.leaf(), example(key))
}

pub(crate) fn a_type(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "text in quotes",
        DeValue::Integer(_) => "a number without quotes",
        DeValue::Float(_) => "a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

fn holds_tables(array: &DeArray<'_>) -> bool {
    array.iter().any(|item| item.get_ref().is_table())
}

/// The path to show and to look up. A name with a dot is marked, so that it is no path by accident.
fn join(above: &str, name: &str) -> String {
    let mark = if name.contains('.') { "'" } else { "" };
    let dot = if above.is_empty() { "" } else { "." };
    format!("{above}{dot}{mark}{name}{mark}")
}

/// Lines that begin with `#` are left out: they are comments, or text between triple quotes.
fn brace_too_many(text: &str) -> Option<usize> {
    let mut start = 0;
    let mut braces = 0;
    for line in text.split_inclusive('\n') {
        if !line.trim_start_matches([' ', '\t']).starts_with('#') {
            for (offset, _) in line.match_indices('{') {
                braces += 1;
                if braces > BRACES_MAX {
                    return Some(start + offset);
                }
            }
        }
        start += line.len();
    }
    None
}
