//! `dunlin-collector`: reads its arguments, then runs the library.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Arg, Command};
use dunlin_collector::app;
use dunlin_collector::config::SCHEMA;
use dunlin_shared::config::Key;
use tracing::Level;

const FAILED: u8 = 1;
/// `EX_CONFIG` of sysexits: systemd is told not to restart on it.
const BAD_CONFIGURATION: u8 = 78;

fn main() -> ExitCode {
    let matches = command().get_matches();
    let Some(("run", run)) = matches.subcommand() else { return ExitCode::from(FAILED) };
    start_log();
    let flags: Vec<(&'static Key, OsString)> =
        SCHEMA.iter().filter_map(|key| Some((key, run.get_one::<OsString>(key.path)?.clone()))).collect();
    let config = match app::load_config(run.get_one::<OsString>("config").cloned(), &flags) {
        Ok(config) => config,
        Err(refused) => {
            eprintln!("{refused}");
            return ExitCode::from(BAD_CONFIGURATION);
        }
    };
    let outcome = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(app::run(config)));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("dunlin-collector: {error:#}");
            ExitCode::from(FAILED)
        }
    }
}

/// Every key of the configuration is a flag as well.
fn command() -> Command {
    let value = |name: &'static str| Arg::new(name).value_parser(clap::value_parser!(OsString));
    let mut run = Command::new("run")
        .about("Run the collector")
        .arg(value("config").long("config").value_name("FILE").help("The configuration file"));
    for key in SCHEMA {
        run = run.arg(value(key.path).long(key.flag_name()).value_name("VALUE").help(key.help));
    }
    Command::new("dunlin-collector")
        .about("Takes what Dunlin's agents send, keeps it, and says what is wrong with the fleet")
        .version(env!("CARGO_PKG_VERSION"))
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(run)
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
