//! The file that a restore leaves for the first start after it: by it the collector begins another life.
//!
//! It holds the new incarnation, so that a start that is cut off between the change and the removal of the file changes
//! nothing twice.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{BackupError, Manifest, sync};

const FILE: &str = "restored.json";

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marker {
    pub incarnation: String,
    pub backup: Manifest,
}

impl Marker {
    pub(super) fn write(&self, dir: &Path) -> Result<PathBuf, BackupError> {
        let path = dir.join(FILE);
        let text = serde_json::to_string_pretty(self).unwrap_or_default();
        fs::write(&path, text).map_err(|error| BackupError::file(&path, error))?;
        Ok(path)
    }

    #[must_use]
    pub fn incarnation(&self) -> Option<u64> {
        self.incarnation.parse().ok().filter(|drawn| i64::try_from(*drawn).is_ok())
    }
}

/// What this start has to carry out.
pub fn pending(state_dir: &Path) -> Result<Option<Marker>, BackupError> {
    let path = state_dir.join(FILE);
    match fs::read(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(BackupError::file(&path, error)),
        Ok(text) => serde_json::from_slice(&text)
            .map(Some)
            .map_err(|error| BackupError::file(&path, std::io::Error::new(ErrorKind::InvalidData, error))),
    }
}

/// It is carried out, and that is on disk.
pub fn consume(state_dir: &Path) -> Result<(), BackupError> {
    let path = state_dir.join(FILE);
    fs::remove_file(&path).map_err(|error| BackupError::file(&path, error))?;
    sync(state_dir)
}
