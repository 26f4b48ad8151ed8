//! A consumer of the feed that is killed again and again: by long poll and by stream in turn, behind what happened and at
//! its end. What it used is all there is, in order, and at most the batch at each kill twice.

use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use dunlin_collector::api::socket_path;
use dunlin_collector::client::{Client, Target, Trust, escaped};
use dunlin_collector::store::{Control, ControlBatch, NewEvent, Ordered, StateLock};
use dunlin_shared::id::NodeId;
use dunlin_shared::time::WallMs;
use dunlin_tests::consumer::{self, Consumer};
use dunlin_tests::deadline::until;
use dunlin_tests::pki::Fleet;
use dunlin_tests::process::{Program, Running};
use dunlin_tests::random::Random;
use serde_json::Value;

use crate::Plan;
use crate::report::{Report, Times};
use crate::site::Site;

/// Events that the past is written in.
const WRITTEN_AT_ONCE: usize = 1_000;
/// A consumer is killed after it has used so many, about: some are killed in their first batch.
const USED_MAX: u64 = 1_500;
/// At the end of the feed they come one by one.
const USED_LIVE_MAX: u64 = 30;
const PROGRESS: Duration = Duration::from_secs(60);

pub(crate) fn run(plan: &Plan) -> Result<Report> {
    let (written, live) = if plan.short { (9_800, 200) } else { (98_000, 2_000) };
    let mut random = plan.random(16);
    let mut report = Report::new("feed");
    let site = Site::new(4, None)?;
    write_past(&site, written)?;
    let collector = site.start_ready(&mut Times::default())?;
    let client = Client::new(Target::Unix(socket_path(&site.state)), None, &Trust::default())?;
    let consumer = Consumer { used: site.scratch.join("used"), cursor: site.scratch.join("cursor") };
    let mut kills = 0;
    while consumer::count(&consumer.used) < written + kills {
        let events = (1 + random.below(USED_MAX), written + kills + 1);
        kill_after(&site, &consumer, kills, events, &|| false)?;
        kills += 1;
    }
    let behind = kills;
    happen(&site, &client, live, |is_over| {
        kill_after(&site, &consumer, kills, (1 + random.below(USED_LIVE_MAX), usize::MAX), is_over)?;
        kills += 1;
        Ok(())
    })?;
    let feed: Vec<String> = cursors(&client)?;
    ensure!(feed.len() >= written + live, "{} events are in the feed", feed.len());
    finish(&site, &consumer, kills, &feed)?;
    match consumer::used_again(&feed, &consumer.runs()?) {
        Ok(again) => report.count("used_again", again),
        Err(error) => report.violation(format!("{error:#}")),
    }
    site.stop_and_check(collector, &mut report)?;
    report.count("events", feed.len());
    report.count("kills", kills);
    report.count("at_the_end", kills - behind);
    Ok(report)
}

/// A consumer runs until it has used so many events, or has written so many lines, or there will be no more; and is killed.
fn kill_after(
    site: &Site,
    consumer: &Consumer,
    number: usize,
    (events, lines): (u64, usize),
    is_over: &dyn Fn() -> bool,
) -> Result<()> {
    let enough = (consumer::count(&consumer.used) + 1 + usize::try_from(events)?).min(lines);
    let mut running = start(site, consumer, number)?;
    let is_there = || (is_over() || consumer::count(&consumer.used) >= enough).then_some(());
    until("more events", PROGRESS, is_there).with_context(|| running.log_text())?;
    running.kill9()?;
    Ok(())
}

/// One more, that nobody kills before it has used everything.
fn finish(site: &Site, consumer: &Consumer, number: usize, feed: &[String]) -> Result<()> {
    let mut running = start(site, consumer, number)?;
    let last = feed.last().context("there are events")?;
    let is_there = || std::fs::read_to_string(&consumer.cursor).is_ok_and(|cursor| cursor == *last).then_some(());
    until("the last event", PROGRESS, is_there).with_context(|| running.log_text())?;
    running.kill9()?;
    Ok(())
}

fn start(site: &Site, consumer: &Consumer, number: usize) -> Result<Running> {
    let program = Program::ours("dunlin-tests", "dunlin-consumer")?.arg("--state").arg(&site.state);
    let program = program.arg("--used").arg(&consumer.used).arg("--cursor").arg(&consumer.cursor);
    Ok(if number.is_multiple_of(2) { program } else { program.arg("--stream") }.start()?)
}

/// So many events while `work` is done again and again; it is told when there will be no more.
fn happen(
    site: &Site,
    client: &Client,
    events: usize,
    mut work: impl FnMut(&dyn Fn() -> bool) -> Result<()>,
) -> Result<()> {
    let node: NodeId = Fleet::read(&site.pki.join("fleet.bin"))?.nodes.first().context("a node")?.id;
    let path = format!("/api/v1/nodes/{}/maintenance", escaped(&node.to_string()));
    std::thread::scope(|scope| {
        let making = scope.spawn(|| -> Result<()> {
            for number in 0..events {
                let method = if number.is_multiple_of(2) { "POST" } else { "DELETE" };
                client.order(method, &path, (method == "POST").then(|| serde_json::json!({})).as_ref())?;
            }
            Ok(())
        });
        while !making.is_finished() {
            work(&|| making.is_finished())?;
        }
        making.join().map_err(|_| anyhow!("the thread that makes events panicked"))?
    })
}

/// Every cursor, from the start of the feed to its end.
fn cursors(client: &Client) -> Result<Vec<String>> {
    let (mut all, mut after): (Vec<String>, _) = (Vec::new(), String::new());
    loop {
        let page: Value = client.get(&format!("/api/v1/events?limit=1000{after}"))?;
        let items = page["items"].as_array().context("a page has items")?;
        if items.is_empty() {
            return Ok(all);
        }
        all.extend(items.iter().filter_map(|event| event["cursor"].as_str()).map(str::to_owned));
        after = format!("&after={}", page["next"].as_str().context("a page has a next")?);
    }
}

/// What happened before, as if the collector had told it.
fn write_past(site: &Site, events: usize) -> Result<()> {
    let _lock = StateLock::take(&site.state)?;
    let (mut control, _) = Control::open(&site.state.join("control.db"), WallMs(1), 1)?;
    let mut random = Random::new(7);
    for first in (0..events).step_by(WRITTEN_AT_ONCE) {
        let event = |number: usize| {
            let body = format!("{{\"name\":\"host-{}\",\"number\":{number}}}", random.below(10_000));
            NewEvent { at: WallMs(1_700_000_000_000), kind: "node.up", node: None, body }
        };
        let events = (first..events.min(first + WRITTEN_AT_ONCE)).map(event).collect();
        // As of orders: of the log nothing is claimed.
        control.apply_with(&ControlBatch::default(), &Ordered { events, ..Ordered::default() })?;
    }
    Ok(control.close()?)
}
