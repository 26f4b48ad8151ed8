//! The streams of one connection, each written by a task of its own, so that a lane that waits for
//! room never holds up another.
//!
//! Queues are one message long: what does not fit stays in the spool, where newer frames overtake it.

use std::sync::Arc;

use dunlin_shared::session::agent::Room;
use dunlin_shared::wire::{CloseCode, CollectorControl, Deframer, Lane};
use quinn::{Connection, ConnectionError, RecvStream, SendStream, VarInt};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;

use super::connect::{Connected, SlowReading};
use crate::line::Outgoing;

/// What the collector said, or that nothing more will come.
#[derive(Debug)]
pub enum Heard {
    Message(CollectorControl),
    /// It said something that is not in the protocol.
    Nonsense(String),
    Ended(ConnectionError),
}

#[derive(Debug)]
pub struct Link {
    connected: Connected,
    control: mpsc::Sender<Vec<u8>>,
    lanes: [mpsc::Sender<Vec<u8>>; 2],
    heard: mpsc::Receiver<Heard>,
    drained: Arc<Notify>,
    _tasks: JoinSet<()>,
}

/// Control messages that may wait: a Hello, the gaps behind it, and a goodbye.
const CONTROL_QUEUE: usize = 32;
const HEARD_QUEUE: usize = 16;
const CONTROL_PRIORITY: i32 = 2;
const LIVE_PRIORITY: i32 = 1;
const BACKLOG_PRIORITY: i32 = 0;

impl Link {
    pub async fn open(connected: Connected) -> Result<Self, ConnectionError> {
        let (send, receive) = connected.connection.open_bi().await?;
        let drained = Arc::new(Notify::new());
        let mut tasks = JoinSet::new();
        let (control, control_queue) = mpsc::channel(CONTROL_QUEUE);
        tasks.spawn(write_control(send, control_queue));
        let mut lane = |lane, priority| {
            let (sender, queue) = mpsc::channel(1);
            tasks.spawn(write_lane(connected.connection.clone(), lane, priority, queue, Arc::clone(&drained)));
            sender
        };
        let lanes = [lane(Lane::Live, LIVE_PRIORITY), lane(Lane::Backlog, BACKLOG_PRIORITY)];
        let (sender, heard) = mpsc::channel(HEARD_QUEUE);
        tasks.spawn(read_control(connected.connection.clone(), receive, sender, connected.slow));
        Ok(Self { connected, control, lanes, heard, drained, _tasks: tasks })
    }

    #[must_use]
    pub fn room(&self) -> Room {
        Room { live: self.lanes[0].capacity() > 0, backlog: self.lanes[1].capacity() > 0 }
    }

    /// Whether the message was taken. It is, when `room` said so; control messages have room for
    /// all that a session can say at once.
    pub fn send(&self, outgoing: Outgoing) -> bool {
        match outgoing {
            Outgoing::Control(bytes) => self.control.try_send(bytes).is_ok(),
            Outgoing::Frame(lane, bytes) => self.lanes[usize::from(lane == Lane::Backlog)].try_send(bytes).is_ok(),
        }
    }

    /// The next thing heard, or `None` when a lane has room again.
    pub async fn next(&mut self) -> Option<Heard> {
        tokio::select! {
            heard = self.heard.recv() => Some(heard.unwrap_or(Heard::Ended(ConnectionError::LocallyClosed))),
            () = self.drained.notified() => None,
        }
    }

    pub fn close(&self, code: CloseCode) {
        self.connected.connection.close(VarInt::from_u32(code as u32), code.as_str().as_bytes());
    }

    /// Waits until the peer was told. Only for an end: a reconnect need not wait.
    pub async fn flushed(&self) {
        self.connected.endpoint.wait_idle().await;
    }

    #[must_use]
    pub const fn connected(&self) -> &Connected {
        &self.connected
    }
}

async fn write_control(mut stream: SendStream, mut queue: mpsc::Receiver<Vec<u8>>) {
    if stream.set_priority(CONTROL_PRIORITY).is_err() {
        return;
    }
    while let Some(bytes) = queue.recv().await {
        // An error means that the connection ended, which the reader reports.
        if stream.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

async fn write_lane(
    connection: Connection,
    lane: Lane,
    priority: i32,
    mut queue: mpsc::Receiver<Vec<u8>>,
    drained: Arc<Notify>,
) {
    // Most connections never have a backlog: its stream is opened with its first frame.
    let Some(mut bytes) = queue.recv().await else { return };
    let Ok(mut stream) = connection.open_uni().await else { return };
    if stream.set_priority(priority).is_err() {
        return;
    }
    bytes.insert(0, lane as u8);
    loop {
        if stream.write_all(&bytes).await.is_err() {
            return;
        }
        drained.notify_one();
        match queue.recv().await {
            Some(next) => bytes = next,
            None => return,
        }
    }
}

async fn read_control(
    connection: Connection,
    mut stream: RecvStream,
    heard: mpsc::Sender<Heard>,
    slow: Option<SlowReading>,
) {
    let mut deframer = Deframer::default();
    let chunk_bytes = slow.map_or(usize::from(u16::MAX), |slow| slow.chunk_bytes);
    let ended = loop {
        if let Some(slow) = slow {
            tokio::time::sleep(slow.pause).await;
        }
        match stream.read_chunk(chunk_bytes, true).await {
            Ok(Some(chunk)) => deframer.push(&chunk.bytes),
            Ok(None) | Err(_) => break Heard::Ended(connection.closed().await),
        }
        if let Some(nonsense) = pass_on(&mut deframer, &heard).await {
            break nonsense;
        }
    };
    // The receiver is gone only when the link is.
    heard.send(ended).await.ok();
}

async fn pass_on(deframer: &mut Deframer, heard: &mpsc::Sender<Heard>) -> Option<Heard> {
    loop {
        let message = match deframer.next_message() {
            Ok(None) => return None,
            Ok(Some(body)) => CollectorControl::decode(body),
            Err(error) => Err(error),
        };
        match message {
            Ok(message) => heard.send(Heard::Message(message)).await.ok()?,
            Err(error) => return Some(Heard::Nonsense(error.to_string())),
        }
    }
}
