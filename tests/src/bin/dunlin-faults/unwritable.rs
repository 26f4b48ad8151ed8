//! A disk that takes nothing for a while: full, or read-only. The collector says so, stays alive, keeps every node
//! up, claims nothing, and goes on by itself when the disk does.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dunlin_tests::deadline::until;
use dunlin_tests::disk::Disk;
use dunlin_tests::fleet::oracle::Oracle;
use dunlin_tests::fleet::verify::verify;
use dunlin_tests::process::Running;
use dunlin_tests::strace::Fault;
use dunlin_tests::window::is_sealed;

use crate::Plan;
use crate::load::Load;
use crate::report::{Report, Times};
use crate::site::{READY_PROMISE, STOP_LIMIT, Site};
use crate::window::{Past, freeze_at_work, wait_done};

const DISK_MIB: u32 = 256;
/// A past and what is made of it.
const SEALED_DISK_MIB: u32 = 1_024;
const SEALED_SERIES: usize = 200;
/// How often it may be seen at work before.
const LATER_MAX: u64 = 30;
/// A WAL that has been folded is written from its beginning again, and a full disk shows only at its old end: 4 MiB
/// at some 200 kB a second.
const NOTICED_LIMIT: Duration = Duration::from_secs(90);
/// A collector that cannot start, or go on, has seconds to say so.
const END_LIMIT: Duration = Duration::from_secs(20);
/// Between two looks over HTTP.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// A failure that repeats is said at every power of two: some ten times in a minute for each of a few failures.
const COMPLAINTS_MAX: usize = 30;
const NOT_STORED: &str = "dunlin_frames_not_stored_total";

pub(crate) fn full(plan: &Plan) -> Result<Report> {
    let (lasts, agents) = if plan.short { (6, 100) } else { (20, 500) };
    let mut report = Report::new("full");
    let disk = Disk::new(DISK_MIB)?;
    let site = Site::new(agents, Some(&disk))?;
    let collector = site.start_ready(&mut Times::default())?;
    let load = Load::start(&site, 1)?;
    site.wait_up()?;
    disk.fill()?;
    endure(&site, Duration::from_secs(lasts), &mut report)?;
    disk.free()?;
    recover(&site, &mut report)?;
    settle(&site, collector, load, &mut report)?;
    Ok(report)
}

/// The kernel lets nobody make a file system read-only under a file that is written, but by an error, after which it
/// has to be mounted anew. So the three parts are: writing calls that fail as they would, the error, and a start.
pub(crate) fn readonly(plan: &Plan) -> Result<Report> {
    let (lasts, agents) = if plan.short { (5, 50) } else { (20, 100) };
    let mut report = Report::new("readonly");
    let disk = Disk::new(DISK_MIB)?;
    let site = Site::new(agents, Some(&disk))?;
    let mut collector = site.start_ready(&mut Times::default())?;
    let load = Load::start(&site, 1)?;
    site.wait_up()?;

    let fault = Fault::new("pwrite64,pwritev,ftruncate,fallocate,unlink,rename", "EROFS").attach(collector.pid())?;
    endure(&site, Duration::from_secs(lasts), &mut report)?;
    fault.detach()?;
    recover(&site, &mut report)?;

    disk.fail_read_only()?;
    // Either is right: a failed sync ends it, and a failed write does not.
    let ended = until("the end, or 503", END_LIMIT, || {
        std::thread::sleep(LOOK_EVERY);
        let ended = collector.wait_exit(Duration::ZERO).ok();
        let refuses = || site.ready().is_ok_and(|(status, _)| status == 503).then_some(None);
        ended.map(Some).or_else(refuses)
    })?;
    if let Some(status) = ended {
        report.expect(status.code().is_some_and(|code| code != 0), || format!("it ended with {status}"));
        let words = site.last_words();
        report.expect(words.len() == 1, || format!("it went with {} last lines: {words:?}", words.len()));
    }
    report.count("on_error", if ended.is_some() { "exits" } else { "stays" });
    collector.kill9().context("a collector on a failed disk")?;
    disk.restore()?;
    disk.read_only()?;
    let before = site.last_words().len();
    let status = site.start()?.wait_exit(END_LIMIT)?;
    report.expect(status.code() == Some(1), || format!("a start on a read-only disk ends with {status}"));
    let words = site.last_words().split_off(before);
    let plain = words.len() == 1 && words[0].contains("ead-only");
    report.expect(plain, || format!("a start on a read-only disk says {words:?}"));
    disk.read_write()?;
    let collector = site.start_ready(&mut Times::default())?;
    settle(&site, collector, load, &mut report)?;
    Ok(report)
}

/// Read-only while it seals and merges, with agents that come and go on. What is opened by name finds a read-only file
/// system; writing calls on what is open fail as they would.
pub(crate) fn seal_readonly(plan: &Plan) -> Result<Report> {
    let (rounds, nodes, lasts) = if plan.short { (1, 12, 6) } else { (10, 40, 12) };
    let mut random = plan.random(14);
    let mut report = Report::new("seal-ro");
    let disk = Disk::new(SEALED_DISK_MIB)?;
    let site = Site::new(nodes, Some(&disk))?;
    let past = Past::write(&site, plan, SEALED_SERIES)?;
    let (mut failures, mut looked, mut frames) = (0.0, 0, 0);
    for round in 0..rounds {
        past.restore(&site.state)?;
        let mut collector = site.start_ready(&mut Times::default())?;
        let load = Load::in_epoch(&site, &format!("load-{round}"), 1, 2)?;
        freeze_at_work(&site, &collector, &BTreeSet::new(), random.below(LATER_MAX))?;
        looked += usize::from(!is_sealed(&site.state)?);
        let shut = disk.shut(&site.state)?;
        let calls = "pwrite64,pwritev,ftruncate,fallocate,unlink,rename";
        let fault = Fault::new(calls, "EROFS").attach(collector.pid())?;
        collector.cont()?;
        site.wait_up()?;
        let mut part = Report::new("seal-ro");
        endure(&site, Duration::from_secs(lasts), &mut part)?;
        failures += site.metrics()?.sum("dunlin_window_failures_total", &[]);
        fault.detach()?;
        shut.open()?;
        recover(&site, &mut part)?;
        wait_done(&site, &mut collector)?;
        site.wait_up()?;
        let outcome = load.finish(&mut part)?;
        let aside = site.metrics()?.sum("dunlin_files_set_aside_total", &[]);
        part.expect(aside == 0.0, || format!("{aside} files were set aside, and none was damaged"));
        site.stop_and_check(collector, &mut part)?;
        let oracles = [past.oracle.clone(), Oracle::read(&outcome.oracle)?];
        let found = verify(&site.state, &oracles, &past.fleet)?;
        part.expect(found.is_clean(), || format!("{} {:?}", found.violations, found.shown));
        frames += found.frames;
        report.blame(&format!("round {round}: "), part);
    }
    report.count("rounds", rounds);
    report.count("met_work", looked);
    report.count("failures", failures);
    report.count("frames", frames);
    report.expect(looked > 0 && failures > 0.0, || "no round met the thread at work".to_owned());
    Ok(report)
}

/// Waits for the trouble to be said, then sees that everything else goes on for as long as it lasts.
fn endure(site: &Site, lasts: Duration, report: &mut Report) -> Result<()> {
    let (said, noticed) = site.wait_status(503, NOTICED_LIMIT)?;
    report.count("noticed", format!("{:.1}s", noticed.as_secs_f64()));
    report.expect(said.contains("nothing is stored"), || format!("/-/ready says {said:?}"));
    let before = site.metrics()?.sum(NOT_STORED, &[]);
    let all = site.agents;
    let lines_before = complaints(site).len();
    let mut silent = 0;
    let found = site.watch(lasts, |site| {
        if !site.healthy() {
            return Ok(Some("/-/healthy is not 200".to_owned()));
        }
        let scrape = site.metrics()?;
        let nodes = |state: &str| scrape.sum("dunlin_nodes", &[("state", state)]);
        silent = silent.max(all - site.nodes("up")?.min(all));
        Ok((nodes("down") > 0.0).then(|| format!("{} nodes are down", nodes("down"))))
    })?;
    if let Some(found) = found {
        report.violation(found);
    }
    report.count("not_up", silent);
    report.expect(silent == 0, || format!("{silent} of {all} nodes were not up while nothing was stored"));
    let after = site.metrics()?.sum(NOT_STORED, &[]);
    report.count("given_back", after);
    report.expect(after > before, || format!("{NOT_STORED} went from {before} to {after}"));
    let lines = complaints(site).split_off(lines_before);
    report.expect(lines.len() <= COMPLAINTS_MAX, || {
        let some: Vec<_> = lines.iter().step_by(lines.len() / 4).collect();
        format!("{} lines were logged about one trouble, such as {some:?}", lines.len())
    });
    ensure!(site.ready()?.0 == 503, "the trouble ended by itself");
    Ok(())
}

/// That the machine had no time for the collector is another trouble.
fn complaints(site: &Site) -> Vec<String> {
    let is_complaint = |line: &&str| {
        (line.starts_with("ERROR") || line.starts_with(" WARN")) && !line.contains("the collector stood still")
    };
    site.log_text().lines().filter(is_complaint).map(str::to_owned).collect()
}

fn recover(site: &Site, report: &mut Report) -> Result<()> {
    let (_, took) = site.wait_status(200, READY_PROMISE * 6)?;
    report.count("recovered", format!("{:.1}s", took.as_secs_f64()));
    report.expect(took <= READY_PROMISE, || format!("it recovered only after {took:?}"));
    Ok(())
}

fn settle(site: &Site, mut collector: Running, load: Load, report: &mut Report) -> Result<()> {
    site.wait_up()?;
    let outcome = load.finish(report)?;
    let aside = site.metrics()?.sum("dunlin_files_set_aside_total", &[]);
    report.expect(aside == 0.0, || format!("{aside} files were set aside, and none was damaged"));
    let status = collector.terminate(STOP_LIMIT)?;
    report.expect(status.success(), || format!("a clean stop ends with {status}"));
    site.check(report);
    outcome.judge(report);
    outcome.verify(site, report)
}
