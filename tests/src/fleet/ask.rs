//! Asks a collector's API at an even rate, in a mix as programs and people ask, and says how long answers took.
//!
//! A request is due at its own moment, whether or not the one before it is answered: what waits for a connection counts as
//! waiting, so that a collector that is slow does not slow those who measure it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use dunlin_collector::client::escaped;
use serde::Serialize;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::random::Random;
use crate::scratch;

/// The longest head of an answer.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Of the nodes, so many are asked for by their ids.
const NODES_MAX: usize = 1_000;

#[derive(Clone, Debug)]
pub struct AskPlan {
    pub http: SocketAddr,
    /// One that may read.
    pub token: String,
    pub requests_per_second: u32,
    pub duration: Duration,
    /// Each has one request at a time.
    pub connections: usize,
}

/// What is asked for, and of a hundred requests how many.
const MIX: [(&str, u64); 5] = [("events", 40), ("one node", 30), ("alerts", 20), ("50 nodes", 9), ("an hour", 1)];

#[derive(Clone, Debug, Serialize)]
pub struct Asked {
    pub requests: u64,
    pub requests_per_second: f64,
    /// Whatever was not a 200.
    pub failed: u64,
    pub all: Times,
    pub by_kind: Vec<(&'static str, Times)>,
    pub bytes: u64,
}

#[derive(Clone, Debug, Serialize)]
pub struct Times {
    pub median_ms: f64,
    pub p95_ms: f64,
    pub p99_ms: f64,
    pub longest_ms: f64,
}

/// What can be asked for, made before the first request is due.
struct Paths {
    newest: String,
    nodes: Vec<String>,
}

struct Shared {
    plan: AskPlan,
    paths: Paths,
    began: Instant,
    next: AtomicU64,
}

/// One connection's answers: of what kind, and after how many milliseconds.
#[derive(Default)]
struct Answers {
    times: Vec<(usize, f64)>,
    failed: u64,
    bytes: u64,
}

/// An open connection and what was read beyond the last answer.
struct Line {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// Must be called within a runtime.
pub async fn ask(plan: AskPlan) -> Result<Asked> {
    ensure!(
        scratch::is_test_address(plan.http.ip()),
        "{} is neither loopback nor in a namespace of the rig",
        plan.http
    );
    ensure!(plan.requests_per_second > 0 && plan.connections > 0, "nothing is asked");
    let paths = Paths::find(&plan).await?;
    let connections = plan.connections;
    let shared = Arc::new(Shared { plan, paths, began: Instant::now(), next: AtomicU64::new(0) });
    let tasks: Vec<_> = (0..connections).map(|_| tokio::spawn(answers(Arc::clone(&shared)))).collect();
    let mut all = Answers::default();
    for task in tasks {
        let part = task.await??;
        all.times.extend(part.times);
        all.failed += part.failed;
        all.bytes += part.bytes;
    }
    Ok(Asked::of(all, shared.began.elapsed()))
}

async fn answers(shared: Arc<Shared>) -> Result<Answers> {
    let mut line = Line::open(shared.plan.http).await?;
    let mut answers = Answers::default();
    loop {
        let number = shared.next.fetch_add(1, Relaxed);
        let due = Duration::from_secs(number) / shared.plan.requests_per_second;
        if due >= shared.plan.duration {
            return Ok(answers);
        }
        tokio::time::sleep_until((shared.began + due).into()).await;
        let (kind, path) = shared.paths.draw(number);
        let (status, body) = line.get(&path, &shared.plan).await?;
        answers.times.push((kind, (shared.began.elapsed() - due).as_secs_f64() * 1e3));
        answers.failed += u64::from(status != 200);
        answers.bytes += body.len() as u64;
    }
}

impl Paths {
    async fn find(plan: &AskPlan) -> Result<Self> {
        let mut line = Line::open(plan.http).await?;
        let mut list = async |path: String| -> Result<Value> {
            let (status, body) = line.get(&path, plan).await?;
            ensure!(status == 200, "{path} is answered by {status}: {}", String::from_utf8_lossy(&body));
            Ok(serde_json::from_slice(&body)?)
        };
        let nodes = list(format!("/api/v1/nodes?limit={NODES_MAX}")).await?;
        let nodes = nodes["items"].as_array().context("a list of nodes")?;
        let nodes: Vec<String> = nodes.iter().filter_map(|node| Some(escaped(node["id"].as_str()?))).collect();
        ensure!(!nodes.is_empty(), "there is no node to ask for");
        // A consumer that follows asks from where it was, which is near the end.
        let mut newest = String::new();
        for _ in 0..1_000 {
            let after = if newest.is_empty() { String::new() } else { format!("&after={newest}") };
            let page = list(format!("/api/v1/events?limit=1000{after}")).await?;
            let len = page["items"].as_array().map_or(0, Vec::len);
            let next = escaped(page["next"].as_str().context("a cursor")?);
            if len < 1_000 {
                break;
            }
            newest = next;
        }
        Ok(Self { newest, nodes })
    }

    /// Which kind, and its path.
    fn draw(&self, number: u64) -> (usize, String) {
        let mut random = Random::new(number);
        let mut part = random.below(100);
        let mut kind = 0;
        while part >= MIX[kind].1 {
            part -= MIX[kind].1;
            kind += 1;
        }
        let node = &self.nodes[usize::try_from(random.below(self.nodes.len() as u64)).unwrap_or(0)];
        let after = |word: &str, separator: char| match word {
            "" => String::new(),
            word => format!("{separator}after={word}"),
        };
        let path = match kind {
            0 => format!("/api/v1/events?limit=50{}", after(&self.newest, '&')),
            1 => format!("/api/v1/nodes/{node}"),
            2 => String::from("/api/v1/alerts?limit=50"),
            3 => format!("/api/v1/nodes?limit=50{}", after(node, '&')),
            _ => format!("/api/v1/nodes/{node}/series?metric=host_cpu_user_seconds&subject=host"),
        };
        (kind, path)
    }
}

impl Line {
    async fn open(http: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(http).await.with_context(|| format!("{http} takes no connection"))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::new() })
    }

    async fn get(&mut self, path: &str, plan: &AskPlan) -> Result<(u16, Vec<u8>)> {
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\n\r\n", plan.http, plan.token);
        self.stream.write_all(request.as_bytes()).await?;
        let head_len = loop {
            if let Some(end) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
            ensure!(self.buffer.len() < HEAD_BYTES_MAX, "the head of an answer does not end");
            self.more().await?;
        };
        let head = std::str::from_utf8(&self.buffer[..head_len]).context("a head that is text")?;
        let status = head.get(9..12).and_then(|code| code.parse().ok()).context("a status")?;
        let Some(len) = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
        }) else {
            bail!("{path} is answered without a length");
        };
        while self.buffer.len() < head_len + len {
            self.more().await?;
        }
        let body = self.buffer[head_len..head_len + len].to_vec();
        self.buffer.drain(..head_len + len);
        Ok((status, body))
    }

    async fn more(&mut self) -> Result<()> {
        let read = self.stream.read_buf(&mut self.buffer).await?;
        ensure!(read > 0, "the collector closed a connection");
        Ok(())
    }
}

impl Asked {
    fn of(answers: Answers, took: Duration) -> Self {
        let requests = answers.times.len() as u64;
        let of = |wanted: Option<usize>| {
            let times = answers.times.iter().filter(|(kind, _)| wanted.is_none_or(|wanted| wanted == *kind));
            Times::of(times.map(|(_, ms)| *ms).collect())
        };
        #[expect(clippy::cast_precision_loss, reason = "millions of requests")]
        let requests_per_second = requests as f64 / took.as_secs_f64();
        let by_kind = MIX.iter().enumerate().map(|(kind, (name, _))| (*name, of(Some(kind)))).collect();
        Self { requests, requests_per_second, failed: answers.failed, all: of(None), by_kind, bytes: answers.bytes }
    }
}

impl Times {
    /// Of none at all, nothing was in time.
    #[must_use]
    pub fn of(mut ms: Vec<f64>) -> Self {
        ms.sort_unstable_by(f64::total_cmp);
        let at = |per_mille: usize| {
            let place = (ms.len() * per_mille / 1_000).min(ms.len().saturating_sub(1));
            ms.get(place).copied().unwrap_or(f64::INFINITY)
        };
        Self { median_ms: at(500), p95_ms: at(950), p99_ms: at(990), longest_ms: at(1_000) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mix_is_as_it_says() {
        assert_eq!(MIX.iter().map(|(_, part)| part).sum::<u64>(), 100);
        let paths = Paths { newest: String::new(), nodes: vec![String::from("a"), String::from("b")] };
        let mut drawn = [0_u32; MIX.len()];
        for number in 0..10_000 {
            drawn[paths.draw(number).0] += 1;
        }
        for ((name, part), drawn) in MIX.iter().zip(drawn) {
            let off = (f64::from(drawn) - 100.0 * f64::from(u32::try_from(*part).expect("small"))).abs();
            assert!(off < 200.0, "{name}: {drawn}");
        }
    }

    #[test]
    fn quantiles_are_of_what_was_measured_and_none_is_never_in_time() {
        let times = Times::of((1..=1_000).map(f64::from).collect());
        assert_eq!((times.median_ms, times.p95_ms, times.longest_ms), (501.0, 951.0, 1_000.0));
        assert!(Times::of(Vec::new()).p95_ms.is_infinite());
    }
}
