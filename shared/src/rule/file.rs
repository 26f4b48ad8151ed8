//! A file of rules: TOML tables `[[rule]]`, each checked whole. Every mistake is told with its place, in the order of the file.
//!
//! Nothing is passed over in silence: a key that is not known is a mistake, and a rule that is not right is none.

use std::collections::BTreeMap;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::draft::Draft;
use super::error::{Fault, RuleError};
use super::text::{Lines, plain, too_deep};
use super::{Place, Rule};
use crate::config::{a_type, nearest, quote};
use crate::limits::{RULE_ERRORS_MAX, RULE_FILE_BYTES_MAX, RULES_MAX};

/// Lists and tables within each other: a rule has two, and what the parser builds is freed by recursion.
const BRACES_MAX: usize = 8;

/// Mistakes that are kept to be sorted: far more than are told, so that a file of nothing else costs no memory.
const FAULTS_MAX: usize = 1_000;

/// One table of a file.
#[derive(Clone, Debug)]
pub(super) enum Item {
    /// The column is that of its name.
    Rule { rule: Box<Rule>, column: usize },
    /// A name with `enabled = false` and nothing else: the rule of that name stands elsewhere.
    Off { name: Box<str>, place: Place, column: usize },
}

/// The rules of one file by itself, in its order.
pub fn parse(file: &str, text: &str) -> Result<Vec<Rule>, Vec<RuleError>> {
    let mut rules = Vec::new();
    let mut errors = Vec::new();
    for item in read(file, text)? {
        match item {
            Item::Rule { rule, .. } => rules.push(*rule),
            Item::Off { name, place: Place { file, line }, column } => {
                let message = format!("the rule {name} has no when; write when = 'host_memory_used_ratio > 90%'");
                errors.push(RuleError { file, line, column, message });
            }
        }
    }
    errors.truncate(RULE_ERRORS_MAX);
    if errors.is_empty() { Ok(rules) } else { Err(errors) }
}

pub(super) fn read(file: &str, text: &str) -> Result<Vec<Item>, Vec<RuleError>> {
    let mut reader = Reader { file, text, lines: Lines::of(text), faults: Vec::new(), names: BTreeMap::new() };
    let items = reader.items();
    let Reader { lines, mut faults, .. } = reader;
    if faults.is_empty() {
        return Ok(items);
    }
    faults.sort_by_key(|fault| fault.at);
    faults.truncate(RULE_ERRORS_MAX);
    let error = |fault: Fault| {
        let (line, column) = lines.place(fault.at);
        RuleError { file: file.into(), line, column, message: fault.message }
    };
    Err(faults.into_iter().map(error).collect())
}

pub(super) struct Reader<'a> {
    pub(super) file: &'a str,
    pub(super) text: &'a str,
    pub(super) lines: Lines<'a>,
    pub(super) faults: Vec<Fault>,
    /// The names of the rules so far, and their lines.
    pub(super) names: BTreeMap<String, usize>,
}

impl Reader<'_> {
    pub(super) fn fault(&mut self, at: usize, message: impl Into<String>) {
        if !self.is_flooded() {
            self.faults.push(Fault::new(at, message));
        }
    }

    /// Whether further mistakes would be told to nobody; looking for them would take as long as the file is.
    pub(super) fn is_flooded(&self) -> bool {
        self.faults.len() >= FAULTS_MAX
    }

    fn items(&mut self) -> Vec<Item> {
        if self.text.len() > RULE_FILE_BYTES_MAX {
            let len = self.text.len();
            self.fault(0, format!("{len} bytes are too many for a file of rules; the limit is {RULE_FILE_BYTES_MAX}"));
            return Vec::new();
        }
        if let Some(at) = too_deep(self.text, BRACES_MAX) {
            self.fault(at, format!("more than {BRACES_MAX} lists and tables stand within each other here"));
            return Vec::new();
        }
        let (table, errors) = DeTable::parse_recoverable(self.text);
        // After a broken line the parser guesses, and complaints about its guesses would mislead.
        if self.take_syntax_errors(&errors) {
            return Vec::new();
        }
        self.walk(table.get_ref())
    }

    /// Says whether the text is broken; a key given twice is a mistake, but leaves the rest readable.
    fn take_syntax_errors(&mut self, errors: &[toml::de::Error]) -> bool {
        let mut is_broken = false;
        let mut last_line = 0;
        for error in errors {
            let at = error.span().map_or(0, |span| span.start);
            let (line, _) = self.lines.place(at);
            // One mistake often brings several complaints; the first on a line is the one that helps.
            if line == last_line || self.is_full() {
                continue;
            }
            last_line = line;
            if error.message() == "duplicate key" {
                let name = error.span().and_then(|span| self.text.get(span)).unwrap_or_default();
                self.fault(at, format!("{} is given twice; keep one", quote(name.trim_matches(['"', '\'']))));
            } else {
                is_broken = true;
                self.fault(at, format!("not TOML: {}", plain(error.message())));
            }
        }
        is_broken
    }

    fn walk(&mut self, table: &DeTable<'_>) -> Vec<Item> {
        let mut items = Vec::new();
        for (key, value) in table.iter() {
            if self.is_flooded() {
                break;
            }
            let (at, key) = (key.span().start, key.get_ref().as_ref());
            if key != "rule" {
                let hint = nearest(key, std::iter::once("rule".to_owned()));
                let hint = hint.map_or_else(String::new, |near| near.hint("[[", "]]"));
                self.fault(at, format!("unknown key {}; {hint}", quote(key)));
                continue;
            }
            let Some(rules) = value.get_ref().as_array() else {
                let is_table = value.get_ref().is_table();
                let given = if is_table { "one table" } else { a_type(value.get_ref()) };
                self.fault(at, format!("rule is {given}; rules are a list of tables, each begun by [[rule]]"));
                continue;
            };
            for rule in rules.iter() {
                if self.is_full() {
                    break;
                }
                if items.len() == RULES_MAX {
                    self.fault(
                        rule.span().start,
                        format!("there are more than {RULES_MAX} rules; the rest has no room"),
                    );
                    break;
                }
                items.extend(self.item(at, rule));
            }
        }
        items
    }

    fn item(&mut self, list: usize, rule: &Spanned<DeValue<'_>>) -> Option<Item> {
        let at = rule.span().start;
        let DeValue::Table(table) = rule.get_ref() else {
            let given = a_type(rule.get_ref());
            self.fault(at.max(list), format!("{given} stands where a rule should; begin each by [[rule]]"));
            return None;
        };
        Draft::read(self, at, table).finish(self)
    }

    fn is_full(&self) -> bool {
        self.faults.len() >= RULE_ERRORS_MAX
    }
}
