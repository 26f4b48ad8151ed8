//! What a part of a tick could not get, and why. A failure costs its own part and nothing else.
//!
//! Something that a kernel simply does not have is said, but it is no failure: it will not come back.

use std::path::{Path, PathBuf};

use thiserror::Error;

/// Lines of one tick; a host where more fails has one cause, and the first ones name it.
const FAILURES_MAX: usize = 32;
/// What is shown of a line that could not be read.
const SHOWN_CHARS: usize = 80;

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
    #[error("{} has more than {max} bytes; the rest of it is not seen", path.display())]
    TooLong { path: PathBuf, max: usize },
    #[error("{} is not there: {why}", path.display())]
    Absent { path: PathBuf, why: &'static str },
    #[error(
        "the file system at {mount} did not answer within {limit_ms} ms; it is reported as not responding until it does"
    )]
    Hung { mount: String, limit_ms: u64 },
    #[error("the file system at {mount} answers with an error")]
    FileSystem {
        mount: String,
        #[source]
        source: std::io::Error,
    },
    #[error("hidden from the agent, by its sandbox or by permissions: the file system at {mount}{}", more(*.others))]
    Hidden { mount: String, others: usize },
    #[error("there was no time left to ask the file system at {mount}")]
    NotAsked { mount: String },
    #[error(
        "{threads} threads wait for file systems that do not answer; network file systems are not asked until one does"
    )]
    Held { threads: usize },
    #[error("there are more than {max} {what}; the others are not reported")]
    TooMany { what: &'static str, max: usize },
    #[error(
        "process {pid} did not tell its command line within {limit_ms} ms; it is called by its short name until it does"
    )]
    Silent { pid: u32, limit_ms: u64 },
    #[error("the network cards did not tell their speed for a whole tick; they are asked again when they do")]
    Speed,
    #[error("the temperature sensors did not answer for a whole tick; they are read again when they do")]
    Sensors,
    #[error("the kernel did not tell over netlink what listens; /proc/net was read instead")]
    Netlink {
        #[source]
        source: std::io::Error,
    },
    /// `is_shut` where the host is made so that the agent may not ask it.
    #[error("the container engine at {says}")]
    Engine { says: Box<str>, is_shut: bool },
    #[error("no thread could be started for {what}")]
    Thread {
        what: &'static str,
        #[source]
        source: std::io::Error,
    },
}

/// A failure and the part of the tick that it belongs to.
#[derive(Debug)]
pub struct Failure {
    pub part: &'static str,
    pub error: SampleError,
}

/// Collects the failures of one tick.
#[derive(Debug, Default)]
pub struct Failures {
    part: &'static str,
    list: Vec<Failure>,
}

impl SampleError {
    /// Whether the host or the agent's sandbox is made so, rather than that something failed.
    #[must_use]
    pub const fn is_absence(&self) -> bool {
        matches!(self, Self::Absent { .. } | Self::Hidden { .. } | Self::Engine { is_shut: true, .. })
    }

    pub(super) fn malformed(path: &Path, line: usize, text: &str) -> Self {
        Self::Malformed { path: path.to_owned(), line: line + 1, text: text.chars().take(SHOWN_CHARS).collect() }
    }
}

pub(super) fn more(others: usize) -> String {
    if others == 0 { String::new() } else { format!(" and {others} more") }
}

impl Failures {
    pub(super) const fn part(&mut self, part: &'static str) {
        self.part = part;
    }

    pub(super) fn note(&mut self, error: SampleError) {
        if self.list.len() < FAILURES_MAX {
            self.list.push(Failure { part: self.part, error });
        }
    }

    /// The value, or a note of why there is none.
    pub(super) fn keep<T>(&mut self, outcome: Result<T, SampleError>) -> Option<T> {
        outcome.map_err(|error| self.note(error)).ok()
    }

    /// How many of them count as failed.
    pub(super) fn count(&self) -> u64 {
        self.list.iter().filter(|failure| !failure.error.is_absence()).count() as u64
    }

    pub(super) fn into_list(self) -> Vec<Failure> {
        self.list
    }
}
