//! `dunlin`: what a collector knows, for people and scripts. An HTTP client, which tries rules by itself, and nothing else.
//!
//! Tables for people, `-o json` for programs. 0 is done, 1 is failed, 2 is wrong usage, 78 is bad configuration.

mod acknowledge;
mod alerts;
mod authority;
mod chart;
mod drain;
mod explain;
mod export;
mod feed;
mod manner;
mod metrics;
mod nodes;
mod rules;
mod screen;
mod settings;
mod silences;
mod stock;
mod top;
mod versions;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum};
use dunlin_collector::client::table::plain;
use dunlin_collector::client::when::When;
use dunlin_collector::client::{Client, ClientError, pages, tokens};
use dunlin_collector::shape::TokenRequest;
use thiserror::Error;

use self::manner::Manner;

const FAILED: u8 = 1;
const USAGE: u8 = 2;
/// `EX_CONFIG` of sysexits.
const BAD_CONFIGURATION: u8 = 78;

/// What a Dunlin collector knows of its fleet.
#[derive(Debug, Parser)]
#[command(
    name = "dunlin",
    version,
    after_help = "Where the collector is: DUNLIN_URL and DUNLIN_TOKEN (DUNLIN_CA or DUNLIN_CA_PIN for whom to trust), or ~/.config/dunlin/cli.toml; on the collector's own host root needs none of them."
)]
struct Cli {
    #[command(flatten)]
    places: settings::Places,
    /// How to print
    #[arg(short, long, global = true, value_enum, default_value = "table")]
    output: Output,
    /// The language of summaries; that of the locale when absent
    #[arg(long, global = true, value_enum)]
    lang: Option<manner::Language>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the nodes
    Nodes(nodes::List),
    /// Show one node on one screen: how it is, what is loaded and by whom, what changed lately
    Node(nodes::One),
    /// List what is wrong, the worst first
    Alerts(alerts::Alerts),
    /// Explain one alert on one screen: how bad, since when, by whom, and what had changed; or say who sees to alerts
    Alert(explain::One),
    /// List the containers
    Containers(stock::Containers),
    /// List the process groups, the busiest first
    Processes(stock::Processes),
    /// List the listening ports
    Ports(stock::Ports),
    /// Show what a node measures, now or over time; or export what all of them do
    Metrics(Box<metrics::Metrics>),
    /// Show what happened
    Events(feed::Events),
    /// Make, list or delete tokens
    #[command(subcommand)]
    Token(TokenCommand),
    /// Let a node in no more
    Revoke(nodes::Revoke),
    /// Let nodes in that wait for it
    Approve(nodes::Approve),
    /// Let the machine in quarantine be the node
    Adopt(nodes::One),
    /// Plan downtime of nodes, or end it
    Drain(drain::Drain),
    /// End planned downtime
    Undrain(drain::Undrain),
    /// Mute alerts, or list and end what mutes them
    #[command(subcommand)]
    Silence(silences::SilenceCommand),
    /// Give a node labels, or take them away
    Label(nodes::Label),
    /// Revoke a node and hide it
    Forget(nodes::One),
    /// Show the fleet's authority, or take a step of its turn to the next one
    Authority(authority::Turn),
    /// Show who did what
    Log(feed::Log),
    /// List rules, put others in force, and try them on made-up fleets or on the past
    #[command(subcommand)]
    Rules(rules::RulesCommand),
    /// Watch the fleet
    Top(top::Top),
    /// Count the nodes by the version of their agents
    Versions(versions::Versions),
}

#[derive(Debug, Subcommand)]
enum TokenCommand {
    /// Make one: it is printed alone on stdout, what it is good for on stderr
    Create(CreateToken),
    /// List them
    List,
    /// Take one back
    Delete {
        /// Such as t12
        id: String,
    },
}

#[derive(Debug, Args)]
struct CreateToken {
    /// join, service, viewer, operator or admin
    #[arg(long)]
    role: String,
    /// How many nodes may join by it
    #[arg(long, value_name = "COUNT")]
    uses: Option<u32>,
    /// How long it is good, such as 24h
    #[arg(long, value_name = "DURATION")]
    ttl: Option<String>,
    /// What nodes will bear, or what the bearer is limited to
    #[arg(long = "label", value_name = "KEY=VALUE")]
    labels: Vec<String>,
    /// Nodes that join by it wait for `dunlin approve`
    #[arg(long)]
    approve: bool,
    /// Nodes that join by it are forgotten soon after they are gone
    #[arg(long)]
    ephemeral: bool,
    /// How many nodes may join by it within an hour
    #[arg(long, value_name = "COUNT")]
    per_hour: Option<u32>,
    #[arg(long, default_value = "")]
    name: String,
}

#[derive(Debug, Error)]
enum Failure {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("{0}")]
    Usage(String),
    #[error("{0}")]
    Configuration(String),
    /// More than is listed: a part that looks like all of it would be worse than none.
    #[error("there are more than {0} of them; name a node, or narrow it down by --label")]
    TooMany(usize),
    /// It would do harm, and can be insisted on.
    #[error("{0}")]
    Unsafe(String),
    #[error("{0} differences")]
    Differs(usize),
    #[error("the output cannot be written: {0}")]
    Output(#[from] io::Error),
}

/// What a command works with.
struct Desk<'a> {
    client: &'a Client,
    when: &'a When,
    manner: Manner,
    as_json: bool,
    out: &'a mut dyn Write,
}

fn main() -> ExitCode {
    let program = || Cli::command().subcommand(pages::command());
    let matches = program().get_matches();
    let done = match matches.subcommand() {
        Some((pages::NAME, given)) => pages::write_to(program(), given).map_err(Failure::Output),
        _ => Cli::from_arg_matches(&matches).map_or_else(|error| error.exit(), run),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever reads had enough, as `head` has.
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(failure) => {
            for line in failure.to_string().lines() {
                eprintln!("dunlin: {}", plain(line));
            }
            ExitCode::from(match failure {
                Failure::Usage(_) => USAGE,
                Failure::Configuration(_) => BAD_CONFIGURATION,
                Failure::Client(_)
                | Failure::TooMany(_)
                | Failure::Unsafe(_)
                | Failure::Differs(_)
                | Failure::Output(_) => FAILED,
            })
        }
    }
}

fn run(cli: Cli) -> Result<(), Failure> {
    if let Command::Rules(command) = &cli.command
        && let Some(done) = command.here()
    {
        return done;
    }
    let client = settings::client(&cli.places)?;
    let when = When::here();
    let mut out = io::stdout().lock();
    let (manner, as_json) = (Manner::here(cli.lang), cli.output == Output::Json);
    let mut desk = Desk { client: &client, when: &when, manner, as_json, out: &mut out };
    match cli.command {
        Command::Nodes(list) => nodes::list(&mut desk, &list),
        Command::Node(node) => screen::show(&mut desk, &node.node),
        Command::Alerts(wanted) => alerts::alerts(&mut desk, &wanted),
        Command::Alert(wanted) => explain::explain(&mut desk, &wanted),
        Command::Containers(wanted) => stock::containers(&mut desk, &wanted),
        Command::Processes(wanted) => stock::processes(&mut desk, &wanted),
        Command::Ports(wanted) => stock::ports(&mut desk, &wanted),
        Command::Metrics(wanted) => metrics::show(&mut desk, &wanted),
        Command::Events(wanted) => feed::events(&mut desk, &wanted),
        Command::Token(command) => token(&mut desk, command),
        Command::Revoke(revoke) => nodes::revoke(&desk, &revoke),
        Command::Approve(wanted) => nodes::approve(&mut desk, &wanted),
        Command::Adopt(node) => nodes::order(&desk, "POST", &node.node, "/adopt"),
        Command::Drain(wanted) => drain::drain(&mut desk, wanted),
        Command::Undrain(wanted) => drain::undrain(&mut desk, wanted),
        Command::Silence(command) => silences::silence(&mut desk, &command),
        Command::Label(label) => nodes::label(&desk, &label),
        Command::Forget(node) => nodes::order(&desk, "DELETE", &node.node, ""),
        Command::Authority(turn) => authority::authority(&mut desk, &turn),
        Command::Log(wanted) => feed::log(&mut desk, &wanted),
        Command::Rules(command) => rules::rules(&mut desk, &command),
        Command::Top(wanted) => top::top(&mut desk, &wanted),
        Command::Versions(wanted) => versions::versions(&mut desk, wanted),
    }
}

fn token(desk: &mut Desk<'_>, command: TokenCommand) -> Result<(), Failure> {
    match command {
        TokenCommand::List => Ok(tokens::list(desk.client, desk.as_json, desk.when, desk.out)??),
        TokenCommand::Delete { id } => Ok(tokens::delete(desk.client, &id)?),
        TokenCommand::Create(create) => {
            let request = TokenRequest {
                role: create.role,
                name: create.name,
                uses: create.uses,
                ttl: create.ttl,
                expires: None,
                labels: tokens::parse_labels(&create.labels).map_err(Failure::Usage)?,
                needs_approval: create.approve,
                per_hour: create.per_hour,
                ephemeral: create.ephemeral,
            };
            let created = tokens::create(desk.client, &request)?;
            if desk.as_json {
                return Ok(writeln!(desk.out, "{}", serde_json::to_string(&created).unwrap_or_default())?);
            }
            Ok(tokens::show_created(&created, &request, desk.when, (desk.out, &mut io::stderr()))?)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What it exits with, unless it goes on.
    fn usage(words: &[&str]) -> Option<i32> {
        Cli::try_parse_from([&["dunlin"], words].concat()).err().map(|error| error.exit_code())
    }

    #[test]
    fn to_approve_is_to_say_whom() {
        for wrong in [
            &["approve"][..],
            &["approve", "--label", "env=prod"],
            &["approve", "web-1", "--held"],
            &["approve", "--held", "--pending"],
            &["approve", "web-1", "--label", "env=prod"],
        ] {
            assert_eq!(usage(wrong), Some(i32::from(USAGE)), "{wrong:?}");
        }
        for right in [
            &["approve", "web-1"][..],
            &["approve", "web-1", "web-2"],
            &["approve", "--held"],
            &["approve", "--held", "--label", "env=prod", "--label", "tier=1"],
            &["approve", "--pending"],
        ] {
            assert_eq!(usage(right), None, "{right:?}");
        }
    }
}
