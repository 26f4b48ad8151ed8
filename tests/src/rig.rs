//! A collector and a fleet as benches run them: the real programs, started, watched, and ended.
//!
//! What they wrote is verified against the fleet's oracle before any figure counts.

use std::collections::HashSet;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::deadline::until;
use crate::fleet::history::{self, History};
use crate::fleet::oracle::Oracle;
use crate::fleet::verify::{Report, verify_beside};
use crate::netns::Namespace;
use crate::pki;
use crate::process::{Program, Running, Usage};
use crate::scrape::Scrape;
use crate::scratch::Scratch;
use anyhow::{Context, Result, ensure};
use dunlin_collector::api::socket_path;
use dunlin_collector::client::{Client, Target, Trust};
use dunlin_shared::id::NodeId;

/// Longer than is promised by far: what takes so long is an error.
const READY: Duration = Duration::from_secs(60);
/// What is being sealed is sealed to its end.
const END: Duration = Duration::from_secs(60);
/// The fleet settles for a minute at most, and says goodbye within an interval.
const FLEET_END: Duration = Duration::from_secs(120);

/// Where the two run, and where the collector listens.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    pub quic: SocketAddr,
    pub http: SocketAddr,
    pub collector: Option<&'a Namespace>,
    pub fleet: Option<&'a Namespace>,
}

#[derive(Debug)]
pub struct Rig<'a> {
    place: Place<'a>,
    scratch: Scratch,
    identities: pki::Fleet,
    pub collector: Running,
    fleet: Option<Running>,
    /// Parts of the fleet that are processes of their own, so that they can be killed.
    beside: Vec<Beside>,
    /// Of what was sent before the fleet was played.
    earlier: Vec<Oracle>,
}

/// Agents of the fleet in a process of their own, under a name.
#[derive(Debug)]
struct Beside {
    name: &'static str,
    running: Running,
}

/// The collector at one moment.
#[derive(Debug)]
pub struct Look {
    pub usage: Usage,
    pub scrape: Scrape,
    /// What the process gave to `write`.
    pub written_bytes: u64,
}

impl Place<'_> {
    /// Two ports of loopback that are free now.
    pub fn loopback() -> Result<Self> {
        let quic = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let http = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        Ok(Self { quic, http, collector: None, fleet: None })
    }
}

impl<'a> Rig<'a> {
    pub fn start(agents: usize, place: Place<'a>) -> Result<Self> {
        let scratch = Scratch::new("bench")?;
        let identities = pki::Fleet::generate(agents, 1)?;
        identities.write_collector(&scratch.join("state"))?;
        identities.write(&scratch.join("fleet.bin"))?;
        Self::launch(place, scratch, identities)
    }

    /// A collector that made its own authority and knows no node yet.
    pub fn start_unknowing(place: Place<'a>) -> Result<Self> {
        let none = pki::Identity { cert_der: Vec::new(), key_der: Vec::new() };
        let nobody = pki::Fleet { ca_der: Vec::new(), collector: none, nodes: Vec::new() };
        Self::launch(place, Scratch::new("bench")?, nobody)
    }

    fn launch(place: Place<'a>, scratch: Scratch, identities: pki::Fleet) -> Result<Self> {
        let collector = start_collector(place, &scratch)?;
        Ok(Self { place, scratch, identities, collector, fleet: None, beside: Vec::new(), earlier: Vec::new() })
    }

    /// The nodes that joined: from now on they can be played.
    pub fn take_in(&mut self, joined: pki::Fleet) -> Result<()> {
        joined.write(&self.scratch.join("fleet.bin"))?;
        self.identities = joined;
        Ok(())
    }

    /// From now on, nodes that joined have sent frames for a while. The collector is started anew.
    pub fn live_through(&mut self, history: &History) -> Result<()> {
        self.stop_collector()?;
        self.earlier.push(history::write(&self.scratch.join("state"), &self.identities, history)?);
        self.collector = start_collector(self.place, &self.scratch)?;
        Ok(())
    }

    pub fn nodes(&self) -> &[pki::NodeIdentity] {
        &self.identities.nodes
    }

    /// Who signed for all of them.
    pub fn authority(&self) -> &[u8] {
        &self.identities.ca_der
    }

    /// As root on the collector's own host.
    pub fn admin(&self) -> Result<Client> {
        let target = Target::Unix(socket_path(&self.scratch.join("state")));
        Ok(Client::new(target, None, &Trust::default())?)
    }

    /// Over TCP, with a token.
    pub fn client(&self, token: String) -> Result<Client> {
        let target = Target::Http { host: self.place.http.ip().to_string(), port: self.place.http.port() };
        Ok(Client::new(target, Some(token), &Trust::default())?)
    }

    pub const fn quic(&self) -> SocketAddr {
        self.place.quic
    }

    /// Starts the agents; `extra` are further arguments of `dunlin-fleet run`.
    pub fn play(&mut self, agents: usize, interval: &str, extra: &[&str]) -> Result<()> {
        self.fleet = Some(self.start_fleet("", (0, agents), interval, extra)?);
        Ok(())
    }

    /// Starts those from `first` on as a process of their own.
    pub fn play_beside(
        &mut self,
        name: &'static str,
        agents: (usize, usize),
        interval: &str,
        extra: &[&str],
    ) -> Result<()> {
        let running = self.start_fleet(name, agents, interval, extra)?;
        self.beside.push(Beside { name, running });
        Ok(())
    }

    /// They fall silent in the middle of whatever they did.
    pub fn kill_beside(&mut self, name: &str) -> Result<()> {
        self.running_beside(name)?.kill9()?;
        Ok(())
    }

    /// They say goodbye.
    pub fn stop_beside(&mut self, name: &str) -> Result<()> {
        let running = self.running_beside(name)?;
        let status = running.terminate(FLEET_END)?;
        ensure!(status.success(), "the fleet {name} ended with {status}:\n{}", running.log_text());
        Ok(())
    }

    fn running_beside(&mut self, name: &str) -> Result<&mut Running> {
        let found = self.beside.iter_mut().find(|beside| beside.name == name);
        Ok(&mut found.with_context(|| format!("no fleet {name} was started"))?.running)
    }

    fn start_fleet(
        &self,
        name: &str,
        (first, agents): (usize, usize),
        interval: &str,
        extra: &[&str],
    ) -> Result<Running> {
        let program = Program::ours("dunlin-tests", "dunlin-fleet")?;
        let program = program.args(["run", "--first", &first.to_string(), "--agents", &agents.to_string()]);
        let program = program.args(["--interval", interval, "--collector", &self.place.quic.to_string()]);
        let program = program.arg("--pki").arg(self.scratch.path()).arg("--oracle").arg(self.oracle_of(name));
        let program = program.arg("--quiet").args(extra).log(self.scratch.join(&format!("fleet{name}.log")));
        Ok(inside(program, self.place.fleet).start()?)
    }

    pub fn look(&self) -> Result<Look> {
        let page = self.collector.get(self.place.http, "/metrics")?;
        let io = std::fs::read_to_string(format!("/proc/{}/io", self.collector.pid()))?;
        let written = io.lines().find_map(|line| line.strip_prefix("wchar: ")?.trim().parse().ok());
        Ok(Look {
            usage: self.collector.usage()?,
            scrape: Scrape::parse(&page.body)?,
            written_bytes: written.context("no wchar in the collector's io")?,
        })
    }

    /// Kills the collector, and starts it on what it left; back when it is ready.
    pub fn kill_and_restart(&mut self) -> Result<()> {
        self.collector.kill9()?;
        self.collector = start_collector(self.place, &self.scratch)?;
        Ok(())
    }

    /// Waits until the collector's counter or gauge has reached a value.
    pub fn wait_metric(&self, name: &str, least: f64, limit: Duration) -> Result<()> {
        let what = format!("{name} of {least}");
        until(&what, limit, || {
            let look = self.collector.get(self.place.http, "/metrics").ok()?;
            let scrape = Scrape::parse(&look.body).ok()?;
            (scrape.value(name, &[])? >= least).then_some(())
        })?;
        Ok(())
    }

    /// Ends both and compares what was stored with what was acknowledged.
    pub fn finish(self) -> Result<(Report, serde_json::Value)> {
        let (report, summary, ()) = self.finish_with(&HashSet::new(), |_| Ok(()))?;
        Ok((report, summary))
    }

    /// The same where others than the fleet have sent what they liked, and what was looked for in the collector's state.
    pub fn finish_with<T>(
        mut self,
        others: &HashSet<NodeId>,
        look: impl FnOnce(&Path) -> Result<T>,
    ) -> Result<(Report, serde_json::Value, T)> {
        let mut fleet = self.fleet.take().context("no fleet was started")?;
        let status = fleet.terminate(FLEET_END)?;
        ensure!(status.success(), "the fleet ended with {status}:\n{}", fleet.log_text());
        let text = fleet.log_text();
        let summary = text.lines().rev().find(|line| line.starts_with('{')).context("the fleet printed no summary")?;
        let summary = serde_json::from_str(summary)?;
        self.stop_collector()?;
        self.earlier.push(Oracle::read(&self.oracle_file())?);
        for beside in &self.beside {
            self.earlier.push(Oracle::read(&self.oracle_of(beside.name))?);
        }
        let state = self.scratch.join("state");
        let found = look(&state)?;
        let report = verify_beside(&state, &self.earlier, &self.identities, others)?;
        ensure!(report.is_clean(), "what is stored is not what was acknowledged:\n{}", report.shown.join("\n"));
        ensure!(report.frames > 0, "no frame was stored");
        Ok((report, summary, found))
    }

    fn stop_collector(&mut self) -> Result<()> {
        let status = self.collector.terminate(END)?;
        ensure!(status.success(), "the collector ended with {status}:\n{}", self.collector.log_text());
        Ok(())
    }

    #[must_use]
    pub fn oracle_file(&self) -> PathBuf {
        self.oracle_of("")
    }

    fn oracle_of(&self, name: &str) -> PathBuf {
        self.scratch.join(&format!("oracle{name}"))
    }
}

fn start_collector(place: Place<'_>, scratch: &Scratch) -> Result<Running> {
    let program = Program::ours("dunlin-collector", "dunlin-collector")?;
    let program = program.arg("run").arg("--state-dir").arg(scratch.join("state"));
    let program = program.args(["--quic-listen", &place.quic.to_string(), "--http-listen", &place.http.to_string()]);
    let mut collector = inside(program.log(scratch.join("collector.log")), place.collector).start()?;
    collector.wait_ready(place.http, READY)?;
    Ok(collector)
}

fn inside(program: Program, namespace: Option<&Namespace>) -> Program {
    match namespace {
        Some(namespace) => program.inside(namespace),
        None => program,
    }
}
