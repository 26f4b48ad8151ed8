//! What keys there are: paths, kinds, defaults and help, and their names as variables and flags.
//! The schema is our own, so a wrong one panics at the first load, in any test. Names that a person mistyped are only
//! compared here, never stored.

use super::value;

/// What a value must be. Bounds are inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Without control characters. Empty text says "none".
    Text,
    Bool,
    Integer {
        min: i64,
        max: i64,
    },
    Duration {
        min_ms: u64,
        max_ms: u64,
    },
    /// In bytes.
    Size {
        min: u64,
        max: u64,
    },
    /// Texts that are not empty. In a variable or a flag: separated by commas.
    List,
    /// Names with texts. In a variable or a flag: `k=v,k2=v2`.
    Labels,
}

/// One key of a program's configuration.
#[derive(Debug, PartialEq, Eq)]
pub struct Key {
    /// Lower case, parts joined by dots: `spool.ram` is `ram` in the table `[spool]`.
    pub path: &'static str,
    pub kind: Kind,
    /// Written as in a variable. Only texts, lists and labels may have none.
    pub default: Option<&'static str>,
    /// Whole sentences, for the reference file.
    pub help: &'static str,
}

impl Key {
    /// `spool.ram` is `DUNLIN_AGENT_SPOOL_RAM` with the prefix `DUNLIN_AGENT`.
    pub fn env_name(&self, prefix: &str) -> String {
        format!("{prefix}_{}", self.path.replace('.', "_").to_ascii_uppercase())
    }

    /// `spool.ram` is `spool-ram`; the two dashes in front are not part of it.
    pub fn flag_name(&self) -> String {
        self.path.replace(['.', '_'], "-")
    }

    /// The table that the key stands in; empty for the top.
    pub(super) fn table(&self) -> &'static str {
        self.path.rsplit_once('.').map_or("", |(table, _)| table)
    }

    pub(super) fn leaf(&self) -> &'static str {
        leaf(self.path)
    }
}

/// The key that a flag sets; `name` without its two dashes.
pub fn key_of_flag(schema: &'static [Key], name: &str) -> Option<&'static Key> {
    schema.iter().find(|key| key.flag_name() == name)
}

/// The flag that an unknown one comes nearest to, for a message; without its two dashes.
pub fn nearest_flag(schema: &'static [Key], name: &str) -> Option<String> {
    nearest(name, schema.iter().map(Key::flag_name)).map(|found| found.name)
}

/// The one of these words that a mistyped one comes nearest to.
pub fn nearest_word(given: &str, words: &[&str]) -> Option<String> {
    nearest(given, words.iter().map(|&word| word.to_owned())).map(|found| found.name)
}

/// What comes nearest to a mistyped name.
pub(crate) struct Nearest {
    pub(super) name: String,
    distance: usize,
    close: bool,
}

impl Nearest {
    /// Half a sentence. A name is always given, but a guess is not called one unless it is near.
    pub(crate) fn hint(&self, before: &str, after: &str) -> String {
        let Self { name, .. } = self;
        if self.close {
            format!("did you mean {before}{name}{after}?")
        } else {
            format!("the nearest is {before}{name}{after}")
        }
    }
}

pub(crate) fn nearest(given: &str, candidates: impl Iterator<Item = String>) -> Option<Nearest> {
    candidates.map(|name| rated(distance(given, &name), given, name)).min_by_key(|found| found.distance)
}

/// Like `nearest`, but a key in the wrong table is one step away, not as many as its table has letters.
pub(super) fn nearest_key(schema: &[Key], given: &str) -> Option<Nearest> {
    let rate = |key: &Key| {
        let whole = distance(given, key.path);
        let moved = distance(leaf(given), key.leaf()) + 1;
        rated(whole.min(moved), given, key.path.to_owned())
    };
    schema.iter().map(rate).min_by_key(|found| found.distance)
}

/// Panics where a schema is wrong in itself.
pub(super) fn assert_schema(schema: &[Key]) {
    for (index, key) in schema.iter().enumerate() {
        let path = key.path;
        let well_formed = path.split('.').all(|part| {
            !part.is_empty()
                && part.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
        });
        assert!(well_formed, "the path of the key {path:?} is not made of a-z, 0-9, _ and dots");
        for other in &schema[..index] {
            assert!(other.flag_name() != key.flag_name(), "{path} and {} have one name", other.path);
            let clash = is_below(path, other.path) || is_below(other.path, path);
            assert!(!clash, "{path} and {}: a key cannot be a table", other.path);
        }
        match key.default {
            Some(default) => {
                if let Err(problem) = value::parse(key, default) {
                    panic!("the default of {path}: {problem}");
                }
            }
            None => assert!(
                matches!(key.kind, Kind::Text | Kind::List | Kind::Labels | Kind::Size { .. }),
                "{path} needs a default: only texts, lists, labels and sizes can be absent"
            ),
        }
    }
}

/// Whether `path` stands in the table `table` or in one below it.
pub(super) fn is_below(path: &str, table: &str) -> bool {
    path.strip_prefix(table).is_some_and(|rest| rest.starts_with('.'))
}

fn leaf(path: &str) -> &str {
    path.rsplit_once('.').map_or(path, |(_, leaf)| leaf)
}

/// Near is a third of the letters or less: one in `ram`, three in `join_token`.
fn rated(distance: usize, given: &str, name: String) -> Nearest {
    let close = distance * 3 <= given.len().max(name.len());
    Nearest { name, distance, close }
}

/// The edit distance, without regard to case. Only the first bytes of a long name count, so that a hostile one costs
/// no more than a short one; no key is nearly as long.
fn distance(given: &str, name: &str) -> usize {
    const COMPARED_LEN_MAX: usize = 64;
    let given = &given.as_bytes()[..given.len().min(COMPARED_LEN_MAX)];
    let name = name.as_bytes();
    let mut row: Vec<usize> = (0..=name.len()).collect();
    for (line, left) in given.iter().enumerate() {
        let mut diagonal = line;
        row[0] = line + 1;
        for (column, right) in name.iter().enumerate() {
            let replaced = diagonal + usize::from(!left.eq_ignore_ascii_case(right));
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[name.len()]
}
