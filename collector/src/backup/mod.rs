//! Backup and restore of a collector's whole state, in one file that an ordinary `tar` can read.
//!
//! A backup holds everything that was acknowledged before it began, the authority's key included: it is worth as much
//! as the collector, and is written for its owner alone. A restore begins another life of the collector.

pub mod archive;
mod marker;
mod restore;
mod save;
mod take;

use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use self::archive::{Part, read};
pub use self::marker::{Marker, consume, pending};
pub use self::restore::{Restored, restore};
pub use self::save::{save, verify};
pub use self::take::{Beside, Prepared, clear, prepare};
use crate::client::ClientError;
use crate::shape::Moment;
use crate::store::{StoreError, is_window_file};

/// Of the archive, as its manifest names it.
pub const FORMAT: u32 = 1;
const ONLY_OWNER: u32 = 0o600;
const OWNERS_DIR: u32 = 0o700;

/// Files beside `control.db`, the one in which people's revocations stand last: it then knows at least as many as
/// `control.db`. Of a turn of the authority every step leaves all of them sound together.
const KEPT: [&str; 9] = [
    "ca.key",
    "ca.pem",
    "ca-next.key",
    "ca-cross.pem",
    "collector.key",
    "collector.pem",
    "endpoint.key",
    "admin-token",
    "revoked",
];
const CONTROL: &str = "control.db";
const WINDOW: &str = "window/";

/// The first entry of an archive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    pub format: u32,
    pub program: String,
    /// When it began.
    pub at: Moment,
    /// Of the state that it is of; a string, since few readers of JSON hold 64 bits.
    pub incarnation: String,
    /// The last record of the log that it holds, and the last one that `control.db` has applied.
    pub position: u64,
    pub applied: u64,
    pub files: u64,
    pub bytes: u64,
}

#[derive(Debug, Error)]
pub enum BackupError {
    #[error("{}", path.display())]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the archive cannot be used: {0}")]
    Archive(String),
    #[error("the archive has format {found} and this program knows formats up to {FORMAT}; take the newer program")]
    Newer { found: u32 },
    #[error("the archive breaks off")]
    Stream(#[source] io::Error),
    #[error("another backup is under way")]
    Busy,
    #[error("{} has {free} bytes free, and {needed} are needed", path.display())]
    Room { path: PathBuf, free: u64, needed: u64 },
    #[error("{} holds a state already; `--over` puts it aside", .0.display())]
    Occupied(PathBuf),
    #[error("there is no state of a collector in {}", .0.display())]
    NoState(PathBuf),
    #[error("{} is a mount point and cannot be exchanged; restore into a directory below it", .0.display())]
    MountPoint(PathBuf),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Client(#[from] ClientError),
}

impl BackupError {
    fn file(path: &Path, source: io::Error) -> Self {
        Self::File { path: path.to_owned(), source }
    }
}

/// Why an entry of this name has no place in a state directory.
fn refused_name(name: &str) -> Option<&'static str> {
    if name.starts_with('/') {
        return Some("its name is absolute");
    }
    if name.split('/').any(|part| part == ".." || part == ".") {
        return Some("its name leads out of the directory");
    }
    let is_ours = match name.strip_prefix(WINDOW) {
        Some(file) => is_window_file(file),
        None => name == CONTROL || KEPT.contains(&name),
    };
    (!is_ours).then_some("it is no file of a collector's state")
}

fn make_dir(path: &Path) -> io::Result<()> {
    std::fs::create_dir(path)?;
    std::fs::set_permissions(path, Permissions::from_mode(OWNERS_DIR))
}

fn sync(path: &Path) -> Result<(), BackupError> {
    File::open(path).and_then(|file| file.sync_all()).map_err(|error| BackupError::file(path, error))
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
