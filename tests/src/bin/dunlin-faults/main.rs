//! `dunlin-faults`: what fails in the life of a collector and of an agent, done to the real programs under load.
//!
//! Each scenario counts what it did and compares what is left with an oracle. The run ends with one table and with 1
//! when any promise was broken. The same seed draws the same faults; their moments are those of the machine.

mod agent;
mod alert;
mod backup;
mod damage;
mod feed;
mod fsync;
mod kill;
mod load;
mod pause;
mod power;
mod report;
mod retention;
mod site;
mod unwritable;
mod window;

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::{Instant, SystemTime};

use anyhow::Result;
use clap::Parser;
use clap::builder::PossibleValuesParser;
use dunlin_tests::random::Random;
use dunlin_tests::tool;
use report::Report;

type Scenario = fn(&Plan) -> Result<Report>;

const SCENARIOS: [(&str, Scenario); 16] = [
    ("kill", kill::run),
    ("power", power::run),
    ("full", unwritable::full),
    ("readonly", unwritable::readonly),
    ("fsync", fsync::run),
    ("damage", damage::run),
    ("pause", pause::run),
    ("agent-kill", agent::run),
    ("seal-kill", window::kill),
    ("seal-power", window::power),
    ("seal-full", window::full),
    ("seal-ro", unwritable::seal_readonly),
    ("seal-fsync", window::fsync),
    ("backup", backup::run),
    ("alert-kill", alert::run),
    ("feed", feed::run),
];

/// Breaks the collector and the agent under load, and checks that nothing acknowledged is lost. Needs root.
#[derive(Debug, Parser)]
struct Arguments {
    /// A few of each fault.
    #[arg(long)]
    short: bool,
    /// Draws the same faults again.
    #[arg(long)]
    seed: Option<u64>,
    /// Which; all of them when none is named.
    #[arg(value_parser = PossibleValuesParser::new(SCENARIOS.map(|(name, _)| name)))]
    scenario: Vec<String>,
}

/// How much is done, and what is drawn.
#[derive(Debug)]
pub(crate) struct Plan {
    short: bool,
    seed: u64,
}

impl Plan {
    /// A scenario's own stream, so that leaving one out changes no other.
    fn random(&self, scenario: u64) -> Random {
        Random::new(self.seed.wrapping_add(scenario))
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    tracing_subscriber::fmt().with_writer(io::stderr).with_max_level(tracing::Level::WARN).init();
    if let Err(error) = tool::require_root() {
        eprintln!("dunlin-faults: {error}");
        return ExitCode::from(2);
    }
    let plan = Plan { short: arguments.short, seed: arguments.seed.unwrap_or_else(new_seed) };
    eprintln!("dunlin-faults: --seed {}", plan.seed);
    let mut table = format!("seed {}\n", plan.seed);
    let mut is_clean = true;
    for (name, scenario) in SCENARIOS {
        if !arguments.scenario.is_empty() && !arguments.scenario.iter().any(|asked| asked == name) {
            continue;
        }
        eprintln!("dunlin-faults: {name} begins");
        let began = Instant::now();
        let report = scenario(&plan).unwrap_or_else(|error| {
            let mut failed = Report::new(name);
            failed.violation(format!("could not be carried out: {error:#}"));
            failed
        });
        is_clean &= report.is_clean();
        let row = format!("{report} took={}s\n", began.elapsed().as_secs());
        eprint!("{row}");
        table.push_str(&row);
    }
    let printed = io::stdout().write_all(table.as_bytes());
    if is_clean && printed.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn new_seed() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    since.as_secs()
}
