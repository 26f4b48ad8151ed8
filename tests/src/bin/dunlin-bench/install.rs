//! From `dpkg -i` to a collector that is ready and a node that is up, on fresh hosts that systemd boots; and what is
//! installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use dunlin_tests::deadline::until;
use dunlin_tests::host::Host;
use dunlin_tests::package::Built;
use dunlin_tests::tool;
use dunlin_tests::topology::{AGENT, Direct};

use dunlin_tests::table::Table;

const PART: &str = "install";
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// What is waited for comes in seconds, or never.
const LIMIT: Duration = Duration::from_secs(120);

pub(crate) fn measure(table: &mut Table, short: bool) -> Result<()> {
    let packages = Built::find()?.packed(VERSION)?;
    let (mut readies, mut ups) = (Vec::new(), Vec::new());
    let runs = if short { 1 } else { 5 };
    for _ in 0..runs {
        let (ready, up) = once(&packages)?;
        readies.push(ready);
        ups.push(up);
    }
    let of = |what: &str| format!("{what}, the longest of {runs}");
    table.promise(PART, &of("collector: dpkg -i to ready"), longest(&readies), 5.0, "s");
    table.promise(PART, &of("agent: dpkg -i to up in the collector"), longest(&ups), 10.0, "s");
    let agent = named(&packages, "dunlin-agent_")?;
    let about = tool::run("dpkg-deb", &[Path::new("-f"), &agent, Path::new("Installed-Size")])?;
    let installed_kib: u32 = about.trim().parse().context("no size")?;
    let package_mb = Duration::from_micros(fs::metadata(&agent)?.len()).as_secs_f64();
    table.promise(PART, "the agent's package", package_mb, 2.5, "MB");
    table.promise(PART, "the agent, installed", f64::from(installed_kib) * 1_024.0 / 1e6, 6.0, "MB");
    Ok(())
}

fn longest(times: &[Duration]) -> f64 {
    times.iter().max().copied().unwrap_or_default().as_secs_f64()
}

/// Two hosts that never had anything to do with each other.
fn once(packages: &Path) -> Result<(Duration, Duration)> {
    let network = Direct::new()?;
    network.collector.ip(&["route", "add", "default", "via", &AGENT.to_string()])?;
    let (collector, web) = (Host::boot(&network.collector, "collector")?, Host::boot(&network.agent, "web-1")?);
    for name in ["dunlin-cli_", "dunlin-collector_"] {
        collector.put(&named(packages, name)?, "/root")?;
    }
    web.put(&named(packages, "dunlin-agent_")?, "/root")?;
    let began = Instant::now();
    // Its unit is ready before dpkg is done.
    collector.run("dpkg -i /root/dunlin-*.deb && systemctl is-active dunlin-collector")?;
    let ready = began.elapsed();
    let line = collector.run("dunlin-collector invite")?;
    let line = line.trim().trim_start_matches("sudo ");
    let began = Instant::now();
    web.run(&format!("cd /root && {line}"))?;
    until("a node that is up", LIMIT, || {
        collector.run("dunlin nodes --state up -o json").ok().filter(|said| said.contains("\"web-1\""))
    })?;
    Ok((ready, began.elapsed()))
}

fn named(packages: &Path, begins: &str) -> Result<PathBuf> {
    let mut files = fs::read_dir(packages)?.flatten().map(|entry| entry.path());
    let is_it = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(begins));
    files.find(is_it).with_context(|| format!("no package {begins}*"))
}
