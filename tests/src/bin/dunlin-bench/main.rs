//! `dunlin-bench`: what the promises say beside what this machine does, all measured in this run.
//!
//! The programs measured are the real ones that stand beside this binary, of the same build. A missed
//! promise fails the full form; the short form only proves that everything runs and nothing is lost.

mod agent;
mod api;
mod block;
mod bound;
mod codec;
mod crowd;
mod engine;
mod enrol;
mod install;
mod inventory;
mod journal;
mod line;
mod peer;
mod port;
mod rules;
mod server;
mod window;
mod wire;

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};

use dunlin_tests::machine;
use dunlin_tests::table::Table;

#[derive(Debug, Parser)]
#[command(about = "Measures what the promises say, and prints both side by side")]
struct Arguments {
    /// A minute or two on any build: that it runs, not what it costs
    #[arg(long)]
    short: bool,
    /// Watch the agent's memory for an hour, where minutes would do
    #[arg(long, conflicts_with = "short")]
    hour: bool,
    /// Only these parts
    #[arg(long, value_enum)]
    only: Vec<Part>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    Line,
    Wire,
    Journal,
    Codec,
    Block,
    Window,
    Flow,
    Engine,
    Agent,
    Inventory,
    Bounds,
    Enrol,
    Install,
    Api,
    Ports,
    Rules,
}

/// How long is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Length {
    Short,
    Full,
    Hour,
}

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "the table is what this tool is for")]
fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut table = Table::default();
    let outcome = measure(&arguments, &mut table);
    println!("{}\n\n{table}", machine::describe());
    match outcome {
        Err(error) => {
            eprintln!("dunlin-bench: {error:#}");
            ExitCode::FAILURE
        }
        Ok(()) if table.has_missed() && !arguments.short => {
            eprintln!("dunlin-bench: a promise is missed");
            ExitCode::FAILURE
        }
        Ok(()) => ExitCode::SUCCESS,
    }
}

fn measure(arguments: &Arguments, table: &mut Table) -> Result<()> {
    let wanted = |part| arguments.only.is_empty() || arguments.only.contains(&part);
    if wanted(Part::Codec) {
        codec::measure(table).context("the codec")?;
    }
    if wanted(Part::Block) {
        block::measure(table, arguments.short).context("the block codec")?;
    }
    if wanted(Part::Window) {
        window::measure(table, arguments.short).context("the window")?;
    }
    if wanted(Part::Flow) {
        window::flow::measure(table, arguments.short).context("ten thousand nodes through the store")?;
        window::beside::measure(table, arguments.short).context("commits beside merges and backups")?;
    }
    if wanted(Part::Engine) {
        engine::measure(table).context("the engine")?;
    }
    if wanted(Part::Rules) {
        rules::measure(table, arguments.short).context("rules")?;
    }
    if wanted(Part::Journal) {
        journal::measure(table, arguments.short).context("the journal")?;
    }
    if wanted(Part::Agent) {
        agent::measure(table, arguments.short).context("the agent")?;
    }
    if wanted(Part::Inventory) {
        inventory::measure(table, arguments.length()).context("the agent with everything on")?;
    }
    if wanted(Part::Bounds) {
        bound::measure(table, arguments.short).context("the agent beside far more than it tells")?;
    }
    if wanted(Part::Ports) {
        port::measure(table, arguments.short).context("listening ports")?;
    }
    if wanted(Part::Install) {
        install::measure(table, arguments.short).context("the installation")?;
    }
    if wanted(Part::Wire) {
        wire::measure(table, arguments.short).context("the bytes on the wire")?;
    }
    if wanted(Part::Line) {
        line::measure(table, arguments.short).context("the line")?;
    }
    if wanted(Part::Enrol) || wanted(Part::Api) {
        // The API shows the nodes that have joined.
        let crowd = enrol::join(arguments.short).context("the enrolment")?;
        if wanted(Part::Enrol) {
            crowd.report(table);
        }
        if wanted(Part::Api) {
            api::measure(table, crowd.rig, arguments.short).context("the API")?;
        }
    }
    Ok(())
}

impl Arguments {
    const fn length(&self) -> Length {
        match (self.short, self.hour) {
            (true, _) => Length::Short,
            (_, true) => Length::Hour,
            _ => Length::Full,
        }
    }
}
