//! `kill -9` of the collector again and again under load: while it commits, starts, replays and rotates.

use std::thread::sleep;
use std::time::{Duration, SystemTime};

use anyhow::Result;

use crate::Plan;
use crate::load::Load;
use crate::report::{Report, Times};
use crate::site::{Site, judge_recovery};

/// A journal lasts for five minutes of the clock.
const SLOT_MS: u64 = 300_000;
/// What a start takes, about: a kill within it meets a replay.
const START_MS: u64 = 400;

pub(crate) fn run(plan: &Plan) -> Result<Report> {
    let (kills, agents, interval_s) = if plan.short { (4, 100, 1) } else { (200, 2_000, 2) };
    let mut random = plan.random(1);
    let mut report = Report::new("kill");
    let (mut times, mut at_start, mut at_rotation) = (Times::default(), 0, 0);
    let site = Site::new(agents, None)?;
    let mut collector = site.start_ready(&mut times)?;
    let load = Load::start(&site, interval_s)?;
    site.wait_up()?;
    for number in 0..kills {
        // The second kill of a short run, and every fifth of a long one, meets a collector that starts.
        if number > 0 && (number == 1 || random.below(5) == 0) {
            at_start += 1;
            sleep(Duration::from_millis(random.below(START_MS)));
        } else {
            if number > 0 {
                collector = {
                    drop(collector);
                    site.start_ready(&mut times)?
                };
            }
            let run_ms = if plan.short { 1_000 + random.below(1_000) } else { 2_000 + random.below(6_000) };
            let (wait_ms, rotates) = aim(run_ms, random.below(START_MS));
            at_rotation += usize::from(rotates);
            sleep(Duration::from_millis(wait_ms));
        }
        collector.kill9()?;
        collector = site.start()?;
    }
    drop(collector);
    let collector = site.start_ready(&mut times)?;
    site.wait_up()?;
    let aside = site.metrics()?.sum("dunlin_files_set_aside_total", &[]);
    report.expect(aside == 0.0, || format!("{aside} files were set aside, and none was damaged"));
    let outcome = load.finish(&mut report)?;
    site.stop_and_check(collector, &mut report)?;
    report.count("kills", kills);
    report.count("at_start", at_start);
    report.count("at_rotation", at_rotation);
    judge_recovery(&mut report, &times);
    outcome.judge(&mut report);
    outcome.verify(&site, &mut report)?;
    Ok(report)
}

/// How long to wait before the kill: to just behind the next rotation, when that is near.
fn aim(run_ms: u64, behind_ms: u64) -> (u64, bool) {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let now_ms = u64::try_from(now.as_millis()).unwrap_or_default();
    let to_rotation_ms = SLOT_MS - now_ms % SLOT_MS;
    if to_rotation_ms <= run_ms { (to_rotation_ms + behind_ms, true) } else { (run_ms, false) }
}
