//! Puts a backup in the place of a state directory: unpacked and checked beside it, and exchanged for it in one step.
//!
//! Nothing of an archive gets its place before all of it was read and is on disk. Who was shut out of the state that goes
//! stays out.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, ErrorKind};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use dunlin_shared::time::WallMs;
use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::archive::{Part, read};
use super::marker::Marker;
use super::{BackupError, Manifest, ONLY_OWNER, WINDOW, beside, make_dir, sync};
use crate::store::{Revoked, StateLock, free_bytes, give_to_owner_of};

/// What lies in a state directory that holds nothing yet.
const LOCK: &str = "lock";

/// What a restore did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    pub backup: Manifest,
    /// Where the state is that was there before.
    pub aside: Option<PathBuf>,
    /// Who was shut out of it and not of the backup.
    pub revoked: usize,
}

/// `incarnation` is random.
pub fn restore(
    archive: &Path,
    state_dir: &Path,
    over: bool,
    (now, incarnation): (WallMs, u64),
) -> Result<Restored, BackupError> {
    let at = |error| BackupError::file(state_dir, error);
    let is_there = state_dir.exists();
    let dir = if is_there { state_dir.canonicalize() } else { std::path::absolute(state_dir) }.map_err(at)?;
    let _lock = if is_there { Some(StateLock::take(&dir)?) } else { None };
    let holds_state = is_there && holds_something(&dir).map_err(at)?;
    if holds_state && !over {
        return Err(BackupError::Occupied(dir));
    }
    let fresh = beside(&dir, ".restore.new");
    let before = beside(&dir, &format!(".before-{}", now.0));
    // Of a restore that ended between the exchange and its last step: what is there was a state, and no archive has a lock.
    if fresh.join(LOCK).exists() {
        fs::rename(&fresh, &before).map_err(|error| BackupError::file(&fresh, error))?;
    }
    match fs::remove_dir_all(&fresh) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(BackupError::file(&fresh, error)),
        _ => {}
    }
    let unpacked = unpack(archive, &fresh).and_then(|backup| {
        let revoked = if holds_state { merge_revoked(&dir, &fresh)? } else { 0 };
        Marker { incarnation: incarnation.to_string(), backup: backup.clone() }.write(&fresh)?;
        settle(&fresh, if is_there { &dir } else { &fresh })?;
        exchange(&fresh, &dir, is_there)?;
        Ok((backup, revoked))
    });
    let (backup, revoked) = unpacked.inspect_err(|_| drop(fs::remove_dir_all(&fresh)))?;
    // What was in its place is beside it now.
    let mut aside = None;
    if holds_state {
        let name = if before.exists() { beside(&dir, &format!(".before-{}", now.0 + 1)) } else { before };
        fs::rename(&fresh, &name).map_err(|error| BackupError::file(&fresh, error))?;
        aside = Some(name);
    } else if is_there {
        fs::remove_file(fresh.join(LOCK)).and_then(|()| fs::remove_dir(&fresh)).map_err(at)?;
    }
    sync(dir.parent().unwrap_or(Path::new("/")))?;
    Ok(Restored { backup, aside, revoked })
}

fn holds_something(dir: &Path) -> io::Result<bool> {
    for entry in fs::read_dir(dir)? {
        if entry?.file_name() != LOCK {
            return Ok(true);
        }
    }
    Ok(false)
}

fn unpack(archive: &Path, fresh: &Path) -> Result<Manifest, BackupError> {
    let file = File::open(archive).map_err(|error| BackupError::file(archive, error))?;
    let window = fresh.join(WINDOW);
    make_dir(fresh).and_then(|()| make_dir(&window)).map_err(|error| BackupError::file(fresh, error))?;
    read(BufReader::new(file), &mut |part| match part {
        Part::Manifest(manifest) => {
            let (free, needed) = (free_bytes(fresh)?, manifest.bytes);
            if free < needed {
                return Err(BackupError::Room { path: fresh.to_owned(), free, needed });
            }
            Ok(())
        }
        Part::File { name, body } => {
            // The archive gives no name but those of a state's own files.
            let path = fresh.join(name);
            let mut options = OpenOptions::new();
            let opened = options.write(true).create_new(true).mode(ONLY_OWNER).open(&path);
            let mut file = opened.map_err(|error| BackupError::file(&path, error))?;
            io::copy(body, &mut file).map_err(|error| match error.kind() {
                ErrorKind::UnexpectedEof => BackupError::Stream(error),
                _ => BackupError::file(&path, error),
            })?;
            file.sync_all().map_err(|error| BackupError::file(&path, error))
        }
    })
}

/// How many lines the list of the state that goes has more.
fn merge_revoked(old: &Path, fresh: &Path) -> Result<usize, BackupError> {
    let (_, found) = Revoked::open(old)?;
    let (mut merged, known) = Revoked::open(fresh)?;
    merged.append(found.lines.iter().copied())?;
    let (_, all) = Revoked::open(fresh)?;
    Ok(all.lines.len() - known.lines.len().min(all.lines.len()))
}

/// Whom it belongs to, and that it is on disk.
fn settle(fresh: &Path, owner: &Path) -> Result<(), BackupError> {
    for dir in [fresh.join(WINDOW), fresh.to_owned()] {
        for entry in fs::read_dir(&dir).map_err(|error| BackupError::file(&dir, error))? {
            let path = entry.map_err(|error| BackupError::file(&dir, error))?.path();
            give_to_owner_of(owner, &path).map_err(|error| BackupError::file(&path, error))?;
            sync(&path)?;
        }
        give_to_owner_of(owner, &dir).map_err(|error| BackupError::file(&dir, error))?;
        sync(&dir)?;
    }
    Ok(())
}

/// There is no moment at which there is no state, or half of one.
fn exchange(fresh: &Path, dir: &Path, is_there: bool) -> Result<(), BackupError> {
    let flags = if is_there { RenameFlags::EXCHANGE } else { RenameFlags::NOREPLACE };
    renameat_with(CWD, fresh, CWD, dir, flags).map_err(|error| match error {
        rustix::io::Errno::BUSY | rustix::io::Errno::XDEV => BackupError::MountPoint(dir.to_owned()),
        error => BackupError::file(dir, error.into()),
    })
}
