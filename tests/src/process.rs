//! Starts the real programs and does to them what machines do: kill, stop, starve, ask politely.
//!
//! A process never outlives its `Running`. Nothing is built here: a missing binary is an error with the
//! cargo command that makes it. Variables of the caller that begin with `DUNLIN_` are not passed on.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use thiserror::Error;

use crate::deadline::{TimedOut, until};
use crate::http::{self, HttpError, Response};
use crate::netns::{self, Namespace, NetnsError};
use crate::scratch::Scratch;

/// A request on loopback that takes longer than this is a finding of its own.
const GET_LIMIT: Duration = Duration::from_secs(5);

/// What an error shows of a log.
const LOG_TAIL_LINES: usize = 30;

#[derive(Debug, Error)]
pub enum ProcessError {
    #[error("{path} is not built; run: {command}")]
    NotBuilt { path: PathBuf, command: String },
    #[error("{program}: {what}")]
    Io { program: String, what: &'static str, source: io::Error },
    #[error("{program} ended with {status} while it was {expected}; the end of its log:\n{log_tail}")]
    Ended { program: String, status: ExitStatus, expected: &'static str, log_tail: String },
    #[error("{program}; the end of its log:\n{log_tail}")]
    Late { program: String, source: TimedOut, log_tail: String },
    #[error("{program} could not be asked")]
    Http { program: String, source: HttpError },
    #[error("/proc/{pid}/{file} of {program} is not as expected")]
    Proc { program: String, pid: i32, file: &'static str },
    #[error("{program} in its namespace")]
    Namespace { program: String, source: NetnsError },
}

/// A program that is about to be started.
#[derive(Debug)]
pub struct Program {
    name: String,
    path: PathBuf,
    prefix: Vec<OsString>,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    namespace: Option<String>,
    log: Option<PathBuf>,
}

/// A program that runs. Dropping it kills it.
#[derive(Debug)]
pub struct Running {
    name: String,
    child: Child,
    pid: Pid,
    namespace: Option<String>,
    log: PathBuf,
    /// Keeps the directory of a log that the caller did not place.
    _scratch: Option<Scratch>,
}

/// What a process uses at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    pub rss_kib: u64,
    /// The highest since the start.
    pub rss_peak_kib: u64,
    /// User and system time, all threads.
    pub cpu: Duration,
    pub threads: u64,
    pub open_files: usize,
}

impl Program {
    /// One of the workspace's own binaries, from the directory that holds the running test.
    pub fn ours(package: &str, binary: &str) -> Result<Self, ProcessError> {
        let directory = binaries(binary)?;
        let path = directory.join(binary);
        if !path.is_file() {
            let profile = match directory.file_name().and_then(OsStr::to_str) {
                None | Some("debug") => String::new(),
                Some(profile) => format!(" --profile {profile}"),
            };
            let command = format!("cargo build -p {package} --bin {binary}{profile}");
            return Err(ProcessError::NotBuilt { path, command });
        }
        Ok(Self::at(path))
    }

    #[must_use]
    pub fn at(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        Self {
            name,
            path,
            prefix: Vec::new(),
            arguments: Vec::new(),
            environment: Vec::new(),
            namespace: None,
            log: None,
        }
    }

    #[must_use]
    pub fn arg(mut self, argument: impl Into<OsString>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    #[must_use]
    pub fn args<A: Into<OsString>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// A command that execs the program, such as strace's; the process keeps the id that we wait for.
    #[must_use]
    pub fn under(mut self, prefix: Vec<OsString>) -> Self {
        self.prefix = prefix;
        self
    }

    /// Runs it inside; the file system stays that of the test.
    #[must_use]
    pub fn inside(mut self, namespace: &Namespace) -> Self {
        self.namespace = Some(namespace.name().to_owned());
        self
    }

    /// The file that takes stdout and stderr; without it a temporary one does. It is appended to, so that
    /// the log of a program that is started again and again stays whole.
    #[must_use]
    pub fn log(mut self, path: impl Into<PathBuf>) -> Self {
        self.log = Some(path.into());
        self
    }

    pub fn start(self) -> Result<Running, ProcessError> {
        let failed = |what, source| ProcessError::Io { program: self.name.clone(), what, source };
        let (log, scratch) = match &self.log {
            Some(log) => (log.clone(), None),
            None => {
                let scratch = Scratch::new("log").map_err(|source| failed("a place for its log", source))?;
                (scratch.join("log"), Some(scratch))
            }
        };
        let out = File::options().create(true).append(true).open(&log);
        let out = out.map_err(|source| failed("its log", source))?;
        let err = out.try_clone().map_err(|source| failed("its log", source))?;
        let mut command = self.command();
        command.stdin(Stdio::null()).stdout(out).stderr(err);
        let child = match &self.namespace {
            None => command.spawn(),
            Some(namespace) => netns::enter(namespace, || command.spawn())
                .map_err(|source| ProcessError::Namespace { program: self.name.clone(), source })?,
        };
        let child = child.map_err(|source| failed("starting it", source))?;
        let pid = Pid::from_child(&child);
        Ok(Running { name: self.name, child, pid, namespace: self.namespace, log, _scratch: scratch })
    }

    fn command(&self) -> Command {
        let mut words = self.prefix.clone();
        words.push(self.path.clone().into());
        words.extend(self.arguments.iter().cloned());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"DUNLIN_")) {
            command.env_remove(name);
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }
}

impl Running {
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// Waits until `/-/ready` answers 200. A program that ends meanwhile is an error at once.
    pub fn wait_ready(&mut self, http: SocketAddr, limit: Duration) -> Result<(), ProcessError> {
        let what = format!("200 from http://{http}/-/ready");
        self.wait_for("expected to become ready", &what, limit, |running| {
            running.get(http, "/-/ready").ok().filter(|response| response.status == 200).map(|_| ())
        })
    }

    /// Waits until the log holds `text`. A program that ends without having written it is an error at once.
    pub fn wait_log(&mut self, text: &str, limit: Duration) -> Result<(), ProcessError> {
        self.wait_for("expected to write to its log", &format!("{text:?} in the log"), limit, |running| {
            running.log_text().contains(text).then_some(())
        })
    }

    /// GET from where the program runs.
    pub fn get(&self, http: SocketAddr, path: &str) -> Result<Response, ProcessError> {
        let ask = || http::get(http, path, GET_LIMIT);
        let answer = match &self.namespace {
            None => ask(),
            Some(namespace) => netns::enter(namespace, ask)
                .map_err(|source| ProcessError::Namespace { program: self.name.clone(), source })?,
        };
        answer.map_err(|source| ProcessError::Http { program: self.name.clone(), source })
    }

    /// SIGKILL, and the end of it.
    pub fn kill9(&mut self) -> Result<ExitStatus, ProcessError> {
        self.child.kill().map_err(|source| self.failed("killing it", source))?;
        self.child.wait().map_err(|source| self.failed("waiting for its end", source))
    }

    /// SIGTERM. A program that has not ended by the deadline is killed, and that is an error.
    pub fn terminate(&mut self, limit: Duration) -> Result<ExitStatus, ProcessError> {
        self.signal(Signal::TERM)?;
        let status = self.wait_exit(limit);
        if matches!(status, Err(ProcessError::Late { .. })) {
            self.kill9()?;
        }
        status
    }

    /// Waits for the program to end by itself.
    pub fn wait_exit(&mut self, limit: Duration) -> Result<ExitStatus, ProcessError> {
        let child = &mut self.child;
        match until("its end", limit, || child.try_wait().transpose()) {
            Ok(Ok(status)) => Ok(status),
            Ok(Err(source)) => Err(self.failed("waiting for its end", source)),
            Err(late) => Err(self.late(late)),
        }
    }

    /// SIGSTOP, and waits until every thread stands still.
    pub fn stop(&self) -> Result<(), ProcessError> {
        self.signal(Signal::STOP)?;
        let stopped = until("the stop", GET_LIMIT, || (self.state()? == 'T').then_some(()));
        stopped.map_err(|late| self.late(late))
    }

    /// SIGCONT.
    pub fn cont(&self) -> Result<(), ProcessError> {
        self.signal(Signal::CONT)
    }

    pub fn signal(&self, signal: Signal) -> Result<(), ProcessError> {
        kill_process(self.pid, signal).map_err(|error| self.failed("sending it a signal", error.into()))
    }

    pub fn usage(&self) -> Result<Usage, ProcessError> {
        let status = self.proc("status")?;
        let number = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
            line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).ok_or_else(|| self.odd("status"))
        };
        let stat = self.proc("stat")?;
        // Field 2 is the name in parentheses and may hold anything; utime and stime are fields 14 and 15.
        let fields: Vec<&str> = stat.rsplit_once(") ").map_or(Vec::new(), |(_, rest)| rest.split(' ').collect());
        let ticks = |field: usize| fields.get(field - 3).and_then(|text| text.parse::<u64>().ok());
        let (Some(user), Some(system)) = (ticks(14), ticks(15)) else {
            return Err(self.odd("stat"));
        };
        let millis = (user + system) * 1_000 / rustix::param::clock_ticks_per_second();
        let open = fs::read_dir(format!("/proc/{}/fd", self.pid())).map_err(|source| self.failed("its fd", source))?;
        Ok(Usage {
            rss_kib: number("VmRSS")?,
            rss_peak_kib: number("VmHWM")?,
            cpu: Duration::from_millis(millis),
            threads: number("Threads")?,
            open_files: open.count(),
        })
    }

    /// The highest that `usage` tells is that from here on.
    pub fn forget_peak(&self) -> Result<(), ProcessError> {
        // 5 sets the high-water mark back, see proc(5).
        let file = format!("/proc/{}/clear_refs", self.pid());
        fs::write(file, "5").map_err(|source| self.failed("clear_refs", source))
    }

    #[must_use]
    pub fn log_path(&self) -> &Path {
        &self.log
    }

    /// All that the program has written so far.
    #[must_use]
    pub fn log_text(&self) -> String {
        fs::read(&self.log).map_or_else(|error| error.to_string(), |raw| String::from_utf8_lossy(&raw).into_owned())
    }

    fn wait_for<T>(
        &mut self,
        expected: &'static str,
        what: &str,
        limit: Duration,
        mut look: impl FnMut(&Self) -> Option<T>,
    ) -> Result<T, ProcessError> {
        let found = until(what, limit, || {
            // The exit is read first: what the program did before it ended then still counts.
            let ended = self.child.try_wait();
            if let Some(found) = look(self) {
                return Some(Ok(found));
            }
            match ended {
                Ok(None) => None,
                Ok(Some(status)) => Some(Err(ProcessError::Ended {
                    program: self.name.clone(),
                    status,
                    expected,
                    log_tail: self.log_tail(),
                })),
                Err(source) => Some(Err(self.failed("waiting for it", source))),
            }
        });
        found.map_err(|late| self.late(late))?
    }

    fn proc(&self, file: &'static str) -> Result<String, ProcessError> {
        fs::read_to_string(format!("/proc/{}/{file}", self.pid())).map_err(|source| self.failed(file, source))
    }

    /// The letter that the kernel gives the process: R, S, D, T, Z.
    fn state(&self) -> Option<char> {
        self.proc("stat").ok()?.rsplit_once(") ")?.1.chars().next()
    }

    fn log_tail(&self) -> String {
        let text = self.log_text();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n")
    }

    fn failed(&self, what: &'static str, source: io::Error) -> ProcessError {
        ProcessError::Io { program: self.name.clone(), what, source }
    }

    fn late(&self, source: TimedOut) -> ProcessError {
        ProcessError::Late { program: self.name.clone(), source, log_tail: self.log_tail() }
    }

    fn odd(&self, file: &'static str) -> ProcessError {
        ProcessError::Proc { program: self.name.clone(), pid: self.pid(), file }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Only a process that has ended already cannot be killed, and then there is nothing left to do.
        if self.child.kill().is_ok()
            && let Err(error) = self.child.wait()
        {
            tracing::warn!(program = self.name, %error, "a killed process could not be waited for");
        }
    }
}

/// Whether a process ended by this signal.
#[must_use]
pub fn ended_by(status: ExitStatus, signal: Signal) -> bool {
    status.signal() == Some(signal.as_raw())
}

/// Cargo puts tests into TARGET/PROFILE/deps and programs into TARGET/PROFILE.
fn binaries(program: &str) -> Result<PathBuf, ProcessError> {
    let own = std::env::current_exe().map_err(|source| ProcessError::Io {
        program: program.to_owned(),
        what: "looking for the directory that it is built in",
        source,
    })?;
    let mut directory = own.parent().unwrap_or(Path::new("/")).to_owned();
    if directory.ends_with("deps") || directory.ends_with("examples") {
        directory.pop();
    }
    Ok(directory)
}
