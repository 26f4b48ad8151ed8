//! `dunlin-agent`: reads its arguments, then runs the library.

use std::ffi::OsString;
use std::io::Write as _;
use std::process::ExitCode;

use dunlin_agent::app::{self, Origin};
use dunlin_agent::config::SCHEMA;
use dunlin_agent::seal::seal;
use dunlin_shared::config::{Key, Refused, key_of_flag, nearest_flag};
use tracing::Level;

const FAILED: u8 = 1;
const WRONG_USAGE: u8 = 2;
/// `EX_CONFIG` of sysexits: systemd is told not to restart on it.
const BAD_CONFIGURATION: u8 = 78;

const HELP: &str = "\
dunlin-agent watches this host and streams what it sees to a Dunlin collector.

  dunlin-agent run  [--config FILE] [--KEY VALUE ...]   the service
  dunlin-agent seal [--config FILE]                     forget the identity, before an image is taken
  dunlin-agent --help | --version

Every key of the configuration is also a flag (--interval 5s, --spool-ram 1MiB)
and a variable (DUNLIN_AGENT_INTERVAL). DUNLIN_LOG=debug says more.
";

#[derive(Default)]
struct Arguments {
    config: Option<OsString>,
    flags: Vec<(&'static Key, OsString)>,
    command: Option<String>,
}

enum Asked {
    Run(Arguments),
    Seal(Arguments),
    Print(String),
}

fn main() -> ExitCode {
    match parse() {
        Ok(Asked::Run(arguments)) => run(arguments),
        Ok(Asked::Seal(arguments)) => seal_identity(arguments),
        Ok(Asked::Print(text)) => {
            let printed = std::io::stdout().write_all(text.as_bytes());
            if printed.is_ok() { ExitCode::SUCCESS } else { ExitCode::from(FAILED) }
        }
        Err(error) => {
            eprintln!("dunlin-agent: {error}\nTry dunlin-agent --help.");
            ExitCode::from(WRONG_USAGE)
        }
    }
}

fn run(arguments: Arguments) -> ExitCode {
    start_log();
    let Arguments { config: file, flags, .. } = arguments;
    let config = match app::load_config(file.clone(), &flags) {
        Ok(config) => config,
        Err(refused) => return refuse(&refused),
    };
    let outcome = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(app::run(config, Origin { file, flags })));
    ended(outcome)
}

fn seal_identity(arguments: Arguments) -> ExitCode {
    match app::load_places(arguments.config, &arguments.flags) {
        Ok(places) => ended(seal(&places, &mut std::io::stdout()).map_err(anyhow::Error::from)),
        Err(refused) => refuse(&refused),
    }
}

fn refuse(refused: &Refused) -> ExitCode {
    eprintln!("{refused}");
    ExitCode::from(BAD_CONFIGURATION)
}

fn ended(outcome: anyhow::Result<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("dunlin-agent: {error:#}");
            ExitCode::from(FAILED)
        }
    }
}

fn parse() -> Result<Asked, lexopt::Error> {
    use lexopt::prelude::*;
    let mut arguments = Arguments::default();
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Short('h') | Long("help") => return Ok(Asked::Print(HELP.to_owned())),
            Short('V') | Long("version") => {
                return Ok(Asked::Print(format!("dunlin-agent {}\n", env!("CARGO_PKG_VERSION"))));
            }
            Long("config") => arguments.config = Some(parser.value()?),
            Long(name) => match key_of_flag(SCHEMA, name) {
                Some(key) => arguments.flags.push((key, parser.value()?)),
                None => {
                    let hint = nearest_flag(SCHEMA, name).map(|near| format!("; did you mean --{near}?"));
                    return Err(format!("unknown flag --{name}{}", hint.unwrap_or_default()).into());
                }
            },
            Value(command) if arguments.command.is_none() => arguments.command = Some(command.string()?),
            other => return Err(other.unexpected()),
        }
    }
    match arguments.command.as_deref() {
        Some("run") => Ok(Asked::Run(arguments)),
        Some("seal") => Ok(Asked::Seal(arguments)),
        Some(other) => Err(format!("unknown command {other:?}; there are: run, seal").into()),
        None => Err("no command given; there are: run, seal".into()),
    }
}

/// One line an event on stderr. journald adds the time.
fn start_log() {
    let wish = std::env::var("DUNLIN_LOG").or_else(|_| std::env::var("RUST_LOG")).unwrap_or_default();
    let level = wish.parse().unwrap_or(Level::INFO);
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .without_time()
        .with_target(false)
        .init();
}
