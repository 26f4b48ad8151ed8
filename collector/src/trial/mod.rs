//! Rules tried on made-up fleets: texts that say what is measured and what is to be open then, as `dunlin rules test` runs
//! them.
//!
//! Pure, and with the engine's own alerts, so that a rule does on the fleet what it did here.

mod play;
pub mod preview;
mod script;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use dunlin_shared::rule::Rule;

use self::play::play;
use self::script::Script;

/// What a text asks for and how that went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// How many moments were looked at.
    pub looks: usize,
    /// What was otherwise than said, a line each, with file and line in front.
    pub differences: Vec<String>,
}

/// `rules` gives the rules that a text names: `standard` for those that ship, else a file beside it.
pub fn run(
    file: &str,
    text: &str,
    rules: impl Fn(&str) -> Result<Vec<Arc<Rule>>, Vec<String>>,
) -> Result<Outcome, Vec<String>> {
    let script = Script::read(file, text).map_err(|line| vec![line])?;
    let rules = rules(&script.rules).map_err(|lines| {
        lines.into_iter().map(|line| format!("{file}:{}: {line}", script.rules_line)).collect::<Vec<_>>()
    })?;
    let looks = script.looks.len();
    if looks == 0 {
        return Err(vec![format!("{file}: it looks at nothing; write for example \"eval at 5m none\"")]);
    }
    play(file, &script, rules).map(|differences| Outcome { looks, differences }).map_err(|line| vec![line])
}
