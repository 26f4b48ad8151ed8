//! Lines of a file, each of a bounded length and known by its number.

use std::fs::File;
use std::io::{BufRead, BufReader, Read as _};
use std::path::{Path, PathBuf};

use super::error::ImportError;
use crate::client::table::plain;

/// Names of 255 bytes that are all escaped, and room.
const LINE_BYTES_MAX: usize = 16 * 1024;
const BUFFER_BYTES: usize = 64 * 1024;

#[derive(Debug)]
pub(super) struct Lines {
    input: BufReader<File>,
    file: PathBuf,
    /// Of the line that was read last, from 1 on.
    number: u64,
    /// It was looked at and is still to be read.
    is_ahead: bool,
    line: Vec<u8>,
}

impl Lines {
    pub(super) fn open(file: &Path) -> Result<Self, ImportError> {
        let input = File::open(file).map_err(|error| ImportError::io(file, error))?;
        let input = BufReader::with_capacity(BUFFER_BYTES, input);
        Ok(Self { input, file: file.to_path_buf(), number: 0, is_ahead: false, line: Vec::new() })
    }

    pub(super) fn file(&self) -> &Path {
        &self.file
    }

    pub(super) const fn number(&self) -> u64 {
        self.number
    }

    /// The first line, which is read again.
    pub(super) fn first(&mut self) -> Result<&str, ImportError> {
        if !self.advance()? {
            return Err(self.wrong("the file is empty"));
        }
        self.is_ahead = true;
        self.text()
    }

    /// Reads the next line, without its end. Whether there is one.
    pub(super) fn advance(&mut self) -> Result<bool, ImportError> {
        if std::mem::take(&mut self.is_ahead) {
            return Ok(true);
        }
        self.line.clear();
        let max = LINE_BYTES_MAX as u64;
        let read = self.input.by_ref().take(max).read_until(b'\n', &mut self.line);
        let len = read.map_err(|error| ImportError::io(&self.file, error))?;
        if len == 0 {
            return Ok(false);
        }
        self.number += 1;
        if self.line.last() == Some(&b'\n') {
            self.line.pop();
            if self.line.last() == Some(&b'\r') {
                self.line.pop();
            }
        } else if len == LINE_BYTES_MAX {
            return Err(self.wrong(format!("the line is longer than {LINE_BYTES_MAX} bytes, which no export writes")));
        } else if self.line != b"# EOF" {
            return Err(self.wrong("the file ends in the middle of a line: it is not whole"));
        }
        Ok(true)
    }

    pub(super) fn text(&self) -> Result<&str, ImportError> {
        std::str::from_utf8(&self.line).map_err(|_| self.wrong("the line is not UTF-8"))
    }

    /// What is wrong with the line that was read last. It may tell what stands there, and reaches a terminal.
    pub(super) fn wrong(&self, what: impl Into<String>) -> ImportError {
        ImportError::At { file: self.file.clone(), line: self.number.max(1), what: plain(&what.into()) }
    }
}

/// What is shown of a word.
pub(super) fn short(text: &str) -> String {
    plain(&text.chars().take(80).collect::<String>())
}
