//! What a frame costs in the journal, without a network: 10,000 nodes, 200-byte bodies, groups of 100 as
//! they come in 100 ms at 1,000 frames/s. CPU time and bytes written a frame, and how long commits take.

use std::path::Path;
use std::time::Instant;

use anyhow::Context;
use dunlin_collector::record::{Event, NodeKey, Pos, Record};
use dunlin_collector::store::Log;
use dunlin_shared::frame::{BodyKind, Frame};
use dunlin_shared::id::FrameId;
use dunlin_shared::time::WallMs;
use dunlin_shared::wire::Lane;
use dunlin_tests::scratch::Scratch;

use dunlin_tests::table::Table;

const PART: &str = "journal";
const NODES: u32 = 10_000;
const BODY_BYTES: usize = 200;
const GROUP: u64 = 100;
/// Five minutes at 1,000 frames/s.
const FRAMES: u64 = 300_000;

pub(crate) fn measure(table: &mut Table, short: bool) -> anyhow::Result<()> {
    let scratch = Scratch::new("journal")?;
    append(table, scratch.path(), if short { FRAMES / 10 } else { FRAMES })
}

fn append(table: &mut Table, dir: &Path, frames: u64) -> anyhow::Result<()> {
    let (mut log, _) = Log::open(dir, WallMs(0), Pos(0))?;
    log.rotate(WallMs(0), &[0; 400_000])?;
    let (cpu_before, written_before, began) = (cpu_us()?, written_bytes()?, Instant::now());
    let mut commits_us = Vec::new();
    for group in 0..frames / GROUP {
        log.begin()?;
        for n in group * GROUP..(group + 1) * GROUP {
            log.append(&frame(n)?)?;
        }
        let before = Instant::now();
        log.commit()?;
        commits_us.push(before.elapsed().as_secs_f64() * 1e6);
        log.checkpoint_if_due()?;
    }
    let per_frame = |total: u64| float(total) / float(frames);
    let took = began.elapsed();
    let mut note = |what: &str, measured: String| table.note(PART, what, measured);
    note("frames", format!("{frames} in groups of {GROUP}, {BODY_BYTES} bytes each, {NODES} nodes"));
    note("CPU a frame", format!("{:.2} us", per_frame(cpu_us()?.saturating_sub(cpu_before))));
    note("wall time a frame", format!("{:.2} us", took.as_secs_f64() * 1e6 / float(frames)));
    note("written a frame", format!("{:.0} bytes", per_frame(written_bytes()?.saturating_sub(written_before))));
    note("kept a frame", format!("{:.0} bytes", per_frame(log.size_bytes())));
    commits_us.sort_unstable_by(f64::total_cmp);
    for (name, percent) in [("median", 50), ("p99", 99), ("longest", 100)] {
        let at = (commits_us.len() * percent / 100).min(commits_us.len() - 1);
        note(&format!("commit, {name}"), format!("{:.2} ms", commits_us[at] / 1e3));
    }
    let bytes = log.size_bytes();
    let before = Instant::now();
    log.close()?;
    note("close", format!("{:.1} ms", before.elapsed().as_secs_f64() * 1e3));
    read_back(table, dir, frames, bytes)
}

fn read_back(table: &mut Table, dir: &Path, frames: u64, bytes: u64) -> anyhow::Result<()> {
    let mut note = |what: &str, measured: String| table.note(PART, what, measured);
    let before = Instant::now();
    let (log, opened) = Log::open(dir, WallMs(0), Pos(frames))?;
    anyhow::ensure!(opened.next_pos == Pos(frames + 1), "the log was not whole");
    note("open and verify", format!("{:.0} ms for {} MB", before.elapsed().as_secs_f64() * 1e3, bytes / 1_000_000));
    let before = Instant::now();
    let mut count = 0;
    for item in log.scan(Pos(1)) {
        item?;
        count += 1;
    }
    anyhow::ensure!(count == frames, "{count} of {frames} frames were read");
    note("scan", format!("{:.0} ms", before.elapsed().as_secs_f64() * 1e3));
    Ok(())
}

pub(crate) fn frame(n: u64) -> anyhow::Result<Record> {
    // Bytes that look like nothing, from a linear congruence.
    let mut state = n.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
    let mut body = Vec::with_capacity(BODY_BYTES);
    while body.len() < BODY_BYTES {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        body.extend_from_slice(&state.to_be_bytes());
    }
    let node = NodeKey(u32::try_from(n % u64::from(NODES))? + 1);
    let frame = Frame {
        id: FrameId::new(3, n / u64::from(NODES)),
        kind: if n < u64::from(NODES) { BodyKind::Key } else { BodyKind::Delta { back: 1 } },
        body,
    };
    let at = WallMs(1_795_255_200_000 + i64::try_from(n)?);
    Ok(Record { at, event: Event::Frame { node, lane: Lane::Live, frame } })
}

/// User and system time of this process; a tick of the kernel's account is 10 ms.
fn cpu_us() -> anyhow::Result<u64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let after_name = stat.rsplit(')').next().context("no name in /proc/self/stat")?;
    let times = after_name.split_whitespace().skip(11).take(2).map(str::parse::<u64>);
    let ticks: u64 = times.sum::<Result<_, _>>()?;
    Ok(ticks * 10_000)
}

/// What this process gave to `write`; on a tmpfs the kernel counts no block I/O.
fn written_bytes() -> anyhow::Result<u64> {
    let io = std::fs::read_to_string("/proc/self/io")?;
    let line = io.lines().find_map(|line| line.strip_prefix("wchar: ")).context("no wchar in /proc/self/io")?;
    Ok(line.trim().parse()?)
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
const fn float(n: u64) -> f64 {
    n as f64
}
