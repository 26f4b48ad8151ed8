//! Everything that is in force, and the texts that it comes from. Pure; a book is never changed, another takes its place.
//!
//! Files go before sets: a set that does not go with them is left out by itself, with what is wrong with it, and all
//! others count. A set that is put must go with all that counts.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use dunlin_shared::limits::{RULE_NAME_BYTES_MAX, RULE_SETS_BYTES_MAX, RULE_SETS_MAX};
use dunlin_shared::rule::set::RuleSet;
use dunlin_shared::rule::{Place, Rule, RuleError};
use dunlin_shared::time::WallMs;

use super::SHIPPED;

/// A named text of rules that came by the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedSet {
    pub text: Arc<str>,
    /// Who put it there.
    pub by: String,
    pub at: WallMs,
}

pub type Sets = BTreeMap<String, Arc<NamedSet>>;

#[derive(Clone, Debug, Default)]
pub struct RuleBook {
    /// One more than that of the book whose place it takes.
    pub number: u64,
    files: Arc<[(String, String)]>,
    pub sets: Sets,
    /// By name.
    pub rules: Vec<Arc<Rule>>,
    /// Sets that do not count, each with every line of what is wrong.
    pub left_out: BTreeMap<String, Vec<String>>,
}

/// Where a rule comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin<'a> {
    Shipped,
    File(&'a Place),
    Set(&'a Place),
}

/// A name with a dot in it would be taken for that of a file.
#[must_use]
pub fn is_set_name(name: &str) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    name.len() <= RULE_NAME_BYTES_MAX
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.bytes().all(is_letter)
}

impl RuleBook {
    /// Other files, which must be right by themselves; of the sets those that go with them.
    pub fn with_files(&self, files: Vec<(String, String)>) -> Result<Self, Vec<String>> {
        let alone = compile(&files, &[]).map_err(lines)?;
        Ok(self.gathered(files.into(), self.sets.clone(), Some(alone)))
    }

    /// Other sets, of which those that do not go with the files or with those before them are left out.
    #[must_use]
    pub fn with_sets(&self, sets: Sets) -> Self {
        self.gathered(Arc::clone(&self.files), sets, None)
    }

    /// With another set, or another text of one.
    pub fn put(&self, name: &str, set: NamedSet) -> Result<Self, Vec<String>> {
        let mut sets = self.sets.clone();
        sets.remove(name);
        let bytes: usize = sets.values().map(|set| set.text.len()).sum();
        if sets.len() >= RULE_SETS_MAX {
            return Err(vec![format!("{name}: there are {RULE_SETS_MAX} sets of rules already; delete one first")]);
        }
        if bytes + set.text.len() > RULE_SETS_BYTES_MAX {
            let message = format!("the sets of rules would have more than {RULE_SETS_BYTES_MAX} bytes together");
            return Err(vec![format!("{name}: {message}; delete one first")]);
        }
        // It stands last, so that of a name that is given twice its own place is told, and that of the other beside it.
        let others = sets.iter().filter(|(other, _)| !self.left_out.contains_key(*other));
        let mut texts: Vec<(&str, &str)> = others.map(|(name, set)| (name.as_str(), &*set.text)).collect();
        texts.push((name, &set.text));
        let counted = compile(&self.files, &texts).map_err(lines)?;
        sets.insert(name.to_owned(), Arc::new(set));
        if self.left_out.keys().all(|left| left == name) {
            return Ok(self.next(Arc::clone(&self.files), sets, counted, BTreeMap::new()));
        }
        Ok(self.gathered(Arc::clone(&self.files), sets, None))
    }

    /// Without a set; `None` when there is none of that name.
    #[must_use]
    pub fn without(&self, name: &str) -> Option<Self> {
        let mut sets = self.sets.clone();
        sets.remove(name)?;
        Some(self.gathered(Arc::clone(&self.files), sets, None))
    }

    #[must_use]
    pub fn rule(&self, name: &str) -> Option<&Arc<Rule>> {
        self.rules.binary_search_by(|rule| (*rule.name).cmp(name)).ok().map(|at| &self.rules[at])
    }

    /// How many rules of a set count.
    #[must_use]
    pub fn count_of(&self, set: &str) -> usize {
        self.rules.iter().filter(|rule| &*rule.place.file == set).count()
    }

    fn gathered(&self, files: Arc<[(String, String)]>, sets: Sets, alone: Option<RuleSet>) -> Self {
        let texts: Vec<(&str, &str)> = sets.iter().map(|(name, set)| (name.as_str(), &*set.text)).collect();
        match alone.filter(|_| texts.is_empty()).map_or_else(|| compile(&files, &texts), Ok) {
            Ok(whole) => self.next(files, sets, whole, BTreeMap::new()),
            Err(_) => {
                let (counted, left_out) = one_by_one(&files, &texts);
                self.next(files, sets, counted, left_out)
            }
        }
    }

    fn next(
        &self,
        files: Arc<[(String, String)]>,
        sets: Sets,
        counted: RuleSet,
        left_out: BTreeMap<String, Vec<String>>,
    ) -> Self {
        // What is the same stays the same in memory: whoever holds an alert holds its rule.
        let known = |rule: Rule| match self.rule(&rule.name) {
            Some(known) if **known == rule => Arc::clone(known),
            _ => Arc::new(rule),
        };
        let rules = counted.into_rules().into_iter().map(known).collect();
        Self { number: self.number + 1, files, sets, rules, left_out }
    }
}

impl<'a> Origin<'a> {
    #[must_use]
    pub fn of(rule: &'a Rule) -> Self {
        match &*rule.place.file {
            file if file == SHIPPED.0 => Self::Shipped,
            name if is_set_name(name) => Self::Set(&rule.place),
            _ => Self::File(&rule.place),
        }
    }

    #[must_use]
    pub const fn kind(self) -> &'static str {
        match self {
            Self::Shipped => "shipped",
            Self::File(_) => "file",
            Self::Set(_) => "set",
        }
    }

    /// The file or the set; empty for what ships.
    #[must_use]
    pub fn name(self) -> &'a str {
        match self {
            Self::Shipped => "",
            Self::File(place) | Self::Set(place) => &place.file,
        }
    }
}

impl fmt::Display for Origin<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shipped => f.write_str("shipped"),
            Self::File(Place { file, line }) => write!(f, "file {file}:{line}"),
            Self::Set(Place { file, line }) => write!(f, "set {file}:{line}"),
        }
    }
}

fn compile(files: &[(String, String)], sets: &[(&str, &str)]) -> Result<RuleSet, Vec<RuleError>> {
    let shipped = [(SHIPPED.0.to_owned(), SHIPPED.1.to_owned())];
    let mut own = files.to_vec();
    own.extend(sets.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())));
    RuleSet::of(&shipped, &own)
}

/// Files alone are right; each set counts that goes with those before it.
fn one_by_one(files: &[(String, String)], sets: &[(&str, &str)]) -> (RuleSet, BTreeMap<String, Vec<String>>) {
    let mut counted = compile(files, &[]).unwrap_or_default();
    let (mut right, mut left_out) = (Vec::new(), BTreeMap::new());
    for set in sets {
        right.push(*set);
        match compile(files, &right) {
            Ok(more) => counted = more,
            Err(errors) => {
                right.pop();
                left_out.insert(set.0.to_owned(), lines(errors));
            }
        }
    }
    (counted, left_out)
}

fn lines(errors: Vec<RuleError>) -> Vec<String> {
    errors.iter().map(ToString::to_string).collect()
}
