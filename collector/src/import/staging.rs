//! Where what is imported lies until it counts: a directory within the window, of which nobody reads.
//!
//! It counts from the moment in which the directory holds a file named `decided`. Whatever moves what it holds to its
//! place may be cut off and goes on later, before anybody asks which positions are taken. Without that file it is left over from
//! an import that came to nothing, and goes.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::error::ImportError;

const DIRECTORY: &str = "import.new";
const DECIDED: &str = "decided";

#[derive(Debug)]
pub(super) struct Staging {
    path: PathBuf,
    is_decided: bool,
}

impl Staging {
    /// `window` is settled.
    pub(super) fn begin(window: &Path) -> Result<Self, ImportError> {
        let path = window.join(DIRECTORY);
        fs::create_dir(&path).map_err(|error| ImportError::io(&path, error))?;
        Ok(Self { path, is_decided: false })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn decide(mut self) -> Result<(), ImportError> {
        self.is_decided = true;
        let decided = self.path.join(DECIDED);
        let done = File::create_new(&decided).and_then(|file| file.sync_all()).and_then(|()| sync(&self.path));
        done.map_err(|error| ImportError::io(&decided, error))
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if !self.is_decided {
            // The next import or start tries it again.
            fs::remove_dir_all(&self.path).ok();
        }
    }
}

/// Moves to its place what was decided, and takes away what was not. Whether something was moved.
pub fn settle(window: &Path) -> Result<bool, ImportError> {
    let path = window.join(DIRECTORY);
    let at = |error: io::Error| ImportError::io(&path, error);
    if !path.exists() {
        return Ok(false);
    }
    let is_decided = path.join(DECIDED).exists();
    if is_decided {
        for entry in fs::read_dir(&path).map_err(at)? {
            let entry = entry.map_err(at)?;
            if entry.path().extension().is_some_and(|kind| kind == "db") {
                fs::rename(entry.path(), window.join(entry.file_name())).map_err(at)?;
            }
        }
        sync(window).map_err(at)?;
    }
    fs::remove_dir_all(&path).map_err(at)?;
    Ok(is_decided)
}

fn sync(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}
