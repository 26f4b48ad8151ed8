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
/// What would begin one. Longer than this none waits for its answer.
const FIRST_MAX: usize = 2_048;
/// System calls in a row.
const CALLS_MAX: usize = 64;

#[derive(Debug)]
pub(super) struct Inbox {
    pub(super) doorstep: Doorstep,
    ids: Ids,
    ours: VecDeque<Datagram>,
    first: VecDeque<Datagram>,
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
            first: VecDeque::new(),
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

    pub(super) fn next_first(&mut self) -> Option<Datagram> {
        self.first.pop_front()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ours.is_empty() && self.first.is_empty()
    }

    fn sort(&mut self, now: MonoMs, arrived: &Arrived<'_>) {
        let kind = kind(arrived.bytes, |id| self.ids.0.validate(&ConnectionId::new(id)).is_ok());
        let (has_room, network) = (self.first.len() < FIRST_MAX, Prefix::of(arrived.remote.ip()));
        if self.doorstep.admits(now, kind, network, has_room) {
            let queue = if kind == Kind::Ours { &mut self.ours } else { &mut self.first };
            queue.push_back(arrived.keep());
        }
    }
}
