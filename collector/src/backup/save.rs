//! Writes a backup to a file: as the collector that runs sends it, or by itself when none does.
//!
//! The file gets its name only when all of it was checked and is on disk; what breaks off leaves nothing.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use dunlin_shared::time::WallMs;

use super::archive::{Part, archive_bytes, read};
use super::take::head_room;
use super::{BackupError, Beside, Manifest, ONLY_OWNER, beside, clear, prepare, sync};
use crate::api::socket_path;
use crate::client::{Client, Target, Trust};
use crate::store::{StateLock, StoreError, free_bytes};

/// What is read is written as well.
struct Tee<R> {
    input: R,
    file: File,
    /// What went wrong with the file, and not with what was read.
    failed: Option<io::Error>,
}

/// A backup of the state directory, whether a collector runs on it or not.
pub fn save(state_dir: &Path, to: &Path, now: WallMs) -> Result<Manifest, BackupError> {
    if !state_dir.is_dir() {
        return Err(BackupError::NoState(state_dir.to_owned()));
    }
    let fresh = beside(to, ".new");
    let saved = match StateLock::take(state_dir) {
        Ok(_lock) => stopped(state_dir, &fresh, now),
        Err(StoreError::Locked { .. }) => running(state_dir, &fresh),
        Err(error) => Err(error.into()),
    };
    let named = saved.and_then(|manifest| {
        sync(&fresh)?;
        fs::rename(&fresh, to).map_err(|error| BackupError::file(to, error))?;
        sync(dir_of(to))?;
        Ok(manifest)
    });
    if named.is_err() {
        fs::remove_file(&fresh).ok();
    }
    named
}

/// Reads an archive from its first byte to its last.
pub fn verify(archive: &Path) -> Result<Manifest, BackupError> {
    let file = File::open(archive).map_err(|error| BackupError::file(archive, error))?;
    read(BufReader::new(file), &mut |_| Ok(()))
}

fn stopped(state_dir: &Path, fresh: &Path, now: WallMs) -> Result<Manifest, BackupError> {
    clear(state_dir)?;
    let prepared = prepare(state_dir, now, Beside::Nobody)?;
    enough_room(fresh, prepared.manifest(), 0)?;
    let mut file = made(fresh)?;
    prepared.send(&mut file).map_err(|error| BackupError::file(fresh, error))?;
    verify(fresh)
}

fn running(state_dir: &Path, fresh: &Path) -> Result<Manifest, BackupError> {
    // On the disk of the collector a file must leave it what it needs itself until the file is whole.
    let is_shared = dir_of(fresh).metadata().is_ok_and(|to| state_dir.metadata().is_ok_and(|of| to.dev() == of.dev()));
    let left = if is_shared { head_room(state_dir)? } else { 0 };
    let client = Client::new(Target::Unix(socket_path(state_dir)), None, &Trust::default())?;
    let input = client.stream("POST", "/-/backup")?;
    let mut tee = Tee { input: BufReader::new(input), file: made(fresh)?, failed: None };
    let manifest = read(&mut tee, &mut |part| match part {
        Part::Manifest(manifest) => enough_room(fresh, manifest, left),
        Part::File { .. } => Ok(()),
    });
    match tee.failed {
        Some(error) => Err(BackupError::file(fresh, error)),
        None => manifest,
    }
}

fn made(fresh: &Path) -> Result<File, BackupError> {
    let make = || {
        // One that was cut off may have been made with another mode.
        fs::remove_file(fresh)
            .or_else(|error| if error.kind() == ErrorKind::NotFound { Ok(()) } else { Err(error) })?;
        OpenOptions::new().write(true).create_new(true).mode(ONLY_OWNER).open(fresh)
    };
    make().map_err(|error| BackupError::file(fresh, error))
}

fn dir_of(file: &Path) -> &Path {
    file.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// For all of an archive, and so much besides.
fn enough_room(file: &Path, manifest: &Manifest, left: u64) -> Result<(), BackupError> {
    let dir = dir_of(file);
    let (free, needed) = (free_bytes(dir)?, archive_bytes(manifest).saturating_add(left));
    if free < needed { Err(BackupError::Room { path: dir.to_owned(), free, needed }) } else { Ok(()) }
}

impl<R: Read> Read for Tee<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(buffer)?;
        if let Err(error) = self.file.write_all(&buffer[..count]) {
            let kind = error.kind();
            self.failed = Some(error);
            return Err(kind.into());
        }
        Ok(count)
    }
}
