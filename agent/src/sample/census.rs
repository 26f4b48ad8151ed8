//! How many processes there are, and how many ended without being waited for.
//!
//! Counting is one pass over the names in `/proc`. Telling the zombies means to open each process, 10 us apiece, so it
//! is done once a minute and held in between: zombies stay until their parent wakes up.

use std::fs;

use dunlin_shared::sample::Sample;
use dunlin_shared::time::MonoMs;

use super::failure::{Failures, SampleError};
use super::source::Source;
use super::{float, metric, put};

const ZOMBIES_EVERY_MS: u64 = 60_000;
/// There is always a first process; who does not see it would count its own alone.
const HIDDEN: &str =
    "the processes of others are hidden from the agent (hidepid, ProtectProc), so that they cannot be counted";

#[derive(Debug, Default)]
pub(super) struct Census {
    /// When, and how many.
    zombies: Option<(MonoMs, u64)>,
}

impl Census {
    pub(super) fn sample(&mut self, source: &mut Source, now: MonoMs, sample: &mut Sample, failures: &mut Failures) {
        let held = self.zombies.filter(|(at, _)| now.since(*at) < ZOMBIES_EVERY_MS);
        let Some((processes, zombies)) = failures.keep(count(source, held.is_none())) else { return };
        if held.is_none() {
            self.zombies = Some((now, zombies));
        }
        put(sample, const { metric("host_processes") }, float(processes));
        let (_, zombies) = self.zombies.unwrap_or((now, zombies));
        put(sample, const { metric("host_processes_zombie") }, float(zombies));
    }
}

fn count(source: &mut Source, with_zombies: bool) -> Result<(u64, u64), SampleError> {
    let path = source.path("proc");
    let entries = fs::read_dir(&path).map_err(|source| SampleError::Unreadable { path, source })?;
    let (mut processes, mut zombies, mut has_first) = (0, 0, false);
    for entry in entries.flatten() {
        let name = entry.file_name();
        if !name.as_encoded_bytes().iter().all(u8::is_ascii_digit) {
            continue;
        }
        processes += 1;
        has_first |= name == "1";
        if with_zombies && is_zombie(source, &name) {
            zombies += 1;
        }
    }
    if !has_first {
        return Err(SampleError::Absent { path: source.path("proc/1"), why: HIDDEN });
    }
    Ok((processes, zombies))
}

/// A process that is gone by now is none. Its name may hold anything, a closing parenthesis too.
fn is_zombie(source: &mut Source, pid: &std::ffi::OsStr) -> bool {
    let mut file = std::path::PathBuf::from("proc");
    file.push(pid);
    file.push("stat");
    let Ok(text) = source.read(file) else { return false };
    let end = text.bytes.iter().rposition(|&byte| byte == b')');
    end.and_then(|end| text.bytes.get(end + 2)) == Some(&b'Z')
}

#[cfg(test)]
mod tests {
    use dunlin_shared::time::WallMs;

    use super::*;
    use crate::sample::tree::{Tree, Values};

    fn take(census: &mut Census, tree: &Tree, now: u64) -> Vec<Option<f64>> {
        let (mut sample, mut failures) = (Sample::new(MonoMs(now), WallMs(0)), Failures::default());
        census.sample(&mut Source::new(tree.path()), MonoMs(now), &mut sample, &mut failures);
        let values = Values::of(&sample);
        vec![values.host("host_processes"), values.host("host_processes_zombie")]
    }

    #[test]
    fn an_agent_that_sees_its_own_processes_alone_counts_none() {
        let tree = Tree::new(&[("proc/20/stat", "20 (a) S 1")]);
        let (mut sample, mut failures) = (Sample::new(MonoMs(0), WallMs(0)), Failures::default());
        Census::default().sample(&mut Source::new(tree.path()), MonoMs(0), &mut sample, &mut failures);
        let failures = failures.into_list();
        assert!(sample.rows().is_empty() && failures[0].error.is_absence(), "{failures:?}");
    }

    #[test]
    fn zombies_are_told_by_their_state_once_a_minute_and_processes_at_each_tick() {
        let tree = Tree::new(&[
            ("proc/1/stat", "1 (init) S 0"),
            ("proc/20/stat", "20 (a) Z (b) Z 1"),
            ("proc/21/stat", "21 (Z) R 1"),
            ("proc/meminfo", ""),
        ]);
        let mut census = Census::default();
        assert_eq!(take(&mut census, &tree, 0), [Some(3.0), Some(1.0)]);
        tree.set("proc/22/stat", "22 (x) Z 1");
        assert_eq!(take(&mut census, &tree, 10_000), [Some(4.0), Some(1.0)]);
        assert_eq!(take(&mut census, &tree, 60_000), [Some(4.0), Some(2.0)]);
    }
}
