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
const VERIFY_LIMIT: Duration = Duration::from_secs(300);
/// The series that an idle host has.
const SERIES: &str = "150";

#[derive(Debug)]
pub(crate) struct Load {
    running: Running,
    oracle: PathBuf,
}

/// What the fleet says at its end.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) oracle: PathBuf,
    said: Value,
}

impl Load {
    /// All agents of the site, until `finish`. `name` tells oracles apart.
    pub(crate) fn start(site: &Site, name: &str, interval_s: u64) -> Result<Self> {
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
            format!("{}s", SETTLE.as_secs()),
            "--quiet".to_owned(),
        ]);
        Ok(Self { running: program.start()?, oracle })
    }

    /// No new frames; waits until all that were sampled are acknowledged, and asks what there was.
    pub(crate) fn finish(mut self, report: &mut Report) -> Result<Outcome> {
        self.running.signal(Signal::TERM)?;
        let status = self.running.wait_exit(SETTLE + Duration::from_secs(60))?;
        let text = self.running.log_text();
        let json = text.lines().rev().find(|line| line.starts_with('{'));
        let said: Value = serde_json::from_str(json.with_context(|| format!("the fleet said no JSON: {text}"))?)?;
        report.expect(status.success(), || format!("the fleet did not settle: {status}: {said}"));
        Ok(Outcome { oracle: self.oracle, said })
    }
}

impl Outcome {
    pub(crate) fn number(&self, key: &str) -> Option<u64> {
        self.said.get(key).and_then(Value::as_u64)
    }

    /// Whether everything that was sampled was acknowledged, and nothing given up.
    pub(crate) fn judge(&self, report: &mut Report) {
        for key in ["sampled", "acknowledged", "duplicates", "dropped"] {
            if let Some(count) = self.number(key) {
                report.count(key, count);
            }
        }
        let (sampled, acknowledged) = (self.number("sampled"), self.number("acknowledged"));
        report.expect(sampled.is_some() && sampled == acknowledged, || {
            format!("{sampled:?} frames were sampled and {acknowledged:?} acknowledged: {}", self.said)
        });
        report.expect(acknowledged > Some(0), || "no frame went through".to_owned());
    }

    /// Every acknowledged frame is in the window exactly once, with its content. The collector has stopped.
    pub(crate) fn verify(&self, site: &Site, report: &mut Report) -> Result<()> {
        let program = Program::ours("dunlin-tests", "dunlin-fleet")?.arg("verify").arg("--state").arg(&site.state);
        let program = program.arg("--oracle").arg(&self.oracle).arg("--pki").arg(&site.pki);
        let mut verify = program.start()?;
        let status = verify.wait_exit(VERIFY_LIMIT)?;
        report.expect(status.success(), || {
            let text = verify.log_text();
            let first: Vec<&str> = text.lines().take(5).collect();
            format!("verify: {status}: {}", first.join(" | "))
        });
        Ok(())
    }
}
