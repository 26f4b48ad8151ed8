//! The packages of what is built beside the running test, as `make deb` makes them.
//!
//! Nothing is compiled here: a missing program is an error with the command that makes it.

use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::scratch::unique;
use crate::tool::{self, ToolError};

#[derive(Debug, Error)]
pub enum PackageError {
    #[error("{0} is not built; run: make agent")]
    NoAgent(PathBuf),
    #[error("{0} is not built; run: make static-collector STATIC_PROFILE=dev")]
    NoCollector(PathBuf),
    #[error("the directory of what is built")]
    Place(#[source] io::Error),
    #[error(transparent)]
    Tool(#[from] ToolError),
}

/// What packages are made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Built {
    /// The static agent that `make agent` builds.
    pub agent: PathBuf,
    /// The directory of the collector's programs: that of the test's profile.
    pub programs: PathBuf,
}

impl Built {
    pub fn find() -> Result<Self, PackageError> {
        let programs = profile().map_err(PackageError::Place)?;
        let target = programs.parent().unwrap_or(&programs);
        let agent = target.join(format!("{}-unknown-linux-gnu/agent/dunlin-agent", std::env::consts::ARCH));
        if agent.is_file() { Ok(Self { agent, programs }) } else { Err(PackageError::NoAgent(agent)) }
    }

    /// The directory of the static collector and its command line, which images are made of.
    pub fn static_collector(&self) -> Result<PathBuf, PackageError> {
        let target = self.programs.parent().unwrap_or(Path::new("/"));
        let dir = target.join(format!("{}-unknown-linux-gnu/debug", std::env::consts::ARCH));
        let program = dir.join("dunlin-collector");
        if program.is_file() { Ok(dir) } else { Err(PackageError::NoCollector(program)) }
    }

    /// Makes them all in a directory: `dunlin-NAME_VERSION_ARCH.deb`, the tarball, and their checksums.
    pub fn pack(&self, into: &Path) -> Result<(), PackageError> {
        self.pack_as(env!("CARGO_PKG_VERSION"), into)
    }

    /// The same as another version.
    pub fn pack_as(&self, version: &str, into: &Path) -> Result<(), PackageError> {
        let mut command = tool::command("bash")?;
        command.arg(root().join("packaging/deb/build")).env("PACKAGE_VERSION", version);
        tool::finish(command.arg(&self.agent).arg(&self.programs).arg(into))?;
        Ok(())
    }

    /// The directory where they lie already, or are made now: once for all tests of a build.
    pub fn packed(&self, version: &str) -> Result<PathBuf, PackageError> {
        let mut hasher = DefaultHasher::new();
        let programs = ["dunlin-collector", "dunlin"].map(|name| self.programs.join(name));
        let own = ["packaging", "systemd", "docs", "Cargo.toml", "CHANGELOG.md"].map(|name| root().join(name));
        for path in programs.iter().chain(&own).chain([&self.agent]) {
            note(path, &mut hasher).map_err(PackageError::Place)?;
        }
        let all = self.programs.join("packages");
        let kept = all.join(format!("{:016x}-{version}", hasher.finish()));
        if kept.is_dir() {
            return Ok(kept);
        }
        let made = all.join(unique("packages"));
        self.pack_as(version, &made)?;
        match fs::rename(&made, &kept) {
            // Another test was first; both made the same.
            Err(_) if kept.is_dir() => fs::remove_dir_all(&made).map_err(PackageError::Place)?,
            other => other.map_err(PackageError::Place)?,
        }
        Ok(kept)
    }
}

/// The directory of the running program's profile: tests lie below it, programs in it.
pub(crate) fn profile() -> io::Result<PathBuf> {
    let own = std::env::current_exe()?;
    let place = own.parent().unwrap_or(Path::new("/"));
    Ok(if place.ends_with("deps") { place.parent().unwrap_or(place) } else { place }.to_owned())
}

/// What tells one state of a file, or of everything below a directory, from another.
fn note(path: &Path, hasher: &mut DefaultHasher) -> io::Result<()> {
    let about = fs::metadata(path)?;
    if !about.is_dir() {
        (path, about.len(), about.mtime(), about.mtime_nsec()).hash(hasher);
        return Ok(());
    }
    let mut entries: Vec<PathBuf> = fs::read_dir(path)?.flatten().map(|entry| entry.path()).collect();
    entries.sort();
    entries.iter().try_for_each(|entry| note(entry, hasher))
}

/// The repository.
fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}
