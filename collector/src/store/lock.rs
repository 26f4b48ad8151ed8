//! One process to a state directory: an advisory lock on `STATE/lock`, held while the value lives.
//!
//! The lock belongs to the open file, so a killed process never leaves one behind. The number in the
//! file is only there to tell a person who holds it.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rustix::fs::OFlags;

use super::error::StoreError;
use super::owner::give_to_owner_of;

#[derive(Debug)]
pub struct StateLock {
    _file: File,
}

impl StateLock {
    /// Makes the directory when it is missing.
    pub fn take(state_dir: &Path) -> Result<Self, StoreError> {
        std::fs::create_dir_all(state_dir).map_err(|error| StoreError::io(state_dir, error))?;
        let path = state_dir.join("lock");
        let at = |error| StoreError::io(&path, error);
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true).create(true).truncate(false);
        let mut file = options.custom_flags(OFlags::NOFOLLOW.bits().cast_signed()).open(&path).map_err(at)?;
        give_to_owner_of(state_dir, &path).map_err(at)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                let read = (&mut file).take(20).read_to_string(&mut text);
                let process = read.ok().and_then(|_| text.trim().parse().ok());
                return Err(StoreError::Locked { path: state_dir.to_path_buf(), process });
            }
            Err(TryLockError::Error(error)) => return Err(at(error)),
        }
        // On a full disk the number is missing and the lock holds all the same.
        let noted = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
        drop(noted);
        Ok(Self { _file: file })
    }
}
