//! How fast network cards are. A driver tells it under a lock of the whole network stack, which may be held for seconds.
//!
//! So a thread asks all of them, and ends with its answer: what a tick reports is what they said last. It hardly ever
//! changes. Invariant: one thread asks at a time, whether or not it is ever answered.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use dunlin_shared::time::MonoMs;

use super::failure::{Failures, SampleError};
use super::lane::{Alive, Lane};
use crate::clock::Clock;

const ASK_EVERY_MS: u64 = 300_000;
/// What the first tick waits, so that one sample on a terminal has speeds too.
const FIRST_MS: u64 = 100;
/// The file tells 10^6 bit/s.
const MBIT_BYTES: f64 = 125_000.0;

#[derive(Debug)]
pub(super) struct Speeds {
    clock: Clock,
    root: PathBuf,
    /// Until it has answered.
    lane: Option<Lane<(), Vec<Option<f64>>>>,
    cards: Vec<Vec<u8>>,
    asked_at: Option<MonoMs>,
    /// In the order of `told_of`.
    told: Vec<Option<f64>>,
    told_of: Vec<Vec<u8>>,
}

impl Speeds {
    pub(super) fn new(root: &Path, clock: Clock) -> Self {
        let root = root.join("sys/class/net");
        let (cards, told, told_of) = (Vec::new(), Vec::new(), Vec::new());
        Self { clock, root, lane: None, cards, asked_at: None, told, told_of }
    }

    /// Once a tick, with the cards that there are.
    pub(super) fn look<'a>(
        &mut self,
        now: MonoMs,
        cards: impl Iterator<Item = &'a [u8]> + Clone,
        failures: &mut Failures,
    ) {
        let is_first = self.asked_at.is_none();
        let is_under_way = self.lane.is_some();
        let is_due =
            self.asked_at.is_none_or(|at| now.since(at) >= ASK_EVERY_MS) || !self.cards.iter().eq(cards.clone());
        if !is_under_way && is_due {
            self.cards = cards.map(<[u8]>::to_owned).collect();
            self.asked_at = Some(now);
            if !self.cards.is_empty() {
                self.lane = failures.keep(self.ask());
            }
        }
        let Some(lane) = &self.lane else { return };
        match lane.wait(self.clock, self.clock.mono().plus(if is_first { FIRST_MS } else { 0 })) {
            Some(answered) => {
                (self.told, self.told_of) = (answered.answer, self.cards.clone());
                self.lane = None;
            }
            None if is_under_way => failures.note(SampleError::Speed),
            None => {}
        }
    }

    /// In bytes a second.
    pub(super) fn of(&self, card: &[u8]) -> Option<f64> {
        let at = self.told_of.iter().position(|known| known == card)?;
        self.told.get(at).copied().flatten()
    }

    fn ask(&self) -> Result<Lane<(), Vec<Option<f64>>>, SampleError> {
        let file = |card: &Vec<u8>| self.root.join(OsStr::from_bytes(card)).join("speed");
        let files: Vec<PathBuf> = self.cards.iter().map(file).collect();
        let reply = move |()| files.iter().map(|file| speed(file)).collect();
        let lane = Lane::start("speeds", 1, self.clock, &Alive::default(), reply);
        let mut lane = lane.map_err(|source| SampleError::Thread { what: "the speed of interfaces", source })?;
        lane.ask(());
        Ok(lane)
    }
}

/// A link that is down has the speed -1.
fn speed(file: &Path) -> Option<f64> {
    let mbit: f64 = fs::read_to_string(file).ok()?.trim().parse().ok()?;
    (mbit > 0.0).then_some(mbit * MBIT_BYTES)
}

#[cfg(test)]
mod tests {
    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;
    use crate::sample::tree::Tree;

    const CARDS: [&[u8]; 2] = [b"eth0", b"eth1"];

    fn look(speeds: &mut Speeds, at_ms: u64, cards: &[&'static [u8]]) -> usize {
        let mut failures = Failures::default();
        speeds.look(MonoMs(at_ms), cards.iter().copied(), &mut failures);
        failures.into_list().len()
    }

    /// The thread may be late on a busy machine.
    fn told(speeds: &mut Speeds, at_ms: u64, cards: &[&'static [u8]]) -> [Option<f64>; 2] {
        look(speeds, at_ms, cards);
        for _ in 0..100_000 {
            if speeds.lane.is_none() {
                break;
            }
            std::thread::yield_now();
            look(speeds, at_ms, cards);
        }
        assert!(speeds.lane.is_none(), "it never answered");
        CARDS.map(|card| speeds.of(card))
    }

    #[test]
    fn cards_are_asked_when_they_are_others_and_else_seldom() {
        let tree = Tree::new(&[("sys/class/net/eth0/speed", "1000\n"), ("sys/class/net/eth1/speed", "-1\n")]);
        let mut speeds = Speeds::new(tree.path(), Clock::start());
        assert_eq!(told(&mut speeds, 0, &CARDS), [Some(1.25e8), None]);
        tree.set("sys/class/net/eth0/speed", "10000\n");
        tree.set("sys/class/net/eth1/speed", "100\n");
        assert_eq!(told(&mut speeds, ASK_EVERY_MS - 1, &CARDS), [Some(1.25e8), None]);
        assert_eq!(told(&mut speeds, ASK_EVERY_MS, &CARDS), [Some(1.25e9), Some(1.25e7)]);
        assert_eq!(told(&mut speeds, ASK_EVERY_MS + 1, &CARDS[1..]), [None, Some(1.25e7)]);
    }

    #[test]
    fn a_card_that_does_not_answer_is_said_and_holds_no_tick_up() {
        let tree = Tree::new(&[("sys/class/net/eth0/device", "")]);
        // Whoever opens a pipe to read waits for whoever writes.
        let pipe = tree.path().join("sys/class/net/eth0/speed");
        mknodat(CWD, &pipe, FileType::Fifo, Mode::RWXU, 0).expect("it is writable");
        let mut speeds = Speeds::new(tree.path(), Clock::start());
        let said: Vec<_> = (0..4).map(|tick| look(&mut speeds, tick * ASK_EVERY_MS, &CARDS[..1])).collect();
        assert_eq!(said, [0, 1, 1, 1]);
        fs::write(&pipe, "100\n").expect("it is read");
        assert_eq!(told(&mut speeds, 4 * ASK_EVERY_MS - 1, &CARDS[..1])[0], Some(1.25e7));
    }
}
