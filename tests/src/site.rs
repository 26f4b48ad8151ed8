//! The two real programs as an operator runs them: a state directory with its keys, a namespace, and what
//! they say of themselves. State outlives a restart and goes with its value. It is in memory: what disks do is a matter
//! of tests that have one of their own (`disk`).
//!
//! It waits on states alone; what a collector has on disk is judged by `window`.

use std::ffi::OsString;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use dunlin_collector::registry::Token;
use dunlin_shared::id::NodeId;
use dunlin_shared::limits::JOIN_TOKEN_SECRET_BYTES;
use dunlin_shared::token::JoinToken;
use thiserror::Error;

use crate::deadline::{TimedOut, until};
use crate::netns::Namespace;
use crate::pki::{Authority, PkiError, grant, node_ids, pin_of};
use crate::process::{ProcessError, Program, Running};
use crate::scrape::{Scrape, ScrapeError};
use crate::scratch::Scratch;
use crate::tool::{self, ToolError};
use crate::window::{Window, WindowError};

/// Every collector has a namespace of its own, so all of them can use the default ports.
pub const QUIC_PORT: u16 = 9737;
pub const HTTP: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9738);

/// A start on a busy machine with two cores, recovery included.
const START_LIMIT: Duration = Duration::from_secs(30);
/// The collector lets connections end for 3 s, and commits what they sent.
const STOP_LIMIT: Duration = Duration::from_secs(15);

#[derive(Debug, Error)]
pub enum SiteError {
    #[error(transparent)]
    Process(#[from] ProcessError),
    #[error(transparent)]
    Pki(#[from] PkiError),
    #[error(transparent)]
    Scrape(#[from] ScrapeError),
    #[error(transparent)]
    Window(#[from] WindowError),
    #[error("there is no node to be")]
    NoNode,
    #[error("a place for its state")]
    Scratch(#[source] io::Error),
    #[error("{source}; the log of the {who}:\n{log}")]
    Late { who: &'static str, source: TimedOut, log: String },
}

/// A collector and its state.
#[derive(Debug)]
pub struct Collector<'n> {
    namespace: &'n Namespace,
    listen: SocketAddr,
    state: Scratch,
    running: Running,
}

/// An agent and its state.
#[derive(Debug)]
pub struct Agent<'n> {
    pub node: NodeId,
    namespace: &'n Namespace,
    prefix: Vec<OsString>,
    arguments: Vec<String>,
    state: Scratch,
    running: Running,
}

impl<'n> Collector<'n> {
    #[must_use]
    pub fn log_text(&self) -> String {
        self.running.log_text()
    }

    /// Starts one on every address of the namespace and waits until it is ready.
    pub fn start(namespace: &'n Namespace, authority: &Authority) -> Result<Self, SiteError> {
        let state = Scratch::in_memory("collector").map_err(SiteError::Scratch)?;
        authority.write_collector(&state.join("state"))?;
        let listen = SocketAddr::from(([0, 0, 0, 0], QUIC_PORT));
        let running = Self::launch(namespace, listen, &state)?;
        Ok(Self { namespace, listen, state, running })
    }

    /// Starts one that makes its own authority and knows one join token, and gives that token.
    pub fn start_enrolling(namespace: &'n Namespace, token: Token) -> Result<(Self, JoinToken), SiteError> {
        let state = Scratch::in_memory("collector").map_err(SiteError::Scratch)?;
        let secret = [7; JOIN_TOKEN_SECRET_BYTES];
        grant(&state.join("state"), &secret, token)?;
        let listen = SocketAddr::from(([0, 0, 0, 0], QUIC_PORT));
        let running = Self::launch(namespace, listen, &state)?;
        let pin = pin_of(&state.join("state"))?;
        Ok((Self { namespace, listen, state, running }, JoinToken { secret, pin }))
    }

    /// Starts it again on what it left; the log is continued.
    pub fn restart(&mut self) -> Result<(), SiteError> {
        self.running = Self::launch(self.namespace, self.listen, &self.state)?;
        Ok(())
    }

    /// The same on another address.
    pub fn restart_on(&mut self, listen: SocketAddr) -> Result<(), SiteError> {
        self.listen = listen;
        self.restart()
    }

    pub fn kill9(&mut self) -> Result<(), SiteError> {
        self.running.kill9()?;
        Ok(())
    }

    pub fn terminate(&mut self) -> Result<ExitStatus, SiteError> {
        Ok(self.running.terminate(STOP_LIMIT)?)
    }

    pub fn scrape(&self) -> Result<Scrape, SiteError> {
        Ok(Scrape::parse(&self.running.get(HTTP, "/metrics")?.body)?)
    }

    /// Waits until `look` finds in `/metrics` what it looks for.
    pub fn wait<T>(
        &self,
        what: &str,
        limit: Duration,
        mut look: impl FnMut(&Scrape) -> Option<T>,
    ) -> Result<T, SiteError> {
        until(what, limit, || look(&self.scrape().ok()?)).map_err(|source| SiteError::Late {
            who: "collector",
            source,
            log: self.running.log_text(),
        })
    }

    /// Waits until so many frames are committed since its start.
    pub fn wait_committed(&self, frames: u64, limit: Duration) -> Result<(), SiteError> {
        let what = format!("{frames} committed frames");
        self.wait(&what, limit, |scrape| (committed(scrape) >= frames).then_some(()))
    }

    /// Waits until so many nodes are in this state.
    pub fn wait_nodes(&self, state: &str, count: f64, limit: Duration) -> Result<(), SiteError> {
        let what = format!("{count} nodes that are {state}");
        let labels = [("state", state)];
        self.wait(&what, limit, |scrape| (scrape.value("dunlin_nodes", &labels)? == count).then_some(()))
    }

    /// What it has on disk, while it runs or not.
    pub fn window(&self) -> Result<Window, SiteError> {
        Ok(Window::read(&self.state_dir().join("window"))?)
    }

    /// Waits until `look` finds in the window what it looks for.
    pub fn wait_window<T>(
        &self,
        what: &str,
        limit: Duration,
        mut look: impl FnMut(&Window) -> Option<T>,
    ) -> Result<T, SiteError> {
        until(what, limit, || look(&self.window().ok()?)).map_err(|source| SiteError::Late {
            who: "collector",
            source,
            log: self.running.log_text(),
        })
    }

    #[must_use]
    pub const fn running(&self) -> &Running {
        &self.running
    }

    #[must_use]
    pub fn state_dir(&self) -> PathBuf {
        self.state.join("state")
    }

    fn launch(namespace: &Namespace, listen: SocketAddr, state: &Scratch) -> Result<Running, SiteError> {
        let program = Program::ours("dunlin-collector", "dunlin-collector")?.inside(namespace).log(state.join("log"));
        let program = program.arg("run").arg("--state-dir").arg(state.join("state"));
        let program = program.args(["--quic-listen", &listen.to_string(), "--http-listen", &HTTP.to_string()]);
        let mut running = program.start()?;
        running.wait_ready(HTTP, START_LIMIT)?;
        Ok(running)
    }
}

impl<'n> Agent<'n> {
    /// Starts one that ticks every second.
    pub fn start(namespace: &'n Namespace, authority: &Authority, collectors: &str) -> Result<Self, SiteError> {
        Self::start_under(namespace, authority, collectors, Vec::new())
    }

    /// The same under a command that execs it.
    pub fn start_under(
        namespace: &'n Namespace,
        authority: &Authority,
        collectors: &str,
        prefix: Vec<OsString>,
    ) -> Result<Self, SiteError> {
        // Every agent of a test is another node.
        static NEXT: AtomicUsize = AtomicUsize::new(1);
        let node = node_ids(NEXT.fetch_add(1, Ordering::Relaxed), 0).pop().ok_or(SiteError::NoNode)?;
        let state = Scratch::in_memory("agent").map_err(SiteError::Scratch)?;
        authority.node(node)?.identity().write(&state.join("state"), authority.ca_der(), "node")?;
        let arguments = ["--collectors", collectors, "--interval", "1s"].map(str::to_owned).to_vec();
        let running = Self::launch(namespace, &prefix, &arguments, &state)?;
        Ok(Self { node, namespace, prefix, arguments, state, running })
    }

    /// Starts it again on what it left; the log is continued.
    pub fn restart(&mut self) -> Result<(), SiteError> {
        self.running = Self::launch(self.namespace, &self.prefix, &self.arguments, &self.state)?;
        Ok(())
    }

    pub fn wait_log(&mut self, text: &str, limit: Duration) -> Result<(), SiteError> {
        Ok(self.running.wait_log(text, limit)?)
    }

    pub fn terminate(&mut self, limit: Duration) -> Result<ExitStatus, SiteError> {
        Ok(self.running.terminate(limit)?)
    }

    #[must_use]
    pub fn log_text(&self) -> String {
        self.running.log_text()
    }

    #[must_use]
    pub const fn running(&mut self) -> &mut Running {
        &mut self.running
    }

    #[must_use]
    pub fn state_dir(&self) -> PathBuf {
        self.state.join("state")
    }

    fn launch(
        namespace: &Namespace,
        prefix: &[OsString],
        arguments: &[String],
        state: &Scratch,
    ) -> Result<Running, SiteError> {
        let program = Program::ours("dunlin-agent", "dunlin-agent")?.inside(namespace).log(state.join("log"));
        let program = program.under(prefix.to_vec()).arg("run").arg("--state-dir").arg(state.join("state"));
        Ok(program.args(arguments).start()?)
    }
}

/// Frames that a collector has committed since its start.
#[must_use]
pub fn committed(scrape: &Scrape) -> u64 {
    counter(scrape, "dunlin_frames_committed_total", &[])
}

/// A counter without a fraction; 0 if it is not there.
#[must_use]
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a counter is whole and not negative")]
pub fn counter(scrape: &Scrape, name: &str, labels: &[(&str, &str)]) -> u64 {
    scrape.value(name, labels).unwrap_or(0.0) as u64
}

/// A command that gives the program a file system where `file` is in the place of each `target`.
pub fn with_files(files: &[(&Path, &str)]) -> Result<Vec<OsString>, ToolError> {
    let binds: String =
        files.iter().map(|(file, target)| format!("mount --bind {} {target} && ", file.display())).collect();
    let script = format!("{binds}exec \"$0\" \"$@\"");
    let unshare = tool::find("unshare")?;
    Ok(vec![unshare.into(), "-m".into(), "/bin/sh".into(), "-c".into(), script.into()])
}
