//! Names, directories and addresses that belong to one run of a test. Owns the rule by which leftovers are known.
//!
//! Every name carries the process id of its maker, so that tests run beside each other, and what a killed
//! test left behind is removed by a later one, but never anything whose maker still lives.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

/// What every name of the rig starts with.
const PREFIX: &str = "dunlin-rig";

const SHARED_MEMORY: &str = "/dev/shm";
/// Far more than a collector of one test writes; a container without a size of its own has 64 MiB.
const ROOM_BYTES_MIN: u64 = 512 * 1024 * 1024;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A name that no other thing of this or another running test has.
#[must_use]
pub fn unique(role: &str) -> String {
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{PREFIX}-{}-{number}-{role}", std::process::id())
}

/// Whether the rig made a thing of this name and its maker is gone.
#[must_use]
pub fn is_leftover(name: &str) -> bool {
    let maker =
        name.strip_prefix(PREFIX).and_then(|rest| rest.strip_prefix('-')).and_then(|rest| rest.split('-').next());
    let Some(pid) = maker.and_then(|pid| pid.parse::<u32>().ok()) else {
        return false;
    };
    !Path::new(&format!("/proc/{pid}")).exists()
}

/// Loopback, or a namespace of the rig: 10.97.0.0/16 is used inside those alone.
#[must_use]
pub const fn is_test_address(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_loopback() || matches!(v4.octets(), [10, 97, _, _]),
        IpAddr::V6(v6) => v6.is_loopback(),
    }
}

/// A directory that goes when it is dropped.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
}

impl Scratch {
    pub fn new(role: &str) -> io::Result<Self> {
        Self::below(&std::env::temp_dir(), role)
    }

    /// In memory where the machine has room for that. What a program syncs would else wait for everything that others
    /// have written, a build for one: a test of what is promised within seconds would be one of the machine's disk.
    pub fn in_memory(role: &str) -> io::Result<Self> {
        static LEFTOVERS: Once = Once::new();
        let shared_memory = Path::new(SHARED_MEMORY);
        LEFTOVERS.call_once(|| remove_leftovers(shared_memory));
        let has_room = rustix::fs::statvfs(shared_memory)
            .is_ok_and(|space| space.f_bavail.saturating_mul(space.f_frsize) >= ROOM_BYTES_MIN);
        if has_room { Self::below(shared_memory, role) } else { Self::new(role) }
    }

    fn below(parent: &Path, role: &str) -> io::Result<Self> {
        let path = parent.join(unique(role));
        match fs::create_dir(&path) {
            // The name's maker had our process id and is gone.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                fs::remove_dir_all(&path)?;
                fs::create_dir(&path)?;
            }
            other => other?,
        }
        Ok(Self { path })
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    #[must_use]
    pub fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %self.path.display(), %error, "a scratch directory stays behind");
        }
    }
}

/// What a test left in memory when it was killed would stay until the machine is started anew.
fn remove_leftovers(parent: &Path) {
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| entry.file_name().to_str().is_some_and(is_leftover)) {
        if let Err(error) = fs::remove_dir_all(entry.path()) {
            tracing::warn!(path = %entry.path().display(), %error, "what a killed test left stays behind");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unique_names_differ_and_are_no_leftovers_while_their_maker_lives() {
        let (one, other) = (unique("a"), unique("a"));
        assert_ne!(one, other);
        assert!(!is_leftover(&one));
    }

    #[test]
    fn leftovers_are_ours_and_orphaned() {
        // The kernel never gives out a process id this high (PID_MAX_LIMIT is 2^22).
        assert!(is_leftover("dunlin-rig-4194999-0-router"));
        assert!(!is_leftover("docker-4194999-0-router"));
        assert!(!is_leftover("dunlin-rig-x-0"));
        assert!(!is_leftover("dunlin-rig"));
    }

    #[test]
    fn scratch_goes_when_dropped() {
        let scratch = Scratch::new("scratch").expect("the temporary directory is writable");
        fs::write(scratch.join("a"), "a").expect("a new directory takes a file");
        let path = scratch.path().to_owned();
        drop(scratch);
        assert!(!path.exists());
    }

    #[test]
    fn what_a_killed_test_left_goes_and_what_is_in_use_stays() {
        let parent = Scratch::new("leftovers").expect("the temporary directory is writable");
        let (orphan, ours) = (parent.join("dunlin-rig-4194999-0-agent"), parent.join(&unique("agent")));
        for dir in [&orphan, &ours, &parent.join("another's")] {
            fs::create_dir(dir).expect("it is writable");
            fs::write(dir.join("a"), "a").expect("it is writable");
        }
        remove_leftovers(parent.path());
        assert!(!orphan.exists() && ours.exists() && parent.join("another's").exists());
    }
}
