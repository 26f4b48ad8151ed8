//! Takes a backup of a state directory: what it holds is settled first, in a directory of its own, and then sent.
//!
//! The collector may run meanwhile; nothing here waits for it or makes it wait. The directory goes with its value, and
//! after a crash at the next start.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use dunlin_shared::time::WallMs;

use super::archive::Writer;
use super::{BackupError, CONTROL, FORMAT, KEPT, Manifest, WINDOW, make_dir};
use crate::shape::Moment;
use crate::store::{COPY_DIR, Copied, copy_bytes, copy_state, free_bytes, give_to_owner_of, growth_bytes};

/// What has to stay free of the disk whatever comes: commits go before a backup.
const RESERVE_BYTES: u64 = 32 * 1024 * 1024;
/// How much is sent between two looks at the disk.
const WATCH_BYTES: usize = 16 * 1024 * 1024;
/// How often small files are read until two readings agree. Each step of a turn of the authority takes milliseconds.
const ATTEMPTS: usize = 100;

/// What a backup holds, none of which changes any more.
#[derive(Debug)]
pub struct Prepared {
    dir: PathBuf,
    /// What is to stay free of the disk while it is sent.
    reserve: u64,
    manifest: Manifest,
    /// By their names, and their sizes.
    files: Vec<(String, u64)>,
    kept: Vec<(&'static str, Vec<u8>)>,
}

/// Who writes where a backup is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beside {
    /// It stores, seals and merges meanwhile.
    Collector,
    Nobody,
}

/// A file on its way, and the disk from which it comes.
struct Watched<'a> {
    file: File,
    dir: &'a Path,
    reserve: u64,
    /// Since the disk was looked at.
    unwatched: usize,
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
pub fn prepare(state_dir: &Path, now: WallMs, beside: Beside) -> Result<Prepared, BackupError> {
    if !state_dir.join(CONTROL).exists() {
        return Err(BackupError::NoState(state_dir.to_owned()));
    }
    let (growth, reserve) = match beside {
        Beside::Collector => (growth_bytes(state_dir)?, RESERVE_BYTES),
        Beside::Nobody => (0, 0),
    };
    let needed = copy_bytes(state_dir)?.saturating_add(growth).saturating_add(reserve);
    let free = free_bytes(state_dir)?;
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
    let mut prepared = Prepared { dir, reserve, manifest, files: Vec::new(), kept: Vec::new() };
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

/// What is to be free where a collector runs before it is backed up, beside the copy itself.
pub(super) fn head_room(state_dir: &Path) -> Result<u64, BackupError> {
    Ok(growth_bytes(state_dir)?.saturating_add(RESERVE_BYTES))
}

impl Prepared {
    #[must_use]
    pub const fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// What is sent is let go. When the disk runs out all of it is: what the collector has to store goes before.
    pub fn send(self, out: &mut dyn Write) -> io::Result<Manifest> {
        let mut archive = Writer::begin(out, &self.manifest)?;
        for (name, size) in &self.files {
            let path = self.dir.join(name);
            let mut body = Watched { file: File::open(&path)?, dir: &self.dir, reserve: self.reserve, unwatched: 0 };
            archive.file(name, *size, &mut body)?;
            // Else it goes with the directory.
            fs::remove_file(&path).ok();
        }
        for (name, bytes) in &self.kept {
            archive.file(name, bytes.len() as u64, &mut bytes.as_slice())?;
        }
        archive.finish()?;
        Ok(self.manifest.clone())
    }
}

impl Read for Watched<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.unwatched == 0 {
            let free = free_bytes(self.dir).map_err(io::Error::other)?;
            if free < self.reserve {
                let what =
                    format!("only {free} bytes are free where the collector stores, and a backup holds on to more");
                return Err(io::Error::new(ErrorKind::StorageFull, what));
            }
        }
        let count = self.file.read(buffer)?;
        self.unwatched += count;
        if self.unwatched >= WATCH_BYTES {
            self.unwatched = 0;
        }
        Ok(count)
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::super::archive::archive_bytes;
    use super::*;
    use crate::record::{Event, Pos, Record};
    use crate::store::tests::full::Disk;
    use crate::store::{Control, Log};

    const MIB: usize = 1 << 20;

    /// A state whose window holds one sealed file of so many MiB.
    fn state(disk: &Disk, name: &str, mib: usize) -> PathBuf {
        let dir = disk.path().join("state");
        fs::create_dir(&dir).expect("made");
        let (mut log, _) = Log::open(&dir.join("window"), WallMs(0), Pos(0)).expect("a new log");
        log.rotate(WallMs(0), &[]).expect("the first file");
        log.begin().expect("begin");
        log.append(&Record { at: WallMs(1), event: Event::Started }).expect("append");
        log.commit().expect("commit");
        log.close().expect("close");
        drop(Control::open(&dir.join(CONTROL), WallMs(0), 1).expect("a new control.db"));
        fs::write(dir.join(WINDOW).join(name), vec![7; mib * MIB]).expect("there is room");
        dir
    }

    #[test]
    fn a_backup_beside_a_collector_wants_room_for_what_is_merged_meanwhile() {
        let disk = Disk::new(96 * 1024);
        let dir = state(&disk, "full-5m-600-1-9-600.db", 40);
        // 40 MiB are to be an hour while the parts are linked, and 32 stay free: 72 of the 55 that are left.
        let refused = prepare(&dir, WallMs(0), Beside::Collector).expect_err("there is no room for that");
        assert!(matches!(refused, BackupError::Room { needed, .. } if needed > 72 * MIB as u64), "{refused}");
        assert!(!dir.join(COPY_DIR).exists());
        drop(prepare(&dir, WallMs(0), Beside::Nobody).expect("nothing is merged while it is stopped"));
        fs::rename(dir.join("window/full-5m-600-1-9-600.db"), dir.join("window/full-1h-0-1-9-600.db"))
            .expect("renamed");
        drop(prepare(&dir, WallMs(0), Beside::Collector).expect("an hour stays as it is"));
    }

    #[test]
    fn what_is_sent_is_let_go_and_a_disk_that_runs_full_ends_the_backup() {
        let disk = Disk::new(96 * 1024);
        let dir = state(&disk, "full-1h-0-1-9-600.db", 20);
        let links = || fs::metadata(dir.join("window/full-1h-0-1-9-600.db")).expect("it is there").nlink();
        let prepared = prepare(&dir, WallMs(0), Beside::Collector).expect("there is room");
        assert_eq!(links(), 2);
        let mut sent = Vec::new();
        let manifest = prepared.send(&mut sent).expect("it is sent");
        assert!(sent.len() > 20 * MIB && sent.len() as u64 <= archive_bytes(&manifest), "{} bytes", sent.len());
        assert_eq!(links(), 1);

        let prepared = prepare(&dir, WallMs(0), Beside::Collector).expect("there is room");
        let filler = disk.fill();
        let refused = prepared.send(&mut io::sink()).expect_err("the collector has no room to store");
        assert_eq!(refused.kind(), ErrorKind::StorageFull);
        assert!(links() == 1 && !dir.join(COPY_DIR).exists(), "all of it is given back");
        fs::remove_file(filler).expect("removed");
    }

    /// Whoever takes the archive away: the file on the way goes before the rest.
    struct Leaves(usize);

    impl Write for Leaves {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 = self.0.checked_sub(bytes.len()).ok_or(ErrorKind::BrokenPipe)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn an_asker_that_leaves_gives_everything_back() {
        let disk = Disk::new(96 * 1024);
        let dir = state(&disk, "full-1h-0-1-9-600.db", 4);
        let prepared = prepare(&dir, WallMs(0), Beside::Collector).expect("there is room");
        assert!(prepared.send(&mut Leaves(MIB)).is_err());
        assert!(!dir.join(COPY_DIR).exists());
        drop(prepare(&dir, WallMs(0), Beside::Collector).expect("the next is not refused"));
    }
}
