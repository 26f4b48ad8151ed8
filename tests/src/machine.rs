//! The machine that is measured on: what it is, and the one setting that a bench may change.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

const RMEM_MAX: &str = "/proc/sys/net/core/rmem_max";
/// Debian's default: promises hold with it, whatever this machine allows.
const RMEM_BYTES: &str = "212992";

/// Limits UDP receive buffers to what a fresh Debian has, until it is dropped.
#[derive(Debug)]
pub struct SmallBuffers {
    before: String,
}

impl SmallBuffers {
    pub fn set() -> Result<Self> {
        let before = fs::read_to_string(RMEM_MAX).context(RMEM_MAX)?;
        fs::write(RMEM_MAX, RMEM_BYTES)
            .with_context(|| format!("{RMEM_MAX} is set for the measurement; run this as root"))?;
        Ok(Self { before: before.trim().to_owned() })
    }
}

impl Drop for SmallBuffers {
    fn drop(&mut self) {
        if let Err(error) = fs::write(RMEM_MAX, &self.before) {
            tracing::warn!(%error, before = self.before, "{RMEM_MAX} could not be set back");
        }
    }
}

/// One line: processors, memory, kernel, load and build.
pub fn describe() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("unknown", |(_, model)| model);
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let meminfo = read("/proc/meminfo");
    let memory = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:")?.split_whitespace().next());
    let gib = memory.and_then(|kib| kib.parse::<f64>().ok()).map_or(0.0, |kib| kib / 1_048_576.0);
    let kernel = read("/proc/sys/kernel/osrelease");
    let load = read("/proc/loadavg");
    let load = load.split(' ').next().unwrap_or_default();
    let build = std::env::current_exe().ok();
    let build = build.as_deref().and_then(Path::parent).and_then(Path::file_name);
    let build = build.map_or_else(String::new, |build| build.to_string_lossy().into_owned());
    format!(
        "{cores} cores of {model}, {gib:.1} GiB, Linux {}, load average {load} after the run, {build} build",
        kernel.trim()
    )
}
