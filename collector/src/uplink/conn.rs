//! One connection, one task: bytes in, frames to the writer, acknowledgements out.
//!
//! Everything a peer can do wrong ends in a close code that is counted; nothing it does can hold up
//! another connection for longer than the writer's queue takes.

use std::collections::HashMap;
use std::future::pending;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dunlin_shared::backoff::scale;
use dunlin_shared::id::NodeId;
use dunlin_shared::limits::{HANDSHAKE_MS, UNI_STREAMS_MAX};
use dunlin_shared::range::{FrameSet, SeqRange};
use dunlin_shared::repeat::Repeats;
use dunlin_shared::session::CollectorSession;
use dunlin_shared::session::collector::{Event, Notice, Resumption};
use dunlin_shared::time::MonoMs;
use dunlin_shared::wire::{
    AgentControl, Assembler, CloseCode, Config, Deframer, FrameRange, Hello, Item, Lane, WireError,
};
use quinn::{Chunk, Connection, ReadError, RecvStream, SendStream, VarInt};
use rustls::pki_types::CertificateDer;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::sleep_until;
use tracing::{debug, info};

use super::mailbox::{Letters, Mailbox};
use super::tls::node_of;
use crate::clock::Clock;
use crate::stats::Stats;
use crate::writer::{Arrival, Greeting, SessionId};

/// Backlog frames a second that the whole fleet may send: as many again as the live frames of
/// 10,000 nodes at a 10 s tick, which keeps both within 5 Mbit/s.
const BACKLOG_FRAMES_PER_S: u64 = 1_000;
/// For so long after its start the collector spreads the agents that come back, over so long.
const SPREAD_FOR_MS: u64 = 60_000;
const SPREAD_OVER_MS: u64 = 2_000;
/// Agents that a stopping collector sends away come back within this time.
const RECONNECT_MS: (u64, u64) = (1_000, 5_000);
/// How long an end may take once the last acknowledgement is written.
const FLUSH_MS: u64 = 1_000;
/// A peer that leaves no room for a message so long does not read. Well within the idle timeout, after which
/// a network that is gone has ended the connection anyway.
const WRITE_MS: u64 = 15_000;
const READ_BYTES: usize = 16 * 1024;

/// What all connections share.
#[derive(Debug)]
pub struct Shared {
    pub clock: Clock,
    pub stats: Arc<Stats>,
    writer: mpsc::Sender<Arrival>,
    sessions: Mutex<HashMap<NodeId, (SessionId, Arc<Mailbox>)>>,
    next_session: AtomicU64,
    ended: Notify,
    failures: Mutex<HashMap<&'static str, Repeats>>,
}

struct LaneIn {
    stream: RecvStream,
    lane: Option<Lane>,
    deframer: Deframer,
    assembler: Assembler,
}

struct Conn {
    connection: Connection,
    node: NodeId,
    id: SessionId,
    session: CollectorSession,
    mailbox: Arc<Mailbox>,
    control_out: SendStream,
    control_in: RecvStream,
    deframer: Deframer,
    lanes: [Option<LaneIn>; UNI_STREAMS_MAX as usize],
    /// Handed to the writer and not answered yet.
    outstanding: FrameSet,
    goodbye_pending: bool,
    greeted: bool,
    shared: Arc<Shared>,
}

enum Woken {
    Control(Result<Option<Chunk>, ReadError>),
    Stream(Option<RecvStream>),
    Lane(usize, Result<Option<Chunk>, ReadError>),
    Letters(Letters),
    Time,
    Drain,
}

/// Why the loop ends: a code to close with, or that the peer is gone already.
enum End {
    Close(CloseCode),
    Gone,
}

impl Shared {
    #[must_use]
    pub fn new(clock: Clock, stats: Arc<Stats>, writer: mpsc::Sender<Arrival>) -> Self {
        Self {
            clock,
            stats,
            writer,
            sessions: Mutex::default(),
            next_session: AtomicU64::new(1),
            ended: Notify::new(),
            failures: Mutex::default(),
        }
    }

    /// How often such a failure happened in a row, when that is worth a line.
    pub fn note_failure(&self, what: &'static str) -> Option<u64> {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        failures.entry(what).or_default().note(what)
    }

    /// Resolves when no connection is open.
    pub async fn all_ended(&self) {
        loop {
            let ended = self.ended.notified();
            if self.open() == 0 {
                return;
            }
            ended.await;
        }
    }

    fn open(&self) -> u64 {
        self.stats.connections_accepted.value().saturating_sub(self.stats.connections_ended.value())
    }

    /// The newest session of a node is the one that counts; the one before is told to go.
    fn enter(&self, node: NodeId, id: SessionId, mailbox: &Arc<Mailbox>) {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, before)) = sessions.insert(node, (id, Arc::clone(mailbox))) {
            before.close(CloseCode::Superseded);
        }
    }

    fn leave(&self, node: NodeId, id: SessionId) {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        if sessions.get(&node).is_some_and(|(newest, _)| *newest == id) {
            sessions.remove(&node);
        }
    }
}

/// Runs a connection whose handshake is done, to its end.
pub async fn run(connection: Connection, started_at: MonoMs, shared: Arc<Shared>, mut drain: watch::Receiver<bool>) {
    let end = match Conn::open(&connection, started_at, &shared).await {
        Ok(mut conn) => {
            let end = conn.serve(&mut drain).await;
            conn.leave().await;
            end
        }
        Err(end) => end,
    };
    if let End::Close(code) = end {
        shared.stats.closed(code);
        if !matches!(code, CloseCode::Done | CloseCode::Draining) {
            info!(peer = %connection.remote_address(), reason = code.as_str(), "closed a connection");
        }
        connection.close(VarInt::from_u32(code as u32), code.as_str().as_bytes());
    }
    shared.stats.connections_ended.one();
    shared.ended.notify_waiters();
}

impl Conn {
    async fn open(connection: &Connection, started_at: MonoMs, shared: &Arc<Shared>) -> Result<Self, End> {
        let node = peer_of(connection).ok_or(End::Close(CloseCode::WrongNode))?;
        let deadline = shared.clock.instant(started_at.plus(HANDSHAKE_MS));
        let (control_out, control_in) = match tokio::time::timeout_at(deadline, connection.accept_bi()).await {
            Ok(Ok(streams)) => streams,
            Ok(Err(_)) => return Err(End::Gone),
            Err(_) => return Err(End::Close(CloseCode::TooSlow)),
        };
        Ok(Self {
            connection: connection.clone(),
            node,
            id: SessionId(shared.next_session.fetch_add(1, Relaxed)),
            session: CollectorSession::new(started_at, node),
            mailbox: Arc::default(),
            control_out,
            control_in,
            deframer: Deframer::default(),
            lanes: [const { None }; UNI_STREAMS_MAX as usize],
            outstanding: FrameSet::new(),
            goodbye_pending: false,
            greeted: false,
            shared: Arc::clone(shared),
        })
    }

    async fn serve(&mut self, drain: &mut watch::Receiver<bool>) -> End {
        let mut draining = false;
        loop {
            let woken = self.wait(drain, draining).await;
            let outcome = match woken {
                Woken::Control(read) => self.read_control(read).await,
                Woken::Stream(Some(stream)) => {
                    self.tell(Event::Stream);
                    self.add_lane(stream)
                }
                Woken::Stream(None) => Err(End::Gone),
                Woken::Lane(at, read) => self.read_lane(at, read).await,
                Woken::Letters(letters) => self.read_letters(letters),
                Woken::Time => {
                    self.tell(Event::Timeout);
                    Ok(())
                }
                Woken::Drain => {
                    draining = true;
                    let (least, most) = RECONNECT_MS;
                    let ms = least + scale(spread(self.node, self.id.0), most - least);
                    self.tell(Event::Drain { reconnect_after_ms: u32::try_from(ms).unwrap_or(u32::MAX) });
                    Ok(())
                }
            };
            if let Err(end) = outcome {
                return end;
            }
            if let Err(end) = self.pump().await {
                return end;
            }
            if draining && self.outstanding.is_empty() && !self.goodbye_pending {
                return self.flush().await;
            }
        }
    }

    async fn wait(&mut self, drain: &mut watch::Receiver<bool>, draining: bool) -> Woken {
        let timer = self.session.poll_timeout().map(|at| self.shared.clock.instant(at));
        let time = async {
            match timer {
                Some(at) => sleep_until(at).await,
                None => pending().await,
            }
        };
        let has_room = self.lanes.iter().any(Option::is_none);
        let [first, second, third] = &mut self.lanes;
        tokio::select! {
            read = self.control_in.read_chunk(READ_BYTES, true) => Woken::Control(read),
            read = read_from(first) => Woken::Lane(0, read),
            read = read_from(second) => Woken::Lane(1, read),
            read = read_from(third) => Woken::Lane(2, read),
            letters = self.mailbox.next() => Woken::Letters(letters),
            stream = self.connection.accept_uni(), if has_room => Woken::Stream(stream.ok()),
            () = time => Woken::Time,
            _ = drain.wait_for(|&draining| draining), if !draining => Woken::Drain,
        }
    }

    async fn read_control(&mut self, read: Result<Option<Chunk>, ReadError>) -> Result<(), End> {
        let Ok(Some(chunk)) = read else { return Err(End::Gone) };
        self.deframer.push(&chunk.bytes);
        loop {
            let message = match self.deframer.next_message() {
                Ok(None) => return Ok(()),
                Ok(Some(body)) => AgentControl::decode(body),
                Err(error) => Err(error),
            };
            let message = message.map_err(|error| self.refuse(&error))?;
            self.tell(Event::Control(message));
            self.act().await?;
        }
    }

    fn add_lane(&mut self, stream: RecvStream) -> Result<(), End> {
        let free = self.lanes.iter_mut().find(|lane| lane.is_none());
        let lane = LaneIn { stream, lane: None, deframer: Deframer::default(), assembler: Assembler::default() };
        // Streams are only accepted while a place is free.
        *free.ok_or(End::Close(CloseCode::Internal))? = Some(lane);
        Ok(())
    }

    async fn read_lane(&mut self, at: usize, read: Result<Option<Chunk>, ReadError>) -> Result<(), End> {
        let Some(lane_in) = &mut self.lanes[at] else { return Ok(()) };
        let chunk = match read {
            Ok(Some(chunk)) => chunk,
            Ok(None) | Err(ReadError::Reset(_)) => {
                if let Some(lane) = lane_in.lane {
                    self.hand_over(Arrival::LaneClosed { session: self.id, lane }).await?;
                }
                self.lanes[at] = None;
                return Ok(());
            }
            Err(_) => return Err(End::Gone),
        };
        let mut bytes = &chunk.bytes[..];
        if lane_in.lane.is_none() {
            let Some((&first, rest)) = bytes.split_first() else { return Ok(()) };
            bytes = rest;
            let lane = Lane::from_raw(first).map_err(|error| self.refuse(&error))?;
            let twice = self.lanes.iter().flatten().any(|other| other.lane == Some(lane));
            if twice {
                return Err(End::Close(CloseCode::Unexpected));
            }
            if let Some(lane_in) = &mut self.lanes[at] {
                lane_in.lane = Some(lane);
            }
        }
        self.take_items(at, bytes).await
    }

    async fn take_items(&mut self, at: usize, bytes: &[u8]) -> Result<(), End> {
        self.shared.stats.bytes_received.add(bytes.len() as u64);
        if let Some(lane_in) = &mut self.lanes[at] {
            lane_in.deframer.push(bytes);
        }
        loop {
            let Some(lane_in) = &mut self.lanes[at] else { return Ok(()) };
            let Some(lane) = lane_in.lane else { return Ok(()) };
            let assembled = match lane_in.deframer.next_message() {
                Ok(None) => return Ok(()),
                Ok(Some(body)) => Item::decode(body).and_then(|item| lane_in.assembler.push(&item)),
                Err(error) => Err(error),
            };
            let Some(frame) = assembled.map_err(|error| self.refuse(&error))? else {
                self.tell(Event::Piece);
                self.act().await?;
                continue;
            };
            let id = frame.id;
            self.tell(Event::Frame { lane, id });
            self.act().await?;
            self.shared.stats.frames_received.one();
            self.outstanding.insert(id);
            let (at, received) = (self.shared.clock.wall(), self.shared.clock.mono());
            self.hand_over(Arrival::Frame { session: self.id, at, received, lane, frame }).await?;
        }
    }

    fn read_letters(&mut self, letters: Letters) -> Result<(), End> {
        for (set, urgent) in [(&letters.live, false), (&letters.urgent, true)] {
            for range in ranges(set) {
                self.outstanding.remove_range(range);
                self.tell(Event::Committed { range, urgent });
            }
        }
        for range in ranges(&letters.not_stored) {
            self.outstanding.remove_range(range);
            self.tell(Event::NotStored { range, retry_after_ms: letters.retry_after_ms });
        }
        if letters.goodbye_committed {
            self.goodbye_pending = false;
            self.tell(Event::GoodbyeCommitted);
        }
        letters.close.map_or(Ok(()), |code| Err(End::Close(code)))
    }

    fn tell(&mut self, event: Event) {
        let now = self.shared.clock.mono();
        self.session.handle(now, event);
    }

    /// Says what the session has to say, after it decided.
    async fn pump(&mut self) -> Result<(), End> {
        self.act().await?;
        while let Some(message) = self.session.poll_transmit() {
            let bytes = message.encode();
            let written = tokio::time::timeout(Duration::from_millis(WRITE_MS), self.control_out.write_all(&bytes));
            written.await.map_err(|_| End::Close(CloseCode::TooSlow))?.map_err(|_| End::Gone)?;
        }
        Ok(())
    }

    /// Does what the session decided.
    async fn act(&mut self) -> Result<(), End> {
        while let Some(notice) = self.session.poll_notice() {
            let (session, at) = (self.id, self.shared.clock.wall());
            match notice {
                Notice::Greeted(hello) => self.greet(hello).await?,
                // The caller has the frame and hands it over.
                Notice::Accepted { .. } => {}
                Notice::Heartbeat => self.hand_over(Arrival::Heartbeat { session, at }).await?,
                Notice::Gap(gap) => {
                    self.outstanding.insert_range(FrameRange { epoch: gap.epoch, range: gap.range });
                    self.hand_over(Arrival::Gap { session, at, gap }).await?;
                }
                Notice::Goodbye(goodbye) => {
                    self.goodbye_pending = true;
                    self.hand_over(Arrival::Goodbye { session, at, goodbye }).await?;
                }
                Notice::Close(code) => return Err(End::Close(code)),
            }
        }
        Ok(())
    }

    async fn greet(&mut self, hello: Box<Hello>) -> Result<(), End> {
        let (reply, answer) = oneshot::channel();
        let (at, mailbox) = (self.shared.clock.wall(), Arc::clone(&self.mailbox));
        self.shared.enter(self.node, self.id, &self.mailbox);
        self.greeted = true;
        debug!(node = %self.node, epoch = hello.epoch.0, spooled = hello.spooled.len(), "hello");
        self.hand_over(Arrival::Hello(Greeting { session: self.id, at, hello, mailbox, reply })).await?;
        // The writer drops the reply only when it ends, and the collector with it.
        let held = answer.await.map_err(|_| End::Close(CloseCode::Draining))?.map_err(End::Close)?;
        let uptime_ms = self.shared.clock.mono().0;
        let start_after_ms =
            if uptime_ms < SPREAD_FOR_MS { scale(spread(self.node, self.id.0), SPREAD_OVER_MS) } else { 0 };
        let backlog_gap_ms = self.shared.open() * 1_000 / BACKLOG_FRAMES_PER_S;
        self.tell(Event::Resumed(Resumption {
            collector_version: env!("CARGO_PKG_VERSION").to_owned(),
            held,
            start_after_ms: u32::try_from(start_after_ms).unwrap_or(u32::MAX),
            config: Config { interval_ms: 0, backlog_gap_ms: u32::try_from(backlog_gap_ms).unwrap_or(u32::MAX) },
            wall: at,
        }));
        Ok(())
    }

    async fn hand_over(&self, arrival: Arrival) -> Result<(), End> {
        self.shared.writer.send(arrival).await.map_err(|_| End::Close(CloseCode::Draining))
    }

    /// The last acknowledgements are written: waits until the agent has them.
    async fn flush(&mut self) -> End {
        let written = self.control_out.finish().is_ok();
        let flushed = tokio::time::timeout(Duration::from_millis(FLUSH_MS), self.control_out.stopped());
        if !written || flushed.await.is_err() {
            debug!(node = %self.node, "an agent did not confirm the end of its session");
        }
        End::Close(CloseCode::Draining)
    }

    async fn leave(&self) {
        self.shared.leave(self.node, self.id);
        if self.greeted {
            let at = self.shared.clock.wall();
            // The writer is gone only when the collector stops; then nobody asks any more.
            self.shared.writer.send(Arrival::Ended { session: self.id, at }).await.ok();
        }
    }

    fn refuse(&self, error: &WireError) -> End {
        if let Some(times) = self.shared.note_failure("wire") {
            info!(times, node = %self.node, "a peer broke the protocol: {error}");
        }
        End::Close(error.close_code())
    }
}

async fn read_from(lane: &mut Option<LaneIn>) -> Result<Option<Chunk>, ReadError> {
    match lane {
        Some(lane) => lane.stream.read_chunk(READ_BYTES, true).await,
        None => pending().await,
    }
}

fn peer_of(connection: &Connection) -> Option<NodeId> {
    let identity = connection.peer_identity()?;
    let chain = identity.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    node_of(chain.first()?)
}

fn ranges(set: &FrameSet) -> impl Iterator<Item = FrameRange> {
    set.epochs().flat_map(|(epoch, set)| set.ranges().iter().map(move |&range: &SeqRange| FrameRange { epoch, range }))
}

/// A number that spreads nodes evenly; not a secret.
fn spread(node: NodeId, salt: u64) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&node.bytes()[8..]);
    (u64::from_le_bytes(bytes) ^ salt).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}
