//! A small, full server: containers of a real Docker, processes and listening sockets, as many as are asked for.
//!
//! What runs on the machine anyway counts among its processes: they are filled up to the number. Everything that is
//! started here does nothing, and ends with its value.

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dunlin_agent::clock::Clock;
use dunlin_agent::config::Collect;
use dunlin_agent::sample::Sampler;
use dunlin_agent::stats::Stats;
use dunlin_shared::inventory::Item;
use dunlin_tests::deadline::until;
use dunlin_tests::engines::{Engine, Kind};
use dunlin_tests::netns::Namespace;
use dunlin_tests::tool;

/// Names that idle processes go by: a host of 200 has some 40 programs.
const NAMES: usize = 40;
/// The first port of listeners.
const FIRST_PORT: usize = 8_000;
const LIMIT: Duration = Duration::from_secs(60);
/// Rounds in which processes are made up for.
const TRIES: usize = 3;

#[derive(Debug)]
pub(crate) struct Server<'n> {
    engine: Engine<'n>,
    namespace: &'n Namespace,
    listeners: Idle,
    processes: Idle,
}

/// Processes that do nothing.
#[derive(Debug, Default)]
struct Idle(Vec<Child>);

/// What an agent sees there.
#[derive(Debug)]
pub(crate) struct Census {
    pub(crate) series: usize,
    pub(crate) items: BTreeMap<&'static str, usize>,
    pub(crate) processes: usize,
}

impl<'n> Server<'n> {
    /// Containers in a network of theirs, each with something that listens, every other one published.
    pub(crate) fn start(namespace: &'n Namespace, containers: usize) -> Result<Self> {
        let engine = Engine::start(Kind::Docker, namespace)?;
        engine.run(&["network", "create", "--subnet", "10.97.77.0/24", "shop"])?;
        for number in 0..containers {
            let published = format!("127.0.0.1:{}:80", 18_080 + number);
            let mut options = vec!["--network", "shop", "--memory", "64m"];
            if number % 2 == 0 {
                options.extend(["-p", &published]);
            }
            engine.launch(&format!("shop-{number}"), &options, &["httpd", "-f", "-p", "80"])?;
        }
        Ok(Self { engine, namespace, listeners: Idle::default(), processes: Idle::default() })
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.engine.socket()
    }

    /// More listeners, until an agent sees so many ports.
    pub(crate) fn listen(&mut self, ports: usize) -> Result<()> {
        let now = self.census()?.of("ports");
        let busybox = tool::find("busybox")?;
        for number in now..ports {
            let mut command = std::process::Command::new(&busybox);
            command.args(["httpd", "-f", "-p", &format!("127.0.0.1:{}", FIRST_PORT + number)]);
            let started = self.namespace.enter(|| self.listeners.start(&mut command))?;
            started?;
        }
        until("listeners", LIMIT, || (self.census().ok()?.of("ports") >= ports).then_some(()))?;
        Ok(())
    }

    /// More processes, until there are so many on the machine.
    pub(crate) fn crowd(&mut self, processes: usize) -> Result<()> {
        // Others on the machine may end meanwhile.
        for _ in 0..TRIES {
            for number in count()?..processes {
                let mut command = tool::command("sleep")?;
                self.processes.start(command.arg0(format!("/opt/worker-{}", number % NAMES)).arg("infinity"))?;
            }
        }
        ensure!(count()? >= processes, "processes end by themselves");
        Ok(())
    }

    /// What an agent sees when it looks the second time: a bound UDP socket is told once it stood for two ticks.
    pub(crate) fn census(&self) -> Result<Census> {
        let collect = Collect { sockets: vec![self.socket()], ..Collect::default() };
        self.namespace.enter(|| {
            let clock = Clock::start();
            let mut sampler = Sampler::new(Path::new("/"), clock, Arc::new(Stats::default())).collecting(collect);
            sampler.sample(clock.mono(), clock.wall());
            let taken = sampler.sample(clock.mono(), clock.wall());
            let mut items = BTreeMap::new();
            for item in taken.stock.items() {
                let kind = match item {
                    Item::Container(_) => "containers",
                    Item::Port(_) => "ports",
                    Item::Group(_) => "groups",
                    Item::Unit(_) => "units",
                    Item::Source(_) => "sources",
                };
                *items.entry(kind).or_default() += 1;
            }
            Ok(Census { series: taken.sample.rows().len(), items, processes: count()? })
        })?
    }
}

impl Census {
    pub(crate) fn of(&self, kind: &str) -> usize {
        self.items.get(kind).copied().unwrap_or(0)
    }
}

impl Idle {
    fn start(&mut self, command: &mut std::process::Command) -> Result<()> {
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        self.0.push(child.context("a process that does nothing")?);
        Ok(())
    }
}

impl Drop for Idle {
    fn drop(&mut self) {
        for child in &mut self.0 {
            if let Err(error) = child.kill().and_then(|()| child.wait()) {
                tracing::warn!(%error, "a process that does nothing stays behind");
            }
        }
    }
}

/// Processes of this machine, threads of the kernel among them, as every agent counts them.
fn count() -> Result<usize> {
    let is_process = |name: &std::ffi::OsStr| name.as_encoded_bytes().iter().all(u8::is_ascii_digit);
    Ok(std::fs::read_dir("/proc")?.flatten().filter(|entry| is_process(&entry.file_name())).count())
}
