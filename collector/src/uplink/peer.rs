//! One connection: QUIC's events and bytes to its session, the session's messages back.
//!
//! Everything a peer can do wrong ends in a close code that is counted. A look at a peer does a
//! bounded amount of work and never waits; a peer that the writer has no room for reads nothing until
//! there is room, and QUIC's flow control holds it back.

use std::any::Any;
use std::time::Instant;

use bytes::Bytes;
use dunlin_shared::limits::HANDSHAKE_MS;
use dunlin_shared::time::MonoMs;
use dunlin_shared::wire::{ALPN_JOIN, CloseCode};
use quinn_proto::crypto::rustls::HandshakeData;
use quinn_proto::{Connection, Dir, Event, ReadError, StreamEvent, StreamId, VarInt, WriteError};
use rustls::pki_types::CertificateDer;
use tracing::{debug, info, warn};

use super::admission::Prefix;
use super::join::Joining;
use super::mailbox::Place;
use super::shared::{NotTaken, Shared};
use super::talk::{End, Step, Talk};
use crate::authority::Certificate;
use crate::registry::KeyHash;
use crate::writer::Arrival;

/// How long an end may take once the last acknowledgement is written.
const FLUSH_MS: u64 = 1_000;
/// A peer that leaves no room for a message so long does not read. Well within the idle timeout, after which
/// a network that is gone has ended the connection anyway.
const WRITE_MS: u64 = 15_000;
const READ_BYTES: usize = 16 * 1024;
/// Steps that one look at a peer may take, three to a message: four seconds' worth of what a session
/// may send, and well below a millisecond.
const STEPS_MAX: usize = 128;

#[derive(Debug)]
pub(super) struct Peer {
    pub(super) quic: Connection,
    place: Place,
    started_at: MonoMs,
    stage: Stage,
    /// Waits for a look; kept by the driver.
    pub(super) is_ready: bool,
    /// Waits for the writer; kept by the driver.
    pub(super) is_waiting: bool,
}

/// Who begins a handshake.
#[derive(Clone, Copy, Debug)]
pub(super) struct Newcomer {
    pub(super) prefix: Prefix,
    /// It came back from where it said that it is.
    pub(super) proven: bool,
}

#[derive(Debug)]
enum Stage {
    Handshake(Newcomer),
    Join(Box<Joining>),
    Open(Box<Open>),
    /// Closed; the writer may still have to hear of it.
    Over(Option<Box<Arrival>>),
}

#[derive(Debug)]
struct Open {
    talk: Talk,
    control: Option<StreamId>,
    /// Said and not yet taken by QUIC.
    unsent: Vec<u8>,
    /// The message that is being written must be taken by then.
    write_by: Option<MonoMs>,
    /// Everything is said; the agent must have confirmed it by then.
    flush_by: Option<MonoMs>,
}

/// When a peer wants the next look, apart from its timers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// When something happens.
    Idle,
    /// It used up its turn.
    Again,
    /// When the writer has room.
    Stuck,
}

impl Peer {
    pub(super) const fn new(quic: Connection, place: Place, newcomer: Newcomer, started_at: MonoMs) -> Self {
        Self { quic, place, started_at, stage: Stage::Handshake(newcomer), is_ready: false, is_waiting: false }
    }

    /// Does what can be done now.
    pub(super) fn look(&mut self, now: Instant, shared: &mut Shared) -> Next {
        match self.attend(now, shared) {
            Ok(next) => next,
            Err(end) => {
                self.end(now, end, shared);
                self.report_end(shared)
            }
        }
    }

    /// Ends it from this side, whatever it does.
    pub(super) fn close(&mut self, now: Instant, code: CloseCode, shared: &mut Shared) {
        self.end(now, End::Close(code), shared);
    }

    /// What it waits to hand to the writer.
    pub(super) fn take_held(&mut self) -> Option<Arrival> {
        match &mut self.stage {
            Stage::Handshake(_) | Stage::Join(_) => None,
            Stage::Open(open) => open.talk.take_held(),
            Stage::Over(held) => held.take().map(|arrival| *arrival),
        }
    }

    /// Nothing of it is needed any more, once QUIC has let go of it too.
    pub(super) const fn is_over(&self) -> bool {
        matches!(self.stage, Stage::Over(None))
    }

    /// When QUIC or the session wants a look.
    pub(super) fn deadline(&mut self, shared: &Shared) -> Option<Instant> {
        let own = match &self.stage {
            Stage::Handshake(_) => Some(self.started_at.plus(HANDSHAKE_MS)),
            Stage::Join(joining) => Some(joining.deadline()),
            Stage::Open(open) => [open.talk.deadline(shared), open.write_by, open.flush_by].into_iter().flatten().min(),
            Stage::Over(_) => None,
        };
        let own = own.map(|at| shared.clock.instant(at));
        [own, self.quic.poll_timeout()].into_iter().flatten().min()
    }

    fn attend(&mut self, now: Instant, shared: &mut Shared) -> Result<Next, End> {
        self.quic.handle_timeout(now);
        while let Some(event) = self.quic.poll() {
            self.hear(event, shared)?;
        }
        match &mut self.stage {
            Stage::Handshake(_) if self.started_at.plus(HANDSHAKE_MS) <= shared.clock.mono() => {
                handshake_failed(&self.quic, shared, &"it took too long");
                Err(End::Gone)
            }
            Stage::Handshake(_) => Ok(Next::Idle),
            Stage::Join(joining) => joining.attend(&mut self.quic, shared),
            Stage::Open(open) => open.attend(&mut self.quic, shared),
            Stage::Over(_) => Ok(self.report_end(shared)),
        }
    }

    fn hear(&mut self, event: Event, shared: &mut Shared) -> Result<(), End> {
        match (event, &mut self.stage) {
            (Event::Connected, Stage::Handshake(_)) => self.connected(shared),
            (Event::ConnectionLost { reason }, Stage::Handshake(newcomer)) => {
                if newcomer.proven {
                    shared.admission.failed(shared.clock.mono(), newcomer.prefix);
                }
                handshake_failed(&self.quic, shared, &reason);
                Err(End::Gone)
            }
            (Event::ConnectionLost { .. }, Stage::Open(_) | Stage::Join(_)) => Err(End::Gone),
            (Event::Stream(StreamEvent::Finished { id }), Stage::Join(joining)) if joining.is_done_with(id) => {
                Err(End::Close(CloseCode::Done))
            }
            (Event::Stream(StreamEvent::Stopped { .. }), Stage::Join(_)) => Err(End::Gone),
            (Event::Stream(StreamEvent::Finished { id } | StreamEvent::Stopped { id, .. }), Stage::Open(open))
                if open.control == Some(id) =>
            {
                Err(if open.flush_by.is_some() { End::Close(CloseCode::Draining) } else { End::Gone })
            }
            _ => Ok(()),
        }
    }

    /// The handshake is done: it enrols, or it is a node, or it is nobody.
    fn connected(&mut self, shared: &mut Shared) -> Result<(), End> {
        if is_join(&self.quic) {
            if !shared.begin_join() {
                return Err(End::Close(CloseCode::Overloaded));
            }
            self.leave_handshake(shared);
            let joining = Joining::new(self.place, self.quic.remote_address().ip(), self.started_at);
            self.stage = Stage::Join(Box::new(joining));
            return Ok(());
        }
        let Some(certificate) = certificate_of(&self.quic) else {
            handshake_failed(&self.quic, shared, &"there was no certificate of a node");
            return Err(End::Close(CloseCode::NotEnrolled));
        };
        self.leave_handshake(shared);
        shared.stats.connections_accepted.one();
        // A node that is not named cannot speak; its session is only there to be closed.
        let talk = Talk::new(self.place, &certificate, self.started_at, shared);
        self.stage = Stage::Open(Box::new(Open::new(talk)));
        let node = certificate.node.ok_or(End::Close(CloseCode::WrongNode))?;
        // What needs no Hello is said at once, so that an agent can ask by a handshake alone.
        if let Some(code) = shared.gate.bars(node, &KeyHash(certificate.key)) {
            return Err(End::Close(code));
        }
        if shared.has_to_rest(node) {
            return Err(End::Close(CloseCode::Flooding));
        }
        shared.note_entered(self.quic.remote_address().ip());
        Ok(())
    }

    fn leave_handshake(&self, shared: &mut Shared) {
        if let Stage::Handshake(newcomer) = self.stage {
            shared.admission.done(newcomer.prefix);
        }
    }

    /// Closes, counts and frees what only an open connection needs.
    fn end(&mut self, now: Instant, end: End, shared: &mut Shared) {
        let held = match std::mem::replace(&mut self.stage, Stage::Over(None)) {
            Stage::Handshake(newcomer) => {
                shared.admission.done(newcomer.prefix);
                if let End::Close(code) = end {
                    shared.closed(code, self.quic.remote_address().ip());
                }
                None
            }
            Stage::Join(_) => {
                shared.end_join();
                if let End::Close(code) = end {
                    shared.closed(code, self.quic.remote_address().ip());
                }
                None
            }
            Stage::Open(open) => {
                shared.stats.connections_ended.one();
                if let End::Close(code) = end {
                    let address = self.quic.remote_address().ip();
                    shared.closed(code, address);
                    shared.cut_off(open.talk.node, code, address);
                    if !matches!(code, CloseCode::Done | CloseCode::Draining) {
                        let (node, peer) = (open.talk.node, self.quic.remote_address());
                        info!(%node, %peer, reason = code.as_str(), "closed a connection");
                    }
                }
                open.talk.leave(shared).map(Box::new)
            }
            Stage::Over(held) => held,
        };
        self.stage = Stage::Over(held);
        let (code, reason) = match end {
            End::Close(code) => (code as u32, code.as_str()),
            End::Gone => (0, ""),
        };
        self.quic.close(now, VarInt::from_u32(code), Bytes::from_static(reason.as_bytes()));
    }

    fn report_end(&mut self, shared: &Shared) -> Next {
        let Stage::Over(held) = &mut self.stage else { return Next::Idle };
        let Some(arrival) = held.take() else { return Next::Idle };
        match shared.hand_over(*arrival) {
            // The writer is gone only when the collector stops; then nobody asks any more.
            Ok(()) | Err(NotTaken::Gone) => Next::Idle,
            Err(NotTaken::Full(arrival)) => {
                *held = Some(Box::new(arrival));
                Next::Stuck
            }
        }
    }
}

impl Open {
    const fn new(talk: Talk) -> Self {
        Self { talk, control: None, unsent: Vec::new(), write_by: None, flush_by: None }
    }

    fn attend(&mut self, quic: &mut Connection, shared: &mut Shared) -> Result<Next, End> {
        let now = shared.clock.mono();
        if self.flush_by.is_some_and(|by| by <= now) {
            debug!(node = %self.talk.node, "an agent did not confirm the end of its session");
            return Err(End::Close(CloseCode::Draining));
        }
        self.talk.time_passed(shared);
        self.talk.read_letters(shared)?;
        self.talk.keep_up(shared);
        if self.control.is_none() {
            self.control = quic.streams().accept(Dir::Bi);
        }
        let was_held_up = !self.unsent.is_empty();
        let next = self.listen(quic, shared)?;
        if next == Next::Idle {
            self.talk.is_in_time(shared)?;
        }
        if shared.draining {
            self.talk.drain(shared);
        }
        self.speak(quic, now)?;
        if self.talk.is_drained() && self.unsent.is_empty() && self.flush_by.is_none() && next == Next::Idle {
            let finished = self.control.is_some_and(|control| quic.send_stream(control).finish().is_ok());
            if !finished {
                return Err(End::Close(CloseCode::Draining));
            }
            self.flush_by = Some(now.plus(FLUSH_MS));
        }
        // While it could not speak it did not listen either, and nothing announces again what came meanwhile.
        let listens_again = was_held_up && self.unsent.is_empty() && next == Next::Idle;
        Ok(if listens_again { Next::Again } else { next })
    }

    /// Reads and acts, as long as there is something, and only while what is said gets through.
    fn listen(&mut self, quic: &mut Connection, shared: &mut Shared) -> Result<Next, End> {
        for _ in 0..STEPS_MAX {
            match self.talk.step(shared)? {
                Step::Done => {}
                Step::Stuck => return Ok(Next::Stuck),
                Step::Awaits => return Ok(Next::Idle),
                // The session hears no more than what came before the end.
                Step::Hungry if self.flush_by.is_some() || !self.unsent.is_empty() => return Ok(Next::Idle),
                Step::Hungry => {
                    if !self.read(quic, shared)? {
                        return Ok(Next::Idle);
                    }
                }
            }
        }
        Ok(Next::Again)
    }

    /// A little of every stream; whether there was anything.
    fn read(&mut self, quic: &mut Connection, shared: &mut Shared) -> Result<bool, End> {
        // The agent opens it first of all; what came before it waits.
        let Some(control) = self.control else { return Ok(false) };
        let mut any = match chunk(quic, control) {
            Chunk::Bytes(bytes) => {
                self.talk.hear_control(shared.clock.mono(), &bytes);
                true
            }
            Chunk::None => false,
            Chunk::End => return Err(End::Gone),
        };
        while self.talk.lanes.has_room()
            && let Some(stream) = quic.streams().accept(Dir::Uni)
        {
            self.talk.stream_opened(shared);
            self.talk.lanes.open(stream).map_err(End::Close)?;
        }
        if self.talk.hoards(shared) {
            return Ok(any);
        }
        for (at, stream) in self.talk.lanes.streams().into_iter().enumerate() {
            let Some(stream) = stream else { continue };
            match chunk(quic, stream) {
                Chunk::Bytes(bytes) => {
                    self.talk.hear_lane(at, &bytes, shared)?;
                    any = true;
                }
                Chunk::None => {}
                Chunk::End => {
                    self.talk.lane_ended(at);
                    // One arrival at a time: the other streams come with the next read.
                    return Ok(true);
                }
            }
        }
        Ok(any)
    }

    fn speak(&mut self, quic: &mut Connection, now: MonoMs) -> Result<(), End> {
        let Some(control) = self.control else { return Ok(()) };
        loop {
            if self.unsent.is_empty() {
                self.unsent = Vec::new();
                self.write_by = None;
                let Some(message) = self.talk.say() else { return Ok(()) };
                self.unsent = message;
            }
            match quic.send_stream(control).write(&self.unsent) {
                Ok(written) => {
                    self.unsent.drain(..written);
                }
                Err(WriteError::Blocked) => {
                    let by = *self.write_by.get_or_insert(now.plus(WRITE_MS));
                    return if by <= now { Err(End::Close(CloseCode::TooSlow)) } else { Ok(()) };
                }
                Err(_) => return Err(End::Gone),
            }
        }
    }
}

pub(super) enum Chunk {
    Bytes(Bytes),
    None,
    /// Finished or reset.
    End,
}

pub(super) fn chunk(quic: &mut Connection, stream: StreamId) -> Chunk {
    let mut stream = quic.recv_stream(stream);
    let Ok(mut chunks) = stream.read(true) else { return Chunk::End };
    // What is read opens the peer's window again as it is dropped.
    match chunks.next(READ_BYTES) {
        Ok(Some(chunk)) => Chunk::Bytes(chunk.bytes),
        Err(ReadError::Blocked) => Chunk::None,
        Ok(None) | Err(ReadError::Reset(_)) => Chunk::End,
    }
}

fn handshake_failed(quic: &Connection, shared: &mut Shared, error: &dyn std::fmt::Display) {
    shared.stats.handshakes_failed.one();
    if let Some(times) = shared.note_failure("handshake") {
        warn!(times, peer = %quic.remote_address(), "a handshake failed: {error}");
    }
}

fn is_join(quic: &Connection) -> bool {
    let data = quic.crypto_session().handshake_data().and_then(|data| data.downcast::<HandshakeData>().ok());
    data.is_some_and(|data| data.protocol.as_deref() == Some(ALPN_JOIN))
}

/// What TLS verified, when there was one.
fn certificate_of(quic: &Connection) -> Option<Certificate> {
    let identity: Box<dyn Any> = quic.crypto_session().peer_identity()?;
    let chain = identity.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    Certificate::read(chain.first()?)
}
