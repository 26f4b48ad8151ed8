//! Some agents are killed, and some are stopped in order: the ones are down, the others are not.

use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::Result;
use dunlin_collector::engine::DOWN_MS;
use dunlin_shared::time::WallMs;

use super::feed::{Heard, What};
use super::{PART, Proof, ProvePlan, promised};
use crate::table::Table;

pub(super) const KILLED: &str = "-killed";
pub(super) const STOPPED: &str = "-stopped";
/// Fewer than what counts as a loss of many.
const MOST: usize = 15;
const ONE_OF: usize = 40;
/// Longer than is promised by far; then it is missed.
const LIMIT: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(500);

pub(super) struct Fallen {
    killed: Range<usize>,
    stopped: Range<usize>,
    killed_at: WallMs,
}

/// So many are killed, and as many are stopped.
pub(super) fn each_of(plan: ProvePlan) -> usize {
    (plan.nodes / ONE_OF).clamp(1, MOST)
}

impl Proof<'_> {
    pub(super) fn fallen(&mut self) -> Result<Fallen> {
        // Nobody is judged within two deadlines after a start, and whoever is killed is to be told after one.
        let settles = Duration::from_millis(DOWN_MS).saturating_sub(self.started.elapsed());
        self.watch.wait("until silence counts", settles);
        let each = each_of(self.plan);
        let (killed, stopped) = (self.mainland..self.mainland + each, self.mainland + each..self.mainland + 2 * each);
        let killed_at = self.clock.wall();
        self.rig.kill_beside(KILLED)?;
        self.rig.stop_beside(STOPPED)?;
        self.present -= 2 * each;
        let began = Instant::now();
        let fallen = Fallen { killed, stopped, killed_at };
        while began.elapsed() < LIMIT && !fallen.is_told(&self.follower.heard(), &self.ids) {
            self.watch.wait("agents killed", LOOK_EVERY);
        }
        Ok(fallen)
    }
}

impl Fallen {
    fn is_told(&self, heard: &Heard, ids: &[String]) -> bool {
        let (down, stopped) = (heard.told_since(0, What::DownAlert), heard.told_since(0, What::Stopped));
        ids[self.killed.clone()].iter().all(|id| down.contains_key(&**id))
            && ids[self.stopped.clone()].iter().all(|id| stopped.contains_key(&**id))
    }

    pub(super) fn is_killed(&self, node: usize) -> bool {
        self.killed.contains(&node)
    }

    pub(super) fn is_stopped(&self, node: usize) -> bool {
        self.stopped.contains(&node)
    }

    /// As it was heard before the fleet ended.
    pub(super) fn tell(&self, table: &mut Table, heard: &Heard, ids: &[String]) {
        let killed = &ids[self.killed.clone()];
        let alerts = heard.told.iter().filter(|told| told.what == What::DownAlert && killed.contains(&told.node));
        #[expect(clippy::cast_precision_loss, reason = "milliseconds of minutes")]
        let after_s: Vec<f64> = alerts.map(|told| told.heard.since(self.killed_at) as f64 / 1e3).collect();
        let whose = format!("{} agents killed", killed.len());
        let (least, most) = promised::DOWN_S;
        let first = after_s.iter().copied().fold(f64::INFINITY, f64::min);
        let last = after_s.iter().copied().fold(0.0, f64::max);
        table.promise_least(PART, &format!("{whose}: the first alert that one is down"), first, least, "s");
        table.promise(PART, &format!("{whose}: the last"), last, most, "s");
        for (what, name) in [(What::DownAlert, "alerted of"), (What::Down, "told as down")] {
            let told = heard.told_since(0, what);
            let not_once = killed.iter().filter(|id| told.get(id.as_str()) != Some(&1)).count();
            table.never(PART, &format!("{whose}: not {name} once"), not_once);
        }
        let stopped = &ids[self.stopped.clone()];
        let (told, down) = (heard.told_since(0, What::Stopped), heard.told_since(0, What::Down));
        let not_once = stopped.iter().filter(|id| told.get(id.as_str()) != Some(&1)).count();
        let whose = format!("{} agents stopped in order", stopped.len());
        table.never(PART, &format!("{whose}: not told as stopped once"), not_once);
        let fell = stopped.iter().filter(|id| down.contains_key(id.as_str())).count();
        table.never(PART, &format!("{whose}: told as down"), fell);
    }
}
