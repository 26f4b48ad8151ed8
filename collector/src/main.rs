//! `dunlin-collector`: reads its arguments, then runs the library, or asks the collector that runs.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write as _, stderr, stdout};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Arg, ArgAction, ArgMatches, Command};
use dunlin_collector::backup::{self, Manifest};
use dunlin_collector::client::when::When;
use dunlin_collector::client::{Client, Target, Trust, invite, pages, tokens};
use dunlin_collector::clock::Clock;
use dunlin_collector::config::{CollectorConfig, SCHEMA, load};
use dunlin_collector::import::{self, Imported};
use dunlin_collector::lately::Lately;
use dunlin_collector::notify::Systemd;
use dunlin_collector::rules::RuleBook;
use dunlin_collector::shape::{Moment, TokenRequest};
use dunlin_collector::store::StoreError;
use dunlin_collector::tuning::Origin;
use dunlin_collector::window::Depth;
use dunlin_collector::{api, app, bundle, check, rules};
use dunlin_shared::config::Key;
use tracing::Level;
use tracing_subscriber::fmt::writer::MakeWriterExt as _;

const FAILED: u8 = 1;
const ONLY_OWNER: u32 = 0o600;
/// `EX_CONFIG` of sysexits: systemd is told not to restart on it.
const BAD_CONFIGURATION: u8 = 78;

fn main() -> ExitCode {
    let matches = command().get_matches();
    let Some((name, given)) = matches.subcommand() else { return ExitCode::from(FAILED) };
    if name == pages::NAME {
        return ended(pages::write_to(command(), given).map_err(anyhow::Error::from));
    }
    if name == "run" {
        start_log();
    }
    let flags: Vec<(&'static Key, OsString)> =
        SCHEMA.iter().filter_map(|key| Some((key, given.get_one::<OsString>(key.path)?.clone()))).collect();
    let origin = Origin { file: given.get_one::<OsString>("config").cloned(), flags };
    let config = match load(origin.file.clone(), &origin.flags) {
        Ok(config) => config,
        Err(refused) => return refuse(&refused.lines),
    };
    let outcome = match name {
        "token" => token(&config, given),
        "invite" => invite(&config, given),
        "import" => import(&config, given),
        "backup" => backup(&config, given),
        "restore" => restore(&config, given),
        "bundle" => bundle(&config, given),
        "check" if given.get_flag("alive") => alive(&config),
        "check" => {
            let depth = if given.get_flag("deep") { Depth::Values } else { Depth::Sums };
            return if check::check(&config, depth, &mut stdout()) {
                ExitCode::SUCCESS
            } else {
                ExitCode::from(FAILED)
            };
        }
        _ => match rules::load(&config.rules_dir) {
            Ok(files) => run(config, origin, files),
            Err(lines) => return refuse(&lines),
        },
    };
    ended(outcome)
}

fn refuse(lines: &[String]) -> ExitCode {
    lines.iter().for_each(|line| eprintln!("{line}"));
    Systemd::of_process().status(&lines.join("; "));
    ExitCode::from(BAD_CONFIGURATION)
}

fn ended(outcome: anyhow::Result<()>) -> ExitCode {
    let Err(error) = outcome else { return ExitCode::SUCCESS };
    eprintln!("dunlin-collector: {error:#}");
    Systemd::of_process().status(&format!("{error:#}"));
    // Started again, an older program meets the same newer database.
    let is_newer = |cause: &(dyn std::error::Error + 'static)| {
        matches!(cause.downcast_ref::<StoreError>(), Some(StoreError::Newer { .. }))
    };
    ExitCode::from(if error.chain().any(is_newer) { BAD_CONFIGURATION } else { FAILED })
}

fn run(config: CollectorConfig, origin: Origin, files: RuleBook) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(app::run(config, origin, files))
}

/// Into the state of a collector that is stopped.
fn import(config: &CollectorConfig, given: &ArgMatches) -> anyhow::Result<()> {
    let files: Vec<PathBuf> = given.get_many::<PathBuf>("files").unwrap_or_default().cloned().collect();
    let when = When::here();
    let Imported { samples, nodes, new_nodes, from, to } = import::run(&config.state_dir, &files, when.now)?;
    let (from, to, zone) = (when.local(Moment(from)), when.local(Moment(to)), when.zone());
    eprintln!("Imported {samples} samples of {nodes} nodes ({new_nodes} of them new), {from} to {to} {zone}.");
    Ok(())
}

/// Asks the collector that runs on this state directory.
fn token(config: &CollectorConfig, given: &ArgMatches) -> anyhow::Result<()> {
    let target = Target::Unix(api::socket_path(&config.state_dir));
    let client = Client::new(target, None, &Trust::default())?;
    let when = When::here();
    match given.subcommand() {
        Some(("create", create)) => {
            let request = token_request(create)?;
            // A token that nobody was told would be good for whoever finds it.
            let mut file = create.get_one::<PathBuf>("to").map(|path| secret_file(path)).transpose()?;
            let created = tokens::create(&client, &request)?;
            let out: &mut dyn std::io::Write = match &mut file {
                Some(file) => file,
                None => &mut stdout(),
            };
            Ok(tokens::show_created(&created, &request, &when, (out, &mut stderr()))?)
        }
        Some(("delete", delete)) => {
            let id = delete.get_one::<String>("id").context("which token?")?;
            Ok(tokens::delete(&client, id)?)
        }
        _ => Ok(tokens::list(&client, false, &when, &mut stdout())??),
    }
}

/// For its owner alone, from its first byte on. One that was there is replaced.
fn secret_file(path: &Path) -> anyhow::Result<File> {
    let make = || {
        std::fs::remove_file(path)
            .or_else(|error| if error.kind() == ErrorKind::NotFound { Ok(()) } else { Err(error) })?;
        OpenOptions::new().write(true).create_new(true).mode(ONLY_OWNER).open(path)
    };
    make().with_context(|| path.display().to_string())
}

/// The line to paste on a host, for a collector that runs here.
fn invite(config: &CollectorConfig, given: &ArgMatches) -> anyhow::Result<()> {
    let address = invite::address(given.get_one::<String>("address").map(String::as_str), config.quic_listen)?;
    let client = Client::new(Target::Unix(api::socket_path(&config.state_dir)), None, &Trust::default())?;
    let request = TokenRequest { role: "join".to_owned(), ..token_request(given)? };
    let created = tokens::create(&client, &request)?;
    Ok(invite::show(&address, &created, &request, &When::here(), (&mut stdout(), &mut stderr()))?)
}

fn backup(config: &CollectorConfig, given: &ArgMatches) -> anyhow::Result<()> {
    let file = given.get_one::<PathBuf>("file").context("which file?")?;
    let (manifest, done) = if given.get_flag("verify") {
        (backup::verify(file)?, "is sound")
    } else {
        (backup::save(&config.state_dir, file, Clock::start().wall())?, "is written")
    };
    let Manifest { at, position, files, bytes, .. } = manifest;
    writeln!(stdout(), "{} {done}: {files} files, {bytes} bytes, of {at}, up to position {position}", file.display())?;
    Ok(())
}

fn restore(config: &CollectorConfig, given: &ArgMatches) -> anyhow::Result<()> {
    let file = given.get_one::<PathBuf>("file").context("which file?")?;
    let drawn = Clock::random().context("the system gives no random numbers")?;
    let drawn = (Clock::start().wall(), u64::from_le_bytes(drawn) >> 1);
    let restored = backup::restore(file, &config.state_dir, given.get_flag("over"), drawn)?;
    let Manifest { at, files, .. } = restored.backup;
    writeln!(stdout(), "{} holds the backup of {at}: {files} files", config.state_dir.display())?;
    if let Some(aside) = restored.aside {
        writeln!(stdout(), "what it held before is in {}", aside.display())?;
    }
    if restored.revoked > 0 {
        writeln!(stdout(), "{} nodes were revoked after the backup, and stay so", restored.revoked)?;
    }
    Ok(())
}

fn bundle(config: &CollectorConfig, given: &ArgMatches) -> anyhow::Result<()> {
    let file = given.get_one::<PathBuf>("file").context("which file?")?;
    bundle::write(config, !given.get_flag("without-log"), Clock::start().wall(), file)?;
    writeln!(
        stdout(),
        "{} is for strangers' eyes; look at it before it goes: tar -xOf {}",
        file.display(),
        file.display()
    )?;
    Ok(())
}

/// Whether the collector that runs here is ready.
fn alive(config: &CollectorConfig) -> anyhow::Result<()> {
    let target = Target::Unix(api::socket_path(&config.state_dir));
    Ok(Client::new(target, None, &Trust::default())?.order("GET", "/-/ready", None)?)
}

fn token_request(create: &ArgMatches) -> anyhow::Result<TokenRequest> {
    let text = |name: &str| create.try_get_one::<String>(name).ok().flatten().cloned();
    let labels: Vec<String> = create.get_many::<String>("label").unwrap_or_default().cloned().collect();
    Ok(TokenRequest {
        role: text("role").unwrap_or_default(),
        name: text("name").unwrap_or_default(),
        uses: create.get_one::<u32>("uses").copied(),
        ttl: text("ttl"),
        expires: None,
        labels: tokens::parse_labels(&labels).map_err(anyhow::Error::msg)?,
        needs_approval: create.get_flag("approve"),
        per_hour: create.get_one::<u32>("per-hour").copied(),
        ephemeral: create.get_flag("ephemeral"),
    })
}

fn command() -> Command {
    Command::new("dunlin-collector")
        .about("Takes what Dunlin's agents send, keeps it, and says what is wrong with the fleet")
        .version(env!("CARGO_PKG_VERSION"))
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(configured(Command::new("run").about("Run the collector")))
        .subcommand(invite_command())
        .subcommand(token_command())
        .subcommand(pages::command())
        .subcommand(
            configured(Command::new("import"))
                .about("Take in what `dunlin metrics export` wrote, CSV or OpenMetrics, while the collector is stopped")
                .after_help(
                    "All of the files or nothing. Nodes are known by their ids, or else by their names; those that are not known are \
                     added as revoked: their series are shown, and no agent can be them.",
                )
                .arg(
                    Arg::new("files")
                        .value_name("FILE")
                        .required(true)
                        .action(ArgAction::Append)
                        .num_args(1..)
                        .value_parser(clap::value_parser!(PathBuf))
                        .help("In the order of their times"),
                ),
        )
        .subcommand(backup_command())
        .subcommand(bundle_command())
        .subcommand(restore_command())
        .subcommand(configured(
            Command::new("check")
                .about("Look at configuration, databases, disk and certificates; 1 when something is wrong")
                .after_help(
                    "Of a collector that is stopped, every row of every file is read and its checksum compared, which takes as long as \
                     the disk needs to read the state directory.",
                )
                .arg(
                    Arg::new("deep")
                        .long("deep")
                        .action(ArgAction::SetTrue)
                        .help("Decode every value of the sealed files as well: minutes for a full window"),
                )
                .arg(
                    Arg::new("alive")
                        .long("alive")
                        .action(ArgAction::SetTrue)
                        .conflicts_with("deep")
                        .help("Only ask the collector that runs here whether it is ready, as the health check of a container"),
                ),
        ))
}

/// Every key of the configuration is a flag as well, before and behind what is below the command.
fn configured(command: Command) -> Command {
    let value = |name: &'static str| Arg::new(name).global(true).value_parser(clap::value_parser!(OsString));
    let mut command = command.arg(value("config").long("config").value_name("FILE").help("The configuration file"));
    for key in SCHEMA {
        command = command.arg(value(key.path).long(key.flag_name()).value_name("VALUE").help(key.help));
    }
    command
}

fn option(name: &'static str, value: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).value_name(value).help(help)
}

fn flag(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).action(ArgAction::SetTrue).help(help)
}

/// What may be asked of a token by which nodes join.
fn of_join(command: Command, uses: Arg, ttl: Arg) -> Command {
    let count = |arg: Arg| arg.value_parser(clap::value_parser!(u32));
    let label = option("label", "KEY=VALUE", "What nodes will bear, or what the bearer is limited to");
    command
        .arg(count(uses))
        .arg(ttl)
        .arg(label.action(ArgAction::Append))
        .arg(flag("approve", "Nodes that join by it wait for a person"))
        .arg(flag("ephemeral", "Nodes that join by it are forgotten soon after they are gone"))
        .arg(count(option("per-hour", "COUNT", "How many nodes may join by it within an hour")))
        .arg(option("name", "NAME", "What it is called in lists and in the log"))
}

fn invite_command() -> Command {
    let uses = option("uses", "COUNT", "How many hosts may use it").default_value("1");
    let ttl = option("ttl", "DURATION", "How long it is good, such as 24h").default_value("1h");
    let command = Command::new("invite")
        .about("Print the line to paste on a host that is to be watched; it holds a token that ends")
        .arg(option("address", "HOST", "How hosts reach this collector; else its own address on the way out"));
    configured(of_join(command, uses, ttl))
}

fn token_command() -> Command {
    let uses = option("uses", "COUNT", "How many nodes may join by it");
    let ttl = option("ttl", "DURATION", "How long it is good, such as 24h");
    let create = Command::new("create")
        .about("Make one: it is printed alone on stdout, what it is good for on stderr")
        .arg(option("role", "ROLE", "join, service, viewer, operator or admin").required(true))
        .arg(
            option("to", "FILE", "Write it to this file, for its owner alone, in place of stdout")
                .value_parser(clap::value_parser!(PathBuf)),
        );
    let delete = Command::new("delete").about("Take one back").arg(Arg::new("id").required(true).help("Such as t12"));
    configured(Command::new("token").about("Tokens of the collector that runs here"))
        .subcommand_required(true)
        .subcommand(of_join(create, uses, ttl))
        .subcommand(Command::new("list").about("List them"))
        .subcommand(delete)
}

fn backup_command() -> Command {
    configured(Command::new("backup").about("Write the whole state to one file, whether the collector runs or not"))
        .arg(archive("The file to write; it holds every key and is for its owner alone"))
        .arg(Arg::new("verify").long("verify").action(ArgAction::SetTrue).help("Only read it, to see that it is sound"))
}

fn bundle_command() -> Command {
    configured(
        Command::new("bundle").about("Write what somebody who helps needs to know, without secrets, to one tar file"),
    )
    .arg(
        Arg::new("file")
            .value_name("FILE")
            .default_value("dunlin-collector-bundle.tar")
            .value_parser(clap::value_parser!(PathBuf))
            .help("The file to write, which must not be there yet"),
    )
    .arg(
        Arg::new("without-log")
            .long("without-log")
            .action(ArgAction::SetTrue)
            .help("Leave out the last lines of the log, which may name nodes and addresses"),
    )
}

fn restore_command() -> Command {
    configured(Command::new("restore").about("Make a state directory of a backup; no collector may run on it"))
        .arg(archive("The backup"))
        .arg(Arg::new("over").long("over").action(ArgAction::SetTrue).help("Put a state that is there aside, whole"))
}

fn archive(help: &'static str) -> Arg {
    Arg::new("file").value_name("FILE").required(true).value_parser(clap::value_parser!(PathBuf)).help(help)
}

/// One line an event on stderr. journald adds the time.
fn start_log() {
    let wish = std::env::var("DUNLIN_LOG").or_else(|_| std::env::var("RUST_LOG")).unwrap_or_default();
    let level = wish.parse().unwrap_or(Level::INFO);
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(stderr.and(|| Lately))
        .with_ansi(false)
        .without_time()
        .with_target(false)
        .init();
}
