//! A fresh Debian that systemd boots within seconds: namespaces of its own on this machine's kernel (systemd-nspawn).
//!
//! Its root is a layer over what `tests/scripts/prepare` left, so that each host begins anew and none writes to another's.
//! Its network is the namespace that it is started in. It is driven from outside, and ends with its value, whatever runs
//! in it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Once;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use thiserror::Error;

use crate::deadline::{TimedOut, until};
use crate::netns::Namespace;
use crate::package::profile;
use crate::scratch::{Scratch, is_leftover, unique};
use crate::tool::{self, ToolError};

/// It boots in 2 s on a machine that does nothing else.
const BOOT_LIMIT: Duration = Duration::from_secs(90);
/// Services have 90 s to stop before systemd kills them.
const HALT_LIMIT: Duration = Duration::from_secs(120);
const GROUPS: &str = "/sys/fs/cgroup";
/// What people type has no more in its environment than this.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

#[derive(Debug, Error)]
pub enum HostError {
    #[error("{0} is not there; run as root: tests/scripts/prepare {1} hosts")]
    NotPrepared(PathBuf, String),
    #[error("the host's {0}")]
    Io(&'static str, #[source] io::Error),
    #[error(transparent)]
    Tool(#[from] ToolError),
    #[error("the host did not boot; systemd-nspawn said:\n{said}")]
    NotBooted { source: TimedOut, said: String },
    #[error("{source}; its journal ends with:\n{journal}")]
    Late { source: TimedOut, journal: String },
    #[error("the host did not halt")]
    NotHalted(#[source] TimedOut),
}

/// A host that runs.
#[derive(Debug)]
pub struct Host {
    name: String,
    namespace: String,
    disk: Disk,
    running: Option<Boot>,
}

/// Its files, which outlive a boot.
#[derive(Debug)]
struct Disk {
    scratch: Scratch,
}

/// One boot.
#[derive(Debug)]
struct Boot {
    nspawn: Child,
    /// The process that is the first one inside.
    first: u32,
    groups: Groups,
}

/// A control group of its own in each hierarchy that systemd needs.
#[derive(Debug)]
struct Groups(Vec<PathBuf>);

impl Host {
    /// Boots a fresh one, and waits until it is up.
    pub fn boot(namespace: &Namespace, name: &str) -> Result<Self, HostError> {
        tool::require_root()?;
        static LEFTOVERS: Once = Once::new();
        LEFTOVERS.call_once(remove_leftovers);
        let disk = Disk::new(&prepared()?)?;
        // What the builder of the Debian was called stands there.
        fs::write(disk.root().join("etc/hostname"), format!("{name}\n")).map_err(failed("name"))?;
        let mut host = Self { name: name.to_owned(), namespace: namespace.name().to_owned(), disk, running: None };
        host.switch_on()?;
        Ok(host)
    }

    /// Its root as this machine sees it. What systemd mounts inside (`/run`, `/tmp`) is not there.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        self.disk.root()
    }

    /// Puts a file of this machine into a directory of the host.
    pub fn put(&self, file: &Path, directory: &str) -> Result<(), HostError> {
        let directory = self.root().join(directory.trim_start_matches('/'));
        let name = file.file_name().unwrap_or_default();
        fs::create_dir_all(&directory).map_err(failed("directory"))?;
        fs::copy(file, directory.join(name)).map(drop).map_err(failed("files"))
    }

    pub fn write(&self, path: &str, text: &str) -> Result<(), HostError> {
        let path = self.root().join(path.trim_start_matches('/'));
        fs::create_dir_all(path.parent().unwrap_or(&path)).map_err(failed("directory"))?;
        fs::write(path, text).map_err(failed("files"))
    }

    /// What a shell of root's there prints; anything but success is an error with what it said.
    pub fn run(&self, script: &str) -> Result<String, HostError> {
        Ok(tool::finish(&mut self.shell(script)?)?)
    }

    /// A shell of root's there, for callers that give it more.
    pub fn shell(&self, script: &str) -> Result<Command, HostError> {
        let mut command = self.enter()?;
        command.args(["/bin/sh", "-c", script]);
        Ok(command)
    }

    /// The words before those of a command that is to go on there, for a shell of this machine.
    pub fn way_in(&self) -> Result<String, HostError> {
        let command = self.enter()?;
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        Ok(words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" "))
    }

    /// What the host's systemd knows of a unit under this name.
    pub fn property(&self, unit: &str, name: &str) -> Result<String, HostError> {
        Ok(self.run(&format!("systemctl show --value -p {name} {unit}"))?.trim().to_owned())
    }

    /// Waits until `look` finds what it looks for.
    pub fn wait<T>(&self, what: &str, limit: Duration, look: impl FnMut() -> Option<T>) -> Result<T, HostError> {
        until(what, limit, look).map_err(|source| HostError::Late { source, journal: self.journal() })
    }

    /// The end of what its services said.
    #[must_use]
    pub fn journal(&self) -> String {
        self.run("journalctl --no-pager -n 60 -o short-monotonic").unwrap_or_else(|error| error.to_string())
    }

    /// Stops everything in order, and boots from what is left on its disk.
    pub fn reboot(&mut self) -> Result<(), HostError> {
        self.halt()?;
        self.switch_on()
    }

    /// As when somebody pulls the plug, and boots again.
    pub fn crash(&mut self) -> Result<(), HostError> {
        self.running = None;
        self.switch_on()
    }

    fn halt(&mut self) -> Result<(), HostError> {
        self.run("systemctl --no-block poweroff")?;
        let Some(mut boot) = self.running.take() else { return Ok(()) };
        let ended = until("the halt", HALT_LIMIT, || boot.nspawn.try_wait().ok().flatten());
        ended.map(drop).map_err(HostError::NotHalted)
    }

    fn switch_on(&mut self) -> Result<(), HostError> {
        let log = self.disk.scratch.join("nspawn.log");
        let groups = Groups::new()?;
        let nspawn = self.start(&groups, &log)?;
        let mut boot = Boot { nspawn, first: 0, groups };
        let up = until("a host that is up", BOOT_LIMIT, || {
            let first = boot.first_process()?;
            let said = entered(first).ok()?.args(["systemctl", "is-system-running"]).output().ok()?;
            let said = String::from_utf8_lossy(&said.stdout).trim().to_owned();
            matches!(said.as_str(), "running" | "degraded").then_some(first)
        });
        boot.first =
            up.map_err(|source| HostError::NotBooted { source, said: fs::read_to_string(&log).unwrap_or_default() })?;
        self.running = Some(boot);
        Ok(())
    }

    /// Moves a shell into the groups first: nspawn divides the group that it is started in.
    fn start(&self, groups: &Groups, log: &Path) -> Result<Child, HostError> {
        let script = "for group in $0; do echo $$ >\"$group/cgroup.procs\" || exit 1; done; exec \"$@\"";
        let out = fs::File::create(log).map_err(failed("log"))?;
        let err = out.try_clone().map_err(failed("log"))?;
        let mut command = tool::command("sh")?;
        command.args(["-c", script]).arg(groups.words()).arg(tool::find("systemd-nspawn")?);
        command.args(["--quiet", "--boot", "--register=no", "--keep-unit", "--console=pipe", "--link-journal=no"]);
        command.args(["--timezone=off", "--resolv-conf=off", "--private-users=no"]);
        command.arg(format!("--hostname={}", self.name));
        command.arg(format!("--machine={}", self.disk.name()));
        command.arg(format!("--network-namespace-path=/run/netns/{}", self.namespace));
        command.arg("--directory").arg(self.root());
        command.stdin(Stdio::null()).stdout(out).stderr(err);
        command.spawn().map_err(failed("systemd-nspawn"))
    }

    fn enter(&self) -> Result<Command, HostError> {
        let first = self.running.as_ref().map_or(0, |boot| boot.first);
        entered(first)
    }
}

/// A command that goes on inside, as root, where the first process is.
fn entered(first: u32) -> Result<Command, HostError> {
    let mut command = tool::command("nsenter")?;
    command.args([
        "--target",
        &first.to_string(),
        "--all",
        "--wdns=/",
        "env",
        "-i",
        PATH,
        "HOME=/root",
        "LC_ALL=C.UTF-8",
    ]);
    Ok(command)
}

impl Disk {
    fn new(base: &Path) -> Result<Self, HostError> {
        // In memory where there is room: what dpkg syncs would else wait for whatever this machine writes.
        let scratch = Scratch::in_memory("host").map_err(failed("directory"))?;
        for name in ["upper", "work", "root"] {
            fs::create_dir(scratch.join(name)).map_err(failed("directory"))?;
        }
        let disk = Self { scratch };
        let path = |name: &str| disk.scratch.join(name).display().to_string();
        let layers = format!("lowerdir={},upperdir={},workdir={}", base.display(), path("upper"), path("work"));
        tool::run("mount", &["-t", "overlay", "-o", &layers, "overlay", &path("root")])?;
        Ok(disk)
    }

    fn root(&self) -> PathBuf {
        self.scratch.join("root")
    }

    fn name(&self) -> String {
        self.scratch.path().file_name().unwrap_or_default().to_string_lossy().into_owned()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Err(error) = tool::run("umount", &[self.root()]) {
            tracing::warn!(%error, "a host's root stays mounted");
        }
        // systemd-nspawn leaves it where it is not told of an end.
        fs::remove_dir_all(Path::new("/run/systemd/nspawn/propagate").join(self.name())).ok();
    }
}

impl Boot {
    /// The child of nspawn that is the first process of its own namespace. Another one comes and goes before.
    fn first_process(&self) -> Option<u32> {
        let id = self.nspawn.id();
        let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).ok()?;
        children.split_whitespace().filter_map(|word| word.parse().ok()).find(|child: &u32| {
            let status = fs::read_to_string(format!("/proc/{child}/status")).unwrap_or_default();
            let ids = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or_default();
            let ids: Vec<&str> = ids.split_whitespace().collect();
            ids.len() > 1 && ids.last() == Some(&"1")
        })
    }
}

impl Drop for Boot {
    fn drop(&mut self) {
        // What is inside ends with its first process, and that outlives nspawn where nobody ends it.
        if let Some(first) = self.first_process().and_then(|first| Pid::from_raw(i32::try_from(first).ok()?)) {
            kill_process(first, Signal::KILL).ok();
        }
        for end in [self.nspawn.kill(), self.nspawn.wait().map(drop)] {
            if let Err(error) = end {
                tracing::warn!(%error, "a host may run on");
            }
        }
        self.groups.remove();
    }
}

impl Groups {
    fn new() -> Result<Self, HostError> {
        let name = unique("host");
        // Of version 1 systemd needs the one that bears its name; beside it the one of version 2.
        let hierarchies: Vec<PathBuf> = if Path::new(GROUPS).join("cgroup.controllers").exists() {
            vec![GROUPS.into()]
        } else {
            ["systemd", "unified"]
                .iter()
                .map(|name| Path::new(GROUPS).join(name))
                .filter(|path| path.is_dir())
                .collect()
        };
        let groups = Self(hierarchies.iter().map(|hierarchy| hierarchy.join(&name)).collect());
        groups.0.iter().try_for_each(fs::create_dir).map_err(failed("control group"))?;
        Ok(groups)
    }

    /// For a shell that takes them apart again: no path of them has a blank.
    fn words(&self) -> String {
        self.0.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(" ")
    }

    /// A group can go once its last process is gone, which takes the kernel a moment.
    fn remove(&self) {
        for group in &self.0 {
            let gone = until("an empty control group", HALT_LIMIT, || remove_tree(group).ok());
            if let Err(error) = gone {
                tracing::warn!(group = %group.display(), %error, "a control group stays behind");
            }
        }
    }
}

/// Control groups hold files that cannot be removed, and directories that can.
fn remove_tree(group: &Path) -> io::Result<()> {
    for entry in fs::read_dir(group)?.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        remove_tree(&entry.path())?;
    }
    fs::remove_dir(group)
}

/// What a killed test left: its mount first, so that the directory can go.
fn remove_leftovers() {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    for target in mounts.lines().filter_map(|line| line.split(' ').nth(1)) {
        let is_old = |part: &std::ffi::OsStr| part.to_str().is_some_and(is_leftover);
        if target.ends_with("/root") && Path::new(target).iter().any(is_old) {
            tool::run("umount", &[target]).ok();
        }
    }
    for hierarchy in ["", "systemd", "unified"] {
        let entries = fs::read_dir(Path::new(GROUPS).join(hierarchy)).into_iter().flatten().flatten();
        for entry in entries.filter(|entry| entry.file_name().to_str().is_some_and(is_leftover)) {
            remove_tree(&entry.path()).ok();
        }
    }
}

fn failed(what: &'static str) -> impl FnOnce(io::Error) -> HostError {
    move |source| HostError::Io(what, source)
}

/// The Debian below every host.
fn prepared() -> Result<PathBuf, HostError> {
    let profile = profile().map_err(failed("builder"))?;
    let tools = profile.parent().unwrap_or(&profile).join("tools");
    let made = tools.join("host/made");
    if made.exists() {
        Ok(tools.join("host/root"))
    } else {
        Err(HostError::NotPrepared(made, tools.display().to_string()))
    }
}
