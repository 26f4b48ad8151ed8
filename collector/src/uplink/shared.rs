//! What all connections share: the way to the writer, the newest session of each node, counts.
//!
//! The driver owns it and lends it to one connection at a time, so nothing here needs a lock. The
//! writer's queue is never waited for: what finds no room goes back to its connection.

use std::collections::HashMap;
use std::sync::Arc;

use dunlin_shared::id::NodeId;
use dunlin_shared::repeat::Repeats;
use dunlin_shared::wire::CloseCode;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use super::admission::Admission;
use super::mailbox::{Bell, Mailbox, Place};
use crate::clock::Clock;
use crate::stats::Stats;
use crate::writer::{Arrival, SessionId};

#[derive(Debug)]
pub struct Shared {
    pub(super) clock: Clock,
    pub(super) stats: Arc<Stats>,
    pub(super) bell: Arc<Bell>,
    pub(super) admission: Admission,
    /// The collector goes away: every session is told so.
    pub(super) draining: bool,
    /// Somebody waits for the writer already: whoever comes now waits behind.
    pub(super) crowded: bool,
    writer: mpsc::Sender<Arrival>,
    sessions: HashMap<NodeId, (SessionId, Arc<Mailbox>)>,
    last_session: u64,
    failures: HashMap<&'static str, Repeats>,
}

/// Why the writer did not take an arrival.
#[derive(Debug)]
pub(super) enum NotTaken {
    Full(Arrival),
    /// The writer has ended, and the collector with it.
    Gone,
}

impl Shared {
    #[must_use]
    pub fn new(clock: Clock, stats: Arc<Stats>, writer: mpsc::Sender<Arrival>) -> Self {
        Self {
            clock,
            stats,
            bell: Arc::default(),
            admission: Admission::default(),
            draining: false,
            crowded: false,
            writer,
            sessions: HashMap::new(),
            last_session: 0,
            failures: HashMap::new(),
        }
    }

    pub(super) fn writer(&self) -> &mpsc::Sender<Arrival> {
        &self.writer
    }

    pub(super) fn hand_over(&self, arrival: Arrival) -> Result<(), NotTaken> {
        if self.crowded {
            return Err(NotTaken::Full(arrival));
        }
        self.writer.try_send(arrival).map_err(|error| match error {
            TrySendError::Full(arrival) => NotTaken::Full(arrival),
            TrySendError::Closed(_) => NotTaken::Gone,
        })
    }

    pub(super) fn new_session(&mut self) -> SessionId {
        self.last_session += 1;
        SessionId(self.last_session)
    }

    /// The newest session of a node is the one that counts; the one before is told to go.
    pub(super) fn enter(&mut self, node: NodeId, id: SessionId, place: Place) -> Arc<Mailbox> {
        let mailbox = Arc::new(Mailbox::new(place, Arc::clone(&self.bell)));
        if let Some((_, before)) = self.sessions.insert(node, (id, Arc::clone(&mailbox))) {
            before.close(CloseCode::Superseded);
        }
        mailbox
    }

    pub(super) fn leave(&mut self, node: NodeId, id: SessionId) {
        if self.sessions.get(&node).is_some_and(|(newest, _)| *newest == id) {
            self.sessions.remove(&node);
        }
    }

    /// Connections whose handshake is done and which have not ended.
    pub(super) fn open(&self) -> u64 {
        self.stats.connections_accepted.value().saturating_sub(self.stats.connections_ended.value())
    }

    /// How often such a failure happened in a row, when that is worth a line.
    pub(super) fn note_failure(&mut self, what: &'static str) -> Option<u64> {
        self.failures.entry(what).or_default().note(what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_session_before_is_told_to_go_and_does_not_take_the_newest_with_it() {
        let (writer, _queue) = mpsc::channel(1);
        let mut shared = Shared::new(Clock::start(), Arc::default(), writer);
        let node = NodeId::from_bytes([7; 16]);
        let (first, second) = (shared.new_session(), shared.new_session());
        let before = shared.enter(node, first, Place(0));
        let newest = shared.enter(node, second, Place(1));
        let told = before.take().expect("it was told something");
        assert_eq!(told.close, Some(CloseCode::Superseded));
        shared.leave(node, first);
        let third = shared.new_session();
        shared.enter(node, third, Place(2));
        assert!(newest.take().is_some(), "the second was still the newest");
    }
}
