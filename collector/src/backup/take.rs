//! Takes a backup of a state directory: what it holds is settled first, in a directory of its own, and then sent.
//!
//! The collector may run meanwhile; nothing here waits for it or makes it wait. The directory goes with its value, and
//! after a crash at the next start.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use dunlin_shared::time::WallMs;

use super::archive::Writer;
use super::{BackupError, CONTROL, FORMAT, KEPT, Manifest, WINDOW, make_dir};
use crate::shape::Moment;
use crate::store::{COPY_DIR, Copied, copy_bytes, copy_state, free_bytes, give_to_owner_of};

/// What has to stay free of the disk besides: journals of a few minutes.
const RESERVE_BYTES: u64 = 32 * 1024 * 1024;
/// How often small files are read until two readings agree. Each step of a turn of the authority takes milliseconds.
const ATTEMPTS: usize = 100;

/// What a backup holds, none of which changes any more.
#[derive(Debug)]
pub struct Prepared {
    dir: PathBuf,
    manifest: Manifest,
    /// By their names, and their sizes.
    files: Vec<(String, u64)>,
    kept: Vec<(&'static str, Vec<u8>)>,
}

/// Removes what a backup that was cut off left. The caller holds the lock.
pub fn clear(state_dir: &Path) -> Result<(), BackupError> {
    let dir = state_dir.join(COPY_DIR);
    match fs::remove_dir_all(&dir) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(BackupError::file(&dir, error)),
        _ => Ok(()),
    }
}

/// Everything that is acknowledged by now is in it. For the collector itself, or for who holds its lock.
pub fn prepare(state_dir: &Path, now: WallMs) -> Result<Prepared, BackupError> {
    if !state_dir.join(CONTROL).exists() {
        return Err(BackupError::NoState(state_dir.to_owned()));
    }
    let (needed, free) = (copy_bytes(state_dir)?.saturating_add(RESERVE_BYTES), free_bytes(state_dir)?);
    if free < needed {
        return Err(BackupError::Room { path: state_dir.to_owned(), free, needed });
    }
    let dir = state_dir.join(COPY_DIR);
    match make_dir(&dir) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => return Err(BackupError::Busy),
        made => made.map_err(|error| BackupError::file(&dir, error))?,
    }
    // From here on the directory goes with the value.
    let manifest = Manifest {
        format: FORMAT,
        program: env!("CARGO_PKG_VERSION").to_owned(),
        at: Moment(now),
        incarnation: String::new(),
        position: 0,
        applied: 0,
        files: 0,
        bytes: 0,
    };
    let mut prepared = Prepared { dir, manifest, files: Vec::new(), kept: Vec::new() };
    give_to_owner_of(state_dir, &prepared.dir).map_err(|error| BackupError::file(&prepared.dir, error))?;
    let Copied { incarnation, applied, last } = copy_state(state_dir, &prepared.dir)?;
    prepared.kept = kept(state_dir)?;
    prepared.files = listed(&prepared.dir).map_err(|error| BackupError::file(&prepared.dir, error))?;
    let sizes = prepared.files.iter().map(|(_, size)| *size);
    let bytes = sizes.chain(prepared.kept.iter().map(|(_, bytes)| bytes.len() as u64)).sum();
    let files = (prepared.files.len() + prepared.kept.len()) as u64;
    let (incarnation, applied, position) = (incarnation.to_string(), applied.0, last.0);
    prepared.manifest = Manifest { incarnation, applied, position, files, bytes, ..prepared.manifest.clone() };
    Ok(prepared)
}

impl Prepared {
    #[must_use]
    pub const fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    pub fn send(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut archive = Writer::begin(out, &self.manifest)?;
        for (name, size) in &self.files {
            archive.file(name, *size, &mut File::open(self.dir.join(name))?)?;
        }
        for (name, bytes) in &self.kept {
            archive.file(name, bytes.len() as u64, &mut bytes.as_slice())?;
        }
        archive.finish()
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        // What cannot be removed now is removed at the next start.
        fs::remove_dir_all(&self.dir).ok();
    }
}

/// The small files as they stood together: read again until nothing changed in between.
fn kept(state_dir: &Path) -> Result<Vec<(&'static str, Vec<u8>)>, BackupError> {
    let read = || -> Result<Vec<(&'static str, Vec<u8>)>, BackupError> {
        let mut found = Vec::new();
        for name in KEPT {
            let path = state_dir.join(name);
            match fs::read(&path) {
                Ok(bytes) => found.push((name, bytes)),
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(BackupError::file(&path, error)),
            }
        }
        Ok(found)
    };
    let mut before = read()?;
    for _ in 0..ATTEMPTS {
        let again = read()?;
        if again == before {
            return Ok(again);
        }
        before = again;
    }
    Err(BackupError::file(state_dir, io::Error::other("its keys change again and again; try it again")))
}

fn listed(dir: &Path) -> io::Result<Vec<(String, u64)>> {
    let mut files = vec![(CONTROL.to_owned(), fs::metadata(dir.join(CONTROL))?.len())];
    for entry in fs::read_dir(dir.join(WINDOW))? {
        let entry = entry?;
        let name = entry.file_name().into_string().map_err(|_| io::Error::other("a name that is no text"))?;
        files.push((format!("{WINDOW}{name}"), entry.metadata()?.len()));
    }
    files[1..].sort();
    Ok(files)
}
