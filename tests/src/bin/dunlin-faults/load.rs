//! The fleet under which faults happen, and its oracle: what was acknowledged has to be there.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use dunlin_tests::process::{Program, Running};
use rustix::process::Signal;
use serde_json::Value;

use crate::report::Report;
use crate::site::Site;

/// How long the fleet waits for its last acknowledgement: a backlog of a minute is sent at twice the live rate.
const SETTLE: Duration = Duration::from_secs(150);
/// A collector asks each of N agents for N ms between backlog frames, so a large fleet that was cut off for a third of
/// twenty minutes delivers for six minutes more; twice that, and some for a slow machine.
const SETTLE_LARGE: Duration = Duration::from_secs(900);
const LARGE: usize = 500;
const VERIFY_LIMIT: Duration = Duration::from_secs(300);
/// The series that an idle host has.
const SERIES: &str = "150";

#[derive(Debug)]
pub(crate) struct Load {
    running: Running,
    oracle: PathBuf,
    settle: Duration,
}

/// What the fleet says at its end.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) oracle: PathBuf,
    said: Value,
}

impl Load {
    /// All agents of the site in their first epoch, until `finish`.
    pub(crate) fn start(site: &Site, interval_s: u64) -> Result<Self> {
        Self::in_epoch(site, "load", interval_s, 1)
    }

    /// `name` tells oracles apart. A fleet that ran before needs a higher epoch.
    pub(crate) fn in_epoch(site: &Site, name: &str, interval_s: u64, epoch: u32) -> Result<Self> {
        let settle = if site.agents > LARGE { SETTLE_LARGE } else { SETTLE };
        let oracle = site.scratch.join(&format!("{name}.oracle"));
        let program = Program::ours("dunlin-tests", "dunlin-fleet")?.log(site.scratch.join(&format!("{name}.log")));
        let program = program.arg("run").arg("--pki").arg(&site.pki).arg("--oracle").arg(&oracle);
        let program = program.args([
            "--collector".to_owned(),
            site.quic.to_string(),
            "--agents".to_owned(),
            site.agents.to_string(),
            "--interval".to_owned(),
            format!("{interval_s}s"),
            "--series".to_owned(),
            SERIES.to_owned(),
            "--settle".to_owned(),
            format!("{}s", settle.as_secs()),
            "--start-epoch".to_owned(),
            epoch.to_string(),
            "--quiet".to_owned(),
        ]);
        Ok(Self { running: program.start()?, oracle, settle })
    }

    /// No new frames; waits until all that were sampled are acknowledged, and asks what there was.
    pub(crate) fn finish(mut self, report: &mut Report) -> Result<Outcome> {
        self.running.signal(Signal::TERM)?;
        let status = self.running.wait_exit(self.settle + Duration::from_secs(60))?;
        let text = self.running.log_text();
        let json = text.lines().rev().find(|line| line.starts_with('{'));
        let said: Value = serde_json::from_str(json.with_context(|| format!("the fleet said no JSON: {text}"))?)?;
        let settled = said.get("settled").and_then(Value::as_bool) == Some(true);
        report.expect(status.success() && settled, || format!("the fleet did not settle: {status}: {said}"));
        Ok(Outcome { oracle: self.oracle, said })
    }
}

impl Outcome {
    pub(crate) fn number(&self, key: &str) -> Option<u64> {
        self.said.get(key).and_then(Value::as_u64)
    }

    /// Nothing was given up. The agents sample on while the fleet settles, so that a few of the last frames may still
    /// be pending: in a real agent's spool they wait for its next start.
    pub(crate) fn judge(&self, report: &mut Report) {
        for key in ["sampled", "acknowledged", "gaps", "pending", "reconnects"] {
            if let Some(count) = self.number(key) {
                report.count(key, count);
            }
        }
        report.expect(self.number("gaps") == Some(0), || format!("frames were given up: {}", self.said));
        let acknowledged = self.number("acknowledged");
        report.expect(acknowledged > Some(0), || "no frame went through".to_owned());
    }

    pub(crate) fn verify(&self, site: &Site, report: &mut Report) -> Result<()> {
        let found = verify(site, &[self], report)?;
        for key in ["frames", "stored_unacknowledged"] {
            if let Some(count) = found.get(key).and_then(Value::as_u64) {
                report.count(key, count);
            }
        }
        Ok(())
    }
}

/// Every frame that these runs had acknowledged is in the window exactly once, with its content, and nothing else is
/// there. The collector has stopped.
pub(crate) fn verify(site: &Site, runs: &[&Outcome], report: &mut Report) -> Result<Value> {
    let mut program = Program::ours("dunlin-tests", "dunlin-fleet")?.arg("verify").arg("--state").arg(&site.state);
    for run in runs {
        program = program.arg("--oracle").arg(&run.oracle);
    }
    let mut verify = program.arg("--pki").arg(&site.pki).start()?;
    let status = verify.wait_exit(VERIFY_LIMIT)?;
    let text = verify.log_text();
    let found: Value = serde_json::from_str(text.get(text.find('{').unwrap_or(0)..).unwrap_or("")).unwrap_or_default();
    report.expect(status.success(), || {
        let shown = found.get("shown").and_then(Value::as_array).cloned().unwrap_or_default();
        let first: Vec<String> = shown.iter().take(5).map(ToString::to_string).collect();
        let violations = found.get("violations").and_then(Value::as_u64);
        format!(
            "verify: {status}, {violations:?} violations: {} {}",
            first.join(" "),
            if shown.is_empty() { &text } else { "" }
        )
    });
    Ok(found)
}
