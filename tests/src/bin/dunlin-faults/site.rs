//! The place that a collector runs in: its state directory, its addresses, its log, and the fleet's keys.
//!
//! The state may lie on a disk of its own that fails; log, keys and oracles never do. A collector that is started
//! again has the same addresses, so that agents find it.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use dunlin_collector::store;
use dunlin_tests::deadline::until;
use dunlin_tests::disk::Disk;
use dunlin_tests::http;
use dunlin_tests::pki::Fleet;
use dunlin_tests::process::{Program, Running};
use dunlin_tests::scrape::Scrape;
use dunlin_tests::scratch::Scratch;

use crate::report::{Report, Times};

/// From 3-promises: API, feed and alerts are back in so long.
pub(crate) const READY_PROMISE: Duration = Duration::from_secs(10);
/// When waiting ends; a machine that builds beside it is slow.
const READY_LIMIT: Duration = Duration::from_secs(60);
/// All agents are back within a minute by promise; twice that for a slow machine.
const UP_LIMIT: Duration = Duration::from_secs(120);
/// A drain takes seconds.
pub(crate) const STOP_LIMIT: Duration = Duration::from_secs(30);
const HTTP_LIMIT: Duration = Duration::from_secs(5);
/// Node ids follow from it, and nothing else.
const FLEET_SEED: u64 = 1;
/// Between two looks at a state that has to last.
const WATCH_EVERY: Duration = Duration::from_millis(200);

#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) state: PathBuf,
    pub(crate) pki: PathBuf,
    pub(crate) quic: SocketAddr,
    pub(crate) http: SocketAddr,
    pub(crate) agents: usize,
    pub(crate) scratch: Scratch,
}

impl Site {
    /// With keys for so many agents. The state lies on `disk` when there is one.
    pub(crate) fn new(agents: usize, disk: Option<&Disk>) -> Result<Self> {
        let scratch = Scratch::new("faults").context("a place for keys and logs")?;
        let pki = scratch.join("pki");
        let fleet = Fleet::generate(agents, FLEET_SEED)?;
        fs::create_dir(&pki)?;
        fleet.write(&pki.join("fleet.bin"))?;
        let state = disk.map_or_else(|| scratch.join("state"), |disk| disk.join("state"));
        fleet.write_collector(&state)?;
        rustix::fs::syncfs(File::open(&state)?)?;
        let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        // Both are free for as long as nobody else asks for a port between here and the start.
        let quic = UdpSocket::bind(local(0))?.local_addr()?;
        let http = TcpListener::bind(local(0))?.local_addr()?;
        Ok(Self { state, pki, quic, http, agents, scratch })
    }

    pub(crate) fn start(&self) -> Result<Running> {
        self.start_with(&[])
    }

    /// With further flags.
    pub(crate) fn start_with(&self, flags: &[&str]) -> Result<Running> {
        let program = Program::ours("dunlin-collector", "dunlin-collector")?.log(self.scratch.join("collector.log"));
        let program = program.arg("run").arg("--state-dir").arg(&self.state);
        let program = program.args(["--quic-listen", &self.quic.to_string(), "--http-listen", &self.http.to_string()]);
        Ok(program.args(flags.iter().copied()).start()?)
    }

    /// Started and ready; how long that took goes into `times`.
    pub(crate) fn start_ready(&self, times: &mut Times) -> Result<Running> {
        let began = Instant::now();
        let mut collector = self.start()?;
        collector.wait_ready(self.http, READY_LIMIT)?;
        times.note(began.elapsed());
        Ok(collector)
    }

    pub(crate) fn metrics(&self) -> Result<Scrape> {
        let page = http::get(self.http, "/metrics", HTTP_LIMIT)?;
        ensure!(page.status == 200, "/metrics answers {}", page.status);
        Ok(Scrape::parse(&page.body)?)
    }

    pub(crate) fn nodes(&self, state: &str) -> Result<usize> {
        let count = self.metrics()?.sum("dunlin_nodes", &[("state", state)]);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count of nodes")]
        Ok(count as usize)
    }

    /// The status of `/-/ready` and what it says.
    pub(crate) fn ready(&self) -> Result<(u16, String)> {
        let page = http::get(self.http, "/-/ready", HTTP_LIMIT)?;
        Ok((page.status, page.body.trim().to_owned()))
    }

    pub(crate) fn healthy(&self) -> bool {
        http::get(self.http, "/-/healthy", HTTP_LIMIT).is_ok_and(|page| page.status == 200)
    }

    /// Waits until every agent is up.
    pub(crate) fn wait_up(&self) -> Result<()> {
        let all = || (self.nodes("up").ok()? == self.agents).then_some(());
        if let Err(late) = until("every node up", UP_LIMIT, || {
            all().or_else(|| {
                std::thread::sleep(WATCH_EVERY);
                None
            })
        }) {
            bail!("{late}: {} of {} are up", self.nodes("up").unwrap_or_default(), self.agents);
        }
        Ok(())
    }

    /// Waits until `/-/ready` has this status, and gives what it says and how long it took.
    pub(crate) fn wait_status(&self, status: u16, limit: Duration) -> Result<(String, Duration)> {
        let began = Instant::now();
        let mut last = String::new();
        let said = until(&format!("{status} from /-/ready"), limit, || {
            std::thread::sleep(Duration::from_millis(20));
            let (now, said) = self.ready().unwrap_or_else(|error| (0, error.to_string()));
            last = format!("{now} {said}");
            (now == status).then_some(said)
        });
        Ok((said.with_context(|| last)?, began.elapsed()))
    }

    /// Looks again and again while `span` lasts; the first look that finds something ends it.
    pub(crate) fn watch(
        &self,
        span: Duration,
        mut look: impl FnMut(&Self) -> Result<Option<String>>,
    ) -> Result<Option<String>> {
        let end = Instant::now() + span;
        while Instant::now() < end {
            if let Some(found) = look(self)? {
                return Ok(Some(found));
            }
            std::thread::sleep(WATCH_EVERY);
        }
        Ok(None)
    }

    pub(crate) fn log_text(&self) -> String {
        fs::read_to_string(self.scratch.join("collector.log")).unwrap_or_default()
    }

    /// Stops it cleanly and looks at every database with SQLite's own eyes and ours.
    pub(crate) fn stop_and_check(&self, mut collector: Running, report: &mut Report) -> Result<()> {
        let status = collector.terminate(STOP_LIMIT)?;
        report.expect(status.success(), || format!("a clean stop ends with {status}"));
        self.check(report);
        Ok(())
    }

    /// Nobody may write the state meanwhile.
    pub(crate) fn check(&self, report: &mut Report) {
        match store::check(&self.state) {
            Ok(files) => {
                for file in files {
                    if let Some(damage) = file.damage {
                        report.violation(format!("after the fault: {damage}"));
                    }
                }
            }
            Err(error) => report.violation(format!("the state cannot be read after the fault: {error}")),
        }
    }

    /// What was said on the way out: the lines that the program itself prints when it cannot go on.
    pub(crate) fn last_words(&self) -> Vec<String> {
        self.log_text().lines().filter(|line| line.starts_with("dunlin-collector: ")).map(str::to_owned).collect()
    }
}

/// The recovery promise for each start that was measured.
pub(crate) fn judge_recovery(report: &mut Report, times: &Times) {
    report.count("ready", times);
    report.expect(times.max() <= READY_PROMISE, || format!("ready only after {:?}", times.max()));
}

pub(crate) fn copy_dir(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).with_context(|| from.display().to_string())? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_dir(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target)?;
        }
    }
    Ok(())
}
