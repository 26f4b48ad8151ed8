//! What the agent reads of its host. Each part returns what it got and what failed, side by side.
//!
//! The root of the file systems is given, so that recorded trees can be read like the real one.

pub mod facts;
pub mod host;

use std::path::{Path, PathBuf};

use thiserror::Error;

#[derive(Debug, Error)]
pub enum SampleError {
    #[error("{} cannot be read", path.display())]
    Unreadable {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{} line {line} is not as expected: {text:?}", path.display())]
    Malformed { path: PathBuf, line: usize, text: String },
}

/// A file of `/proc` or `/sys`, which is at most one page or so; more is not read.
const FILE_BYTES_MAX: u64 = 256 * 1024;

fn read(root: &Path, name: &str) -> Result<(PathBuf, String), SampleError> {
    use std::io::Read as _;
    let path = root.join(name);
    let mut bytes = Vec::new();
    let outcome = std::fs::File::open(&path).and_then(|file| file.take(FILE_BYTES_MAX).read_to_end(&mut bytes));
    match outcome {
        Ok(_) => Ok((path, String::from_utf8_lossy(&bytes).into_owned())),
        Err(source) => Err(SampleError::Unreadable { path, source }),
    }
}

fn malformed(path: &Path, line: usize, text: &str) -> SampleError {
    SampleError::Malformed { path: path.to_owned(), line: line + 1, text: text.chars().take(80).collect() }
}
