//! What befalls the datagrams of one direction: loss, duplication, reordering, delay. It does no I/O and reads no
//! clock; with the same seed the n-th datagram of a flow always meets the same fate.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use crate::random::Random;

/// How long a datagram that is to be overtaken waits for another. Short beside a QUIC idle timeout,
/// long beside the gap between two packets of a burst.
const HELD_MAX: Duration = Duration::from_millis(50);

/// Datagrams on their way in one flow. A window of 128 KiB is a hundred; this many is a runaway sender.
const QUEUE_LEN_MAX: usize = 4_096;

/// Chances are from 0 to 1, by datagram. The default is a perfect line.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Weather {
    pub loss: f64,
    pub duplication: f64,
    /// The datagram is sent after the one that follows it.
    pub reordering: f64,
    /// Each copy takes between these, evenly; when they differ by much, that reorders as well.
    pub delay_min: Duration,
    pub delay_max: Duration,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub offered: u64,
    pub lost: u64,
    pub duplicated: u64,
    pub reordered: u64,
    /// Dropped because too many were on their way; a test that meets this measures the proxy.
    pub overflowed: u64,
    pub delivered: u64,
}

#[derive(Debug)]
pub struct Flow {
    random: Random,
    counts: Counts,
    queue: BinaryHeap<Reverse<OnItsWay>>,
    held: Option<OnItsWay>,
    next_order: u64,
}

/// Ordered by when it is due, then by when it was put on its way.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct OnItsWay {
    due: Instant,
    order: u64,
    datagram: Vec<u8>,
}

impl Flow {
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            random: Random::new(seed),
            counts: Counts::default(),
            queue: BinaryHeap::new(),
            held: None,
            next_order: 0,
        }
    }

    /// Decides what becomes of a datagram that came in at `now`.
    pub fn offer(&mut self, now: Instant, weather: &Weather, datagram: Vec<u8>) {
        self.counts.offered += 1;
        // All dice are thrown for every datagram, so that one chance does not shift the others.
        let lost = self.random.chance(weather.loss);
        let twice = self.random.chance(weather.duplication);
        let overtaken = self.random.chance(weather.reordering);
        let (due, due_again) = (now + self.delay(weather), now + self.delay(weather));
        if lost {
            self.counts.lost += 1;
            return;
        }
        if twice {
            self.counts.duplicated += 1;
            self.put(due_again, datagram.clone());
        }
        match self.held.take() {
            None if overtaken => self.held = Some(self.on_its_way(due + HELD_MAX, datagram)),
            None => self.put(due, datagram),
            Some(held) => {
                self.counts.reordered += 1;
                self.put(due, datagram);
                self.put(due, held.datagram);
            }
        }
    }

    /// When the next datagram is due.
    #[must_use]
    pub fn next_due(&self) -> Option<Instant> {
        let queued = self.queue.peek().map(|Reverse(next)| next.due);
        queued.into_iter().chain(self.held.as_ref().map(|held| held.due)).min()
    }

    /// The next datagram that is due by `now`.
    pub fn pop(&mut self, now: Instant) -> Option<Vec<u8>> {
        if let Some(held) = self.held.take_if(|held| held.due <= now) {
            self.put(held.due, held.datagram);
        }
        if self.queue.peek().is_none_or(|Reverse(next)| next.due > now) {
            return None;
        }
        self.counts.delivered += 1;
        self.queue.pop().map(|Reverse(next)| next.datagram)
    }

    /// What was counted since this was last asked.
    pub fn take_counts(&mut self) -> Counts {
        std::mem::take(&mut self.counts)
    }

    fn put(&mut self, due: Instant, datagram: Vec<u8>) {
        if self.queue.len() >= QUEUE_LEN_MAX {
            self.counts.overflowed += 1;
            return;
        }
        let next = self.on_its_way(due, datagram);
        self.queue.push(Reverse(next));
    }

    fn on_its_way(&mut self, due: Instant, datagram: Vec<u8>) -> OnItsWay {
        self.next_order += 1;
        OnItsWay { due, order: self.next_order, datagram }
    }

    fn delay(&mut self, weather: &Weather) -> Duration {
        let spread = weather.delay_max.saturating_sub(weather.delay_min);
        let spread_us = u64::try_from(spread.as_micros()).unwrap_or(u64::MAX - 1);
        weather.delay_min + Duration::from_micros(self.random.below(spread_us + 1))
    }
}

impl Counts {
    pub(crate) const fn add(&mut self, other: Self) {
        self.offered += other.offered;
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.reordered += other.reordered;
        self.overflowed += other.overflowed;
        self.delivered += other.delivered;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STORM: Weather =
        Weather { loss: 0.1, duplication: 0.1, reordering: 0.1, delay_min: Duration::ZERO, delay_max: Duration::ZERO };

    /// Sends numbered datagrams a millisecond apart and returns what comes out in order.
    fn pass(seed: u64, weather: &Weather, count: u16) -> (Vec<u16>, Counts) {
        let (mut flow, start, mut out) = (Flow::new(seed), Instant::now(), Vec::new());
        for number in 0..count {
            let now = start + Duration::from_millis(u64::from(number));
            flow.offer(now, weather, number.to_le_bytes().to_vec());
            while let Some(datagram) = flow.pop(now) {
                out.push(u16::from_le_bytes([datagram[0], datagram[1]]));
            }
        }
        while let Some(due) = flow.next_due() {
            let datagram = flow.pop(due).expect("it is due");
            out.push(u16::from_le_bytes([datagram[0], datagram[1]]));
        }
        (out, flow.take_counts())
    }

    #[test]
    fn perfect_line_changes_nothing() {
        let (out, counts) = pass(1, &Weather::default(), 1_000);
        assert_eq!(out, (0..1_000).collect::<Vec<_>>());
        assert_eq!(counts, Counts { offered: 1_000, delivered: 1_000, ..Counts::default() });
    }

    #[test]
    fn fates_follow_from_the_seed_and_come_at_their_rates() {
        let (out, counts) = pass(7, &STORM, 10_000);
        assert_eq!(pass(7, &STORM, 10_000), (out.clone(), counts));
        assert_ne!(pass(8, &STORM, 10_000).0, out);
        for rate in [counts.lost, counts.duplicated, counts.reordered] {
            assert!((700..=1_300).contains(&rate), "{counts:?}");
        }
        assert_eq!(counts.delivered, counts.offered - counts.lost + counts.duplicated);
        assert!(!out.is_sorted());
    }

    #[test]
    fn overtaken_datagram_follows_the_next_or_goes_alone_in_the_end() {
        let always = Weather { reordering: 1.0, ..Weather::default() };
        assert_eq!(pass(1, &always, 5).0, [1, 0, 3, 2, 4]);
    }

    #[test]
    fn delay_lies_between_its_bounds() {
        let (min, max) = (Duration::from_millis(20), Duration::from_millis(30));
        let weather = Weather { delay_min: min, delay_max: max, ..Weather::default() };
        let (mut flow, now) = (Flow::new(3), Instant::now());
        for _ in 0..1_000 {
            flow.offer(now, &weather, vec![1]);
        }
        let first = flow.next_due().expect("a thousand are on their way");
        assert!(first >= now + min && first < now + min + Duration::from_millis(1));
        assert_eq!(flow.pop(now + min - Duration::from_micros(1)), None);
        let out = std::iter::from_fn(|| flow.pop(now + max)).count();
        assert_eq!(out, 1_000);
    }

    #[test]
    fn queue_is_bounded_and_says_so() {
        let slow = Weather { delay_min: HELD_MAX, delay_max: HELD_MAX, ..Weather::default() };
        let (mut flow, now) = (Flow::new(3), Instant::now());
        for _ in 0..=QUEUE_LEN_MAX {
            flow.offer(now, &slow, vec![1]);
        }
        assert_eq!(flow.take_counts().overflowed, 1);
    }
}
