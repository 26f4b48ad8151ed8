//! The Debian packages of what is built beside the running test, as `make deb` makes them.
//!
//! Nothing is compiled here: a missing program is an error with the command that makes it.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

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
        let own = std::env::current_exe().map_err(PackageError::Place)?;
        // Cargo keeps tests in TARGET/PROFILE/deps.
        let above = |levels| own.ancestors().nth(levels).unwrap_or(Path::new("/")).to_owned();
        let agent = above(3).join(format!("{}-unknown-linux-gnu/agent/dunlin-agent", std::env::consts::ARCH));
        if agent.is_file() { Ok(Self { agent, programs: above(2) }) } else { Err(PackageError::NoAgent(agent)) }
    }

    /// The directory of the static collector and its command line, which images are made of.
    pub fn static_collector(&self) -> Result<PathBuf, PackageError> {
        let target = self.programs.parent().unwrap_or(Path::new("/"));
        let dir = target.join(format!("{}-unknown-linux-gnu/debug", std::env::consts::ARCH));
        let program = dir.join("dunlin-collector");
        if program.is_file() { Ok(dir) } else { Err(PackageError::NoCollector(program)) }
    }

    /// Makes both packages in a directory.
    pub fn pack(&self, into: &Path) -> Result<(), PackageError> {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../packaging/deb/build");
        let mut command = tool::command("bash")?;
        tool::finish(command.arg(script).arg(&self.agent).arg(&self.programs).arg(into))?;
        Ok(())
    }
}
