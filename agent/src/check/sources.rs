//! Whose eyes a check sees the host with: the service's, from the report that it wrote, or its own where there is none.
//!
//! Root's sight would say that everything is well of a service that is half blind. So its report wins whenever there is
//! one, however old, and what is said of it is whose it is, how old, and whether that process still runs.

use std::path::Path;
use std::sync::Arc;

use dunlin_shared::time::WallMs;

use super::report::{Finding, Report, Verdict};
use crate::chain::chain;
use crate::clock::Clock;
use crate::config::Config;
use crate::sample::Sampler;
use crate::sight::file::{self, FileError};
use crate::sight::judge::judge;
use crate::sight::keep::REFRESH_MS;
use crate::sight::{Own, Sight};
use crate::stats::Stats;

const BY: &str = "seen by";

impl Report {
    pub(super) fn sources(&mut self, config: &Config, root: &Path, clock: Clock) {
        if root != Path::new("/") {
            return self.look(config, root, clock);
        }
        match file::read(&config.state_dir) {
            Ok(Some(sight)) => {
                let holder = file::holder(&config.state_dir).filter(|&holder| holder != sight.own.process);
                let (verdict, text) = of_service(&sight, sight.own.lives(), holder, clock.wall());
                self.add(verdict, BY, text);
                self.judged(&sight);
            }
            Ok(None) => {
                let text = "this command, as the user that runs it: no service has told here what it sees, \
                            and it may see less or more";
                self.add(Verdict::Ok, BY, text);
                self.look(config, root, clock);
            }
            Err(error) => {
                let (verdict, text) = match &error {
                    FileError::Unreadable { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied => {
                        (Verdict::Ok, String::from("only root may read what the service tells; run this as root"))
                    }
                    _ => (Verdict::Warning, chain(&error)),
                };
                self.add(verdict, BY, format!("this command, as the user that runs it: {text}"));
                self.look(config, root, clock);
            }
        }
    }

    fn look(&mut self, config: &Config, root: &Path, clock: Clock) {
        let sampler = Sampler::new(root, clock, Arc::new(Stats::default()));
        let mut sampler = sampler.collecting(config.collect.clone());
        let taken = sampler.sample(clock.mono(), clock.wall());
        let sources = sampler.seeing(&taken.failures);
        self.judged(&Sight { at: clock.wall(), own: Own::look(), sources });
        let rows = taken.sample.rows();
        let (series, subjects) = (rows.len(), rows.chunk_by(|a, b| a.0 == b.0).count());
        self.add(Verdict::Ok, "sample", format!("{series} series of {subjects} subjects"));
    }

    fn judged(&mut self, sight: &Sight) {
        for one in judge(sight) {
            let verdict = if one.is_bad { Verdict::Warning } else { Verdict::Ok };
            let state = Some(one.state);
            self.push(Finding { verdict, what: one.what, text: one.text, state, mend: one.mend });
        }
    }
}

/// `holder`: another process that holds the state directory now.
fn of_service(sight: &Sight, lives: bool, holder: Option<u32>, now: WallMs) -> (Verdict, String) {
    let own = &sight.own;
    let groups: Vec<String> = own.groups.iter().map(ToString::to_string).collect();
    let age_ms = now.0.saturating_sub(sight.at.0);
    let mut text = format!(
        "the service, process {}, as user {} of groups {}, {}, {}",
        own.process,
        own.user,
        groups.join(" "),
        own.powers(),
        ago(age_ms),
    );
    if &*own.version != env!("CARGO_PKG_VERSION") {
        text.push_str(&format!(
            "; it is of version {}, and this command of {}",
            own.version,
            env!("CARGO_PKG_VERSION")
        ));
    }
    let is_old = u64::try_from(age_ms).is_ok_and(|age_ms| age_ms > 2 * REFRESH_MS);
    match (lives, holder) {
        (true, _) if is_old => {
            let hours = REFRESH_MS / 3_600_000;
            let text = format!("{text}; it writes every {hours} h and did not: is there room in the state directory?");
            (Verdict::Warning, text)
        }
        (true, _) => (Verdict::Ok, text),
        (false, Some(holder)) => {
            (Verdict::Ok, format!("{text}; process {holder} has taken its place, and tells within a few ticks"))
        }
        (false, None) => {
            (Verdict::Warning, format!("{text}; that process has ended, and what follows is what it saw last"))
        }
    }
}

fn ago(age_ms: i64) -> String {
    match age_ms / 1_000 {
        ..0 => String::from("at a time that is still to come: the clock was set back"),
        s @ 0..120 => format!("{s} s ago"),
        s @ 120..7_200 => format!("{} min ago", s / 60),
        s @ 7_200..172_800 => format!("{} h ago", s / 3_600),
        s => format!("{} days ago", s / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_says_whose_it_is_how_old_and_whether_its_process_runs() {
        let own = Own {
            version: env!("CARGO_PKG_VERSION").into(),
            process: 812,
            user: 61_234,
            groups: vec![998, 61_234],
            ..Own::default()
        };
        let sight = Sight { at: WallMs(1_000_000_000), own, sources: Vec::new() };
        let hours = |hours: i64| WallMs(sight.at.0 + hours * 3_600_000 + 5_000);
        for (lives, holder, now, verdict, word) in [
            (true, None, hours(0), Verdict::Ok, "as user 61234 of groups 998 61234, without capabilities, 5 s ago"),
            (true, None, hours(3), Verdict::Ok, "3 h ago"),
            (true, None, hours(13), Verdict::Warning, "is there room"),
            (true, None, WallMs(5), Verdict::Ok, "still to come"),
            (false, None, hours(1), Verdict::Warning, "60 min ago; that process has ended"),
            (false, Some(9), hours(80), Verdict::Ok, "process 9 has taken its place"),
        ] {
            let (found, text) = of_service(&sight, lives, holder, now);
            assert_eq!((found, text.contains(word)), (verdict, true), "{text}");
        }
        let other = Sight { own: Own { version: "0.0.7".into(), ..sight.own.clone() }, ..sight };
        assert!(of_service(&other, true, None, other.at).1.contains("it is of version 0.0.7"));
    }
}
