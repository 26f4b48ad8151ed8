//! The static agent in machines of its own: what this one's kernel lacks, and a systemd that is not this one's.

mod systemd;
mod unified;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

/// A guest computes some ten times slower than this machine: it boots in 10 s where nothing else is built.
const LIMIT: Duration = Duration::from_secs(120);

/// Writes a file of a guest, with what is above it.
fn write(files: &Path, path: &str, text: &str) {
    let path = files.join(path);
    fs::create_dir_all(path.parent().expect("it has one")).expect("it is writable");
    fs::write(&path, text).expect("it is writable");
    fs::set_permissions(&path, Permissions::from_mode(0o755)).expect("it is ours");
}

/// What a guest's console showed between two lines.
fn between<'a>(said: &'a str, from: &str, to: &str) -> &'a str {
    let found = said.split_once(from).and_then(|(_, rest)| rest.split_once(to));
    found.unwrap_or_else(|| panic!("no {from} and {to}: {said}")).0.trim()
}
