//! Makes system calls of a real program fail, by strace: from its start, or from a moment in its run.
//!
//! The program is changed in nothing else. strace counts the calls of each thread by itself, so "from the n-th
//! call on" means the n-th of a thread.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;
use thiserror::Error;

use crate::deadline::until;
use crate::process::{ProcessError, Program, Running};
use crate::scratch::Scratch;
use crate::tool::{self, ToolError};

/// How long strace may take to seize every thread, or to let them go.
const ATTACH_LIMIT: Duration = Duration::from_secs(10);

#[derive(Debug, Error)]
pub enum StraceError {
    #[error("strace")]
    Tool(#[from] ToolError),
    #[error("strace")]
    Process(#[from] ProcessError),
    #[error("a place for the log of strace")]
    Scratch(#[source] io::Error),
    #[error("strace did not attach to process {pid}: {said}")]
    NotAttached { pid: i32, said: String },
}

/// Which calls fail, how, and from which on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    syscalls: &'static str,
    error: &'static str,
    first: u32,
}

/// One thread of a program whose next write does not return for a while: what its other threads do goes on. Dropping it
/// lets the thread go.
#[derive(Debug)]
pub struct Held {
    _strace: Running,
    _scratch: Scratch,
}

/// A fault in a program that was running before. Dropping it ends the fault, and the program goes on.
#[derive(Debug)]
pub struct Injection {
    strace: Running,
    log: PathBuf,
    _scratch: Scratch,
}

impl Fault {
    /// A disk that reports at the sync that it lost what was written.
    #[must_use]
    pub const fn sync_eio() -> Self {
        Self::new("fsync,fdatasync,sync_file_range,syncfs", "EIO")
    }

    /// Calls by their names with commas between, and the error's name.
    #[must_use]
    pub const fn new(syscalls: &'static str, error: &'static str) -> Self {
        Self { syscalls, error, first: 1 }
    }

    /// The calls before the `first`, counted from 1, succeed.
    #[must_use]
    pub const fn from_call(mut self, first: u32) -> Self {
        self.first = first;
        self
    }

    /// For `Program::under`: the program starts with the fault. Its process id is that of the program.
    pub fn prefix(&self, log: &Path) -> Result<Vec<OsString>, StraceError> {
        let mut words: Vec<OsString> = vec![tool::find("strace")?.into()];
        // -D: strace is a grandchild, so that signals and exit status are the program's own.
        // --seccomp-bpf: only the calls in question are slowed down.
        words.extend(["-D", "-f", "--seccomp-bpf"].map(OsString::from));
        words.extend(self.arguments(log));
        words.push("--".into());
        Ok(words)
    }

    /// The fault begins now, in every thread that the process has or will have.
    pub fn attach(&self, pid: i32) -> Result<Injection, StraceError> {
        let scratch = Scratch::new("strace").map_err(StraceError::Scratch)?;
        let log = scratch.join("calls");
        let program = Program::at(tool::find("strace")?).args(["-f", "-p", &pid.to_string()]);
        let mut strace = program.args(self.arguments(&log)).start()?;
        let attached = until("strace on every thread", ATTACH_LIMIT, || {
            // strace ends at once when it may not attach, or when there is nothing to attach to.
            let ended = strace.wait_exit(Duration::ZERO).is_ok();
            if ended { Some(false) } else { all_traced(pid).then_some(true) }
        });
        match attached {
            Ok(true) => Ok(Injection { strace, log, _scratch: scratch }),
            Ok(false) | Err(_) => Err(StraceError::NotAttached { pid, said: strace.log_text() }),
        }
    }

    fn arguments(&self, log: &Path) -> Vec<OsString> {
        let Self { syscalls, error, first } = self;
        let trace = format!("trace={syscalls}");
        let inject = format!("inject={syscalls}:error={error}:when={first}+");
        let mut words = ["-qq", "-e", "signal=none", "-e", &trace, "-e", &inject, "-o"].map(OsString::from).to_vec();
        words.push(log.into());
        words
    }
}

impl Held {
    /// The thread of this name stops at its next write to a file, for longer than anybody waits.
    pub fn at_write(pid: i32, thread: &str) -> Result<Self, StraceError> {
        let not_attached = |said: String| StraceError::NotAttached { pid, said };
        let id = thread_of(pid, thread).ok_or_else(|| not_attached(format!("it has no thread {thread}")))?;
        let scratch = Scratch::new("strace").map_err(StraceError::Scratch)?;
        let program = Program::at(tool::find("strace")?).args(["-qq", "-e", "signal=none", "-e", "trace=pwrite64"]);
        // In microseconds.
        let program = program.args(["-e", "inject=pwrite64:delay_enter=60000000", "-p", &id]);
        let mut strace = program.arg("-o").arg(scratch.join("calls")).start()?;
        let attached = until("strace on the thread", ATTACH_LIMIT, || {
            let ended = strace.wait_exit(Duration::ZERO).is_ok();
            if ended { Some(false) } else { is_traced(&format!("/proc/{pid}/task/{id}/status")).then_some(true) }
        });
        match attached {
            Ok(true) => Ok(Self { _strace: strace, _scratch: scratch }),
            Ok(false) | Err(_) => Err(not_attached(strace.log_text())),
        }
    }
}

impl Injection {
    /// How many calls have failed by our hand.
    #[must_use]
    pub fn injected(&self) -> usize {
        injected(&self.log)
    }

    /// Ends the fault. A process that ended meanwhile is no error. The one call of a thread that is being failed
    /// at this moment fails with ENOSYS instead: strace has made it a call that does not exist, and is gone.
    pub fn detach(mut self) -> Result<(), StraceError> {
        // strace may have ended with the program, and then there is nobody to signal.
        if self.strace.wait_exit(Duration::ZERO).is_ok() {
            return Ok(());
        }
        self.strace.signal(Signal::TERM)?;
        self.strace.wait_exit(ATTACH_LIMIT)?;
        Ok(())
    }
}

/// How many calls in a log of `Fault::prefix` have failed by our hand.
#[must_use]
pub fn injected(log: &Path) -> usize {
    let text = fs::read(log).unwrap_or_default();
    String::from_utf8_lossy(&text).lines().filter(|line| line.ends_with("(INJECTED)")).count()
}

fn all_traced(pid: i32) -> bool {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return false;
    };
    threads.flatten().all(|thread| is_traced(&thread.path().join("status").to_string_lossy()))
}

fn is_traced(status: &str) -> bool {
    let status = fs::read_to_string(status).unwrap_or_default();
    status.lines().any(|line| line.strip_prefix("TracerPid:").is_some_and(|pid| pid.trim() != "0"))
}

/// The id of the first thread that goes by this name.
fn thread_of(pid: i32, name: &str) -> Option<String> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten();
    let mut named =
        threads.filter(|thread| fs::read_to_string(thread.path().join("comm")).is_ok_and(|comm| comm.trim() == name));
    Some(named.next()?.file_name().to_string_lossy().into_owned())
}
