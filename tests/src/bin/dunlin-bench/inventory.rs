//! What an agent costs a small, full server with everything on: 10 containers, 200 processes, 60 listening sockets; then
//! the same beside 2,000 processes. Three of Debian's own agents run beside it, over the same minutes.
//!
//! Memory is printed each minute. It is flat when the last third of the minutes has no more than the first: a minute of
//! warming up is before them, and ten of the hour. Bytes are those on the agent's wire, counted as in `wire.rs`.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use dunlin_tests::netns::Counters;
use dunlin_tests::pki::Authority;
use dunlin_tests::scratch::Scratch;
use dunlin_tests::site::{Collector, QUIC_PORT, committed};
use dunlin_tests::topology::{COLLECTOR, Direct};

use crate::Length;
use crate::peer::{self, Measured, PEERS, Place, play};
use crate::server::Server;
use crate::wire::Way;
use dunlin_tests::table::Table;

const PART: &str = "inventory";
const RSS_MIB: f64 = 6.0;
/// How far the mean of the last third of the minutes may be above that of the first. The kernel counts pages a
/// processor at a time, and is some tens of them late.
const RISE_KIB: f64 = 128.0;
/// No growth is promised after these; a short run has no more than that.
const WARM_MINUTES: usize = 10;
const BINARY_MB: f64 = 4.5;
const TICK_BYTES: f64 = 400.0;
const READY: Duration = Duration::from_secs(60);

struct Scale {
    tick: Duration,
    ticks_a_minute: u32,
    containers: usize,
    ports: usize,
    /// Ticks before anything is counted.
    before: u32,
    phases: [Phase; 2],
}

/// A stretch of minutes beside so many processes.
#[derive(Clone, Copy)]
struct Phase {
    processes: usize,
    minutes: u32,
    cpu_ms: f64,
    has_promised_rss: bool,
}

/// Whole groups of frames: five minutes have one keyframe.
const FULL: Scale = Scale {
    tick: Duration::from_secs(10),
    ticks_a_minute: 6,
    containers: 10,
    ports: 60,
    before: 6,
    phases: [
        Phase { processes: 200, minutes: 10, cpu_ms: 60.0, has_promised_rss: true },
        Phase { processes: 2_000, minutes: 5, cpu_ms: 250.0, has_promised_rss: false },
    ],
};
const HOUR: u32 = 60;
const SHORT: Scale = Scale {
    tick: Duration::from_secs(1),
    ticks_a_minute: 3,
    containers: 2,
    ports: 12,
    before: 2,
    phases: [
        Phase { processes: 120, minutes: 2, cpu_ms: 60.0, has_promised_rss: true },
        Phase { processes: 300, minutes: 1, cpu_ms: 250.0, has_promised_rss: false },
    ],
};

/// One program over one phase.
struct Course {
    /// At the end of each minute.
    rss_mib: Vec<f64>,
    cpu_before: Duration,
    cpu_ms_a_minute: f64,
}

pub(crate) fn measure(table: &mut Table, length: Length) -> Result<()> {
    let is_short = length == Length::Short;
    let mut scale = if is_short { SHORT } else { FULL };
    if length == Length::Hour {
        scale.phases[0].minutes = HOUR;
    }
    let scratch = Scratch::new("server")?;
    let net = Direct::new()?;
    let mut server = match Server::start(&net.agent, scale.containers) {
        Ok(server) => server,
        Err(error) if is_short => {
            table.note(PART, "left out, for there is no Docker", format!("{error:#}"));
            return Ok(());
        }
        Err(error) => return Err(error.context("make bench installs Docker: tests/scripts/prepare DIR engines")),
    };
    let authority = Authority::new()?;
    let collector = Collector::start(&net.collector, &authority)?;
    let place = Place { namespace: &net.agent, scratch: &scratch, tick: scale.tick, has_processes: true };
    let flags = ["--collect-sockets".to_owned(), server.socket().display().to_string()];
    let to = SocketAddr::from((COLLECTOR, QUIC_PORT));
    let mut measured = vec![peer::agent(peer::agent_binary(is_short)?, place, &authority, to, &flags)?];
    measured.extend(peer::start(&PEERS, place, (table, PART), is_short)?);
    server.listen(scale.ports)?;
    collector.wait_committed(2, READY)?;
    for phase in &scale.phases {
        server.crowd(phase.processes)?;
        play(&measured, scale.tick, scale.before)?;
        let census = server.census()?;
        let seen = ["containers", "ports", "groups", "units"].map(|kind| format!("{} {kind}", census.of(kind)));
        let what = format!("{} processes, {}, {} series", census.processes, seen.join(", "), census.series);
        table.note(PART, what, format!("{} minutes, a tick each {:?}", phase.minutes, scale.tick));
        let (frames, wire) = (committed(&collector.scrape()?), net.agent_counters()?);
        let courses = watch(&measured, &scale, phase)?;
        let (frames, wire_end) = (committed(&collector.scrape()?) - frames, net.agent_counters()?);
        for (one, course) in measured.iter().zip(&courses) {
            report(table, one, course, phase, is_short)?;
        }
        bytes(table, &wire, &wire_end, frames, is_short)?;
    }
    for one in &measured {
        size(table, one)?;
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "who waits for an hour wants to see something")]
fn watch(measured: &[Measured], scale: &Scale, phase: &Phase) -> Result<Vec<Course>> {
    let begin = |one: &Measured| {
        let cpu_before = if one.is_ours() { one.cpu()? } else { one.cpu().unwrap_or_default() };
        Ok(Course { rss_mib: Vec::new(), cpu_before, cpu_ms_a_minute: 0.0 })
    };
    let mut courses: Vec<Course> = measured.iter().map(begin).collect::<Result<_>>()?;
    let began = Instant::now();
    for minute in 1..=phase.minutes {
        play(measured, scale.tick, scale.ticks_a_minute)?;
        let minutes = began.elapsed().as_secs_f64() / 60.0;
        let mut line = format!("{} processes, minute {minute}:", phase.processes);
        for (one, course) in measured.iter().zip(&mut courses) {
            let (cpu, rss) = match one.cpu().and_then(|cpu| Ok((cpu, one.rss_mib()?))) {
                Ok(used) => used,
                // One of them ends at the first process whose name is no text.
                Err(_) if !one.is_ours() => {
                    line.push_str(&format!(" {} has ended;", one.name));
                    continue;
                }
                Err(error) => return Err(error),
            };
            course.cpu_ms_a_minute = (cpu - course.cpu_before).as_secs_f64() * 1e3 / minutes;
            course.rss_mib.push(rss);
            let cpu = course.cpu_ms_a_minute;
            line.push_str(&format!(" {} {rss:.2} MiB {cpu:.1} CPU-ms a minute;", one.name));
        }
        println!("{line}");
    }
    Ok(courses)
}

fn report(table: &mut Table, one: &Measured, course: &Course, phase: &Phase, short: bool) -> Result<()> {
    let (name, processes) = (one.name, phase.processes);
    let highest = course.rss_mib.iter().copied().fold(0.0, f64::max);
    let what = format!("{name}: RSS at its highest minute, {processes} processes");
    let cpu = format!("{name}: CPU, {processes} processes");
    let rise = format!("{name}: RSS of the last third of the minutes above that of the first");
    let settled = course.rss_mib.get(WARM_MINUTES..).filter(|rest| rest.len() > WARM_MINUTES);
    let (rise_kib, cpu_ms) = (rise_mib(settled.unwrap_or(&course.rss_mib)) * 1_024.0, course.cpu_ms_a_minute);
    if !one.is_ours() || short {
        table.note(PART, what, format!("{highest:.2} MiB"));
        table.note(PART, rise, format!("{rise_kib:.0} KiB"));
        table.note(PART, cpu, format!("{cpu_ms:.1} CPU-ms a minute"));
        return Ok(());
    }
    // Promised for a server of the first size; of the other its time is.
    match phase.has_promised_rss {
        true => table.promise(PART, &what, highest, RSS_MIB, "MiB"),
        false => table.note(PART, what, format!("{highest:.1} MiB")),
    }
    table.promise(PART, &rise, rise_kib, RISE_KIB, "KiB");
    table.promise(PART, &cpu, cpu_ms, phase.cpu_ms, "CPU-ms a minute");
    let peak = one.running.usage()?.rss_peak_kib;
    table.note(PART, format!("{name}: RSS at its highest since the start"), format!("{peak} KiB"));
    Ok(())
}

fn size(table: &mut Table, one: &Measured) -> Result<()> {
    if one.missed.get() > 0 {
        table.note(PART, format!("{}: pages that did not come in time", one.name), one.missed.get().to_string());
    }
    one.size((table, PART), BINARY_MB)
}

#[expect(clippy::cast_precision_loss, reason = "a few hundred frames")]
fn bytes(table: &mut Table, first: &Counters, last: &Counters, frames: u64, short: bool) -> Result<()> {
    let frames = (frames > 0).then_some(frames as f64).context("no frame was committed")?;
    let sent = Way::between(first.tx_bytes, last.tx_bytes, first.tx_packets, last.tx_packets);
    let received = Way::between(first.rx_bytes, last.rx_bytes, first.rx_packets, last.rx_packets);
    let each = (sent.bytes + received.bytes) / frames;
    let what = format!("both ways a tick over {frames:.0} ticks, IP and UDP headers included");
    if short {
        table.note(PART, what, format!("{each:.0} bytes"));
    } else {
        table.promise(PART, &what, each, TICK_BYTES, "bytes");
    }
    Ok(())
}

/// What the mean of the last third is above that of the first.
#[expect(clippy::cast_precision_loss, reason = "an hour has 60 minutes")]
fn rise_mib(minutes: &[f64]) -> f64 {
    let third = minutes.len().div_ceil(3);
    let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
    match (minutes.get(..third), minutes.get(minutes.len() - third..)) {
        (Some(first), Some(last)) if third > 0 => mean(last) - mean(first),
        _ => 0.0,
    }
}
