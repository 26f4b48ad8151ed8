//! `dunlin-fleet`: plays a fleet of agents against a collector, and proves what the collector kept of it.
//!
//! Only the command line: what it does is `dunlin_tests::fleet`.

mod unruly;

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::builder::PossibleValuesParser;
use clap::{Args, Parser, Subcommand};
use dunlin_agent::clock::Clock;
use dunlin_shared::config::{parse_duration_ms, parse_size_bytes};
use dunlin_shared::id::Epoch;
use dunlin_shared::limits::{INTERVAL_MS_MAX, INTERVAL_MS_MIN};
use dunlin_shared::token::JoinToken;
use dunlin_tests::fleet::ask::{AskPlan, ask};
use dunlin_tests::fleet::drill::Drill;
use dunlin_tests::fleet::enrol::{EnrolPlan, enrol};
use dunlin_tests::fleet::load::{Load, Replay, SERIES_MAX, SERIES_MIN};
use dunlin_tests::fleet::oracle::Oracle;
use dunlin_tests::fleet::prove::overload::overload;
use dunlin_tests::fleet::prove::{ProvePlan, SHORT, UNRULY, prove};
use dunlin_tests::fleet::record::Recorder;
use dunlin_tests::fleet::recording::Recording;
use dunlin_tests::fleet::run::{Plan, run};
use dunlin_tests::fleet::verify::verify;
use dunlin_tests::flood::{self, FloodPlan};
use dunlin_tests::machine;
use dunlin_tests::pki;
use dunlin_tests::table::Table;

use self::unruly::UnrulyArguments;

#[derive(Debug, Parser)]
#[command(about = "Plays a fleet of agents against a collector, and proves what the collector kept of it")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Makes certificates: DIR/collector for a collector's state directory, DIR/fleet.bin for the fleet
    Pki {
        dir: PathBuf,
        #[arg(long)]
        agents: usize,
        /// State directories DIR/agent-0 and so on, for so many real agents that bear the first identities
        #[arg(long, default_value_t = 0)]
        state_dirs: usize,
        /// Node ids follow from it
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Plays agents until the end or SIGTERM, then waits until all is acknowledged; a JSON summary on stdout
    Run(RunArguments),
    /// Measures what is promised of a collector with so many nodes, all on this machine; a table on stdout
    Prove(ProveArguments),
    /// Gives a collector less of a processor than so many nodes need, and then enough again; a table on stdout
    Overload(ProveArguments),
    /// Floods a collector beside a fleet that behaves, in every way that is promised to do nothing; a table on stdout
    Flood(FloodArguments),
    /// Asks a collector's API at an even rate; a JSON summary on stdout
    Ask(AskArguments),
    /// Lets agents join by a token, as fast as the collector takes them; a JSON summary on stdout
    Enrol(EnrolArguments),
    /// Samples this machine, for benches to replay
    Record {
        file: PathBuf,
        #[arg(long, default_value_t = 60)]
        ticks: usize,
        #[arg(long, default_value = "10s", value_parser = duration)]
        interval: Duration,
        /// What the file says of how it was made
        #[arg(long, default_value = "")]
        note: String,
    },
    /// Compares a stopped collector's disk with what the oracles say; exit 1 when anything is not as it must be
    Verify {
        #[arg(long)]
        state: PathBuf,
        /// Given once for each run of the fleet
        #[arg(long, required = true)]
        oracle: Vec<PathBuf>,
        #[arg(long)]
        pki: PathBuf,
    },
}

#[derive(Debug, Args)]
struct RunArguments {
    /// The directory that `pki` filled
    #[arg(long)]
    pki: PathBuf,
    #[arg(long)]
    collector: SocketAddr,
    #[arg(long)]
    agents: usize,
    #[arg(long, default_value = "2s", value_parser = duration)]
    interval: Duration,
    #[arg(long, default_value_t = 150)]
    series: usize,
    /// Replay this file instead of making hosts up
    #[arg(long)]
    recording: Option<PathBuf>,
    /// What the samples follow from
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Each node crosses the drill's rule at one tick of so many
    #[arg(long)]
    drill: Option<NonZeroU64>,
    #[arg(long)]
    seconds: Option<u64>,
    /// Where to write what was sampled and acknowledged, every second and at the end
    #[arg(long)]
    oracle: PathBuf,
    #[arg(long, default_value_t = 16)]
    sockets: usize,
    /// How long to wait in the end for what is not acknowledged yet
    #[arg(long, default_value = "60s", value_parser = duration)]
    settle: Duration,
    /// Agents start evenly over this time; an interval unless given
    #[arg(long, value_parser = duration)]
    ramp: Option<Duration>,
    #[arg(long, default_value = "512KiB", value_parser = size)]
    spool_ram: usize,
    #[arg(long)]
    quiet: bool,
    /// The number in the fleet of the first agent that is played
    #[arg(long, default_value_t = 0)]
    first: usize,
    /// The address that sockets are bound to; given several times, they take turns
    #[arg(long)]
    from: Vec<IpAddr>,
    #[command(flatten)]
    unruly: UnrulyArguments,
    /// The agents' epoch; a fleet that is started again needs a higher one
    #[arg(long, default_value_t = 1)]
    start_epoch: u32,
}

#[derive(Debug, Args)]
struct ProveArguments {
    /// A hundred nodes and a minute on any build: that it runs and that nothing is told wrongly, not what it costs
    #[arg(long)]
    short: bool,
    #[arg(long, default_value_t = 10_000)]
    nodes: usize,
    #[arg(long, default_value = "10s", value_parser = duration)]
    interval: Duration,
    #[arg(long, default_value_t = 150)]
    series: usize,
    /// What all of it takes, about
    #[arg(long, default_value = "10m", value_parser = duration)]
    takes: Duration,
    /// How often the API is asked a second
    #[arg(long, default_value_t = 10_000)]
    requests: u32,
    /// Where to write the table for programs as well
    #[arg(long)]
    json: Option<PathBuf>,
    /// Where to write it for a page as well
    #[arg(long)]
    markdown: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct FloodArguments {
    /// Fifty nodes and half a minute on any build: what is told and kept, not what it costs
    #[arg(long)]
    short: bool,
    #[arg(long, default_value_t = 2_000)]
    nodes: usize,
    #[arg(long, default_value = "10s", value_parser = duration)]
    interval: Duration,
    /// How long each flood goes on
    #[arg(long, default_value = "90s", value_parser = duration)]
    takes: Duration,
    /// Which; all of them when none is named
    #[arg(value_parser = PossibleValuesParser::new(flood::NAMES))]
    flood: Vec<String>,
}

#[derive(Debug, Args)]
struct AskArguments {
    /// On loopback
    #[arg(long)]
    http: SocketAddr,
    /// One that may read
    #[arg(long)]
    token: String,
    /// Requests a second
    #[arg(long, default_value_t = 10_000)]
    rate: u32,
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Each has one request at a time
    #[arg(long, default_value_t = 64)]
    connections: usize,
}

#[derive(Debug, Args)]
struct EnrolArguments {
    #[arg(long)]
    collector: SocketAddr,
    /// As `dunlin-collector token create --role join` prints it
    #[arg(long)]
    token: JoinToken,
    #[arg(long)]
    agents: usize,
    /// How many join at a time
    #[arg(long, default_value_t = 96)]
    at_once: usize,
    #[arg(long, default_value_t = 16)]
    sockets: usize,
}

#[expect(clippy::print_stderr, reason = "errors of a command line tool")]
fn main() -> ExitCode {
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_max_level(tracing::Level::ERROR).init();
    match act(Arguments::parse().command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("dunlin-fleet: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether all is as it must be.
#[expect(clippy::print_stdout, reason = "what the commands answer")]
fn act(command: Command) -> Result<bool> {
    match command {
        Command::Pki { dir, agents, state_dirs, seed } => {
            ensure!(state_dirs <= agents, "--state-dirs {state_dirs} is more than --agents {agents}");
            let fleet = pki::Fleet::generate(agents, seed)?;
            fleet.write_collector(&dir.join("collector"))?;
            fleet.write(&dir.join("fleet.bin"))?;
            for index in 0..state_dirs {
                fleet.write_agent(index, &dir.join(format!("agent-{index}")))?;
            }
            Ok(true)
        }
        Command::Run(arguments) => {
            let (plan, fleet) = plan(arguments)?;
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
            let summary = runtime.block_on(run(plan, fleet))?;
            println!("{}", serde_json::to_string(&summary)?);
            Ok(true)
        }
        Command::Prove(arguments) => act_prove(&arguments, prove),
        Command::Overload(arguments) => act_prove(&arguments, overload),
        Command::Flood(arguments) => act_flood(&arguments),
        Command::Ask(AskArguments { http, token, rate, seconds, connections }) => {
            let duration = Duration::from_secs(seconds);
            let plan = AskPlan { http, token, requests_per_second: rate, duration, connections };
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            println!("{}", serde_json::to_string(&runtime.block_on(ask(plan))?)?);
            Ok(true)
        }
        Command::Enrol(EnrolArguments { collector, token, agents, at_once, sockets }) => {
            let plan = EnrolPlan { collector, token, agents, at_once, sockets };
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
            let (enrolled, _) = runtime.block_on(enrol(&plan))?;
            println!("{}", serde_json::to_string(&enrolled)?);
            Ok(true)
        }
        Command::Record { file, ticks, interval, note } => {
            let recording = record(ticks, interval)?;
            let note = format!(
                "{note}\n{} series, a tick each {interval:?}; made by `dunlin-fleet record`.",
                recording.series()
            );
            recording.write(&file, note.trim_start())?;
            Ok(true)
        }
        Command::Verify { state, oracle, pki } => {
            let fleet = read_fleet(&pki)?;
            let oracles = oracle.iter().map(|path| Oracle::read(path)).collect::<Result<Vec<_>, _>>()?;
            let report = verify(&state, &oracles, &fleet)?;
            println!("{}", serde_json::to_string_pretty(&report)?);
            Ok(report.is_clean())
        }
    }
}

/// The table is printed whatever happens: what was measured until then is worth something.
#[expect(clippy::print_stdout, reason = "what the command answers")]
fn act_prove(arguments: &ProveArguments, measure: impl FnOnce(ProvePlan, &mut Table) -> Result<()>) -> Result<bool> {
    let &ProveArguments { short, nodes, interval, series, takes, requests, .. } = arguments;
    ensure!((SERIES_MIN..=SERIES_MAX).contains(&series), "--series is {SERIES_MIN} to {SERIES_MAX}");
    let full = ProvePlan { nodes, interval, series, takes, requests_per_second: requests, unruly: UNRULY };
    let plan = if short { SHORT } else { full };
    let mut table = Table::default();
    let outcome = measure(plan, &mut table);
    let machine = machine::describe();
    println!("{machine}\n\n{table}");
    outcome?;
    if let Some(path) = &arguments.json {
        std::fs::write(path, table.json(&machine)).with_context(|| path.display().to_string())?;
    }
    if let Some(path) = &arguments.markdown {
        std::fs::write(path, table.markdown(&machine)).with_context(|| path.display().to_string())?;
    }
    // How long things take is not judged on any build.
    Ok(!if short { table.has_broken() } else { table.has_missed() })
}

/// As `act_prove`, but that what does not hang on the build counts in the short form as well.
#[expect(clippy::print_stdout, reason = "what the command answers")]
fn act_flood(arguments: &FloodArguments) -> Result<bool> {
    let &FloodArguments { short, nodes, interval, takes, .. } = arguments;
    let plan = if short { flood::SHORT } else { FloodPlan { nodes, interval, takes, ..flood::FULL } };
    let mut table = Table::default();
    let outcome = flood::flood(plan, &arguments.flood, &mut table);
    println!("{}\n\n{table}", machine::describe());
    outcome?;
    Ok(!table.has_missed())
}

/// Ticks at even distances, however long each takes.
fn record(ticks: usize, interval: Duration) -> Result<Recording> {
    ensure!(ticks > 1, "a recording has at least two ticks");
    let clock = Clock::start();
    let mut recorder = Recorder::new();
    let mut samples = Vec::with_capacity(ticks);
    let mut next = Instant::now();
    for _ in 0..ticks {
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
        next += interval;
        samples.push(recorder.sample(clock.mono(), clock.wall()));
    }
    Ok(Recording::from_samples(&samples))
}

fn plan(arguments: RunArguments) -> Result<(Plan, pki::Fleet)> {
    let mut fleet = read_fleet(&arguments.pki)?;
    let (known, last) = (fleet.nodes.len(), arguments.first.saturating_add(arguments.agents));
    ensure!(last <= known, "{last} agents, and the fleet was made with {known}");
    ensure!(arguments.agents > 0, "a fleet has at least one agent");
    ensure!((SERIES_MIN..=SERIES_MAX).contains(&arguments.series), "--series is {SERIES_MIN} to {SERIES_MAX}");
    fleet.nodes.truncate(last);
    fleet.nodes.drain(..arguments.first);
    let interval_ms = u64::try_from(arguments.interval.as_millis())?;
    let allowed = INTERVAL_MS_MIN..=INTERVAL_MS_MAX;
    ensure!(allowed.contains(&interval_ms), "--interval is {INTERVAL_MS_MIN}ms to {INTERVAL_MS_MAX}ms");
    let replay = arguments.recording.map(Replay::read).transpose()?;
    let drill = arguments.drill.map(|one_of| Drill { one_of });
    let plan = Plan {
        collector: arguments.collector,
        first: arguments.first,
        unruly: arguments.unruly.unruly(),
        from: arguments.from,
        load: Load { replay, drill, ..Load::made_up(arguments.seed, arguments.series) },
        epoch: Epoch(arguments.start_epoch),
        interval_ms,
        ramp: arguments.ramp.unwrap_or(arguments.interval),
        sockets: arguments.sockets,
        spool_ram_bytes: arguments.spool_ram,
        duration: arguments.seconds.map(Duration::from_secs),
        settle: arguments.settle,
        oracle: arguments.oracle,
        quiet: arguments.quiet,
    };
    Ok((plan, fleet))
}

fn read_fleet(dir: &std::path::Path) -> Result<pki::Fleet> {
    let path = dir.join("fleet.bin");
    pki::Fleet::read(&path).with_context(|| format!("make it with: dunlin-fleet pki {} --agents N", dir.display()))
}

fn duration(text: &str) -> Result<Duration, String> {
    let ms = parse_duration_ms(text).ok_or_else(|| format!("{text:?} is no duration; write it like 10s"))?;
    Ok(Duration::from_millis(ms))
}

fn size(text: &str) -> Result<usize, String> {
    let bytes = parse_size_bytes(text).and_then(|bytes| usize::try_from(bytes).ok());
    bytes.ok_or_else(|| format!("{text:?} is no size; write it like 512KiB"))
}
