//! The state directory: made when it is missing, locked against a second agent, and written so that
//! a power cut leaves either the old file or the new one.
//!
//! The lock belongs to the open file, so a killed agent never leaves one behind. The number in it is
//! there to tell a person who holds it.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use thiserror::Error;

pub const LOCK: &str = "lock";
/// What a file is written to before it takes its name.
pub const TEMPORARY_SUFFIX: &str = ".tmp";

/// Keys lie here: nobody else looks in.
const DIR_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

#[derive(Debug)]
pub struct StateLock {
    _file: File,
}

#[derive(Debug, Error)]
pub enum StateError {
    #[error("{}: an agent runs on this state directory{}", path.display(), process.map(|id| format!(", as process {id}")).unwrap_or_default())]
    Locked { path: PathBuf, process: Option<u32> },
    #[error("{}: cannot be used; the agent must be able to write to it", path.display())]
    Unusable {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl StateLock {
    /// Makes the directory when it is missing.
    pub fn take(state_dir: &Path) -> Result<Self, StateError> {
        let unusable = |source| StateError::Unusable { path: state_dir.to_owned(), source };
        DirBuilder::new().recursive(true).mode(DIR_MODE).create(state_dir).map_err(unusable)?;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(FILE_MODE);
        Self::hold(state_dir, options.open(state_dir.join(LOCK)).map_err(unusable)?)
    }

    /// `None` where no agent has ever run. Nothing is made: it would belong to whoever asks, and not to the agent.
    pub fn take_existing(state_dir: &Path) -> Result<Option<Self>, StateError> {
        match OpenOptions::new().read(true).write(true).open(state_dir.join(LOCK)) {
            Ok(file) => Self::hold(state_dir, file).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(StateError::Unusable { path: state_dir.to_owned(), source }),
        }
    }

    fn hold(state_dir: &Path, mut file: File) -> Result<Self, StateError> {
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                let read = (&mut file).take(20).read_to_string(&mut text);
                let process = read.ok().and_then(|_| text.trim().parse().ok());
                return Err(StateError::Locked { path: state_dir.to_owned(), process });
            }
            Err(TryLockError::Error(source)) => {
                return Err(StateError::Unusable { path: state_dir.to_owned(), source });
            }
        }
        // On a full disk the number is missing, and the lock holds all the same.
        let noted = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
        drop(noted);
        Ok(Self { _file: file })
    }
}

/// Whether an agent holds it. Nothing is written, and the lock is let go at once.
#[must_use]
pub fn is_locked(state_dir: &Path) -> bool {
    let Ok(file) = File::open(state_dir.join(LOCK)) else { return false };
    matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock))
}

/// Writes beside the file, syncs, renames, and syncs the directory.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = temporary(path);
    // What a power cut left may have another mode.
    remove(&temporary)?;
    let written =
        OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(&temporary).and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()
        });
    if let Err(error) = written.and_then(|()| fs::rename(&temporary, path)) {
        // It takes room on a disk that may be full; the next write removes it otherwise.
        fs::remove_file(&temporary).ok();
        return Err(error);
    }
    sync_dir_of(path)
}

/// Whether there was anything to remove: a file, or a directory with all that is in it.
pub fn remove(path: &Path) -> io::Result<bool> {
    let kind = match fs::symlink_metadata(path) {
        Ok(found) => found.file_type(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    if kind.is_dir() {
        fs::remove_dir_all(path)?
    } else {
        fs::remove_file(path)?
    }
    Ok(true)
}

/// What was renamed or removed in the directory of `path` is so after a power cut, too.
pub fn sync_dir_of(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
}

/// A small file, `None` when it is not there. What is longer than `bytes_max` is an error.
pub fn read(path: &Path, bytes_max: u64) -> io::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    file.take(bytes_max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it has more than {bytes_max} bytes")));
    }
    Ok(Some(bytes))
}

#[must_use]
pub fn temporary(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(TEMPORARY_SUFFIX);
    name.into()
}

#[cfg(test)]
pub(crate) mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    /// A directory of one test.
    #[derive(Debug)]
    pub(crate) struct Dir(pub(crate) PathBuf);

    impl Dir {
        pub(crate) fn new() -> Self {
            static DIRS: AtomicU32 = AtomicU32::new(0);
            let n = DIRS.fetch_add(1, Ordering::Relaxed);
            let dir = std::env::temp_dir().join(format!("dunlin-state-{}-{n}", std::process::id()));
            fs::create_dir_all(&dir).expect("a temporary directory");
            Self(dir)
        }

        pub(crate) fn names(&self) -> Vec<String> {
            let entries = fs::read_dir(&self.0).expect("it is there").flatten();
            let mut names: Vec<_> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
            names.sort();
            names
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).ok();
        }
    }

    #[test]
    fn what_a_power_cut_left_half_written_neither_counts_nor_hinders() {
        let dir = Dir::new();
        let path = dir.0.join("node.pem");
        replace(&path, b"old").expect("it is writable");
        for torn in 0..=3 {
            fs::write(temporary(&path), &b"new"[..torn]).expect("it is writable");
            assert_eq!(fs::read(&path).expect("it is there"), b"old");
        }
        replace(&path, b"new").expect("what is left is no hindrance");
        assert_eq!(fs::read(&path).expect("it is there"), b"new");
        assert_eq!(dir.names(), ["node.pem"]);
        assert_eq!(fs::metadata(&path).expect("it is there").permissions().mode() & 0o777, FILE_MODE);
    }

    #[test]
    fn a_write_that_fails_leaves_the_old_file() {
        let dir = Dir::new();
        let path = dir.0.join("node.pem");
        replace(&path, b"old").expect("it is writable");
        fs::create_dir(temporary(&path)).expect("it is writable");
        fs::write(temporary(&path).join("x"), "").expect("it is writable");
        replace(&path, b"new").expect("even a directory gives way");
        assert!(replace(&dir.0.join("none/node.pem"), b"new").is_err());
        assert_eq!(fs::read(&path).expect("it is there"), b"new");
    }

    #[test]
    fn a_second_agent_is_told_who_the_first_is() {
        let dir = Dir::new();
        let state = dir.0.join("a/b");
        let first = StateLock::take(&state).expect("nobody is there");
        let error = StateLock::take(&state).expect_err("one is there").to_string();
        assert!(error.contains(&format!("as process {}", std::process::id())), "{error}");
        drop(first);
        StateLock::take(&state).expect("the first has gone");
        assert!(StateLock::take_existing(&state).expect("nobody is there").is_some());
        assert!(StateLock::take_existing(&dir.0).expect("nobody ever was").is_none());
        assert_eq!(dir.names(), ["a"]);
    }

    #[test]
    fn a_file_that_is_too_long_is_not_read() {
        let dir = Dir::new();
        let path = dir.0.join("x");
        assert_eq!(read(&path, 3).expect("it is missing"), None);
        fs::write(&path, "abc").expect("it is writable");
        assert_eq!(read(&path, 3).expect("it is short"), Some(b"abc".to_vec()));
        assert_eq!(read(&path, 2).expect_err("too long").kind(), io::ErrorKind::FileTooLarge);
    }
}
