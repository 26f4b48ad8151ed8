//! Part of the fleet behaves badly all the while: what the collector tells of whom is compared with what they do.

use super::fallen::Fallen;
use super::feed::{Heard, What};
use super::{PART, Proof, ProvePlan, SEED};
use crate::fleet::unruly::Conduct;
use crate::table::Table;

pub(super) const SKEW_RULE: &str = "fleet-skew";
/// Of the nodes that were told wrongly, so many are named.
const NAMED: usize = 5;

/// The rule that ships waits for five minutes.
pub(super) fn skew_rule() -> String {
    format!(
        "[[rule]]\nname = \"{SKEW_RULE}\"\nwhen = 'abs(node_skew_seconds) > 5s'\nseverity = \"info\"\n\
         summary = \"the clock of {{node}} is off by {{value}}\"\n"
    )
}

/// How a node of the main fleet behaves.
pub(super) fn conduct(plan: ProvePlan, node: usize) -> Conduct {
    let interval_ms = u64::try_from(plan.interval.as_millis()).unwrap_or(u64::MAX);
    plan.unruly.conduct(SEED, node, interval_ms)
}

impl Proof<'_> {
    /// As it was heard before the fleet ended.
    pub(super) fn tell_unruly(&self, table: &mut Table, heard: &Heard, fallen: &Fallen) {
        let conducts: Vec<Conduct> = (0..self.mainland).map(|node| conduct(self.plan, node)).collect();
        let count = |is: fn(&Conduct) -> bool| conducts.iter().filter(|one| is(one)).count();
        let shown = format!(
            "{}, {}, {}, {}",
            count(|one| *one == Conduct::Reconnects),
            count(|one| *one == Conduct::ReadsSlowly),
            count(|one| matches!(one, Conduct::WrongClock(_))),
            count(|one| *one == Conduct::Cloned)
        );
        table.note(PART, "all the while: nodes that reconnect, read slowly, have a wrong clock, are cloned", shown);
        let conduct = |node: usize| conducts.get(node).copied().unwrap_or(Conduct::Well);
        let is_skewed = |node: usize| matches!(conduct(node), Conduct::WrongClock(_));
        let is_cloned = |node: usize| conduct(node) == Conduct::Cloned;
        // However often, those alone; and where it is to be once, not less and not more.
        self.never(table, "told as down that were not killed", heard, What::Down, |node, times| {
            times > 0 && !fallen.is_killed(node)
        });
        let moved = "told as down whose clock is wrong, or is moved by up to an hour";
        self.never(table, moved, heard, What::Down, |node, times| times > 0 && is_skewed(node));
        self.never(table, "told as stopped that were not", heard, What::Stopped, |node, times| {
            times > 0 && !fallen.is_stopped(node)
        });
        self.never(table, "told as skewed whose clock is right", heard, What::Skewed, |node, times| {
            times > 0 && !is_skewed(node)
        });
        self.never(table, "not told as skewed whose clock is wrong", heard, What::Skewed, |node, times| {
            times == 0 && is_skewed(node)
        });
        self.never(table, "told as in quarantine that have no clone", heard, What::Quarantined, |node, times| {
            times > 0 && !is_cloned(node)
        });
        self.never(
            table,
            "not told once as in quarantine that have a clone",
            heard,
            What::Quarantined,
            |node, times| times != 1 && is_cloned(node),
        );
    }

    /// `is_wrong` is asked of each node of the fleet, with how often that was told of it.
    fn never(&self, table: &mut Table, text: &str, heard: &Heard, what: What, is_wrong: impl Fn(usize, usize) -> bool) {
        let told = heard.told_since(0, what);
        let times = |id: &String| told.get(id.as_str()).copied().unwrap_or(0);
        let wrong: Vec<usize> =
            self.ids.iter().enumerate().filter(|(node, id)| is_wrong(*node, times(id))).map(|(node, _)| node).collect();
        table.never(PART, &format!("the same: nodes {text}"), wrong.len());
        for &node in wrong.iter().take(NAMED) {
            let times = times(&self.ids[node]);
            self.watch.say(&format!("{text}: fleet-{node}, {:?}, {what:?} {times} times", conduct(self.plan, node)));
        }
    }
}
