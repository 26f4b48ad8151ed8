//! The number of this run, kept in `STATE_DIR/epoch` and raised at each start.
//!
//! Invariant: no epoch is drawn twice, for (epoch, seq) is a frame's identity at the collector. A
//! file that is lost or damaged is therefore followed by a number that no count of starts reaches.
//!
//! The file is one line: the number, a space, and the CRC-32 of the number's digits in hexadecimal.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use dunlin_shared::id::Epoch;
use dunlin_shared::time::WallMs;
use thiserror::Error;

use crate::spool::segment::crc32;
use crate::state;

pub(crate) const NAME: &str = "epoch";
pub(crate) const DAMAGED_NAME: &str = "epoch.damaged";
/// Ten digits, a space, eight digits, and a newline have 20.
const FILE_BYTES_MAX: u64 = 64;
/// 2020-01-01: a clock before it was never set. Seconds since then fit 32 bits until 2156.
const CLOCK_ZERO_S: i64 = 1_577_836_800;

/// This run's epoch, on disk before it was handed out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Raised {
    pub epoch: Epoch,
    /// The file was damaged and now has this name.
    pub set_aside: Option<PathBuf>,
}

#[derive(Debug, Error)]
pub enum EpochError {
    #[error("{path}: cannot be read")]
    Read { path: PathBuf, source: io::Error },
    #[error("{path}: cannot be written")]
    Write { path: PathBuf, source: io::Error },
    #[error("{path}: the highest epoch there is has been used; enrol this host as a new node")]
    Exhausted { path: PathBuf },
}

/// Draws the next epoch, above `floor`: the highest that the spool or a collector has seen.
///
/// Without a readable file it is also above the seconds since 2020, because an agent that starts
/// less than once a second has not counted so far. Only an empty state directory begins with 1.
pub fn raise(state_dir: &Path, floor: Option<Epoch>, wall: WallMs) -> Result<Raised, EpochError> {
    let path = state_dir.join(NAME);
    let mut set_aside = None;
    let last = match state::read(&path, FILE_BYTES_MAX) {
        Ok(Some(text)) => parse(&text).unwrap_or_else(|| {
            set_aside = Some(state_dir.join(DAMAGED_NAME));
            lost(wall)
        }),
        Ok(None) if is_empty(state_dir) => 0,
        Ok(None) => lost(wall),
        // Far too long for a number: it is damaged as well.
        Err(error) if error.kind() == io::ErrorKind::FileTooLarge => {
            set_aside = Some(state_dir.join(DAMAGED_NAME));
            lost(wall)
        }
        Err(source) => return Err(EpochError::Read { path, source }),
    };
    let last = last.max(floor.map_or(0, |floor| floor.0));
    let Some(epoch) = last.checked_add(1).map(Epoch) else { return Err(EpochError::Exhausted { path }) };
    if let Some(aside) = &set_aside {
        fs::rename(&path, aside).map_err(|source| EpochError::Write { path: path.clone(), source })?;
    }
    state::replace(&path, line(epoch).as_bytes()).map_err(|source| EpochError::Write { path, source })?;
    Ok(Raised { epoch, set_aside })
}

/// The epoch that the last start drew; an error of `InvalidData` when the file is damaged.
pub fn last(state_dir: &Path) -> io::Result<Option<Epoch>> {
    let damaged = || io::Error::new(io::ErrorKind::InvalidData, "the epoch's file is damaged");
    let text = state::read(&state_dir.join(NAME), FILE_BYTES_MAX)?;
    text.map(|text| parse(&text).map(Epoch).ok_or_else(damaged)).transpose()
}

/// An epoch for a run that cannot write its state directory: no later start counts up to it, and
/// the next one like it is above it. `None` while the clock is not set.
#[must_use]
pub fn unsaved(floor: Option<Epoch>, wall: WallMs) -> Option<Epoch> {
    let last = Some(lost(wall)).filter(|&seconds| seconds > 0)?;
    last.max(floor.map_or(0, |floor| floor.0)).checked_add(1).map(Epoch)
}

/// What an epoch drawn before now cannot exceed.
fn lost(wall: WallMs) -> u32 {
    let seconds = wall.0.div_euclid(1_000).saturating_sub(CLOCK_ZERO_S).max(0);
    // A clock centuries ahead must not use the epochs up at once.
    u32::try_from(seconds).unwrap_or(u32::MAX / 2)
}

fn parse(text: &[u8]) -> Option<u32> {
    let epoch = str::from_utf8(text).ok()?.split(' ').next()?.parse().ok()?;
    (line(Epoch(epoch)).as_bytes() == text).then_some(epoch)
}

fn line(epoch: Epoch) -> String {
    let digits = epoch.0.to_string();
    format!("{digits} {:08x}\n", crc32(&[digits.as_bytes()]))
}

/// Whether nothing was ever kept here. A directory that was made in advance does not count, nor does the lock.
fn is_empty(dir: &Path) -> bool {
    let Ok(entries) = fs::read_dir(dir) else { return true };
    entries.flatten().all(|entry| {
        if entry.file_name() == state::LOCK {
            return true;
        }
        let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
        is_dir && fs::read_dir(entry.path()).is_ok_and(|mut inner| inner.next().is_none())
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    const NOW: WallMs = WallMs((CLOCK_ZERO_S + 5_000) * 1_000);
    static DIRS: AtomicU32 = AtomicU32::new(0);

    struct StateDir(PathBuf);

    impl StateDir {
        fn new() -> Self {
            let n = DIRS.fetch_add(1, Ordering::Relaxed);
            let dir = std::env::temp_dir().join(format!("dunlin-epoch-{}-{n}", std::process::id()));
            fs::create_dir_all(&dir).expect("a temporary directory");
            Self(dir)
        }

        fn raise(&self, floor: Option<u32>, wall: WallMs) -> u32 {
            raise(&self.0, floor.map(Epoch), wall).expect("the directory is writable").epoch.0
        }
    }

    impl Drop for StateDir {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).ok();
        }
    }

    #[test]
    fn each_start_counts_one_further_whatever_the_clock_says() {
        let dir = StateDir::new();
        assert_eq!([dir.raise(None, NOW), dir.raise(None, WallMs(0)), dir.raise(None, NOW)], [1, 2, 3]);
        assert_eq!(fs::read_to_string(dir.0.join(NAME)).expect("the file is there"), line(Epoch(3)));
    }

    #[test]
    fn a_floor_is_exceeded() {
        let dir = StateDir::new();
        assert_eq!([dir.raise(Some(40), NOW), dir.raise(Some(7), NOW)], [41, 42]);
    }

    #[test]
    fn every_damage_to_the_file_is_noticed_and_followed_by_a_higher_epoch() {
        let good = line(Epoch(4_711)).into_bytes();
        let flips = (0..good.len() * 8).map(|bit| {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            bytes
        });
        for bytes in flips.chain((0..good.len()).map(|len| good[..len].to_vec())).chain([vec![b'9'; 5_000]]) {
            let dir = StateDir::new();
            fs::write(dir.0.join(NAME), &bytes).expect("the directory is writable");
            let raised = raise(&dir.0, Some(Epoch(12)), NOW).expect("damage does not stop the agent");
            assert_eq!(raised.epoch, Epoch(5_001), "{bytes:?}");
            let aside = raised.set_aside.expect("the damage is reported");
            assert_eq!(fs::read(aside).expect("the file was kept"), bytes);
            assert_eq!(dir.raise(None, WallMs(0)), 5_002);
        }
    }

    #[test]
    fn a_file_that_vanished_from_a_used_directory_is_no_first_start() {
        let dir = StateDir::new();
        fs::create_dir(dir.0.join("spool")).expect("the directory is writable");
        assert_eq!(dir.raise(None, NOW), 1, "an empty directory was made in advance");
        fs::remove_file(dir.0.join(NAME)).expect("the file is there");
        fs::write(dir.0.join("node.key"), "kept").expect("the directory is writable");
        assert_eq!(dir.raise(None, NOW), 5_001);
    }

    #[test]
    fn the_last_epoch_is_not_followed_by_the_first() {
        let dir = StateDir::new();
        let result = raise(&dir.0, Some(Epoch(u32::MAX)), NOW);
        assert!(matches!(result, Err(EpochError::Exhausted { .. })), "{result:?}");
        assert_eq!(dir.raise(None, WallMs(i64::MAX)), 1, "nothing was written");
    }

    #[test]
    fn a_directory_that_cannot_be_written_is_an_error_and_leaves_an_epoch_of_the_clock() {
        let dir = StateDir::new();
        let result = raise(&dir.0.join("missing"), None, NOW);
        assert!(matches!(result, Err(EpochError::Write { .. })), "{result:?}");
        assert_eq!(unsaved(Some(Epoch(3)), NOW), Some(Epoch(5_001)));
        assert_eq!(unsaved(Some(Epoch(3)), WallMs(0)), None);
    }
}
