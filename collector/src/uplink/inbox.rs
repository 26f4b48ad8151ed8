//! Datagrams that came and wait for their turn: what is for connections, and what would begin one.
//!
//! The kernel holds 208 KiB, which a flood fills within milliseconds. So it is emptied far more often than there is a turn,
//! and what the doorstep leaves unread is given up where it lies.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::time::{Duration, Instant};

use dunlin_shared::time::MonoMs;
use quinn_proto::{ConnectionId, ConnectionIdGenerator as _, HashedConnectionIdGenerator};

use super::admission::Prefix;
use super::doorstep::{Doorstep, Kind, kind};
use super::socket::{Arrived, Datagram, Socket};

/// How long the kernel is left alone: 50,000 datagrams of 1,200 bytes a second fill half of its buffer.
const PAUSE: Duration = Duration::from_micros(500);
/// What waits for connections: what they send in a second, and 10 MiB at most.
const OURS_MAX: usize = 8_192;
/// What would begin one.
const FIRST_MAX: usize = 2_048;
/// Whoever begins one repeats itself after a second and gives up after a few: what is older is of nobody, or comes again.
const FIRST_WAITS_MS: u64 = 1_000;
/// System calls in a row.
const CALLS_MAX: usize = 64;

#[derive(Debug)]
pub(super) struct Inbox {
    pub(super) doorstep: Doorstep,
    ids: Ids,
    ours: VecDeque<Datagram>,
    first: Beginnings<Datagram>,
    emptied_at: Option<Instant>,
}

/// What knows ids of ours.
struct Ids(HashedConnectionIdGenerator);

impl fmt::Debug for Ids {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ids")
    }
}

impl Inbox {
    /// `id_key` is the one that ids of ours are made with.
    pub(super) fn new(now: MonoMs, id_key: u64) -> Self {
        Self {
            doorstep: Doorstep::new(now),
            ids: Ids(HashedConnectionIdGenerator::from_key(id_key)),
            ours: VecDeque::new(),
            first: Beginnings(VecDeque::new()),
            emptied_at: None,
        }
    }

    /// Takes what the kernel holds; whether there may be more.
    pub(super) fn fill(&mut self, socket: &mut Socket, (now, mono): (Instant, MonoMs)) -> io::Result<bool> {
        self.emptied_at = Some(now);
        for _ in 0..CALLS_MAX {
            if self.ours.len() >= OURS_MAX {
                return Ok(true);
            }
            if !socket.receive(|arrived| self.sort(mono, &arrived))? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The same between two pieces of other work, when it is time for it.
    pub(super) fn keep_up(&mut self, socket: &mut Socket, (now, mono): (Instant, MonoMs)) -> io::Result<()> {
        if self.emptied_at.is_some_and(|at| now < at + PAUSE) {
            return Ok(());
        }
        self.emptied_at = Some(now);
        for _ in 0..CALLS_MAX {
            if self.ours.len() >= OURS_MAX || !socket.receive_early(|arrived| self.sort(mono, &arrived))? {
                break;
            }
        }
        Ok(())
    }

    pub(super) fn next_of_ours(&mut self) -> Option<Datagram> {
        self.ours.pop_front()
    }

    pub(super) fn next_first(&mut self, now: MonoMs) -> Option<Datagram> {
        let (next, too_old) = self.first.next(now);
        self.doorstep.gave_up(too_old);
        next
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ours.is_empty() && self.first.0.is_empty()
    }

    fn sort(&mut self, now: MonoMs, arrived: &Arrived<'_>) {
        let kind = kind(arrived.bytes, |id| self.ids.0.validate(&ConnectionId::new(id)).is_ok());
        let (has_room, network) = (self.first.0.len() < FIRST_MAX, Prefix::of(arrived.remote.ip()));
        if !self.doorstep.admits(now, kind, network, has_room) {
            return;
        }
        match kind {
            Kind::Ours => self.ours.push_back(arrived.keep()),
            _ => self.first.0.push_back((now, arrived.keep())),
        }
    }
}

/// What would begin a connection, with when it came. Where more come than can be answered, those are answered that
/// somebody still waits for.
#[derive(Debug)]
struct Beginnings<T>(VecDeque<(MonoMs, T)>);

impl<T> Beginnings<T> {
    /// The oldest that is not too old, and how many were.
    fn next(&mut self, now: MonoMs) -> (Option<T>, u64) {
        let too_old = self.0.iter().take_while(|(came, _)| now >= came.plus(FIRST_WAITS_MS)).count();
        self.0.drain(..too_old);
        (self.0.pop_front().map(|(_, next)| next), too_old as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_begins_is_answered_within_a_second_or_not_at_all() {
        // Twice as many come as are taken.
        let mut waiting = Beginnings(VecDeque::new());
        let (mut answered, mut too_old) = (0, 0);
        for ms in 0..10_000 {
            waiting.0.push_back((MonoMs(ms), ms));
            if ms % 2 == 0 {
                let (next, old) = waiting.next(MonoMs(ms));
                let came = next.expect("one has just come");
                assert!(ms - came < FIRST_WAITS_MS, "{came} at {ms}");
                (answered, too_old) = (answered + 1, too_old + old);
            }
        }
        assert_eq!(answered, 5_000);
        let left = waiting.0.len() as u64;
        assert_eq!(answered + too_old + left, 10_000, "what is given up is counted");
        assert_eq!(waiting.next(MonoMs(20_000)), (None, left));
    }
}
