//! What a program waits for that asks the API about a large fleet, part of which sends frames meanwhile.
//!
//! Each request is what `dunlin` does: a connection of its own to a real socket, a bearer token, an answer that is
//! read whole and parsed. Walks along the cursor must show every node exactly once.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use dunlin_agent::clock::Clock;
use dunlin_collector::client::{Client, escaped, tokens};
use dunlin_collector::shape::{Node, NodePage, SeriesPage};
use dunlin_tests::fleet::history::History;
use dunlin_tests::fleet::load::Load;
use serde_json::json;

use crate::enrol::request;
use dunlin_tests::machine::SmallBuffers;
use dunlin_tests::rig::Rig;
use dunlin_tests::table::Table;

const PART: &str = "api";
const PAGE: usize = 50;
const PAGE_P95_MS: f64 = 20.0;
/// One node of so many bears the label that is filtered by.
const LABELLED: usize = 10;
const LABEL: (&str, &str) = ("rack", "r7");
/// An hour of ticks as far apart as they are by default.
const HOUR_TICKS: u64 = 360;
const SERIES: &str = "metric=host_cpu_user_seconds&subject=host";
const LIMIT: Duration = Duration::from_secs(90);

struct Scale {
    /// Nodes that send frames, and how often.
    agents: u32,
    interval: &'static str,
    interval_ms: u64,
    /// So many of them did so before: for an hour of the default interval, or for as many ticks.
    aged: usize,
    requests: usize,
}

const FULL: Scale = Scale { agents: 1_000, interval: "10s", interval_ms: 10_000, aged: 250, requests: 2_000 };
const SHORT: Scale = Scale { agents: 20, interval: "1s", interval_ms: 1_000, aged: 5, requests: 200 };

/// How long each request took.
#[derive(Default)]
struct Times {
    sorted_ms: Vec<f64>,
}

pub(crate) fn measure(table: &mut Table, mut rig: Rig<'_>, short: bool) -> Result<()> {
    let scale = if short { SHORT } else { FULL };
    let _buffers = SmallBuffers::set()?;
    let admin = rig.admin()?;
    let labelled = label(&rig, &admin)?;
    let client = rig.client(tokens::create(&admin, &request("viewer", None))?.token)?;
    let agents = usize::try_from(scale.agents)?;
    let aged = History {
        nodes: scale.aged,
        ticks: HOUR_TICKS,
        interval_ms: scale.interval_ms,
        until: Clock::start().wall(),
        load: Load::made_up(1, 150),
        ahead_ms: Vec::new(),
    };
    rig.live_through(&aged)?;
    rig.play(agents, scale.interval, &["--ramp", "1s", "--start-epoch", "2"])?;
    // Facts and a first tick of each.
    rig.wait_metric("dunlin_frames_committed_total", f64::from(2 * scale.agents), LIMIT)?;

    let nodes = rig.nodes().len();
    table.note(PART, format!("nodes, {agents} of them sending a frame each {}", scale.interval), nodes.to_string());
    let before = rig.look()?;
    let all = rig.nodes().iter().map(|node| node.id.to_string()).collect();
    let pages = walk(&client, "", &all, scale.requests)?;
    let filter = format!("&label={}={}", LABEL.0, LABEL.1);
    let some = walk(&client, &filter, &labelled.ids, scale.requests)?;
    let after = rig.look()?;
    table.note(PART, "label a node: median, p95", labelled.times.shown(&[500, 950]));
    pages.report(table, &format!("a page of {PAGE}"));
    some.report(table, &format!("a page of {PAGE} that bear a label, {} do", labelled.ids.len()));
    let requests = u32::try_from(pages.sorted_ms.len() + some.sorted_ms.len())?;
    let cpu = (after.usage.cpu - before.usage.cpu) / requests.max(1);
    table.note(PART, "collector's CPU a page, its frames included", format!("{} us", cpu.as_micros()));

    let one = single(&client, &rig, scale.requests)?;
    table.note(PART, "a node by its id: median, p95, p99", one.shown(&[500, 950, 990]));
    let (series, points) = series(&client, &rig, &scale)?;
    let what = format!("an hour of a series, {points} points or more: median, p95, p99");
    table.note(PART, what, series.shown(&[500, 950, 990]));
    let (report, _) = rig.finish()?;
    let frames = format!("{} stored, {} acknowledged", report.frames + report.inventories, report.acknowledged);
    table.note(PART, "verified: every acknowledged frame exactly once", frames);
    Ok(())
}

struct Labelled {
    ids: BTreeSet<String>,
    times: Times,
}

/// An operator labels a part of the fleet, spread over all of it, one order after the other.
fn label(rig: &Rig<'_>, admin: &Client) -> Result<Labelled> {
    let (mut ids, mut times) = (BTreeSet::new(), Times::default());
    let body = json!({ "labels": { LABEL.0: LABEL.1 } });
    for node in rig.nodes().iter().step_by(LABELLED) {
        let id = node.id.to_string();
        let began = Instant::now();
        admin.order("PATCH", &format!("/api/v1/nodes/{}", escaped(&id)), Some(&body))?;
        times.take(began);
        ids.insert(id);
    }
    Ok(Labelled { ids, times: times.sorted() })
}

/// Whole walks from the first page to the last, until there were enough requests.
fn walk(client: &Client, filter: &str, expected: &BTreeSet<String>, requests: usize) -> Result<Times> {
    let mut times = Times::default();
    while times.sorted_ms.len() < requests {
        let (mut seen, mut items, mut after) = (BTreeSet::new(), 0, None::<String>);
        loop {
            let cursor = after.map_or_else(String::new, |after| format!("&after={}", escaped(&after)));
            let began = Instant::now();
            let page: NodePage = client.get(&format!("/api/v1/nodes?limit={PAGE}{filter}{cursor}"))?;
            times.take(began);
            ensure!(page.items.len() == PAGE || page.next.is_none(), "a page of {} before the end", page.items.len());
            items += page.items.len();
            seen.extend(page.items.into_iter().map(|node| node.id));
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        ensure!(items == expected.len() && seen == *expected, "a walk shows {items} nodes of {}", expected.len());
    }
    Ok(times.sorted())
}

fn single(client: &Client, rig: &Rig<'_>, requests: usize) -> Result<Times> {
    let mut times = Times::default();
    // A prime step, so that neighbours are far apart.
    for node in rig.nodes().iter().cycle().step_by(7_919).take(requests) {
        let id = node.id.to_string();
        let began = Instant::now();
        let shown: Node = client.get(&format!("/api/v1/nodes/{}", escaped(&id)))?;
        times.take(began);
        ensure!(shown.id == id, "asked for {id} and got {}", shown.id);
    }
    Ok(times.sorted())
}

/// Of the nodes that have an hour behind them, one after the other. The least points that an answer had.
fn series(client: &Client, rig: &Rig<'_>, scale: &Scale) -> Result<(Times, usize)> {
    let (mut times, mut least) = (Times::default(), usize::MAX);
    for node in rig.nodes().iter().take(scale.aged).cycle().take(scale.requests) {
        let began = Instant::now();
        let page: SeriesPage =
            client.get(&format!("/api/v1/nodes/{}/series?{SERIES}", escaped(&node.id.to_string())))?;
        times.take(began);
        least = least.min(page.items.iter().map(|series| series.points.len()).sum());
    }
    // What is a rate has a point less than ticks, and the hour goes on while it is asked for.
    ensure!(least as u64 >= HOUR_TICKS * 9 / 10, "{least} points of {HOUR_TICKS} ticks");
    Ok((times.sorted(), least))
}

impl Times {
    fn take(&mut self, began: Instant) {
        self.sorted_ms.push(began.elapsed().as_secs_f64() * 1e3);
    }

    fn sorted(mut self) -> Self {
        self.sorted_ms.sort_unstable_by(f64::total_cmp);
        self
    }

    /// No request at all is no promise kept.
    fn quantile_ms(&self, per_mille: usize) -> f64 {
        let last = self.sorted_ms.len().saturating_sub(1);
        let at = (self.sorted_ms.len() * per_mille / 1_000).min(last);
        self.sorted_ms.get(at).copied().unwrap_or(f64::INFINITY)
    }

    fn shown(&self, per_mille: &[usize]) -> String {
        let quantile = |&per_mille: &usize| format!("{:.1} ms", self.quantile_ms(per_mille));
        per_mille.iter().map(quantile).collect::<Vec<_>>().join(", ")
    }

    fn report(&self, table: &mut Table, what: &str) {
        let count = self.sorted_ms.len();
        table.note(PART, format!("{what}: median, p99 of {count} requests"), self.shown(&[500, 990]));
        table.promise(PART, &format!("{what}: p95"), self.quantile_ms(950), PAGE_P95_MS, "ms");
    }
}
