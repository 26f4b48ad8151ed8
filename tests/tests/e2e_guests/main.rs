//! Machines of their own: what this one's kernel lacks, a systemd that is not this one's, and packages on a fresh Debian.

mod clocks;
mod handed;
mod installed;
mod systemd;
mod unified;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use dunlin_tests::guest::{ITSELF, OUTSIDE};
use dunlin_tests::scratch::Scratch;

/// A guest computes some ten times slower than this machine: it boots in 10 s where nothing else is built.
const LIMIT: Duration = Duration::from_secs(120);

/// What a Debian does once it is up, on the line that the test reads.
const PROBE: &str = "
[Unit]
After=multi-user.target dbus.service
[Service]
Type=oneshot
StandardOutput=tty
TTYPath=/dev/ttyS0
ExecStart=/bin/bash /probe
";
/// Where a guest waits for a word of its test.
const WORD_PORT: u16 = 7_001;

/// The files of a Debian that runs a script. In it ITSELF stands for its own address, and WORD for where it waits.
fn debian(script: &str) -> Scratch {
    let files = Scratch::new("files").expect("a directory");
    write(files.path(), "etc/systemd/system/probe.service", PROBE);
    let wanted = files.join("etc/systemd/system/multi-user.target.wants");
    fs::create_dir(&wanted).expect("it is writable");
    std::os::unix::fs::symlink("../probe.service", wanted.join("probe.service")).expect("it is writable");
    // An empty file is a unit that is never started: nobody logs in on the line that the test reads.
    write(files.path(), "etc/systemd/system/serial-getty@ttyS0.service", "");
    let script = script.replace("ITSELF", &ITSELF.to_string());
    write(files.path(), "probe", &script.replace("WORD", &format!("/dev/tcp/{OUTSIDE}/{WORD_PORT}")));
    write(files.path(), "init", "#!/bin/sh\nexec /lib/systemd/systemd\n");
    files
}

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
