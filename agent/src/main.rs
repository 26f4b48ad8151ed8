//! `dunlin-agent`: reads its arguments, then runs the library.

mod randomness;

use std::ffi::OsString;
use std::future::Future;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use dunlin_agent::app::{self, Origin};
use dunlin_agent::check::{BAKED_FLAG, Report, Sealing};
use dunlin_agent::clock::Clock;
use dunlin_agent::config::{Collect, Config, Places, SCHEMA};
use dunlin_agent::enrol::token::VARIABLE;
use dunlin_agent::seal::seal;
use dunlin_agent::{check, notify, once};
use dunlin_shared::config::{Key, Refused, key_of_flag, nearest_word};
use tracing::Level;

const FAILED: u8 = 1;
const WRONG_USAGE: u8 = 2;
/// `EX_CONFIG` of sysexits: systemd is told not to restart on it.
const BAD_CONFIGURATION: u8 = 78;

const HELP: &str = "\
dunlin-agent watches this host and streams what it sees to a Dunlin collector.

  dunlin-agent run [--config FILE] [--KEY VALUE ...]     the service
  dunlin-agent check [--config FILE] [--KEY VALUE ...]   what it sees, what not and why, and whether it
                                                         reaches its collector; exits 0, 1 or 2
  dunlin-agent once [--config FILE] [--KEY VALUE ...]    one full sample, taken within two seconds
  dunlin-agent check --bundle FILE                       the same, and a tar file without secrets for who helps
  dunlin-agent check --alive                             whether the service lives: 0 or 1
  dunlin-agent check --sealed [--baked-token] [--root DIR]
                                                         whether an image may be taken: 0, else what is left
  dunlin-agent seal [--config FILE] [--KEY VALUE ...]    forget the identity, before an image is taken
  dunlin-agent --help | --version

Every key of the configuration is also a flag (--interval 5s, --spool-ram 1MiB)
and a variable (DUNLIN_AGENT_INTERVAL). DUNLIN_LOG=debug says more.
check and once read a recorded host with --root DIR, and tell programs with --json.
Of an image --baked-token says that the join token in it was made with --approve.

Of its sources check tells what the service saw, as the service wrote it: run it
as root. A source that is shut (-) comes with the lines that open it, and what
else those open. It is no warning unless you asked for it by name, because a
default installation asks for no privilege; a source that fails is one.
";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Command {
    Run,
    Check,
    Once,
    Seal,
}

const COMMANDS: [(&str, Command); 4] =
    [("run", Command::Run), ("check", Command::Check), ("once", Command::Once), ("seal", Command::Seal)];
/// Flags that are no keys of the configuration.
const FLAGS: [&str; 9] = ["alive", BAKED_FLAG, "bundle", "config", "help", "json", "root", "sealed", "version"];

#[derive(Default)]
struct Arguments {
    config: Option<OsString>,
    flags: Vec<(&'static Key, OsString)>,
    command: Option<String>,
    json: bool,
    root: Option<PathBuf>,
    /// What of a check is asked, when it is not all.
    alive: bool,
    sealed: bool,
    baked_token: bool,
    /// Where else what it says is written.
    bundle: Option<PathBuf>,
}

enum Asked {
    Do(Command, Arguments),
    Print(String),
}

fn main() -> ExitCode {
    match parse() {
        Ok(Asked::Do(Command::Run, arguments)) => run(arguments),
        Ok(Asked::Do(Command::Check, arguments)) => check(arguments),
        Ok(Asked::Do(Command::Seal, arguments)) => seal_identity(arguments),
        Ok(Asked::Do(Command::Once, arguments)) => once(arguments),
        Ok(Asked::Print(text)) => print(&text, ExitCode::SUCCESS),
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
    ended(in_runtime(app::run(config, Origin { file, flags })).and_then(|outcome| outcome))
}

/// As the service is configured, it asks the same engines and tells the same groups.
fn once(arguments: Arguments) -> ExitCode {
    let (root, is_json) = (root(&arguments).to_owned(), arguments.json);
    match app::load_collect(arguments.config, &arguments.flags) {
        Ok(collect) => {
            let once = once::once(&root, collect);
            print(&if is_json { once.json() } else { once.table() }, ExitCode::SUCCESS)
        }
        Err(refused) => refuse(&refused),
    }
}

fn seal_identity(arguments: Arguments) -> ExitCode {
    match app::load_places(arguments.config, &arguments.flags) {
        Ok(places) => ended(seal(&places, &mut std::io::stdout()).map_err(anyhow::Error::from)),
        Err(refused) => refuse(&refused),
    }
}

fn refuse(refused: &Refused) -> ExitCode {
    eprintln!("{refused}");
    notify::stands(&refused.lines.join("; "));
    ExitCode::from(BAD_CONFIGURATION)
}

fn ended(outcome: anyhow::Result<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("dunlin-agent: {error:#}");
            notify::stands(&format!("{error:#}"));
            ExitCode::from(FAILED)
        }
    }
}

/// As a Nagios check it says everything on stdout, a refused configuration too.
fn check(arguments: Arguments) -> ExitCode {
    if arguments.alive || arguments.sealed {
        return check_places(&arguments);
    }
    let (root, is_json) = (root(&arguments).to_owned(), arguments.json);
    let looked = |config: Config| in_runtime(async move { check::check(&config, &root).await });
    let report = match app::load_config(arguments.config.clone(), &arguments.flags) {
        Ok(config) => looked(config).unwrap_or_else(|error| check::refused(&[format!("{error:#}")])),
        Err(refused) => check::refused(&refused.lines),
    };
    if let Some(file) = &arguments.bundle
        && let Err(error) = bundle(&arguments, &report, file)
    {
        eprintln!("dunlin-agent: {}: {error}", file.display());
        return ExitCode::from(FAILED);
    }
    tell(&report, is_json)
}

/// A configuration that is refused goes in as what is wrong with it.
fn bundle(arguments: &Arguments, report: &Report, file: &Path) -> std::io::Result<()> {
    let shown = app::load_shown(arguments.config.clone(), &arguments.flags);
    let shown = shown.unwrap_or_else(|refused| format!("refused:\n{refused}\n"));
    let places = app::load_places(arguments.config.clone(), &arguments.flags);
    let state_dir = places.map(|places| places.state_dir).unwrap_or_default();
    check::bundle::write(report, &shown, &state_dir, Clock::start().wall(), file)
}

/// What needs no collector to be named.
fn check_places(arguments: &Arguments) -> ExitCode {
    let places = match app::load_places(arguments.config.clone(), &arguments.flags) {
        Ok(places) => places,
        Err(refused) => return tell(&check::refused(&refused.lines), arguments.json),
    };
    if arguments.alive {
        let (lives, text) = check::alive(&places.state_dir);
        return print(&format!("{text}\n"), if lives { ExitCode::SUCCESS } else { ExitCode::from(FAILED) });
    }
    tell(&check_seal(arguments, &places), arguments.json)
}

fn check_seal(arguments: &Arguments, places: &Places) -> Report {
    check::sealed(Sealing {
        places,
        root: root(arguments),
        may_hold_token: arguments.baked_token,
        has_variable: std::env::var_os(VARIABLE).is_some_and(|text| !text.is_empty()),
    })
}

fn tell(report: &Report, is_json: bool) -> ExitCode {
    let text = if is_json { report.json() } else { report.to_string() };
    print(&text, ExitCode::from(report.verdict().exit_code()))
}

fn in_runtime<T>(work: impl Future<Output = T>) -> anyhow::Result<T> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work))
}

fn root(arguments: &Arguments) -> &Path {
    arguments.root.as_deref().unwrap_or(Path::new("/"))
}

/// A reader that went away has seen what it wanted, but it has not seen all.
fn print(text: &str, code: ExitCode) -> ExitCode {
    let printed = std::io::stdout().write_all(text.as_bytes());
    if printed.is_ok() { code } else { ExitCode::from(FAILED) }
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
            Long("json") => arguments.json = true,
            Long("bundle") => arguments.bundle = Some(parser.value()?.into()),
            Long("alive") => arguments.alive = true,
            Long("sealed") => arguments.sealed = true,
            Long(BAKED_FLAG) => arguments.baked_token = true,
            Long("root") => arguments.root = Some(parser.value()?.into()),
            Long(name) => match key_of_flag(SCHEMA, name) {
                Some(key) => arguments.flags.push((key, parser.value()?)),
                None => {
                    let keys: Vec<String> = SCHEMA.iter().map(Key::flag_name).collect();
                    let known: Vec<&str> = keys.iter().map(String::as_str).chain(FLAGS).collect();
                    return Err(format!("unknown flag --{name}; did you mean --{}?", nearest(name, &known)).into());
                }
            },
            Value(command) if arguments.command.is_none() => arguments.command = Some(command.string()?),
            other => return Err(other.unexpected()),
        }
    }
    let commands = COMMANDS.map(|(name, _)| name);
    let listed = commands.join(", ");
    let Some(name) = arguments.command.as_deref() else {
        return Err(format!("no command given; there are: {listed}").into());
    };
    let Some((_, command)) = COMMANDS.into_iter().find(|(known, _)| *known == name) else {
        let near = nearest(name, &commands);
        return Err(format!("unknown command {name:?}; did you mean {near}? There are: {listed}").into());
    };
    fits(command, &arguments)?;
    Ok(Asked::Do(command, arguments))
}

/// A flag that a command does not heed is a mistake of its own.
fn fits(command: Command, arguments: &Arguments) -> Result<(), lexopt::Error> {
    let is_once = command == Command::Once;
    if arguments.json && matches!(command, Command::Run | Command::Seal) {
        return Err("--json belongs to: check, once".into());
    }
    if arguments.root.is_some() && matches!(command, Command::Run | Command::Seal) {
        return Err("--root belongs to: check, once".into());
    }
    let of_check = arguments.alive || arguments.sealed || arguments.bundle.is_some();
    if of_check && command != Command::Check {
        return Err("--alive, --bundle and --sealed belong to: check".into());
    }
    if arguments.bundle.is_some() && (arguments.alive || arguments.sealed) {
        return Err("--bundle is of a whole check: without --alive and --sealed".into());
    }
    if arguments.baked_token && !arguments.sealed {
        return Err(format!("--{BAKED_FLAG} belongs to: check --sealed").into());
    }
    if arguments.alive && (arguments.sealed || arguments.json || arguments.root.is_some()) {
        return Err("check --alive heeds neither --sealed nor --json nor --root".into());
    }
    if let Some((key, _)) = arguments.flags.iter().find(|(key, _)| is_once && !Collect::heeds(key)) {
        let flag = key.flag_name();
        return Err(format!("once does not heed --{flag}; of the keys it takes --watch and --collect-...").into());
    }
    Ok(())
}

fn nearest(given: &str, known: &[&str]) -> String {
    nearest_word(given, known).unwrap_or_default()
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
