//! Faults of the thread that seals, merges and drops: killed, cut off from power, on a full disk, with a sync that fails.
//!
//! A past of some hours is written as journals, and the collector starts on it again and again: it seals from its first
//! moment on, and is hit within it. After each fault every frame of the past is there once, with its content, wherever it
//! stands; at the end all of it is sealed.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, ensure};
use dunlin_collector::store::{self, Files, Level};
use dunlin_shared::time::WallMs;
use dunlin_tests::disk::Disk;
use dunlin_tests::fleet::history::{History, write};
use dunlin_tests::fleet::load::Load;
use dunlin_tests::fleet::oracle::Oracle;
use dunlin_tests::fleet::verify::verify;
use dunlin_tests::pki::Fleet;
use dunlin_tests::process::Running;
use dunlin_tests::random::Random;
use dunlin_tests::strace::Fault;
use dunlin_tests::window::is_sealed;

use crate::Plan;
use crate::report::{Report, Times};
use crate::retention;
use crate::site::{STOP_LIMIT, Site, copy_dir, judge_recovery};

const INTERVAL_MS: u64 = 10_000;
const SERIES: usize = 60;
const DISK_MIB: u32 = 512;
/// A second or two; where others build it has a tenth of a processor, and sealing is behind everybody.
pub(crate) const DONE_LIMIT: Duration = Duration::from_secs(600);
const END_LIMIT: Duration = Duration::from_secs(60);

/// A past, to be started on again and again.
pub(crate) struct Past {
    kept: PathBuf,
    pub(crate) fleet: Fleet,
    pub(crate) oracle: Oracle,
}

impl Past {
    /// Into the site's state, and a copy of it beside.
    pub(crate) fn write(site: &Site, plan: &Plan, series: usize) -> Result<Self> {
        // Two hours that are merged, and some minutes of the third.
        let ticks = 2 * 360 + 90;
        let fleet = Fleet::read(&site.pki.join("fleet.bin"))?;
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
        let now = i64::try_from(since.as_millis())?;
        let until = WallMs(now - now.rem_euclid(3_600_000) + 600_000).min(WallMs(now - 60_000));
        let load = Load::made_up(plan.seed, series);
        let history = History { nodes: site.agents, ticks, interval_ms: INTERVAL_MS, until, load, ahead_ms: vec![] };
        let oracle = write(&site.state, &fleet, &history)?;
        let kept = site.scratch.join("kept");
        copy_dir(&site.state, &kept)?;
        Ok(Self { kept, fleet, oracle })
    }

    /// The state as it was before anything was sealed, and on the disk.
    pub(crate) fn restore(&self, state: &Path) -> Result<()> {
        fs::remove_dir_all(state)?;
        copy_dir(&self.kept, state)?;
        rustix::fs::syncfs(File::open(state)?)?;
        Ok(())
    }

    /// How long a collector takes from its start until all of it is sealed and merged. The state is as before then.
    pub(crate) fn time(&self, site: &Site) -> Result<Duration> {
        let began = Instant::now();
        let mut collector = site.start()?;
        wait_done(site, &mut collector)?;
        let took = began.elapsed();
        collector.kill9()?;
        self.restore(&site.state)?;
        Ok(took)
    }

    /// Every frame, once. The collector has ended.
    fn judge(&self, site: &Site, report: &mut Report, when: &str) -> Result<()> {
        let found = verify(&site.state, std::slice::from_ref(&self.oracle), &self.fleet)?;
        report
            .expect(found.is_clean() && found.frames > 0, || format!("{when}: {} {:?}", found.violations, found.shown));
        Ok(())
    }
}

/// Files that are under way, and parts that stand beside what was made of them: whoever was killed leaves such behind, so
/// that only what was not there before tells of work.
pub(crate) fn under_way(state: &Path) -> Result<BTreeSet<String>> {
    let window = state.join("window");
    let mut found = BTreeSet::new();
    for level in Level::ALL {
        let path = window.join(format!("{}.new", level.as_str()));
        if let Ok(about) = fs::metadata(&path) {
            found.insert(format!("{} {} {} {}", path.display(), about.ino(), about.mtime(), about.mtime_nsec()));
        }
    }
    let superseded = Files::list(&window)?.superseded;
    found.extend(superseded.iter().map(|name| name.path().display().to_string()));
    Ok(found)
}

/// Has it stand still with a file under way, at the first such moment that is seen or so many later; or when it is done.
pub(crate) fn freeze_at_work(site: &Site, collector: &Running, before: &BTreeSet<String>, later: u64) -> Result<()> {
    let end = Instant::now() + DONE_LIMIT;
    let mut seen = 0;
    loop {
        collector.stop()?;
        seen += u64::from(!under_way(&site.state)?.is_subset(before));
        if seen > later || is_sealed(&site.state)? {
            return Ok(());
        }
        collector.cont()?;
        ensure!(Instant::now() < end, "it did not come to work: {}", site.log_text());
        sleep(Duration::from_millis(1));
    }
}

/// Lets a collector come to the end of it.
pub(crate) fn wait_done(site: &Site, collector: &mut Running) -> Result<()> {
    let end = Instant::now() + DONE_LIMIT;
    while !is_sealed(&site.state)? {
        ensure!(collector.wait_exit(Duration::ZERO).is_err(), "the collector ended: {}", collector.log_text());
        ensure!(Instant::now() < end, "not sealed and merged after {DONE_LIMIT:?}: {}", site.log_text());
        sleep(Duration::from_millis(50));
    }
    Ok(())
}

pub(crate) fn kill(plan: &Plan) -> Result<Report> {
    let (kills, nodes) = if plan.short { (6, 8) } else { (200, 40) };
    let mut random = plan.random(9);
    let mut report = Report::new("seal-kill");
    let site = Site::new(nodes, None)?;
    let past = Past::write(&site, plan, SERIES)?;
    let takes = past.time(&site)?;
    let (mut at_work, mut rounds) = (0, 0);
    let mut times = Times::default();
    for number in 0..kills {
        if rounds == 0 || is_sealed(&site.state)? {
            past.restore(&site.state)?;
            rounds += 1;
        }
        let before = under_way(&site.state)?;
        let mut collector = site.start()?;
        // Every other one is sure to meet work, the first of them the first of it.
        if number % 2 == 0 {
            freeze_at_work(&site, &collector, &before, random.below(number + 1))?;
        } else {
            hit_within(takes, &mut random);
        }
        collector.kill9()?;
        at_work += usize::from(!under_way(&site.state)?.is_subset(&before));
        past.judge(&site, &mut report, &format!("after kill {number}"))?;
    }
    finish(&site, &past, &mut times, &mut report)?;
    report.count("kills", kills);
    report.count("pasts", rounds);
    report.count("met_work", at_work);
    report.expect(at_work > 0, || "no kill met the thread at work".to_owned());
    retention::kill(plan, &mut report)?;
    Ok(report)
}

pub(crate) fn power(plan: &Plan) -> Result<Report> {
    let (cuts, nodes) = if plan.short { (3, 8) } else { (50, 40) };
    let mut random = plan.random(10);
    let mut report = Report::new("seal-power");
    let disk = Disk::new(DISK_MIB)?;
    let site = Site::new(nodes, Some(&disk))?;
    let past = Past::write(&site, plan, SERIES)?;
    let takes = past.time(&site)?;
    let (mut unfinished, mut rounds) = (0, 0);
    let mut times = Times::default();
    for number in 0..cuts {
        if rounds == 0 || is_sealed(&site.state)? {
            past.restore(&site.state)?;
            rounds += 1;
        }
        let mut collector = site.start()?;
        hit_within(takes, &mut random);
        disk.power_cut()?;
        collector.kill9()?;
        disk.restore()?;
        unfinished += usize::from(!is_sealed(&site.state)?);
        site.check(&mut report);
        past.judge(&site, &mut report, &format!("after cut {number}"))?;
    }
    finish(&site, &past, &mut times, &mut report)?;
    report.count("cuts", cuts);
    report.count("pasts", rounds);
    report.count("met_work", unfinished);
    report.expect(unfinished > 0, || "no cut met the thread at work".to_owned());
    Ok(report)
}

/// The disk is full while it seals: it says so, goes on in everything else, and comes to its end when there is room.
pub(crate) fn full(plan: &Plan) -> Result<Report> {
    let (rounds, nodes) = if plan.short { (1, 8) } else { (10, 40) };
    let mut random = plan.random(11);
    let mut report = Report::new("seal-full");
    let disk = Disk::new(DISK_MIB)?;
    let site = Site::new(nodes, Some(&disk))?;
    let past = Past::write(&site, plan, SERIES)?;
    let mut times = Times::default();
    let mut failures = 0.0;
    // With so little to keep free nothing is shed: what is lost then is lost by the fault.
    let room = ["--retention-bytes", "64MiB"];
    for round in 0..rounds {
        past.restore(&site.state)?;
        let mut collector = site.start_with(&room)?;
        collector.wait_ready(site.http, DONE_LIMIT)?;
        sleep(Duration::from_millis(random.below(200)));
        disk.fill()?;
        let failed = |site: &Site| Ok::<_, anyhow::Error>(site.metrics()?.sum("dunlin_window_failures_total", &[]));
        if !is_sealed(&site.state)? {
            let end = Instant::now() + DONE_LIMIT;
            while failed(&site)? < 1.0 && !is_sealed(&site.state)? && Instant::now() < end {
                sleep(Duration::from_millis(50));
            }
            failures += failed(&site)?;
        }
        report.expect(site.healthy(), || format!("/-/healthy is not 200 on a full disk, round {round}"));
        disk.free()?;
        wait_done(&site, &mut collector)?;
        let status = collector.terminate(STOP_LIMIT)?;
        report.expect(status.success(), || format!("a clean stop ends with {status}"));
        site.check(&mut report);
        past.judge(&site, &mut report, &format!("after round {round}"))?;
    }
    finish(&site, &past, &mut times, &mut report)?;
    report.count("rounds", rounds);
    report.count("failures", failures);
    report.expect(failures > 0.0, || "no round met the thread at work".to_owned());
    Ok(report)
}

/// A sync of a sealed file or of its directory fails: the collector ends at once and says why; the next start makes it
/// anew from what is there.
pub(crate) fn fsync(plan: &Plan) -> Result<Report> {
    let (rounds, nodes) = if plan.short { (1, 8) } else { (20, 40) };
    let mut random = plan.random(12);
    let mut report = Report::new("seal-fsync");
    let site = Site::new(nodes, None)?;
    let past = Past::write(&site, plan, SERIES)?;
    let mut times = Times::default();
    let (mut hit, mut words) = (0, 0);
    for round in 0..rounds {
        past.restore(&site.state)?;
        // The log is synced by fdatasync, which goes through.
        let fault = Fault::new("fsync", "EIO");
        let mut collector = site.start()?;
        collector.wait_ready(site.http, DONE_LIMIT)?;
        sleep(Duration::from_millis(random.below(100)));
        let fault = fault.attach(collector.pid())?;
        let end = Instant::now() + END_LIMIT;
        let status = loop {
            if let Ok(status) = collector.wait_exit(Duration::from_millis(50)) {
                break Some(status);
            }
            if is_sealed(&site.state)? || Instant::now() > end {
                break None;
            }
        };
        fault.detach()?;
        match status {
            Some(status) => {
                hit += 1;
                report.expect(status.code().is_some_and(|code| code != 0), || format!("it ended with {status}"));
                let said = site.last_words().split_off(words);
                words += said.len();
                let plain = said.len() == 1 && said[0].contains("could not be synced");
                report.expect(plain, || format!("it went with these words: {said:?}"));
            }
            None => drop(collector.kill9().context("a collector that had nothing left to sync")?),
        }
        past.judge(&site, &mut report, &format!("after round {round}"))?;
    }
    finish(&site, &past, &mut times, &mut report)?;
    report.count("rounds", rounds);
    report.count("hit", hit);
    report.expect(hit > 0, || "no sync of the window failed".to_owned());
    Ok(report)
}

/// Anywhere from its first moment to its last.
pub(crate) fn hit_within(takes: Duration, random: &mut Random) {
    let takes_us = u64::try_from(takes.as_micros()).unwrap_or(u64::MAX);
    sleep(Duration::from_micros(random.below(takes_us.max(1))));
}

/// A last run comes to its end; nothing is missing, and nothing was set aside.
fn finish(site: &Site, past: &Past, times: &mut Times, report: &mut Report) -> Result<()> {
    let mut collector = site.start_ready(times)?;
    wait_done(site, &mut collector)?;
    let aside = site.metrics()?.sum("dunlin_files_set_aside_total", &[]);
    report.expect(aside == 0.0, || format!("{aside} files were set aside, and none was damaged"));
    site.stop_and_check(collector, report)?;
    past.judge(site, report, "at the end")?;
    let sealed = Files::list(&site.state.join("window"))?.sealed;
    let bytes: u64 = sealed.iter().map(|name| store::bytes_of(name.path())).sum();
    report.count("sealed_files", sealed.len());
    report.count("sealed_bytes", bytes);
    judge_recovery(report, times);
    Ok(())
}
