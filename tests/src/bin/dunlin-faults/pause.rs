//! A collector that stands still for longer than every deadline takes no node for down: it was itself that was away.

use std::thread::sleep;
use std::time::Duration;

use anyhow::Result;

use crate::Plan;
use crate::load::Load;
use crate::report::{Report, Times};
use crate::site::Site;

pub(crate) fn run(plan: &Plan) -> Result<Report> {
    // After a pause a node is down at the earliest after twice 30 s; the long watch goes beyond that.
    let (pause, watch, agents) = if plan.short { (20, 25, 100) } else { (40, 75, 1_000) };
    let mut report = Report::new("pause");
    let site = Site::new(agents, None)?;
    let collector = site.start_ready(&mut Times::default())?;
    let load = Load::start(&site, 1)?;
    site.wait_up()?;
    collector.stop()?;
    sleep(Duration::from_secs(pause));
    collector.cont()?;
    let found = site.watch(Duration::from_secs(watch), |site| {
        let down = site.nodes("down")?;
        Ok((down > 0).then(|| format!("{down} nodes are down after a pause of the collector")))
    })?;
    if let Some(found) = found {
        report.violation(found);
    }
    site.wait_up()?;
    let outcome = load.finish(&mut report)?;
    site.stop_and_check(collector, &mut report)?;
    report.expect(!site.log_text().contains("node is down"), || "the log tells of a node that is down".to_owned());
    report.count("paused", format!("{pause}s"));
    report.count("watched", format!("{watch}s"));
    outcome.judge(&mut report);
    outcome.verify(&site, &mut report)?;
    Ok(report)
}
