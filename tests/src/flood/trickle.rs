//! Connections on which a byte comes each minute: of a Hello that never ends, of messages on every stream that a node may
//! have, and behind as much of a frame as the limits let a node leave unfinished.
//!
//! All of them have good certificates, and QUIC itself keeps them alive. Whoever is closed comes again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use anyhow::Result;
use dunlin_agent::identity::Identity;
use dunlin_agent::uplink::tls::client_config;
use dunlin_collector::shape::Event;
use dunlin_shared::id::{Epoch, NodeId, Seq};
use dunlin_shared::limits::{MESSAGE_BYTES_MAX, PIECE_BYTES_MAX, PIECES_MAX};
use dunlin_shared::time::{MonoMs, WallMs};
use dunlin_shared::varint;
use dunlin_shared::wire::{AgentControl, COLLECTOR_NAME, Hello, Item, Lane, Piece, WIRE_VERSION_MAX, WIRE_VERSION_MIN};
use quinn::{ClientConfig, Connection, SendStream, TransportConfig};
use tokio::task::JoinSet;

use super::ground::{Ground, endpoint};
use super::worker::Worker;

/// Rogues before these have other tasks.
const FIRST_ROGUE: usize = 2;
/// How often a byte comes.
const BYTE_EVERY: Duration = Duration::from_secs(60);
/// QUIC's own sign of life, well within the idle timeout.
const ALIVE_EVERY: Duration = Duration::from_secs(5);
/// Whoever was closed comes again after this.
const AGAIN: Duration = Duration::from_secs(3);
const EPOCH: Epoch = Epoch(5);

/// How far a connection goes before it trickles.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// A Hello that does not end.
    Hello,
    /// A message on every stream.
    Messages,
    /// Beside that, a frame on both lanes of which the last byte is missing.
    Frames,
}

const WAYS: [Way; 3] = [Way::Hello, Way::Messages, Way::Frames];

#[derive(Debug, Default)]
struct Counts {
    connected: AtomicU64,
    closed: AtomicU64,
}

pub(super) fn start(ground: &Ground<'_>) -> Result<Worker> {
    let socket = ground.socket()?;
    let target = ground.target.into();
    let mut peers = Vec::new();
    for node in ground.rogues.iter().skip(FIRST_ROGUE) {
        let authorities = vec![ground.authority.clone().into()];
        let identity = Identity { node: node.id, chain: vec![node.cert()], key: node.key(), authorities };
        let mut config = ClientConfig::new(client_config(&identity)?);
        let mut transport = TransportConfig::default();
        transport.keep_alive_interval(Some(ALIVE_EVERY));
        config.transport_config(Arc::new(transport));
        peers.push((node.id, config));
    }
    Worker::start_async("trickle", move |end| async move {
        let (endpoint, counts) = (endpoint(socket)?, Arc::<Counts>::default());
        let mut tasks = JoinSet::new();
        let total = peers.len();
        for ((node, config), way) in peers.into_iter().zip(WAYS.into_iter().cycle()) {
            let (endpoint, counts) = (endpoint.clone(), Arc::clone(&counts));
            tasks.spawn(async move {
                loop {
                    let Ok(connecting) = endpoint.connect_with(config.clone(), target, COLLECTOR_NAME) else { return };
                    if let Ok(connection) = connecting.await {
                        counts.connected.fetch_add(1, Relaxed);
                        // However it fails, the collector has closed it.
                        trickle(&connection, node, way).await.ok();
                        counts.closed.fetch_add(1, Relaxed);
                    }
                    tokio::time::sleep(AGAIN).await;
                }
            });
        }
        end.comes().await;
        tasks.shutdown().await;
        endpoint.close(0_u32.into(), b"");
        let (connected, closed) = (counts.connected.load(Relaxed), counts.closed.load(Relaxed));
        Ok(format!("{total} at a time; {connected} connections, {closed} of them closed by the collector"))
    })
}

/// A node, and that it was cut off for being slow.
pub(super) fn names(event: &Event, ground: &Ground<'_>) -> bool {
    let is_one = |node: &String| ground.rogues.iter().skip(FIRST_ROGUE).any(|rogue| rogue.id.to_string() == *node);
    let reason = event.more.get("reason").and_then(|reason| reason.as_str());
    event.kind == "node.cut_off" && reason == Some("too_slow") && event.node.as_ref().is_some_and(is_one)
}

async fn trickle(connection: &Connection, node: NodeId, way: Way) -> Result<()> {
    let (mut control, mut answers) = connection.open_bi().await?;
    let hello = hello(node);
    let (most, rest) = hello.split_at(hello.len() - 4);
    control.write_all(most).await?;
    let mut streams = Vec::new();
    if !matches!(way, Way::Hello) {
        control.write_all(rest).await?;
        answers.read_chunk(1, true).await?;
        for lane in [Lane::Live, Lane::Backlog] {
            let mut stream = connection.open_uni().await?;
            stream.write_all(&[lane as u8]).await?;
            if matches!(way, Way::Frames) {
                leave_unfinished(&mut stream).await?;
            }
            stream.write_all(&beginning()).await?;
            streams.push(stream);
        }
        let mut unnamed = connection.open_uni().await?;
        unnamed.write_all(&[]).await?;
        streams.push(unnamed);
    }
    streams.push(control);
    loop {
        tokio::select! {
            error = connection.closed() => return Err(error.into()),
            () = tokio::time::sleep(BYTE_EVERY) => {}
        }
        for stream in &mut streams {
            stream.write_all(&[0]).await?;
        }
    }
}

/// All pieces of the largest frame but the last.
async fn leave_unfinished(stream: &mut SendStream) -> Result<()> {
    let body = vec![0x55; PIECE_BYTES_MAX];
    for index in 0..PIECES_MAX - 1 {
        let piece = Piece { epoch: EPOCH, seq: Seq(1), index, count: PIECES_MAX, body: &body };
        stream.write_all(&Item::Inventory(piece).encode()).await?;
    }
    Ok(())
}

/// The length of a message as long as one may be, and nothing of it.
fn beginning() -> Vec<u8> {
    let mut bytes = Vec::new();
    varint::put(&mut bytes, MESSAGE_BYTES_MAX as u64);
    bytes
}

fn hello(node: NodeId) -> Vec<u8> {
    AgentControl::Hello(Hello {
        wire_min: WIRE_VERSION_MIN,
        wire_max: WIRE_VERSION_MAX,
        node,
        name: String::from("trickle"),
        agent_version: String::from("0"),
        boot_id: *node.bytes(),
        epoch: EPOCH,
        next_seq: Seq(1 << 40),
        interval_ms: 10_000,
        mono: MonoMs(0),
        wall: WallMs(0),
        spooled: Vec::new(),
        ended: Vec::new(),
    })
    .encode()
}
