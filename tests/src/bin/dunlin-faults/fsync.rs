//! A disk that reports at a sync that it lost what was written: the collector stops at once, says why, and starts
//! cleanly from what is really there.

use std::thread::sleep;
use std::time::Duration;

use anyhow::Result;
use dunlin_tests::strace::Fault;

use crate::Plan;
use crate::load::Load;
use crate::report::{Report, Times};
use crate::site::{Site, judge_recovery};

/// A group is committed ten times a second; the rest is for strace and a slow machine.
const END_LIMIT: Duration = Duration::from_secs(15);

pub(crate) fn run(plan: &Plan) -> Result<Report> {
    let (rounds, agents) = if plan.short { (1, 50) } else { (8, 500) };
    let mut random = plan.random(5);
    let mut report = Report::new("fsync");
    let mut times = Times::default();
    let site = Site::new(agents, None)?;
    let mut collector = site.start_ready(&mut times)?;
    let load = Load::start(&site, 1)?;
    for round in 0..rounds {
        site.wait_up()?;
        sleep(Duration::from_millis(random.below(2_000)));
        let fault = Fault::sync_eio().attach(collector.pid())?;
        let status = collector.wait_exit(END_LIMIT)?;
        report.expect(status.code().is_some_and(|code| code != 0), || format!("it ended with {status}"));
        fault.detach()?;
        let words = site.last_words().split_off(round);
        let said = words.len() == 1 && words[0].contains("could not be synced");
        report.expect(said, || format!("it went with these words: {words:?}"));
        collector = site.start_ready(&mut times)?;
    }
    site.wait_up()?;
    let outcome = load.finish(&mut report)?;
    site.stop_and_check(collector, &mut report)?;
    report.count("rounds", rounds);
    judge_recovery(&mut report, &times);
    outcome.judge(&mut report);
    outcome.verify(&site, &mut report)?;
    Ok(report)
}
