//! Power cuts of the collector's disk under load: what was not synced is gone, and nothing acknowledged is.

use std::thread::sleep;
use std::time::Duration;

use anyhow::Result;
use dunlin_tests::disk::Disk;

use crate::Plan;
use crate::load::Load;
use crate::report::{Report, Times};
use crate::site::{Site, judge_recovery};

/// Room for some minutes of frames.
const DISK_MIB: u32 = 1_024;

pub(crate) fn run(plan: &Plan) -> Result<Report> {
    let (cuts, agents, interval_s) = if plan.short { (2, 100, 1) } else { (20, 1_000, 1) };
    let mut random = plan.random(2);
    let mut report = Report::new("power");
    let mut times = Times::default();
    let disk = Disk::new(DISK_MIB)?;
    let site = Site::new(agents, Some(&disk))?;
    let mut collector = site.start_ready(&mut times)?;
    let load = Load::start(&site, interval_s)?;
    site.wait_up()?;
    for _ in 0..cuts {
        let run_ms = if plan.short { 1_000 + random.below(1_500) } else { 2_000 + random.below(6_000) };
        sleep(Duration::from_millis(run_ms));
        disk.power_cut()?;
        collector.kill9()?;
        disk.restore()?;
        site.check(&mut report);
        collector = site.start_ready(&mut times)?;
        let aside = site.metrics()?.sum("dunlin_files_set_aside_total", &[]);
        report.expect(aside == 0.0, || format!("{aside} files were set aside, and none was damaged"));
    }
    site.wait_up()?;
    let outcome = load.finish(&mut report)?;
    site.stop_and_check(collector, &mut report)?;
    report.count("cuts", cuts);
    judge_recovery(&mut report, &times);
    outcome.judge(&mut report);
    outcome.verify(&site, &mut report)?;
    Ok(report)
}
