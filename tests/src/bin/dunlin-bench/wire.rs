//! Bytes on the wire for one idle host, as the kernel counts them on a veth, both directions.
//!
//! IP and UDP headers, acknowledgements and heartbeats are in; the 14 bytes of Ethernet that the kernel
//! counts with each packet are taken off. What the host measures is a recording of a real one.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dunlin_tests::fleet::recording::Recording;
use dunlin_tests::netns::Counters;
use dunlin_tests::topology::{COLLECTOR, Direct};

use dunlin_tests::rig::{Place, Rig};
use dunlin_tests::table::Table;

const PART: &str = "wire";
const TICK_BYTES: f64 = 400.0;
const ETHERNET_BYTES: u64 = 14;
pub(crate) const RECORDING: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/data/idle-host.txt");

struct Scale {
    interval: &'static str,
    /// Frames until handshake and first keyframe are past.
    before: f64,
    /// Frames that are measured: a whole group, so that exactly one keyframe is among them wherever
    /// the count begins.
    frames: f64,
    limit: Duration,
}

const FULL: Scale = Scale { interval: "10s", before: 3.0, frames: 30.0, limit: Duration::from_secs(400) };
const SHORT: Scale = Scale { interval: "1s", before: 5.0, frames: 30.0, limit: Duration::from_secs(90) };

pub(crate) fn measure(table: &mut Table, short: bool) -> Result<()> {
    let scale = if short { SHORT } else { FULL };
    let recording = Recording::read(Path::new(RECORDING))?;
    let net = Direct::new()?;
    let place = Place {
        quic: SocketAddr::from((COLLECTOR, 9737)),
        http: SocketAddr::from(([127, 0, 0, 1], 9738)),
        collector: Some(&net.collector),
        fleet: Some(&net.agent),
    };
    let mut rig = Rig::start(1, place)?;
    rig.play(1, scale.interval, &["--sockets", "1", "--recording", RECORDING])?;
    let frames = "dunlin_frames_received_total";
    rig.wait_metric(frames, scale.before, scale.limit)?;
    let (first, before) = (net.agent_counters()?, rig.look()?.scrape.sum(frames, &[]));
    rig.wait_metric(frames, before + scale.frames, scale.limit)?;
    let (last, after) = (net.agent_counters()?, rig.look()?.scrape.sum(frames, &[]));
    rig.finish()?;

    ensure!(after > before, "no frame arrived");
    let ticks = after - before;
    let sent = Way::between(first.tx_bytes, last.tx_bytes, first.tx_packets, last.tx_packets);
    let received = Way::between(first.rx_bytes, last.rx_bytes, first.rx_packets, last.rx_packets);
    let both = sent.bytes + received.bytes;
    let what = format!("{} series of a recorded host, a tick each {}", recording.series(), scale.interval);
    table.note(PART, what, format!("{ticks:.0} ticks"));
    for (name, way) in [("agent to collector", &sent), ("collector to agent", &received)] {
        let each = format!("{:.0} bytes in {:.2} packets", way.bytes / ticks, way.packets / ticks);
        table.note(PART, format!("{name}, a tick"), each);
    }
    let largest = largest(&first, &last);
    table.note(PART, "counted on the veth, Ethernet included", largest.context("no counter moved")?);
    table.promise(PART, "both ways a tick, IP and UDP headers included", both / ticks, TICK_BYTES, "bytes");
    Ok(())
}

/// What went one way.
pub(crate) struct Way {
    pub(crate) bytes: f64,
    packets: f64,
}

impl Way {
    #[expect(clippy::cast_precision_loss, reason = "a few thousand bytes")]
    pub(crate) const fn between(first: u64, last: u64, first_packets: u64, last_packets: u64) -> Self {
        let packets = last_packets - first_packets;
        Self { bytes: (last - first - packets * ETHERNET_BYTES) as f64, packets: packets as f64 }
    }
}

fn largest(first: &Counters, last: &Counters) -> Option<String> {
    let (sent, received) = (last.tx_bytes - first.tx_bytes, last.rx_bytes - first.rx_bytes);
    (sent + received > 0).then(|| format!("{sent} out, {received} in"))
}
