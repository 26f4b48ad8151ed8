//! What can be wrong with an import, with the place and with what would be right.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::store::StoreError;
use crate::window::ReadError;

#[derive(Debug, Error)]
pub enum ImportError {
    #[error("{}:{line}: {what}", file.display())]
    At { file: PathBuf, line: u64, what: String },
    #[error("{}: {what}", file.display())]
    In { file: PathBuf, what: String },
    #[error("{} cannot be used: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{} belongs to the user with the number {uid}: import as that user, such as by `runuser -u USER -- dunlin-collector import`", path.display())]
    OtherUser { path: PathBuf, uid: u32 },
    #[error("{} has samples and no control.db: start the collector once, so that it is made from them", .0.display())]
    NoControl(PathBuf),
    #[error("{} was not stopped cleanly: start the collector once and stop it, and then import", .0.display())]
    Behind(PathBuf),
    #[error("the system gives no random numbers")]
    NoRandom,
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Read(#[from] ReadError),
}

impl ImportError {
    pub(super) fn io(path: &Path, source: io::Error) -> Self {
        Self::Io { path: path.to_path_buf(), source }
    }
}
