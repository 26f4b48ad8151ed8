//! `dunlin-collector bundle`: what somebody who helps needs to know of a collector, in one tar file for strangers' eyes.
//!
//! No token, no key, no label, no name of a node: counts, sizes, settings, and what `check` and `/metrics` say. Only the
//! lines of the log may name nodes and addresses, and they can be left out. Nothing is copied from the state directory.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use dunlin_shared::bundle::Bundle;
use dunlin_shared::time::WallMs;
use thiserror::Error;

use crate::api;
use crate::check;
use crate::client::{Client, ClientError, Target, Trust};
use crate::config::CollectorConfig;
use crate::shape::{Moment, Node};
use crate::window::Depth;

const ONLY_OWNER: u32 = 0o600;
/// A fleet that is ten times what one collector carries.
const NODES_MAX: usize = 100_000;
/// Of one answer; `/metrics` has some tens of KiB.
const ANSWER_BYTES_MAX: u64 = 4 << 20;
const FILES_MAX: usize = 20_000;

#[derive(Debug, Error)]
#[error("{}: {}", path.display(), if source.kind() == io::ErrorKind::AlreadyExists { "it is there already; name another file" } else { "it cannot be written" })]
pub struct BundleError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// Makes it, whether a collector runs or not. What cannot be asked is said in its place.
pub fn write(config: &CollectorConfig, with_log: bool, now: WallMs, to: &Path) -> Result<(), BundleError> {
    let mut bundle = Bundle::new(u64::try_from(now.0 / 1_000).unwrap_or_default());
    bundle.add("about.txt", &about(config, with_log, now));
    bundle.add("config.txt", &config.shown);
    let mut checked = Vec::new();
    check::check(config, Depth::Sums, &mut checked);
    bundle.add("check.txt", &String::from_utf8_lossy(&checked));
    bundle.add("files.txt", &files(&config.state_dir));
    let client = Client::new(Target::Unix(api::socket_path(&config.state_dir)), None, &Trust::default());
    let asked = |path: &str| client.as_ref().map_err(ToString::to_string).and_then(|client| text(client, path));
    bundle.add("metrics.txt", &asked("/metrics").unwrap_or_else(|why| unasked(&why)));
    let counted = client
        .as_ref()
        .map_err(ToString::to_string)
        .and_then(|client| nodes(client).map_err(|error| error.to_string()));
    bundle.add("nodes.txt", &counted.unwrap_or_else(|why| unasked(&why)));
    if with_log {
        bundle.add("log.txt", &asked("/-/lately").unwrap_or_else(|why| unasked(&why)));
    }
    let written = OpenOptions::new().write(true).create_new(true).mode(ONLY_OWNER).open(to).and_then(|mut file| {
        file.write_all(&bundle.finish())?;
        file.sync_all()
    });
    written.map_err(|source| BundleError { path: to.to_owned(), source })
}

fn about(config: &CollectorConfig, with_log: bool, now: WallMs) -> String {
    let line = |path: &str| fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default();
    let memory = line("/proc/meminfo").lines().next().unwrap_or_default().to_owned();
    let log = if with_log {
        "log.txt may name nodes and addresses; bundle --without-log leaves it out"
    } else {
        "without the log"
    };
    format!(
        "dunlin-collector {} at {}\nkernel {}\n{memory}\nprocessors {}\nstate directory {}\n\nNo tokens, keys, labels or names of \
         nodes are in here. {log}.\n",
        env!("CARGO_PKG_VERSION"),
        Moment(now),
        line("/proc/sys/kernel/osrelease"),
        std::thread::available_parallelism().map_or(0, usize::from),
        config.state_dir.display(),
    )
}

fn unasked(why: &str) -> String {
    format!("the collector was not asked: {why}\n")
}

fn text(client: &Client, path: &str) -> Result<String, String> {
    let stream = client.stream("GET", path).map_err(|error| error.to_string())?;
    let mut bytes = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// How many are how, and of which version.
fn nodes(client: &Client) -> Result<String, ClientError> {
    let items = client.all("/api/v1/nodes", NODES_MAX)?;
    let nodes = items.into_iter().filter_map(|item| serde_json::from_value::<Node>(item).ok());
    let (mut counts, mut total) = (BTreeMap::<(String, String), usize>::new(), 0);
    for node in nodes {
        total += 1;
        *counts.entry((node.version, node.state)).or_default() += 1;
    }
    let mut text = format!("{total} nodes\n");
    for ((version, state), count) in counts {
        let version = if version.is_empty() { "(unknown)" } else { &version };
        // Writing to a string cannot fail.
        writeln!(text, "version {version} {state} {count}").ok();
    }
    Ok(text)
}

/// Mode, bytes, time and name of what is in the state directory; never what is in the files.
fn files(dir: &Path) -> String {
    let (mut text, mut left, mut waiting) = (String::new(), FILES_MAX, vec![dir.to_owned()]);
    while let Some(dir) = waiting.pop() {
        let Ok(entries) = fs::read_dir(&dir) else {
            writeln!(text, "{} cannot be listed", dir.display()).ok();
            continue;
        };
        let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).take(left).collect();
        left -= paths.len();
        paths.sort();
        for path in paths {
            let Ok(found) = path.symlink_metadata() else { continue };
            let time = Moment(WallMs(found.mtime().saturating_mul(1_000)));
            writeln!(text, "{:o} {:>12} {time} {}", found.mode() & 0o7777, found.len(), path.display()).ok();
            if found.is_dir() {
                waiting.push(path);
            }
        }
    }
    text
}
