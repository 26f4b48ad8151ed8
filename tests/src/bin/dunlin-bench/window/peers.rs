//! The same recorded hour in the stores of others, those that Debian ships: what a sample takes there, all files counted.
//!
//! Each gets every sample with its own time, by its own importer, and then merges as far as it ever will.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use dunlin_shared::metric::{Metric, MetricId, by_id};
use dunlin_shared::sample::Subject;
use dunlin_shared::time::{MonoMs, WallMs};
use dunlin_tests::deadline::until;
use dunlin_tests::fleet::history::EPOCH;
use dunlin_tests::fleet::load::Load;
use dunlin_tests::http;
use dunlin_tests::process::Program;
use dunlin_tests::scratch::Scratch;
use dunlin_tests::tool;

use super::{HOUR_TICKS, INTERVAL_MS, PART, float};
use dunlin_tests::table::Table;

const LIMIT: Duration = Duration::from_secs(60);
/// A merge of some million samples takes seconds.
const MERGED: Duration = Duration::from_secs(120);
/// From 3-promises: at most half of what VictoriaMetrics takes.
const HALF: f64 = 0.5;

/// One series of one node, with a value for each tick that has one.
struct Series {
    metric: &'static Metric,
    labels: String,
    points: Vec<(WallMs, f64)>,
}

/// `ours` is what a sample of that hour takes here.
pub(super) fn measure(
    table: &mut Table,
    name: &str,
    (load, nodes): (&Load, usize),
    (begins, ours): (WallMs, f64),
    short: bool,
) -> Result<()> {
    let series = hour_of(load, nodes, begins);
    let samples: usize = series.iter().map(|series| series.points.len()).sum();
    ensure!(samples > 0, "nothing was recorded");
    let measured = [("prometheus", prometheus(&series)), ("victoria-metrics", victoria_metrics(&series))];
    for (peer, bytes) in measured {
        match bytes {
            Ok(bytes) => {
                let per_sample = float(bytes) / float(samples as u64);
                let what = format!("{name}: {peer}, a hundred samples of {nodes} nodes");
                table.note(PART, what, format!("{:.1} B", per_sample * 100.0));
                if peer == "victoria-metrics" {
                    let what = format!("{name}: sealed, hundredths of what {peer} takes");
                    table.promise(PART, &what, ours * 100.0 / per_sample, HALF * 100.0, "");
                }
            }
            Err(error) if short => table.note(PART, format!("{peer} is left out"), format!("{error:#}")),
            Err(error) => return Err(error.context("make bench installs the peers: tests/scripts/prepare DIR peers")),
        }
    }
    Ok(())
}

/// In the order of metrics, as OpenMetrics wants them.
fn hour_of(load: &Load, nodes: usize, begins: WallMs) -> Vec<Series> {
    let mut all: Vec<Series> = Vec::new();
    for node in 0..nodes {
        let host = load.host(node, EPOCH);
        let mut known = std::collections::HashMap::<(Subject, u16), usize>::new();
        for tick in 0..HOUR_TICKS {
            let since_ms = tick * INTERVAL_MS + INTERVAL_MS * node as u64 / nodes as u64;
            let wall = begins.plus(since_ms.cast_signed());
            for (subject, metric, steps) in host.sample(tick, MonoMs(since_ms), wall).rows() {
                let Some(metric) = by_id(MetricId(metric.raw())) else { continue };
                let at = *known.entry((subject.clone(), metric.id.0)).or_insert_with(|| {
                    let labels = format!("node=\"fleet-{node}\",subject={:?}", subject.to_string());
                    all.push(Series { metric, labels, points: Vec::new() });
                    all.len() - 1
                });
                all[at].points.push((wall, metric.step.value(*steps)));
            }
        }
    }
    all.sort_by_key(|series| series.metric.id.0);
    all
}

/// Blocks as its server makes them, of all samples at once.
fn prometheus(series: &[Series]) -> Result<u64> {
    let scratch = Scratch::new("prometheus")?;
    let path = scratch.join("hour.txt");
    let mut text = BufWriter::new(File::create(&path)?);
    let mut last = None;
    for Series { metric, labels, points } in series {
        if last.replace(metric.id) != Some(metric.id) {
            writeln!(text, "# TYPE {} unknown", metric.name)?;
        }
        for (at, value) in points {
            writeln!(text, "{}{{{labels}}} {value} {}.{:03}", metric.name, at.0 / 1_000, at.0 % 1_000)?;
        }
    }
    writeln!(text, "# EOF")?;
    text.into_inner()?.sync_all()?;
    let blocks = scratch.join("blocks");
    let words = ["tsdb".as_ref(), "create-blocks-from".as_ref(), "openmetrics".as_ref(), path.as_os_str()];
    tool::run("promtool", &[&words[..], &[blocks.as_os_str()]].concat())?;
    bytes_below(&blocks)
}

/// Without its caches.
fn victoria_metrics(series: &[Series]) -> Result<u64> {
    let scratch = Scratch::new("victoria")?;
    let data = scratch.join("data");
    let at = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?.local_addr()?;
    let program = Program::at(tool::find("victoria-metrics")?).log(scratch.join("log"));
    let words = [format!("-storageDataPath={}", data.display()), format!("-httpListenAddr={at}")];
    let running = program.args(words).arg("-retentionPeriod=100y").start()?;
    let page = |path: &str| http::get(at, path, LIMIT).ok().filter(|page| page.status == 200);
    until("an answer", LIMIT, || page("/health")).with_context(|| running.log_text())?;
    for some in series.chunks(1_000) {
        let mut body = String::new();
        for Series { metric, labels, points } in some {
            for (time, value) in points {
                writeln!(body, "{}{{{labels}}} {value} {}", metric.name, time.0)?;
            }
        }
        post(at, "/api/v1/import/prometheus", body.as_bytes())?;
    }
    let stored = |name: &str| {
        let page = page("/metrics")?;
        let of_storage = |line: &&str| line.starts_with(name) && line.contains("type=\"storage/");
        let lines = page.body.lines().filter(of_storage);
        Some(lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>())
    };
    let samples: usize = series.iter().map(|series| series.points.len()).sum();
    let is_stored =
        || (stored("vm_rows{")? >= float(samples as u64) && stored("vm_pending_rows{")? == 0.0).then_some(());
    let ask = |path: &str| page(path).with_context(|| format!("{path} is refused"));
    ask("/internal/force_flush")?;
    until("all samples on its disk", MERGED, is_stored)?;
    ask("/internal/force_merge")?;
    // A month has a part of its own.
    let is_merged = || (stored("vm_parts{")? <= 2.0 && stored("vm_active_merges{")? == 0.0).then_some(());
    until("all merges to end", MERGED, is_merged)?;
    // While it runs: Debian's does not always come to a clean end.
    Ok(bytes_below(&data.join("data"))? + bytes_below(&data.join("indexdb"))?)
}

fn post(at: SocketAddr, path: &str, body: &[u8]) -> Result<()> {
    let mut stream = TcpStream::connect_timeout(&at, LIMIT)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    let head =
        format!("POST {path} HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all(head.as_bytes())?;
    stream.write_all(body)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    match answer.split(' ').nth(1) {
        Some(status) if status.starts_with('2') => Ok(()),
        _ => bail!("{path}: {}", answer.lines().next().unwrap_or("no answer")),
    }
}

fn bytes_below(dir: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(dir).with_context(|| dir.display().to_string())? {
        let entry = entry?;
        let about = entry.metadata()?;
        bytes += if about.is_dir() { bytes_below(&entry.path())? } else { about.len() };
    }
    Ok(bytes)
}
