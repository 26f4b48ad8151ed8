//! `dunlin-agent check`: what the agent sees, what not and why, and whether it can reach its collector.
//!
//! It reads and connects, and changes nothing: neither the state directory nor what the collector knows. It ends as a
//! Nagios check does: 0 for well, 1 for a warning, 2 for critical, and its first line is the summary. What it says of
//! sources is what the service saw (`sources.rs`): root would see more.

mod report;
mod sources;

use std::path::Path;

use dunlin_shared::time::WallMs;

pub use self::report::{Report, Verdict};
use crate::chain::chain;
use crate::clock::Clock;
use crate::config::Config;
use crate::epoch;
use crate::identity::Identity;
use crate::resolve::{Resolver, system_entropy};
use crate::uplink::connect::{Connector, OwnEndpoints, Sockets};
use crate::uplink::tls::client_config;

/// 2026-01-01, before this program was first released: a clock that shows less was never set.
const CLOCK_MIN: WallMs = WallMs(1_767_225_600_000);

/// Looks at everything. Below a recorded root only what a sample needs is looked at.
pub async fn check(config: &Config, root: &Path) -> Report {
    let mut report = Report::default();
    let clock = Clock::start();
    report.sources(config, root, clock);
    if root == Path::new("/") {
        report.clock(clock.wall());
        report.state(config);
        report.collectors(config).await;
    }
    report
}

/// A configuration that is refused, as a check tells it.
#[must_use]
pub fn refused(lines: &[String]) -> Report {
    let mut report = Report::default();
    lines.iter().for_each(|line| report.add(Verdict::Critical, "configuration", line.clone()));
    report
}

impl Report {
    fn clock(&mut self, now: WallMs) {
        if now < CLOCK_MIN {
            let text = "it shows a time before this program was made; set it, or start a time service";
            return self.add(Verdict::Warning, "clock", text);
        }
        self.add(Verdict::Ok, "clock", "set");
    }

    fn state(&mut self, config: &Config) {
        let dir = &config.state_dir;
        let access = rustix::fs::access(dir, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK);
        if let Err(error) = access {
            let text = format!(
                "{} cannot be written by this user: {error}; the agent makes it when it is started",
                dir.display()
            );
            return self.add(Verdict::Warning, "state", text);
        }
        self.add(Verdict::Ok, "state", format!("{} can be written", dir.display()));
        match epoch::last(dir) {
            Ok(Some(epoch)) => self.add(Verdict::Ok, "epoch", format!("{}, raised at each start", epoch.0)),
            Ok(None) => self.add(Verdict::Ok, "epoch", "none yet: the agent was never started here"),
            Err(error) => self.add(Verdict::Warning, "epoch", format!("{error}; the next start sets the file aside")),
        }
        let files = std::fs::read_dir(dir.join("spool")).map(|entries| entries.flatten()).into_iter().flatten();
        let sizes: Vec<u64> = files.filter_map(|file| Some(file.metadata().ok()?.len())).collect();
        let limit = config.spool_disk_bytes;
        let kept = if limit == 0 { String::from("in memory only") } else { format!("up to {limit} bytes on disk") };
        let text = format!("{} files of {} bytes; {kept}", sizes.len(), sizes.iter().sum::<u64>());
        self.add(Verdict::Ok, "spool", text);
    }

    /// One collector that answers is enough; the others are a warning then.
    async fn collectors(&mut self, config: &Config) {
        let resolver = Resolver::new("/", system_entropy);
        let connector = connector(config, &resolver);
        let mut outcomes = Vec::new();
        for collector in &config.collectors {
            outcomes.push((collector, reach(collector, &resolver, connector.as_ref().ok()).await));
        }
        let one_answers = outcomes.iter().any(|(_, outcome)| outcome.is_ok());
        for (collector, outcome) in outcomes {
            let what = format!("collector {collector}");
            match outcome {
                Ok(text) => self.add(Verdict::Ok, what, text),
                Err(text) if one_answers => self.add(Verdict::Warning, what, text),
                Err(text) => self.add(Verdict::Critical, what, text),
            }
        }
        match connector {
            Ok(_) => self.add(Verdict::Ok, "identity", "there and usable"),
            Err((verdict, text)) => self.add(verdict, "identity", text),
        }
    }
}

/// With the identity in the state directory, or why there is none to try with.
fn connector(config: &Config, resolver: &Resolver) -> Result<Connector, (Verdict, String)> {
    if !config.state_dir.join("node.pem").exists() {
        let text = "none yet: this host is not enrolled, so that no collector was asked to let it in";
        return Err((Verdict::Warning, text.to_owned()));
    }
    let identity = Identity::load(&config.state_dir).map_err(|error| (Verdict::Critical, chain(&error)))?;
    let tls = client_config(&identity).map_err(|error| (Verdict::Critical, chain(&error)))?;
    Ok(Connector::new(resolver.clone(), tls, Sockets::Own(OwnEndpoints::default())))
}

async fn reach(collector: &str, resolver: &Resolver, connector: Option<&Connector>) -> Result<String, String> {
    let addresses = resolver.resolve(collector, crate::uplink::connect::DEFAULT_PORT).await;
    let addresses = addresses.map_err(|error| chain(&error))?;
    let listed: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    let Some(connector) = connector else {
        return Ok(format!("its name leads to {}; no connection was tried", listed.join(", ")));
    };
    let connected = connector.connect(collector).await.map_err(|error| chain(&error))?;
    let text = format!("{} answers and lets this node in", connected.address);
    connected.connection.close(0_u32.into(), b"checked");
    connected.endpoint.wait_idle().await;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_of_1970_is_a_warning() {
        let mut report = Report::default();
        report.clock(WallMs(5_000));
        assert_eq!(report.verdict(), Verdict::Warning);
    }
}
