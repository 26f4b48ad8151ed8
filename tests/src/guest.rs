//! A Linux of a test's own in QEMU, without hardware help: a kernel with control groups 2, whatever this machine has.
//!
//! Kernel, modules and the small Debian are what `tests/scripts/prepare` left; nothing is fetched here. A guest's root is
//! memory: what it writes goes with it. Its one network ends in the namespace that it is started in.

use std::fs::{self, File};
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use thiserror::Error;

use crate::netns::Namespace;
use crate::process::{ProcessError, Program, Running};
use crate::scratch::Scratch;
use crate::tool::{self, ToolError};

/// Where a guest finds what listens on loopback of the namespace around it, and what it has to call itself there.
pub const OUTSIDE: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
pub const ITSELF: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);

/// A Debian with systemd is 100 MiB of memory before anything runs.
const MEMORY: &str = "768M";

#[derive(Debug, Error)]
pub enum GuestError {
    #[error("{0} is not there; run: tests/scripts/prepare {1} guests")]
    NotPrepared(PathBuf, String),
    #[error("{0} is not built; run: make agent")]
    NoAgent(PathBuf),
    #[error("the guest's {0:?}")]
    Io(PathBuf, #[source] io::Error),
    #[error(transparent)]
    Tool(#[from] ToolError),
    #[error(transparent)]
    Process(#[from] ProcessError),
}

/// What runs in it before a test adds its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {
    /// Nothing but what every guest has: busybox, the static agent, and `/modules`, to be loaded in their order.
    Bare,
    /// A small Debian whose first process is systemd.
    Debian,
}

/// A guest that runs. Dropping it ends it.
#[derive(Debug)]
pub struct Guest {
    running: Running,
    _scratch: Scratch,
}

impl Guest {
    /// Starts one whose root holds the base and, over it, what is in `files`. `/init` is its first process.
    pub fn start(namespace: &Namespace, base: Base, files: &Path) -> Result<Self, GuestError> {
        Self::start_with(namespace, base, files, "")
    }

    /// The same with more words on the kernel's command line.
    pub fn start_with(namespace: &Namespace, base: Base, files: &Path, words: &str) -> Result<Self, GuestError> {
        let (target, scratch) = (target()?, Scratch::new("guest").map_err(failed("directory"))?);
        let prepared = |name: &str| {
            let path = target.join("tools/guest").join(name);
            let not_prepared = || GuestError::NotPrepared(path.clone(), target.join("tools").display().to_string());
            if path.exists() { Ok(path) } else { Err(not_prepared()) }
        };
        let kernel = prepared("vmlinuz")?;
        add_own(files, &target, &prepared("modules")?)?;
        let archive = scratch.join("root.cpio");
        // The kernel unpacks archives one over the other.
        if base == Base::Debian {
            fs::copy(prepared("debian.cpio")?, &archive).map_err(failed("root"))?;
        }
        pack(files, &archive)?;
        let log = scratch.join("serial");
        let program = Program::at(tool::find("qemu-system-x86_64")?).inside(namespace).log(&log);
        let program = program.args(["-accel", "tcg", "-m", MEMORY, "-smp", "1", "-nodefaults", "-no-reboot"]);
        let program = program.args(["-display", "none", "-serial", "stdio", "-monitor", "none"]);
        let program = program.args(["-nic", "user,model=virtio-net-pci", "-kernel"]).arg(kernel);
        let words = format!("console=ttyS0 rdinit=/init quiet panic=-1 {words}");
        let program = program.args(["-append", &words, "-initrd"]).arg(archive);
        Ok(Self { running: program.start()?, _scratch: scratch })
    }

    /// Waits until its console shows this text.
    pub fn wait_said(&mut self, text: &str, limit: Duration) -> Result<(), GuestError> {
        Ok(self.running.wait_log(text, limit)?)
    }

    /// Waits until it has switched itself off.
    pub fn wait_end(&mut self, limit: Duration) -> Result<ExitStatus, GuestError> {
        Ok(self.running.wait_exit(limit)?)
    }

    /// All that its console showed.
    #[must_use]
    pub fn said(&self) -> String {
        self.running.log_text().replace('\r', "")
    }
}

/// What every guest has.
fn add_own(files: &Path, target: &Path, modules: &Path) -> Result<(), GuestError> {
    let agent = target.join(format!("{}-unknown-linux-gnu/agent/dunlin-agent", std::env::consts::ARCH));
    if !agent.is_file() {
        return Err(GuestError::NoAgent(agent));
    }
    let copy = |from: &Path, to: &str| {
        let to = files.join(to);
        let parent = to.parent().unwrap_or(files);
        fs::create_dir_all(parent).and_then(|()| fs::copy(from, &to)).map(drop).map_err(failed(to.clone()))
    };
    copy(&agent, "usr/bin/dunlin-agent")?;
    // In a Debian /bin is a link to /usr/bin.
    copy(&tool::find("busybox")?, "usr/bin/busybox")?;
    for module in fs::read_dir(modules).map_err(failed("modules"))?.flatten() {
        copy(&module.path(), &format!("modules/{}", module.file_name().to_string_lossy()))?;
    }
    Ok(())
}

/// Adds what is in a directory to an archive.
fn pack(files: &Path, archive: &Path) -> Result<(), GuestError> {
    let out = File::options().create(true).append(true).open(archive).map_err(failed("root"))?;
    let busybox = tool::find("busybox")?;
    let mut command = tool::command("sh")?;
    command.args(["-c", "cd \"$0\" && find . | \"$1\" cpio -o -H newc"]).arg(files).arg(busybox).stdout(out);
    Ok(tool::finish(&mut command).map(drop)?)
}

/// Cargo keeps tests in TARGET/PROFILE/deps.
fn target() -> Result<PathBuf, GuestError> {
    let own = std::env::current_exe().map_err(failed("builder"))?;
    Ok(own.ancestors().nth(3).unwrap_or(Path::new("/")).to_owned())
}

fn failed(what: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> GuestError {
    let what = what.into();
    move |source| GuestError::Io(what, source)
}
