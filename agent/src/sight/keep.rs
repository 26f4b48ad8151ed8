//! When the service writes its report, and that doing so never holds up a tick.
//!
//! Written when everything that was asked has answered, once more when processes have had their turn, then when a source
//! changes, and else every `REFRESH_MS`: 4 files of 2 KiB a day, which no SD card notices. What flaps is written less and
//! less often. A thread of its own writes, because a disk may hang; while it does, nothing else is written.

use std::io;
use std::path::{Path, PathBuf};
use std::thread::{Builder, JoinHandle};

use dunlin_shared::time::{MonoMs, WallMs};

use super::{Own, Seeing, Sight, file};

/// A tick after the first one has seen what grows; one that is still not answered later is told as it is.
const FIRST_TICK: u32 = 2;
const FIRST_TICK_LATEST: u32 = 6;
/// Details of processes have their turn each sixth tick.
const SECOND_TICK: u32 = 12;
/// Between looks for what has changed.
const LOOK_EVERY_MS: u64 = 30_000;
/// Between two reports of a source that changes all the time; doubled each time up to the second.
const GAP_MS: (u64, u64) = (30_000, 3_600_000);
/// So that its age says something, and its numbers are of today.
pub const REFRESH_MS: u64 = 6 * 3_600_000;

#[derive(Debug)]
pub struct Keeper {
    state_dir: PathBuf,
    pace: Pace,
    before: Vec<Seeing>,
    writer: Option<JoinHandle<io::Result<()>>>,
}

impl Keeper {
    #[must_use]
    pub fn new(state_dir: &Path) -> Self {
        Self { state_dir: state_dir.to_owned(), pace: Pace::default(), before: Vec::new(), writer: None }
    }

    /// Once a tick. The error is of the report before.
    pub fn tick(
        &mut self,
        now: MonoMs,
        wall: WallMs,
        is_settled: bool,
        look: impl FnOnce() -> Vec<Seeing>,
    ) -> io::Result<()> {
        let outcome = match self.writer.take_if(|writer| writer.is_finished()) {
            // A panic there has been said; it costs the report alone.
            Some(ended) => ended.join().unwrap_or(Ok(())),
            None => Ok(()),
        };
        if outcome.is_err() {
            self.before.clear();
        }
        if self.writer.is_some() || !self.pace.looks(now, is_settled) {
            return outcome;
        }
        let sources = look();
        let is_same = self.before.len() == sources.len()
            && self.before.iter().zip(&sources).all(|(before, now)| before.is_like(now));
        if self.pace.writes(now, !is_same) {
            self.before.clone_from(&sources);
            let sight = Sight { at: wall, own: Own::look(), sources };
            let state_dir = self.state_dir.clone();
            let writer = Builder::new().name("sight".to_owned()).spawn(move || file::write(&state_dir, &sight));
            self.writer = Some(writer?);
        }
        outcome
    }
}

/// Decides; it neither looks nor writes.
#[derive(Debug, Default)]
struct Pace {
    ticks: u32,
    looked: Option<MonoMs>,
    written: Option<MonoMs>,
    gap_ms: u64,
}

impl Pace {
    fn looks(&mut self, now: MonoMs, is_settled: bool) -> bool {
        self.ticks = self.ticks.saturating_add(1);
        let looks = match self.looked {
            None => (is_settled && self.ticks >= FIRST_TICK) || self.ticks >= FIRST_TICK_LATEST,
            Some(at) => self.ticks == SECOND_TICK || now.since(at) >= LOOK_EVERY_MS,
        };
        if looks {
            self.looked = Some(now);
        }
        looks
    }

    fn writes(&mut self, now: MonoMs, is_changed: bool) -> bool {
        let since_ms = self.written.map(|at| now.since(at));
        let writes = match since_ms {
            None => true,
            Some(_) if self.ticks == SECOND_TICK => true,
            Some(since_ms) if is_changed => since_ms >= self.gap_ms,
            Some(since_ms) => since_ms >= REFRESH_MS,
        };
        if writes {
            self.written = Some(now);
            let is_calm = since_ms.is_none_or(|since_ms| since_ms >= 2 * GAP_MS.1);
            self.gap_ms = if is_calm { GAP_MS.0 } else { (self.gap_ms * 2).clamp(GAP_MS.0, GAP_MS.1) };
        }
        writes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sight::{Kind, State};
    use crate::state::tests::Dir;

    const HOUR: u64 = 3_600_000;

    /// Ticks of ten seconds for so long; `changes` says when a source is another than at the look before.
    fn writes(hours: u64, changes: impl Fn(u64) -> bool) -> Vec<u64> {
        let (mut pace, mut written) = (Pace::default(), Vec::new());
        for ms in (0..hours * HOUR).step_by(10_000) {
            if pace.looks(MonoMs(ms), ms >= 10_000) && pace.writes(MonoMs(ms), changes(ms)) {
                written.push(ms / 1_000);
            }
        }
        written
    }

    #[test]
    fn a_calm_host_is_written_twice_at_the_start_and_then_every_six_hours() {
        assert_eq!(writes(24, |_| false), [10, 110, 21_710, 43_310, 64_910]);
    }

    #[test]
    fn a_change_is_written_within_a_minute_and_what_flaps_less_and_less_often() {
        let once = writes(2, |ms| (5_000_000..5_030_000).contains(&ms));
        assert!(once.len() == 3 && (5_000..5_060).contains(&once[2]), "{once:?}");
        let flapping = writes(24, |_| true);
        assert!(flapping.len() <= 36, "{}: {flapping:?}", flapping.len());
    }

    #[test]
    fn what_never_answers_is_told_all_the_same() {
        let mut pace = Pace::default();
        let looks: Vec<_> = (0..7).map(|tick| pace.looks(MonoMs(tick * 1_000), false)).collect();
        assert_eq!(looks, [false, false, false, false, false, true, false]);
    }

    #[test]
    fn a_report_that_cannot_be_written_is_said_and_tried_again() {
        let dir = Dir::new();
        let missing = dir.0.join("missing");
        let mut keeper = Keeper::new(&missing);
        let sources = || vec![Seeing::new(Kind::Part, State::Works).named("cpu")];
        let mut now = 0;
        let mut until = |keeper: &mut Keeper, is_wanted: &dyn Fn(io::Result<()>) -> bool| {
            for _ in 0..100_000 {
                now += 40_000;
                if is_wanted(keeper.tick(MonoMs(now), WallMs(7), true, sources)) {
                    return;
                }
                std::thread::yield_now();
            }
            panic!("it never came");
        };
        until(&mut keeper, &|outcome| outcome.is_err());
        std::fs::create_dir(&missing).expect("it is writable");
        until(&mut keeper, &|_| file::read(&missing).is_ok_and(|sight| sight.is_some()));
        let sight = file::read(&missing).expect("it is whole").expect("it is there");
        assert_eq!((sight.at, sight.own.process, &sight.sources), (WallMs(7), std::process::id(), &sources()));
    }
}
