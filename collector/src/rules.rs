//! Which rules are in force: those that ship with the collector, those of its directory, and those that came by the API.
//!
//! They are taken whole or not at all: one mistake anywhere, and the rules that run go on. A rule of the same name as one
//! that ships takes its place; any other name that stands twice is a mistake.

use std::io;
use std::path::Path;
use std::sync::Arc;

use dunlin_shared::limits::RULE_FILE_BYTES_MAX;
use dunlin_shared::rule::Rule;
use dunlin_shared::rule::set::RuleSet;
use tokio::sync::mpsc;
use tracing::{info, warn};

use crate::pipeline::Input;

/// Beside the code, so that the collector and its documents ship the same.
pub const SHIPPED: (&str, &str) = ("standard.toml", include_str!("../../packaging/rules/standard.toml"));

/// Takes rules to whoever has them in force.
#[derive(Clone, Debug)]
pub struct RulesInForce {
    /// Only the log keeps the pipeline going.
    pub pipeline: mpsc::WeakSender<Input>,
}

/// Everything that is in force, or every line of what is wrong.
pub fn load(dir: &Path, others: &[(String, String)]) -> Result<Vec<Arc<Rule>>, Vec<String>> {
    let mut own = files(dir).map_err(|line| vec![line])?;
    own.extend(others.iter().cloned());
    let shipped = [(SHIPPED.0.to_owned(), SHIPPED.1.to_owned())];
    let set = RuleSet::of(&shipped, &own);
    set.map(|set| set.rules().iter().cloned().map(Arc::new).collect())
        .map_err(|errors| errors.iter().map(ToString::to_string).collect())
}

impl RulesInForce {
    /// Reads the directory again.
    pub async fn read_again(&self, dir: &Path) {
        let rules = match load(dir, &[]) {
            Ok(rules) => rules,
            Err(lines) => return lines.iter().for_each(|line| warn!("the rules stay as they were: {line}")),
        };
        info!(rules = rules.len(), "the rules were read again");
        if let Some(pipeline) = self.pipeline.upgrade() {
            // Who is not there any more has no rules.
            pipeline.send(Input::Rules(rules)).await.ok();
        }
    }
}

/// Sorted by name. A directory that is not there holds none.
fn files(dir: &Path) -> Result<Vec<(String, String)>, String> {
    let cannot = |error: io::Error| format!("rules_dir: {} cannot be read: {error}", dir.display());
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(cannot(error)),
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(cannot)?.path();
        if path.extension().is_none_or(|ending| ending != "toml") {
            continue;
        }
        let name = path.display().to_string();
        let size = std::fs::metadata(&path).map_err(|error| format!("{name}: cannot be read: {error}"))?.len();
        if size > RULE_FILE_BYTES_MAX as u64 {
            return Err(format!(
                "{name}: {size} bytes are too many for a file of rules; the limit is {RULE_FILE_BYTES_MAX}"
            ));
        }
        let text = std::fs::read_to_string(&path).map_err(|error| format!("{name}: cannot be read: {error}"))?;
        files.push((name, text));
    }
    files.sort();
    Ok(files)
}
