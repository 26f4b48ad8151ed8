//! `dunlin-agent check`: what the agent sees, what not and why, and whether it can reach its collector.
//!
//! It reads and connects, and changes nothing: neither the state directory nor what the collector knows. It ends as a
//! Nagios check does: 0 for well, 1 for a warning, 2 for critical, and its first line is the summary. What it says of
//! sources is what the service saw (`sources.rs`): root would see more.

mod alive;
pub mod bundle;
mod collectors;
mod path;
mod place;
mod report;
mod sealed;
mod sources;

use std::path::Path;

use dunlin_shared::time::WallMs;

pub use self::alive::alive;
pub use self::report::{Report, Verdict};
pub use self::sealed::{BAKED_FLAG, Sealing, sealed};
use crate::clock::Clock;
use crate::config::Config;
use crate::epoch;

/// 2026-01-01, before this program was first released: a clock that shows less was never set.
const CLOCK_MIN: WallMs = WallMs(1_767_225_600_000);

/// Looks at everything. Below a recorded root only what a sample needs is looked at.
pub async fn check(config: &Config, root: &Path) -> Report {
    let mut report = Report::default();
    let clock = Clock::start();
    report.sources(config, root, clock);
    if root == Path::new("/") {
        report.place(root);
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
        match access {
            Ok(()) => {}
            Err(rustix::io::Errno::NOENT) => {
                let text = format!("{} is not there yet: it is made when the agent is started", dir.display());
                return self.add(Verdict::Ok, "state", text);
            }
            Err(error) => {
                let text = format!("{} cannot be written by this user: {error}", dir.display());
                return self.add(Verdict::Warning, "state", text);
            }
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
