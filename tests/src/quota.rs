//! How much of a processor a program of a test may have: a control group of its own, of version 1 or 2.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

const PERIOD_US: u64 = 100_000;
/// The kernel gives nobody less in a period.
const LEAST_US: u64 = 1_000;

#[derive(Debug, Error)]
pub enum QuotaError {
    #[error("this kernel has no control groups that limit processors: neither {0} nor its `cpu` lets one be made")]
    NoGroups(&'static str),
    #[error("{}", path.display())]
    File { path: PathBuf, source: io::Error },
}

/// Ends with its value: whoever is in it then goes back to where everybody is.
#[derive(Debug)]
pub struct Quota {
    group: PathBuf,
    is_unified: bool,
}

impl Quota {
    const GROUPS: &'static str = "/sys/fs/cgroup";

    /// A group without a limit, with this process and what it starts from now on.
    pub fn of(pid: i32) -> Result<Self, QuotaError> {
        let groups = Path::new(Self::GROUPS);
        let is_unified = groups.join("cgroup.controllers").exists();
        let parent = if is_unified { groups.to_owned() } else { groups.join("cpu") };
        if is_unified {
            write(&parent.join("cgroup.subtree_control"), "+cpu")?;
        }
        if !parent.is_dir() {
            return Err(QuotaError::NoGroups(Self::GROUPS));
        }
        let group = parent.join(format!("dunlin-quota-{pid}"));
        fs::create_dir(&group).map_err(|source| QuotaError::File { path: group.clone(), source })?;
        let quota = Self { group, is_unified };
        write(&quota.group.join("cgroup.procs"), &pid.to_string())?;
        Ok(quota)
    }

    /// So much of one core from now on; all of it for `None`.
    pub fn allow(&self, cores: Option<f64>) -> Result<(), QuotaError> {
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a share of some cores"
        )]
        let quota_us = cores.map(|cores| ((cores * PERIOD_US as f64) as u64).max(LEAST_US));
        if self.is_unified {
            let quota = quota_us.map_or_else(|| String::from("max"), |us| us.to_string());
            return write(&self.group.join("cpu.max"), &format!("{quota} {PERIOD_US}"));
        }
        write(&self.group.join("cpu.cfs_period_us"), &PERIOD_US.to_string())?;
        write(&self.group.join("cpu.cfs_quota_us"), &quota_us.map_or_else(|| String::from("-1"), |us| us.to_string()))
    }
}

impl Drop for Quota {
    fn drop(&mut self) {
        let members = fs::read_to_string(self.group.join("cgroup.procs")).unwrap_or_default();
        let parent = self.group.parent().unwrap_or(Path::new(Self::GROUPS));
        // One that ended meanwhile is in no group.
        members.lines().for_each(|pid| drop(fs::write(parent.join("cgroup.procs"), pid)));
        if let Err(error) = fs::remove_dir(&self.group) {
            tracing::warn!(%error, group = %self.group.display(), "a control group is left behind");
        }
    }
}

fn write(path: &Path, text: &str) -> Result<(), QuotaError> {
    fs::write(path, text).map_err(|source| QuotaError::File { path: path.to_owned(), source })
}
