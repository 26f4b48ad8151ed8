//! `dunlin-agent check --bundle FILE`: what a check says and what it was asked of, in one tar file for strangers' eyes.
//!
//! No token, no key, no label, no name of the host; nothing is copied from the state directory, of which names and
//! sizes are listed. The agent itself keeps no log: that is the journal's, or the container engine's.

use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use dunlin_shared::bundle::Bundle;
use dunlin_shared::time::WallMs;

use super::Report;
use crate::json::quoted;

const ONLY_OWNER: u32 = 0o600;
const FILES_MAX: usize = 1_000;

/// Writes a file that must not be there yet.
pub fn write(report: &Report, shown: &str, state_dir: &Path, now: WallMs, to: &Path) -> io::Result<()> {
    let mut bundle = Bundle::new(u64::try_from(now.0 / 1_000).unwrap_or_default());
    bundle.add("about.txt", &about(now));
    bundle.add("config.txt", shown);
    bundle.add("check.txt", &report.to_string());
    bundle.add("files.txt", &files(state_dir));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(ONLY_OWNER).open(to)?;
    file.write_all(&bundle.finish())?;
    file.sync_all()
}

fn about(now: WallMs) -> String {
    let line = |path: &str| fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default();
    let os = line("/etc/os-release");
    let os = os.lines().find_map(|line| line.strip_prefix("PRETTY_NAME=")).unwrap_or("not told");
    format!(
        "dunlin-agent {} at {} ms since 1970\nkernel {}\nsystem {os}\n\nNo tokens, keys, labels or names of this host are in \
         here. The log is not the agent's: journalctl -u dunlin-agent --since -1h\n",
        env!("CARGO_PKG_VERSION"),
        now.0,
        line("/proc/sys/kernel/osrelease"),
    )
}

/// Mode, bytes, time and name; never what is in them.
fn files(state_dir: &Path) -> String {
    let mut text = String::new();
    for dir in [state_dir.to_owned(), state_dir.join("spool")] {
        let mut paths: Vec<_> = match fs::read_dir(&dir) {
            Ok(entries) => entries.flatten().map(|entry| entry.path()).take(FILES_MAX).collect(),
            Err(error) => {
                // Writing to a string cannot fail.
                writeln!(text, "{} cannot be listed: {error}", dir.display()).ok();
                continue;
            }
        };
        paths.sort();
        for path in paths {
            let Ok(found) = path.symlink_metadata() else { continue };
            let name = quoted(&path.display().to_string());
            writeln!(text, "{:o} {:>10} {} {name}", found.mode() & 0o7777, found.len(), found.mtime()).ok();
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::check::Verdict;
    use crate::identity::testing::Authority;
    use crate::state::tests::Dir;

    #[test]
    fn names_and_sizes_are_told_and_nothing_that_is_in_the_files() {
        let dir = Dir::new();
        let (state_dir, to) = (dir.0.join("state"), dir.0.join("bundle.tar"));
        fs::create_dir(&state_dir).expect("it is writable");
        Authority::new("ours").enrol(&state_dir);
        let mut report = Report::default();
        report.add(Verdict::Critical, "collector c:9737", "UDP is blocked");
        write(&report, "interval = \"10s\"\n", &state_dir, WallMs(1_795_271_160_000), &to).expect("it is writable");
        assert_eq!(fs::metadata(&to).expect("it is there").permissions().mode() & 0o777, ONLY_OWNER);
        let text = String::from_utf8(fs::read(&to).expect("it is there")).expect("it is text");
        for part in ["UDP is blocked", "interval = \"10s\"", "node.key", "600 "] {
            assert!(text.contains(part), "{part}: {text}");
        }
        for name in ["node.key", "node.pem", "ca.pem"] {
            let file = fs::read_to_string(state_dir.join(name)).expect("it is there");
            assert!(file.lines().filter(|line| !line.starts_with("-----")).all(|line| !text.contains(line)), "{name}");
        }
        let again = write(&report, "", &state_dir, WallMs(0), &to).expect_err("it is there");
        assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
    }
}
