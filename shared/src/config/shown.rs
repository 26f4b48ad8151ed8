//! A configuration as it may be shown to strangers: what each key comes to and which layer says so, without what names
//! people's things (labels, the node's own name) and without passwords in addresses.

use std::fmt::Write as _;

use super::settings::{Origin, Setting, Settings};
use super::value::Value;
use crate::bundle::WITHHELD;

/// Keys whose texts are a person's own words.
const OWN_WORDS: &[&str] = &["name"];

impl Settings {
    /// One line a key, in the order of the schema. Never the file as it lies there: comments may say anything.
    #[must_use]
    pub fn shown(&self) -> String {
        let mut text = String::new();
        for Setting { key, value, origin } in self {
            let value = value.as_ref().map_or_else(|| String::from("(none)"), |value| shown(key.path, value));
            let from = match origin {
                Origin::Default => String::from("default"),
                Origin::File { line } => format!("line {line} of the file"),
                Origin::Env => String::from("environment"),
                Origin::Flag => String::from("flag"),
            };
            // Writing to a string cannot fail.
            writeln!(text, "{} = {value}  # {from}", key.path).ok();
        }
        text
    }
}

fn shown(path: &str, value: &Value) -> String {
    match value {
        Value::Labels(labels) => {
            let keys: Vec<String> = labels.keys().map(|key| format!("{key} = {WITHHELD}")).collect();
            format!("{{ {} }}", keys.join(", "))
        }
        Value::Text(_) if OWN_WORDS.contains(&path) => WITHHELD.to_owned(),
        Value::Text(text) if has_password(text) => WITHHELD.to_owned(),
        Value::List(items) if items.iter().any(|item| has_password(item)) => WITHHELD.to_owned(),
        other => other.to_string(),
    }
}

/// As in `https://user:password@host`.
fn has_password(text: &str) -> bool {
    text.split_once("://").is_some_and(|(_, rest)| rest.contains('@'))
}

#[cfg(test)]
mod tests {
    use super::super::{File, Key, Kind, Layers};

    const SCHEMA: &[Key] = &[
        Key { path: "name", kind: Kind::Text, default: None, help: "What it is called." },
        Key { path: "labels", kind: Kind::Labels, default: None, help: "What it bears." },
        Key { path: "url", kind: Kind::Text, default: None, help: "Where it is." },
        Key { path: "hosts", kind: Kind::List, default: None, help: "Who is asked." },
        Key {
            path: "interval",
            kind: Kind::Duration { min_ms: 1, max_ms: 60_000 },
            default: Some("10s"),
            help: "How often.",
        },
    ];

    #[test]
    fn what_names_peoples_things_is_withheld_and_the_rest_is_told_with_its_layer() {
        let text =
            "name = \"till-7\"\nlabels = { tenant = \"acme\" }\nurl = \"https://u:hunter2@x\"\nhosts = [\"c:9737\"]\n";
        let file = Some(File { name: "a.toml", bytes: text.as_bytes() });
        let layers = Layers { schema: SCHEMA, file, env_prefix: "X", env: &[], env_allowed: &[], flags: &[] };
        let shown = layers.load().expect("it is whole").shown();
        assert_eq!(
            shown,
            "name = (withheld)  # line 1 of the file\nlabels = { tenant = (withheld) }  # line 2 of the file\n\
             url = (withheld)  # line 3 of the file\nhosts = [\"c:9737\"]  # line 4 of the file\n\
             interval = \"10s\"  # default\n"
        );
    }
}
