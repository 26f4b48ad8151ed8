//! `dunlin rules test` and `dunlin rules check`: by the code that a collector runs, and without one.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dunlin_collector::rules::RuleBook;
use dunlin_collector::trial;
use dunlin_shared::rule::Rule;

use super::text_of;
use crate::Failure;

/// How rules that ship are called.
const STANDARD: &str = "standard";

/// Says of each file that all was as it is to be, or what was not.
pub(crate) fn test(files: &[PathBuf]) -> Result<(), Failure> {
    let (mut out, mut differences) = (io::stdout().lock(), 0);
    for file in files {
        let name = file.display().to_string();
        let beside = file.parent().unwrap_or_else(|| Path::new(""));
        let outcome = trial::run(&name, &text_of(file)?, |which| named(beside, which));
        let outcome = outcome.map_err(|lines| Failure::Usage(lines.join("\n")))?;
        if outcome.differences.is_empty() {
            writeln!(out, "ok     {name}: {} looks", outcome.looks)?;
        } else {
            writeln!(out, "WRONG  {name}: {} of {} looks", outcome.differences.len(), outcome.looks)?;
        }
        outcome.differences.iter().try_for_each(|line| writeln!(out, "       {line}"))?;
        differences += outcome.differences.len();
    }
    if differences == 0 { Ok(()) } else { Err(Failure::Differs(differences)) }
}

pub(crate) fn check(files: &[PathBuf]) -> Result<(), Failure> {
    let mut own = Vec::new();
    for file in files {
        own.push((file.display().to_string(), text_of(file)?));
    }
    let names = own.len();
    let shipped = RuleBook::default().with_files(Vec::new()).map_err(wrong)?;
    let book = shipped.with_files(own).map_err(wrong)?;
    let is_own = |rule: &&Arc<Rule>| files.iter().any(|file| *rule.place.file == *file.display().to_string());
    let count = book.rules.iter().filter(is_own).count();
    Ok(writeln!(io::stdout(), "ok     {count} rules in {names} files")?)
}

/// The rules that a trial names: those that ship, or a file beside it.
fn named(beside: &Path, which: &str) -> Result<Vec<Arc<Rule>>, Vec<String>> {
    if which == STANDARD {
        return RuleBook::default().with_files(Vec::new()).map(|book| book.rules);
    }
    let file = beside.join(which);
    let text = text_of(&file).map_err(|failure| vec![failure.to_string()])?;
    let rules = dunlin_shared::rule::file::parse(&file.display().to_string(), &text);
    let rules = rules.map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>())?;
    Ok(rules.into_iter().map(Arc::new).collect())
}

fn wrong(lines: Vec<String>) -> Failure {
    Failure::Usage(lines.join("\n"))
}
