//! The one task that owns everything QUIC: socket, endpoint, connections and their timers.
//!
//! A connection is a box in a slab: no task, no channel, no waker of its own. Every turn does a bounded
//! amount of each kind of work, so that no peer holds up another; nothing in a turn waits. Those who are connected come
//! before those who would like to be.

use std::collections::VecDeque;
use std::future::pending;
use std::io;
use std::time::{Duration, Instant};

use dunlin_shared::wire::CloseCode;
use quinn_proto::{ConnectionHandle, DatagramEvent, Endpoint, EndpointEvent, Incoming};
use serde_json::json;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::watch;
use tokio::time::sleep_until;
use tracing::{debug, info, warn};

use super::admission::Verdict;
use super::doorstep::News;
use super::inbox::Inbox;
use super::listener::Listener;
use super::mailbox::Place;
use super::peer::{Newcomer, Next, Peer};
use super::shared::Shared;
use super::socket::{Datagram, Socket};
use super::timers::Timers;

/// How long draining connections may take before the endpoint goes, and then the endpoint itself.
const DRAIN: Duration = Duration::from_millis(1_500);
/// A turn takes no more datagrams after this time. A handshake costs about a millisecond, and those
/// who are connected wait no longer than this for the others.
const RECEIVE: Duration = Duration::from_millis(10);
/// What those who begin get of it, however much there is for others.
const BEGIN: Duration = Duration::from_millis(2);
/// Peers that one turn looks at, and timers that it fires.
const PEERS_MAX: usize = 256;
/// Datagrams that one look at a peer may send.
const SENDS_MAX: usize = 16;

#[derive(Debug)]
pub struct Driver {
    socket: Socket,
    endpoint: Endpoint,
    slots: Vec<Option<Box<Slot>>>,
    timers: Timers,
    /// Peers to look at, each once.
    ready: VecDeque<Place>,
    /// Peers that the writer has no room for, first come first served.
    waiting: VecDeque<Place>,
    shared: Shared,
    phase: Phase,
    inbox: Inbox,
    outbox: Vec<u8>,
}

#[derive(Debug)]
struct Slot {
    peer: Peer,
    /// QUIC is done with it; the endpoint hears so when the writer has heard all.
    drained: Option<EndpointEvent>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Serving,
    /// Sessions are told, and end by themselves.
    Draining {
        until: Instant,
    },
    /// Those that did not are closed; peers are given time to hear of it.
    Closing {
        until: Instant,
    },
    Ended,
}

impl Driver {
    #[must_use]
    pub fn new(listener: Listener, shared: Shared) -> Self {
        let inbox = Inbox::new(shared.clock.mono(), listener.id_key);
        Self {
            socket: listener.socket,
            endpoint: listener.endpoint,
            slots: Vec::new(),
            timers: Timers::default(),
            ready: VecDeque::new(),
            waiting: VecDeque::new(),
            shared,
            phase: Phase::Serving,
            inbox,
            outbox: Vec::new(),
        }
    }

    /// Serves until `drain` turns true, then lets every connection acknowledge and end.
    pub async fn run(mut self, mut drain: watch::Receiver<bool>) -> io::Result<()> {
        let mut has_more = false;
        while self.phase != Phase::Ended {
            if has_more {
                tokio::task::yield_now().await;
            } else {
                let began = self.shared.clock.now();
                self.rest(&mut drain).await;
                if !self.shared.crowded {
                    self.shared.strain.rest(self.shared.clock.now().saturating_duration_since(began));
                }
            }
            self.shared.look_at_strain();
            // Nobody holds the other end only when the collector stops.
            let stops = *drain.borrow() || drain.has_changed().is_err();
            self.advance(stops);
            has_more = self.turn()?;
        }
        Ok(())
    }

    async fn rest(&self, drain: &mut watch::Receiver<bool>) {
        let deadline = match self.phase {
            Phase::Draining { until } | Phase::Closing { until } => Some(until),
            Phase::Serving | Phase::Ended => None,
        };
        let note = [self.shared.next_note(), self.inbox.doorstep.next()].into_iter().flatten().min();
        let note = note.map(|at| self.shared.clock.instant(at));
        let deadline = [deadline, self.timers.next(), note].into_iter().flatten().min();
        let time = async {
            match deadline {
                Some(at) => sleep_until(at.into()).await,
                None => pending().await,
            }
        };
        tokio::select! {
            () = self.socket.readable() => {}
            () = self.socket.writable(), if self.socket.is_full() => {}
            () = self.shared.bell.rung() => {}
            () = self.shared.gate.rung() => {}
            _ = self.shared.writer().reserve(), if !self.waiting.is_empty() => {}
            () = time => {}
            _ = drain.wait_for(|&draining| draining), if self.phase == Phase::Serving => {}
        }
    }

    /// One round of everything; whether there is more to do at once.
    fn turn(&mut self) -> io::Result<bool> {
        self.socket.retry();
        self.shared.begin_turn();
        self.tell_floods();
        self.shared.evict();
        self.shared.ask_inventories();
        let mut has_more = self.receive()?;
        for place in self.shared.bell.take() {
            self.wake(place);
        }
        let now = self.shared.clock.now();
        for _ in 0..PEERS_MAX {
            let Some(place) = self.timers.pop_due(now) else { break };
            self.wake(place);
        }
        self.hand_over();
        for _ in 0..PEERS_MAX.min(self.ready.len()) {
            // What the kernel has no room for now would be lost.
            if self.socket.is_full() {
                return Ok(false);
            }
            let Some(place) = self.ready.pop_front() else { break };
            self.look(place);
            self.inbox.keep_up(&mut self.socket, self.shared.clock.both())?;
        }
        has_more |= !self.ready.is_empty() || !self.inbox.is_empty();
        Ok(has_more)
    }

    fn tell_floods(&mut self) {
        self.shared.stats.first_packets_unread.add(self.inbox.doorstep.take_unread());
        let Some(news) = self.inbox.doorstep.take_news(self.shared.clock.mono()) else { return };
        match news {
            News::Flooded { per_second, unread, network } => {
                let network = network.map(|network| network.to_string());
                warn!(
                    per_second,
                    unread, network, "more connections are begun than are answered; the rest is not read"
                );
                let body = json!({ "per_second": per_second, "network": network });
                self.shared.tell("uplink.flooded", None, body);
            }
            News::Over { seconds, count, peak } => {
                info!(seconds, count, peak, "that flood is over");
                let body = json!({ "seconds": seconds, "count": count, "per_second": peak });
                self.shared.tell("uplink.flood_over", None, body);
            }
        }
    }

    fn receive(&mut self) -> io::Result<bool> {
        let began = self.shared.clock.both();
        let mut has_more = self.inbox.fill(&mut self.socket, began)?;
        let (mut now, until) = (began, began.0 + RECEIVE);
        while now.0 < until
            && let Some(datagram) = self.inbox.next_of_ours()
        {
            self.take(datagram);
            now = self.shared.clock.both();
            self.inbox.keep_up(&mut self.socket, now)?;
        }
        let until = until.max(now.0 + BEGIN);
        while now.0 < until
            && let Some(datagram) = self.inbox.next_first(now.1)
        {
            self.take(datagram);
            now = self.shared.clock.both();
            self.inbox.keep_up(&mut self.socket, now)?;
        }
        has_more |= !self.inbox.is_empty();
        Ok(has_more)
    }

    fn take(&mut self, datagram: Datagram) {
        let Datagram { remote, local_ip, ecn, bytes } = datagram;
        let now = self.shared.clock.now();
        self.outbox.clear();
        match self.endpoint.handle(now, remote, local_ip, ecn, bytes, &mut self.outbox) {
            None => {}
            Some(DatagramEvent::Response(transmit)) => self.socket.send(transmit, &self.outbox),
            Some(DatagramEvent::NewConnection(incoming)) => self.admit(incoming, now),
            Some(DatagramEvent::ConnectionEvent(handle, event)) => {
                let place = Place(handle.0);
                if let Some(slot) = self.slots.get_mut(place.0).and_then(Option::as_mut) {
                    slot.peer.quic.handle_event(event);
                    self.wake(place);
                }
            }
        }
    }

    /// Decides at once: a handshake that cannot begin now does not wait here.
    fn admit(&mut self, incoming: Incoming, now: Instant) {
        self.outbox.clear();
        let remote = incoming.remote_address();
        let (proven, mono) = (incoming.remote_address_validated(), self.shared.clock.mono());
        let prefix = match self.shared.admission.judge(mono, remote.ip(), proven) {
            Verdict::Accept(prefix) => prefix,
            Verdict::Retry => {
                self.shared.stats.handshakes_retried.one();
                match self.endpoint.retry(incoming, &mut self.outbox) {
                    Ok(transmit) => self.socket.send(transmit, &self.outbox),
                    // Only a validated address cannot be asked again, and those are not asked.
                    Err(error) => self.endpoint.ignore(error.into_incoming()),
                }
                return;
            }
            Verdict::Refuse(why) => {
                self.shared.handshake_refused(remote.ip(), why);
                let transmit = self.endpoint.refuse(incoming, &mut self.outbox);
                return self.socket.send(transmit, &self.outbox);
            }
        };
        match self.endpoint.accept(incoming, now, &mut self.outbox, None) {
            Ok((ConnectionHandle(at), quic)) => {
                let peer = Peer::new(quic, Place(at), Newcomer { prefix, proven }, mono);
                if self.slots.len() <= at {
                    self.slots.resize_with(at + 1, || None);
                }
                self.slots[at] = Some(Box::new(Slot { peer, drained: None }));
                self.wake(Place(at));
            }
            Err(error) => {
                self.shared.admission.done(prefix);
                // Whose address it is nobody knows before it is proven.
                if proven {
                    self.shared.admission.failed(mono, prefix);
                }
                self.shared.stats.handshakes_failed.one();
                if let Some(times) = self.shared.note_failure("handshake") {
                    warn!(times, peer = %remote, "a handshake failed: {}", error.cause);
                }
                if let Some(transmit) = error.response {
                    self.socket.send(transmit, &self.outbox);
                }
            }
        }
    }

    fn wake(&mut self, place: Place) {
        if let Some(slot) = self.slots.get_mut(place.0).and_then(Option::as_mut)
            && !slot.peer.is_ready
        {
            slot.peer.is_ready = true;
            self.ready.push_back(place);
        }
    }

    /// Gives the writer what waits for it, one arrival of each peer in turn.
    fn hand_over(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        let writer = self.shared.writer().clone();
        while let Some(&place) = self.waiting.front() {
            let permit = match writer.try_reserve() {
                Ok(permit) => Some(permit),
                Err(TrySendError::Full(())) => break,
                // The writer has ended; the peer finds out by itself.
                Err(TrySendError::Closed(())) => None,
            };
            let peer = self.slots.get_mut(place.0).and_then(Option::as_mut).map(|slot| &mut slot.peer);
            if let Some(peer) = peer {
                peer.is_waiting = false;
                let held = peer.take_held();
                if let (Some(permit), Some(held)) = (permit, held) {
                    permit.send(held);
                }
            }
            self.waiting.pop_front();
            self.wake(place);
        }
        self.shared.crowded = !self.waiting.is_empty();
    }

    fn look(&mut self, place: Place) {
        let Some(slot) = self.slots.get_mut(place.0).and_then(Option::as_mut) else { return };
        slot.peer.is_ready = false;
        let now = self.shared.clock.now();
        let mut next = slot.peer.look(now, &mut self.shared);
        if next == Next::Stuck && !slot.peer.is_waiting {
            slot.peer.is_waiting = true;
            self.waiting.push_back(place);
            self.shared.crowded = true;
        }
        if let Some(network) = self.shared.take_entered() {
            self.inbox.doorstep.welcome(self.shared.clock.mono(), network);
        }
        let handle = ConnectionHandle(place.0);
        while let Some(event) = slot.peer.quic.poll_endpoint_events() {
            if event.is_drained() {
                slot.drained = Some(event);
            } else if let Some(event) = self.endpoint.handle_event(handle, event) {
                slot.peer.quic.handle_event(event);
            }
        }
        if transmit(&mut slot.peer, now, &mut self.socket, &mut self.outbox) {
            next = Next::Again;
        }
        if slot.peer.is_over()
            && let Some(event) = slot.drained.take()
        {
            self.endpoint.handle_event(handle, event);
            self.timers.forget(place);
            self.slots[place.0] = None;
            return;
        }
        if let Some(at) = slot.peer.deadline(&self.shared) {
            self.timers.arm(place, at);
        }
        if next == Next::Again {
            self.wake(place);
        }
    }

    /// On the way down from one phase to the next; through all of them at once where nobody is connected.
    fn advance(&mut self, stops: bool) {
        let now = self.shared.clock.now();
        match self.phase {
            Phase::Serving if stops => {
                self.endpoint.set_server_config(None);
                self.shared.draining = true;
                self.phase = Phase::Draining { until: now + DRAIN };
                self.wake_all();
                self.advance(stops);
            }
            Phase::Draining { until } if self.shared.open() == 0 || until <= now => {
                if self.shared.open() > 0 {
                    debug!(open = self.shared.open(), "some connections did not end by themselves");
                }
                for slot in self.slots.iter_mut().flatten() {
                    slot.peer.close(now, CloseCode::Draining, &mut self.shared);
                }
                self.phase = Phase::Closing { until: now + DRAIN };
                self.wake_all();
                self.advance(stops);
            }
            Phase::Closing { until } if self.slots.iter().all(Option::is_none) || until <= now => {
                if until <= now {
                    debug!("some agents may not have heard that the collector stopped");
                }
                self.phase = Phase::Ended;
            }
            Phase::Serving | Phase::Draining { .. } | Phase::Closing { .. } | Phase::Ended => {}
        }
    }

    fn wake_all(&mut self) {
        for at in 0..self.slots.len() {
            self.wake(Place(at));
        }
    }
}

/// Sends what a peer has to send; whether it has more.
fn transmit(peer: &mut Peer, now: Instant, socket: &mut Socket, outbox: &mut Vec<u8>) -> bool {
    for _ in 0..SENDS_MAX {
        if socket.is_full() {
            return true;
        }
        outbox.clear();
        let Some(transmit) = peer.quic.poll_transmit(now, 1, outbox) else { return false };
        socket.send(transmit, outbox);
    }
    true
}
