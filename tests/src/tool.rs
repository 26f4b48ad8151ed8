//! Runs the system's own tools for the rig. Owns the table of which Debian package brings which tool.
//!
//! A missing tool or missing privilege is an error that says what to do; it is never a reason to skip.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use thiserror::Error;

/// Every tool that the rig starts, and the package that brings it.
const PACKAGES: &[(&str, &str)] = &[
    ("ansible-playbook", "ansible-core"),
    ("busybox", "busybox-static"),
    ("collectd", "collectd-core"),
    ("conntrack", "conntrack"),
    ("date", "coreutils"),
    ("df", "coreutils"),
    ("docker", "docker.io"),
    ("docker-compose", "docker-compose"),
    ("dockerd", "docker.io"),
    ("e2fsck", "e2fsprogs"),
    ("free", "procps"),
    ("ip", "iproute2"),
    ("iptables-legacy", "iptables"),
    ("iptables-nft", "iptables"),
    ("lintian", "lintian"),
    ("losetup", "mount"),
    ("mkfs.ext4", "e2fsprogs"),
    ("mount", "mount"),
    ("nsenter", "util-linux"),
    ("podman", "podman"),
    ("prometheus-node-exporter", "prometheus-node-exporter"),
    ("prometheus-process-exporter", "prometheus-process-exporter"),
    ("promtool", "prometheus"),
    ("ps", "procps"),
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("redis-server", "redis-server"),
    ("runc", "runc"),
    ("strace", "strace"),
    ("systemd-nspawn", "systemd-container"),
    ("tar", "tar"),
    ("umount", "mount"),
    ("uname", "coreutils"),
    ("unshare", "util-linux"),
    ("uptime", "procps"),
    ("xfs_io", "xfsprogs"),
];

/// Debian keeps these out of PATH for people, and root's cargo may run with such a PATH.
const SYSTEM_DIRECTORIES: &[&str] = &["/usr/sbin", "/sbin", "/usr/bin", "/bin"];

#[derive(Debug, Error)]
pub enum ToolError {
    #[error("{tool} is missing; as root run: apt-get install -y --no-install-recommends {package}")]
    Missing { tool: String, package: &'static str },
    #[error("this test makes namespaces and mounts and must run as root")]
    NotRoot,
    #[error("{command} did not start")]
    NotStarted { command: String, source: io::Error },
    #[error("{command} failed with {status}: {output}")]
    Failed { command: String, status: String, output: String },
}

/// Finds a tool in PATH and in the system's directories.
pub fn find(tool: &str) -> Result<PathBuf, ToolError> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(SYSTEM_DIRECTORIES.iter().map(PathBuf::from))
        .map(|directory| directory.join(tool))
        .find(|candidate| candidate.is_file())
        .ok_or_else(|| ToolError::Missing { tool: tool.to_owned(), package: package_of(tool) })
}

/// A command that is ready to run, for callers that keep it running.
pub fn command(tool: &str) -> Result<Command, ToolError> {
    Ok(Command::new(find(tool)?))
}

/// Runs a tool to its end and returns what it printed.
pub fn run<A: AsRef<OsStr>>(tool: &str, arguments: &[A]) -> Result<String, ToolError> {
    let mut command = command(tool)?;
    command.args(arguments);
    finish(&mut command)
}

/// Runs a command to its end and returns what it printed; anything but success is an error with its output.
pub fn finish(command: &mut Command) -> Result<String, ToolError> {
    let output = command.output().map_err(|source| ToolError::NotStarted { command: shown(command), source })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(ToolError::Failed { command: shown(command), status: output.status.to_string(), output: said(&output) })
}

pub fn require_root() -> Result<(), ToolError> {
    if rustix::process::geteuid().is_root() { Ok(()) } else { Err(ToolError::NotRoot) }
}

fn package_of(tool: &str) -> &'static str {
    PACKAGES.iter().find(|(name, _)| *name == tool).map_or("the package that brings it", |(_, package)| package)
}

/// The command as a person would type it, without the directory of the program.
fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    std::iter::once(program).chain(command.get_args()).map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}

fn said(output: &Output) -> String {
    let both = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    String::from_utf8_lossy(&both).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_tool_names_its_package() {
        let error = ToolError::Missing { tool: "xfs_io".to_owned(), package: package_of("xfs_io") };
        assert_eq!(
            error.to_string(),
            "xfs_io is missing; as root run: apt-get install -y --no-install-recommends xfsprogs"
        );
        assert!(matches!(find("no-such-tool-here"), Err(ToolError::Missing { .. })));
    }

    #[test]
    fn failing_tool_is_an_error_with_its_output() {
        let error = finish(Command::new("sh").args(["-c", "echo out; echo err >&2; exit 3"])).expect_err("it exits 3");
        assert_eq!(error.to_string(), "sh -c echo out; echo err >&2; exit 3 failed with exit status: 3: out\nerr");
    }
}
