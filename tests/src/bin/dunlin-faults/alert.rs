//! `kill -9` of a collector whose rules fire and are resolved all the time: between the commit of frames and that of what
//! follows from them, at any other moment, and while it starts.
//!
//! Beside it an engine that is never killed reads the same journals by the same rules. After each kill the feed on disk
//! holds exactly what that engine decided up to the position that stands beside it; after each start it holds the rest.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use dunlin_collector::api::socket_path;
use dunlin_collector::client::{Client, Target, Trust};
use dunlin_collector::engine::alert::{AlertChange, AlertState};
use dunlin_collector::engine::{Effect, Engine};
use dunlin_collector::ingest::Replay;
use dunlin_collector::record::Pos;
use dunlin_collector::rules;
use dunlin_collector::store::{ControlReader, EventRow, Reader};
use dunlin_shared::rule::Rule;
use dunlin_shared::time::WallMs;
use dunlin_tests::deadline::until;
use dunlin_tests::strace::Held;
use rustix::process::Signal;
use serde_json::Value;

use crate::Plan;
use crate::load::Load;
use crate::report::{Report, Times};
use crate::site::{Site, judge_recovery};

/// What a start takes, about: a kill within it meets a replay.
const START_MS: u64 = 400;
const AGAIN: Duration = Duration::from_secs(60);
/// Received bytes grow by about 4,000 in a tick. A rule holds while they are within a band, each node at its own time:
/// for six ticks, and then for six ticks none does.
const BAND_BYTES: u64 = 24_000;
/// Names of rules that read nothing but the frame at hand: a restart makes no difference to them.
const DRILL: &str = "drill-";
const PAGE: usize = 1_000;

pub(crate) fn run(plan: &Plan) -> Result<Report> {
    let (rounds, agents, bands) = if plan.short { (5, 30, 60) } else { (200, 150, 400) };
    let mut random = plan.random(15);
    let mut report = Report::new("alert-kill");
    let (mut times, mut at_start, mut held) = (Times::default(), 0, 0);
    let site = Site::new(agents, None)?;
    let dir = write_rules(&site, bands)?;
    let flags = ["--rules-dir", dir.to_str().context("a path of ours is UTF-8")?];
    let mut watch = Watch::new(&dir)?;
    let mut began = Instant::now();
    let mut collector = site.start_with(&flags)?;
    let load = Load::start(&site, 1)?;
    site.wait_up()?;
    for round in 0..rounds {
        if round % 5 == 4 {
            at_start += 1;
            sleep(Duration::from_millis(random.below(START_MS)));
        } else {
            collector.wait_ready(site.http, AGAIN)?;
            if round > 0 {
                times.note(began.elapsed());
            }
            watch.judge_feed(&site, &mut report)?;
            wait_frames(&site)?;
            sleep(Duration::from_millis(random.below(1_500)));
            if round % 2 == 0 {
                held += 1;
                let pipeline = Held::at_write(collector.pid(), "pipeline")?;
                sleep(Duration::from_millis(700 + random.below(500)));
                // Whoever holds a thread hears of its end first: without an end of that, nobody hears of the whole.
                collector.signal(Signal::KILL)?;
                drop(pipeline);
            }
        }
        collector.kill9()?;
        watch.judge_disk(&site, &mut report)?;
        began = Instant::now();
        collector = site.start_with(&flags)?;
    }
    collector.wait_ready(site.http, AGAIN)?;
    times.note(began.elapsed());
    watch.judge_feed(&site, &mut report)?;
    let outcome = load.finish(&mut report)?;
    site.stop_and_check(collector, &mut report)?;
    let untold = watch.untold;
    watch.judge_disk(&site, &mut report)?;
    report.expect(watch.untold == untold, || String::from("a clean stop leaves something untold"));
    report.count("kills", rounds);
    report.count("at_start", at_start);
    report.count("held", held);
    report.expect(watch.met >= held, || format!("{} kills met something untold, of {held} that were to", watch.met));
    watch.count(&mut report);
    judge_recovery(&mut report, &times);
    outcome.judge(&mut report);
    outcome.verify(&site, &mut report)?;
    Ok(report)
}

/// Most agents are back and have sent a frame.
fn wait_frames(site: &Site) -> Result<()> {
    let least = f64::from(u32::try_from(site.agents)?) * 0.8;
    let came = || (site.metrics().ok()?.sum("dunlin_frames_committed_total", &[]) >= least).then_some(());
    Ok(until("frames of most agents", AGAIN, came)?)
}

/// Bands that each node passes once, one that it is in and out of until it flaps, and one with a memory.
fn write_rules(site: &Site, bands: u64) -> Result<PathBuf> {
    let dir = site.scratch.join("rules.d");
    fs::create_dir(&dir)?;
    let mut text = format!(
        "[[rule]]\nname = \"{DRILL}flaps\"\nwhen = 'host_load1 > 0.26'\nclear = '< 0.24'\nsummary = \"x\"\n
[[rule]]\nname = \"window\"\nwhen = 'max(host_load1, 10s) > 0.3'\nkeep_firing_for = \"5s\"\nsummary = \"x\"\n"
    );
    for band in 0..bands {
        let from = band * 2 * BAND_BYTES;
        let to = from + BAND_BYTES;
        let pending = if band % 3 == 0 { "for = \"2s\"\n" } else { "" };
        text.push_str(&format!(
            "\n[[rule]]\nname = \"{DRILL}{band}\"\nwhen = 'net_received_bytes > {from}B and net_received_bytes < {to}B'\n\
             {pending}severity = \"info\"\nsummary = \"{{name}} of {{node}} is at {{value}}\"\n"
        ));
    }
    fs::write(dir.join("drill.toml"), text)?;
    Ok(dir)
}

/// One transition, as the feed tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Told {
    kind: String,
    id: String,
    rule: String,
}

/// What the feed has told so far, and the engine that is never killed.
struct Watch {
    engine: Engine,
    replay: Replay,
    next: Pos,
    /// What it decided of drills, and from which record it follows.
    decided: Vec<(Pos, Told)>,
    /// The number of the last event that was read from disk.
    last: u64,
    told: Vec<Told>,
    /// Of those, how many are drills.
    drills: usize,
    open: BTreeMap<String, bool>,
    kinds: BTreeMap<String, usize>,
    /// Decided and not told at a kill, and kills that met something of it.
    untold: usize,
    met: usize,
}

impl Watch {
    fn new(dir: &Path) -> Result<Self> {
        let book = rules::load(dir).map_err(|lines| anyhow!("{}", lines.join("\n")))?;
        let rules: Vec<Arc<Rule>> = book.rules.to_vec();
        let mut engine = Engine::default();
        drop(engine.set_rules(WallMs(0), rules));
        Ok(Self {
            engine,
            replay: Replay::default(),
            next: Pos(0),
            decided: Vec::new(),
            last: 0,
            told: Vec::new(),
            drills: 0,
            open: BTreeMap::new(),
            kinds: BTreeMap::new(),
            untold: 0,
            met: 0,
        })
    }

    /// Nobody writes the state.
    fn judge_disk(&mut self, site: &Site, report: &mut Report) -> Result<()> {
        self.follow_log(&site.state.join("window"))?;
        let reader = ControlReader::open(&site.state.join("control.db"))?;
        loop {
            let rows = reader.events(self.last, PAGE)?;
            if rows.is_empty() {
                break;
            }
            rows.iter().for_each(|row| self.take(row, report));
        }
        let applied = reader.applied_pos()?;
        let due = self.decided.partition_point(|(pos, _)| *pos <= applied);
        let told: Vec<&Told> = self.told.iter().filter(|told| told.is_drill()).collect();
        let decided: Vec<&Told> = self.decided[..due].iter().map(|(_, told)| told).collect();
        if let Some(difference) = differs(&told, &decided) {
            report.violation(format!("up to position {}: {difference}", applied.0));
        }
        self.drills = told.len();
        let untold = self.decided.len() - due;
        self.untold += untold;
        self.met += usize::from(untold > 0);
        let mut rows: Vec<String> = reader
            .open_alerts()?
            .iter()
            .filter(|row| row.state == AlertState::Firing)
            .map(|row| row.id.to_string())
            .collect();
        rows.sort();
        let open: Vec<String> = self.open.iter().filter(|(_, is_open)| **is_open).map(|(id, _)| id.clone()).collect();
        report.expect(rows == open, || {
            format!("{} alerts fire by the feed and {} by their rows", open.len(), rows.len())
        });
        Ok(())
    }

    /// Over HTTP, from its start: what was told stands as it stood, and all that was decided before the start follows.
    fn judge_feed(&self, site: &Site, report: &mut Report) -> Result<()> {
        let client = Client::new(Target::Unix(socket_path(&site.state)), None, &Trust::default())?;
        let (mut heard, mut count, mut after) = (Vec::new(), 0, String::new());
        loop {
            let page: Value = client.get(&format!("/api/v1/events?limit={PAGE}{after}"))?;
            let items = page["items"].as_array().context("a page has items")?;
            for event in items {
                count += 1;
                let number = event["cursor"].as_str().and_then(|cursor| cursor.rsplit_once('-')?.1.parse::<u64>().ok());
                report.expect(number == Some(count), || format!("cursor {} is that of event {count}", event["cursor"]));
                heard.extend(Told::read(event["kind"].as_str().unwrap_or_default(), event));
            }
            if items.is_empty() {
                break;
            }
            after = format!("&after={}", page["next"].as_str().context("a page has a next")?);
        }
        let first: Vec<&Told> = heard.iter().take(self.told.len()).collect();
        if let Some(difference) = differs(&first, &self.told.iter().collect::<Vec<_>>()) {
            report.violation(format!("what was told before a restart: {difference}"));
        }
        let drills: Vec<&Told> = heard.iter().filter(|told| told.is_drill()).collect();
        let decided: Vec<&Told> = self.decided.iter().map(|(_, told)| told).collect();
        let due = &drills[..drills.len().min(decided.len())];
        if let Some(difference) = differs(due, &decided) {
            report.violation(format!("after a restart: {difference}"));
        }
        Ok(())
    }

    fn follow_log(&mut self, window: &Path) -> Result<()> {
        for found in Reader::new(window).scan(self.next)? {
            let (pos, record) = found?;
            let reading = self.replay.reading(&record).map_err(|refusal| anyhow!("row {}: {refusal}", pos.0))?;
            for effect in self.engine.apply(pos, &record, reading) {
                let Effect::Alert(change) = &effect else { continue };
                let (AlertChange::Fired(alert, _) | AlertChange::Flaps(alert) | AlertChange::Resolved(alert)) =
                    &**change
                else {
                    continue;
                };
                let kind = change.event().context("each of these is told")?.to_owned();
                let told = Told { kind, id: alert.id.to_string(), rule: alert.rule.name.to_string() };
                self.decided.extend(Some((pos, told)).filter(|(_, told)| told.is_drill()));
            }
            self.next = pos.next();
        }
        ensure!(self.next > Pos(0), "the log is empty");
        Ok(())
    }

    /// The numbers of events have no hole, and each alert fires once and is resolved once at most.
    fn take(&mut self, row: &EventRow, report: &mut Report) {
        report.expect(row.id == self.last + 1, || format!("event {} follows event {}", row.id, self.last));
        self.last = row.id;
        let body = serde_json::from_str(&row.body).unwrap_or_default();
        let Some(told) = Told::read(&row.kind, &body) else { return };
        let before = self.open.get(&told.id).copied();
        let is_right = match told.kind.as_str() {
            "alert.firing" => before.is_none(),
            _ => before == Some(true),
        };
        report.expect(is_right, || format!("{told:?} is told of an alert that is {before:?}"));
        self.open.insert(told.id.clone(), told.kind != "alert.resolved");
        *self.kinds.entry(told.kind.clone()).or_default() += 1;
        self.told.push(told);
    }

    fn count(&self, report: &mut Report) {
        let of = |kind: &str| self.kinds.get(kind).copied().unwrap_or(0);
        report.count("met", self.met);
        report.count("untold_at_kills", self.untold);
        report.count("events", self.last);
        report.count("fired", of("alert.firing"));
        report.count("resolved", of("alert.resolved"));
        report.count("flapping", of("alert.flapping"));
        report.count("as_judged_without_kills", self.drills);
        report.expect(of("alert.resolved") > 0, || String::from("nothing was resolved"));
    }
}

impl Told {
    fn read(kind: &str, body: &Value) -> Option<Self> {
        let alert = kind.starts_with("alert.").then(|| body.get("alert")).flatten()?;
        let text = |key: &str| Some(alert.get(key)?.as_str()?.to_owned());
        Some(Self { kind: kind.to_owned(), id: text("id")?, rule: text("rule")? })
    }

    fn is_drill(&self) -> bool {
        self.rule.starts_with(DRILL)
    }
}

/// Where two lists part, if they do.
fn differs(told: &[&Told], decided: &[&Told]) -> Option<String> {
    if told == decided {
        return None;
    }
    let at = told.iter().zip(decided).take_while(|(told, decided)| told == decided).count();
    let (lens, places) = ((told.len(), decided.len()), (told.get(at), decided.get(at)));
    Some(format!("{} were told and {} decided; at {at} stand {:?} and {:?}", lens.0, lens.1, places.0, places.1))
}
