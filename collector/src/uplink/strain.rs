//! Whether the driver has time left, and how much backlog agents may send by that. Pure; the driver tells how it spends its
//! time.
//!
//! A driver that never rests is behind: what it has not read yet lies in the kernel, which drops what has no room. What can
//! wait then is what agents have kept from before; it waits with them, where nothing is lost, until there is time again.
//! Frames of now, signs of life and alerts go on.

use std::time::{Duration, Instant};

const SLICE: Duration = Duration::from_secs(1);
/// What is told to rules is a mean over so many slices.
const SLICES_TOLD: u32 = 10;
/// A slice with less rest than this leaves nothing for what comes unexpected.
const BREATHLESS_PERMILLE: u32 = 950;
/// With this much rest there is room for the backlog, which is little more than half of what comes anyway.
const CALM_PERMILLE: u32 = 700;
/// So many breathless slices in a row, and it is behind.
const BEHIND_AFTER: u32 = 5;
/// So many calm ones, and it is not any more.
const CALM_AFTER: u32 = 15;
/// Backlog frames a second that the whole fleet may send. A frame out of its place is a keyframe, of 600 bytes with all
/// headers: beside the live frames of 10,000 nodes at a 10 s tick, which take 1.8 Mbit/s, these stay within 5.
const BACKLOG_FRAMES_PER_S: u64 = 600;
/// What each agent waits between two of them while the collector is behind.
const HELD_GAP_MS: u32 = 600_000;

#[derive(Debug)]
pub(super) struct Strain {
    slice_began: Instant,
    rested: Duration,
    /// In a row.
    breathless: u32,
    calm: u32,
    is_behind: bool,
    told: Told,
}

/// Slices since a mean was told last.
#[derive(Debug, Default)]
struct Told {
    slices: u32,
    busy_permille: u32,
}

/// What a look came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    /// It is behind from now on, or not any more.
    pub(super) turned: Option<bool>,
    /// The share of time without rest, once in ten seconds.
    pub(super) busy_permille: Option<u16>,
}

impl Strain {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            slice_began: now,
            rested: Duration::ZERO,
            breathless: 0,
            calm: 0,
            is_behind: false,
            told: Told::default(),
        }
    }

    /// It had nothing to do for so long. While others wait for the writer, that is no rest.
    pub(super) fn rest(&mut self, rested: Duration) {
        self.rested += rested;
    }

    /// What it came to, when a slice is over.
    pub(super) fn look(&mut self, now: Instant) -> Option<Outcome> {
        let took = now.saturating_duration_since(self.slice_began);
        if took < SLICE {
            return None;
        }
        let rested_permille = self.rested.as_millis() * 1_000 / took.as_millis().max(1);
        let busy_permille = 1_000 - u32::try_from(rested_permille).unwrap_or(1_000).min(1_000);
        (self.slice_began, self.rested) = (now, Duration::ZERO);
        self.breathless = if busy_permille >= BREATHLESS_PERMILLE { self.breathless + 1 } else { 0 };
        self.calm = if busy_permille <= CALM_PERMILLE { self.calm + 1 } else { 0 };
        let was_behind = self.is_behind;
        self.is_behind = if was_behind { self.calm < CALM_AFTER } else { self.breathless >= BEHIND_AFTER };
        let turned = (self.is_behind != was_behind).then_some(self.is_behind);
        Some(Outcome { turned, busy_permille: self.told.take(busy_permille) })
    }

    /// How long each of so many agents waits between two frames of its backlog.
    pub(super) fn backlog_gap_ms(&self, agents: u64) -> u32 {
        if self.is_behind {
            return HELD_GAP_MS;
        }
        u32::try_from(agents * 1_000 / BACKLOG_FRAMES_PER_S).unwrap_or(u32::MAX)
    }

    pub(super) const fn is_behind(&self) -> bool {
        self.is_behind
    }
}

impl Told {
    fn take(&mut self, busy_permille: u32) -> Option<u16> {
        self.slices += 1;
        self.busy_permille += busy_permille;
        if self.slices < SLICES_TOLD {
            return None;
        }
        let Self { slices, busy_permille } = std::mem::take(self);
        u16::try_from(busy_permille / slices).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    /// Seconds with so many thousandths of work each.
    struct Life {
        strain: Strain,
        now: Instant,
    }

    impl Life {
        fn new() -> Self {
            let now = Clock::start().now();
            Self { strain: Strain::new(now), now }
        }

        fn pass(&mut self, seconds: u32, busy_permille: u64) -> Vec<Outcome> {
            let second = |life: &mut Self| {
                life.strain.rest(Duration::from_millis(1_000 - busy_permille));
                assert_eq!(life.strain.look(life.now + SLICE / 2), None, "no slice is over");
                life.now += SLICE;
                life.strain.look(life.now)
            };
            (0..seconds).filter_map(|_| second(self)).collect()
        }
    }

    #[test]
    fn it_is_behind_after_seconds_without_rest_and_no_more_after_calm_ones() {
        let mut life = Life::new();
        let turns = |outcomes: Vec<Outcome>| outcomes.iter().filter_map(|outcome| outcome.turned).collect::<Vec<_>>();
        assert_eq!(turns(life.pass(100, 940)), [true; 0], "it bears that");
        assert_eq!(turns(life.pass(4, 1_000)), [true; 0], "a burst is over within seconds");
        assert_eq!(turns(life.pass(1, 100)), [true; 0]);
        assert_eq!(turns(life.pass(5, 960)), [true]);
        assert!(life.strain.is_behind());
        assert_eq!(turns(life.pass(200, 720)), [true; 0], "with the backlog it would be behind again");
        assert_eq!(turns(life.pass(14, 300)), [true; 0]);
        assert_eq!(turns(life.pass(1, 300)), [false]);
    }

    #[test]
    fn the_whole_fleet_sends_so_much_backlog_and_none_while_it_is_behind() {
        let mut life = Life::new();
        assert_eq!((life.strain.backlog_gap_ms(1), life.strain.backlog_gap_ms(10_000)), (1, 16_666));
        life.pass(BEHIND_AFTER, 1_000);
        assert_eq!((life.strain.backlog_gap_ms(1), life.strain.backlog_gap_ms(10_000)), (600_000, 600_000));
    }

    #[test]
    fn the_share_of_work_is_told_each_ten_seconds() {
        let mut life = Life::new();
        let told: Vec<_> = [life.pass(10, 200), life.pass(5, 0), life.pass(5, 1_000)].concat();
        let told: Vec<_> = told.iter().filter_map(|outcome| outcome.busy_permille).collect();
        assert_eq!(told, [200, 500]);
    }

    #[test]
    fn a_slice_that_lasts_long_counts_by_its_own_length() {
        let mut life = Life::new();
        life.strain.rest(Duration::from_secs(9));
        let outcomes: Vec<_> = (1..=10).filter_map(|n| life.strain.look(life.now + SLICE * 10 * n)).collect();
        assert_eq!(outcomes.last().and_then(|outcome| outcome.busy_permille), Some(910));
    }
}
