//! Real container engines of a test's own: a dockerd and a Podman service, each with its data in a directory that goes with it.
//!
//! Both live in the network namespace of their test, so that bridges and published ports are that one's. No image is
//! fetched: the only one is made of a static busybox. Whatever state a container leaves behind goes with its engine.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;

use crate::deadline::{TimedOut, until};
use crate::netns::{Namespace, NetnsError};
use crate::process::{ProcessError, Program, Running};
use crate::scratch::Scratch;
use crate::tool::{self, ToolError};

/// The one image that every engine has.
pub const IMAGE: &str = "box";

/// A dockerd starts in half a second on a machine at rest, with the containerd that it brings.
const START_LIMIT: Duration = Duration::from_secs(60);
/// It gives its containers 10 s to end.
const STOP_LIMIT: Duration = Duration::from_secs(30);
/// What containers of tests run.
const APPLETS: &[&str] = &["cat", "dd", "head", "httpd", "nc", "sh", "sleep", "tail", "true"];

#[derive(Debug, Error)]
pub enum EngineError {
    #[error("the rig's {0:?} cannot be made")]
    Io(PathBuf, #[source] io::Error),
    #[error(transparent)]
    Tool(#[from] ToolError),
    #[error(transparent)]
    Namespace(#[from] NetnsError),
    #[error(transparent)]
    Process(#[from] ProcessError),
    #[error("{source}; the log of the engine:\n{log}")]
    Late { source: TimedOut, log: String },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Docker,
    Podman,
}

/// An engine that runs. Dropping it removes its containers and ends it.
#[derive(Debug)]
pub struct Engine<'n> {
    kind: Kind,
    namespace: &'n Namespace,
    service: Running,
    scratch: Scratch,
}

impl<'n> Engine<'n> {
    /// Starts one with nothing but the image in it.
    pub fn start(kind: Kind, namespace: &'n Namespace) -> Result<Self, EngineError> {
        tool::require_root()?;
        let scratch = Scratch::new("engine").map_err(|source| EngineError::Io("directory".into(), source))?;
        let service = launch(kind, namespace, &scratch)?;
        let mut engine = Self { kind, namespace, service, scratch };
        engine.wait_ready()?;
        engine.import()?;
        Ok(engine)
    }

    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.scratch.join("engine.sock")
    }

    /// Runs its command line, as an operator does. Podman starts containers from there, with the networks that it is in.
    pub fn run(&self, arguments: &[&str]) -> Result<String, EngineError> {
        let mut command = match self.kind {
            Kind::Docker => tool::command("docker")?,
            Kind::Podman => tool::command("podman")?,
        };
        match self.kind {
            Kind::Docker => command.arg("-H").arg(format!("unix://{}", self.socket().display())),
            Kind::Podman => command.args(podman_options(self.scratch.path())),
        };
        Ok(self.namespace.finish(command.args(arguments))?.trim().to_owned())
    }

    /// Runs a container in the background; `options` come before the image, `words` are its command.
    pub fn launch(&self, name: &str, options: &[&str], words: &[&str]) -> Result<String, EngineError> {
        self.launch_from(IMAGE, name, options, words)
    }

    /// The same from another name of the image.
    pub fn launch_from(
        &self,
        image: &str,
        name: &str,
        options: &[&str],
        words: &[&str],
    ) -> Result<String, EngineError> {
        let limits: &[&str] = match self.kind {
            Kind::Docker => &[],
            // A test's own limits may be below those that Podman asks for.
            Kind::Podman => &["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"],
        };
        self.run(&[&["run", "-d", "--name", name], limits, options, &[image], words].concat())
    }

    /// The engine's own process, to hang or to end.
    pub const fn service(&mut self) -> &mut Running {
        &mut self.service
    }

    /// Ends it in order; its containers end with a dockerd.
    pub fn stop(&mut self) -> Result<(), EngineError> {
        self.service.terminate(STOP_LIMIT)?;
        Ok(())
    }

    /// Starts it again on what it left.
    pub fn restart(&mut self) -> Result<(), EngineError> {
        self.service = launch(self.kind, self.namespace, &self.scratch)?;
        self.wait_ready()
    }

    fn wait_ready(&mut self) -> Result<(), EngineError> {
        let is_ready = || self.socket().exists() && self.run(&["version"]).is_ok();
        let ready = until("an engine that answers", START_LIMIT, || is_ready().then_some(()));
        ready.map_err(|source| EngineError::Late { source, log: self.service.log_text() })
    }

    fn import(&self) -> Result<(), EngineError> {
        let files = self.scratch.join("image");
        let made =
            |path: &Path, outcome: io::Result<()>| outcome.map_err(|source| EngineError::Io(path.to_owned(), source));
        let bin = files.join("bin");
        made(&bin, fs::create_dir_all(&bin))?;
        made(&bin, fs::copy(tool::find("busybox")?, bin.join("busybox")).map(drop))?;
        for applet in APPLETS {
            made(&bin, std::os::unix::fs::symlink("busybox", bin.join(applet)))?;
        }
        let archive = self.scratch.join("image.tar");
        let (archive, files) = (archive.to_string_lossy(), files.to_string_lossy());
        tool::run("tar", &["-cf", &archive, "-C", &files, "."])?;
        self.run(&["import", &archive, IMAGE]).map(drop)
    }
}

impl Drop for Engine<'_> {
    fn drop(&mut self) {
        // A test that stopped it for a while may have failed before it went on.
        let ended = self.service.cont().map_err(EngineError::from).and_then(|()| {
            let all = self.run(&["ps", "-aq"])?;
            let ids: Vec<&str> = all.split_whitespace().collect();
            if !ids.is_empty() {
                self.run(&[&["rm", "-f"], &ids[..]].concat())?;
            }
            self.service.terminate(STOP_LIMIT)?;
            // Podman cleans up after a container by processes of its own, which write where they are.
            let gone =
                until("the end of the engine's helpers", STOP_LIMIT, || (!is_named(self.scratch.path())).then_some(()));
            gone.map_err(|source| EngineError::Late { source, log: self.service.log_text() })?;
            unmount_below(self.scratch.path())
        });
        if let Err(error) = ended {
            tracing::warn!(%error, "an engine did not end in order");
        }
    }
}

fn launch(kind: Kind, namespace: &Namespace, scratch: &Scratch) -> Result<Running, EngineError> {
    let socket = format!("unix://{}", scratch.join("engine.sock").display());
    let place = |name: &str| scratch.join(name).to_string_lossy().into_owned();
    let program = match kind {
        Kind::Docker => Program::at(tool::find("dockerd")?)
            .args(["--iptables=false", "--ip6tables=false", "--bridge=none", "-H", &socket])
            .args(["--data-root", &place("data"), "--exec-root", &place("exec"), "--pidfile", &place("pid")]),
        Kind::Podman => Program::at(tool::find("podman")?)
            .args(podman_options(scratch.path()))
            .args(["system", "service", "--time=0", &socket]),
    };
    // The engine logs what its containers were started with: that log is no part of what a test searches for secrets.
    Ok(program.inside(namespace).log(scratch.join("log")).start()?)
}

/// Whether a process was started with this directory among its arguments.
fn is_named(directory: &Path) -> bool {
    let name = directory.as_os_str().as_encoded_bytes();
    let names = |line: Vec<u8>| line.windows(name.len()).any(|part| part == name);
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes.filter_map(|process| fs::read(process.path().join("cmdline")).ok()).any(names)
}

/// A dockerd leaves the network of containers that have the host's mounted; its directory could not go.
fn unmount_below(directory: &Path) -> Result<(), EngineError> {
    let table = Path::new("/proc/self/mounts");
    let mounts = fs::read_to_string(table).map_err(|source| EngineError::Io(table.to_owned(), source))?;
    let below =
        mounts.lines().filter_map(|line| line.split(' ').nth(1)).filter(|at| Path::new(at).starts_with(directory));
    // What was mounted last is in the way of what was mounted before.
    for at in below.collect::<Vec<_>>().into_iter().rev() {
        tool::run("umount", &[at])?;
    }
    Ok(())
}

/// crun refuses the hybrid control groups of some machines, and overlays do not stack everywhere.
fn podman_options(directory: &Path) -> [String; 6] {
    [
        format!("--root={}", directory.join("data").display()),
        format!("--runroot={}", directory.join("exec").display()),
        format!("--tmpdir={}", directory.join("tmp").display()),
        String::from("--runtime=/usr/sbin/runc"),
        String::from("--cgroup-manager=cgroupfs"),
        String::from("--storage-driver=vfs"),
    ]
}
