//! The agent's configuration: which keys there are, and what they come to.
//!
//! Flag over environment over file over default. Any mistake stops the start; none is guessed away.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use dunlin_shared::config::{File, Key, Kind, Layers, Refused, Settings};
use dunlin_shared::limits::{HOST_NAME_BYTES_MAX, INTERVAL_MS_MAX, INTERVAL_MS_MIN};

use crate::resolve::Target;
use crate::uplink::connect::DEFAULT_PORT;

pub const ENV_PREFIX: &str = "DUNLIN_AGENT";
/// Names the file, so it cannot be a key of it.
pub const ENV_CONFIG: &str = "DUNLIN_AGENT_CONFIG";
pub const DEFAULT_FILE: &str = "/etc/dunlin/agent.toml";

/// The smallest spool holds a few groups of a small host.
const SPOOL_BYTES_MIN: u64 = 16 * 1024;

#[rustfmt::skip]
pub const SCHEMA: &[Key] = &[
    Key { path: "collectors", kind: Kind::List, default: None, help: "Addresses of collectors, as host or host:port. They are tried in turn." },
    Key { path: "state_dir", kind: Kind::Text, default: Some("/var/lib/dunlin-agent"), help: "Where the agent keeps its key, its certificate and its spool. It writes nowhere else." },
    Key { path: "join_token_file", kind: Kind::Text, default: None, help: "A file with the token that enrols this host as a node; needed once. The variable DUNLIN_JOIN_TOKEN wins over it; without either, the systemd credential join-token is taken." },
    Key { path: "name", kind: Kind::Text, default: None, help: "What the node calls itself. Without it, the host's name." },
    Key { path: "labels", kind: Kind::Labels, default: None, help: "What this host says of itself, like { env = \"prod\" }. Labels of its token and of an operator win over these." },
    Key { path: "interval", kind: Kind::Duration { min_ms: INTERVAL_MS_MIN, max_ms: INTERVAL_MS_MAX }, default: Some("10s"), help: "How often the host is sampled." },
    Key { path: "watch", kind: Kind::List, default: None, help: "Process groups that are always told, however little they use: names of executables." },
    Key { path: "collect.containers", kind: Kind::Bool, default: Some("true"), help: "Whether containers are told." },
    Key { path: "collect.processes", kind: Kind::Bool, default: Some("true"), help: "Whether process groups are told." },
    Key { path: "collect.ports", kind: Kind::Bool, default: Some("true"), help: "Whether listening ports are told." },
    Key { path: "collect.units", kind: Kind::Bool, default: Some("true"), help: "Whether systemd units are told." },
    Key { path: "collect.sockets", kind: Kind::List, default: None, help: "Sockets of container engines. Without it those of Docker and Podman are looked for, rootless ones included." },
    Key { path: "collect.container_labels", kind: Kind::List, default: None, help: "Labels of containers that are told, by name. All others stay on the host." },
    Key { path: "spool.ram", kind: Kind::Size { min: SPOOL_BYTES_MIN, max: 1 << 30 }, default: Some("512KiB"), help: "Memory for frames that no collector has acknowledged yet. The default holds hours." },
    Key { path: "spool.disk", kind: Kind::Size { min: 0, max: 1 << 40 }, default: Some("0"), help: "Space below state_dir for the same, which survives a kill of the agent. 0 keeps frames in memory only." },
];

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    pub collectors: Vec<String>,
    pub state_dir: PathBuf,
    pub join_token_file: Option<PathBuf>,
    pub name: Option<String>,
    pub labels: BTreeMap<String, String>,
    pub interval_ms: u64,
    pub spool_ram_bytes: usize,
    pub spool_disk_bytes: u64,
    pub collect: Collect,
}

/// What is told of the host besides its own numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collect {
    pub containers: bool,
    pub processes: bool,
    pub ports: bool,
    pub units: bool,
    /// Of container engines; none given, they are looked for.
    pub sockets: Vec<PathBuf>,
    pub container_labels: Vec<String>,
    /// Process groups that are always told.
    pub watch: Vec<String>,
}

impl Default for Collect {
    fn default() -> Self {
        Self {
            containers: true,
            processes: true,
            ports: true,
            units: true,
            sockets: Vec::new(),
            container_labels: Vec::new(),
            watch: Vec::new(),
        }
    }
}

/// Where an agent keeps what. An image that is sealed need not name its collectors yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    pub state_dir: PathBuf,
    pub join_token_file: Option<PathBuf>,
}

impl Config {
    pub fn load(
        file: Option<(&str, &[u8])>,
        env: &[(OsString, OsString)],
        flags: &[(&'static Key, OsString)],
    ) -> Result<Self, Refused> {
        Self::from_settings(&settings(file, env, flags)?)
    }

    fn from_settings(settings: &Settings) -> Result<Self, Refused> {
        let collectors = settings.list("collectors").to_vec();
        let name = settings.text("name").map(str::to_owned);
        let mut lines = Vec::new();
        if collectors.is_empty() {
            lines.push(String::from("collectors: none given; write collectors = [\"collector.example.net:9737\"]"));
        }
        for collector in &collectors {
            if let Err(error) = Target::parse(collector, DEFAULT_PORT) {
                lines.push(format!("collectors: {collector:?}: {error}"));
            }
        }
        if name.as_ref().is_some_and(|name| name.len() > HOST_NAME_BYTES_MAX) {
            lines.push(format!("name: longer than {HOST_NAME_BYTES_MAX} bytes"));
        }
        if !lines.is_empty() {
            return Err(Refused { lines });
        }
        Ok(Self {
            collectors,
            state_dir: PathBuf::from(settings.text("state_dir").unwrap_or_default()),
            join_token_file: settings.text("join_token_file").map(PathBuf::from),
            name,
            labels: settings.labels("labels").clone(),
            interval_ms: settings.duration_ms("interval"),
            spool_ram_bytes: usize::try_from(settings.size_bytes("spool.ram")).unwrap_or(usize::MAX),
            spool_disk_bytes: settings.size_bytes("spool.disk"),
            collect: Collect::from_settings(settings),
        })
    }
}

impl Collect {
    pub fn load(
        file: Option<(&str, &[u8])>,
        env: &[(OsString, OsString)],
        flags: &[(&'static Key, OsString)],
    ) -> Result<Self, Refused> {
        Ok(Self::from_settings(&settings(file, env, flags)?))
    }

    /// Whether the key is one of those.
    #[must_use]
    pub fn heeds(key: &Key) -> bool {
        key.path == "watch" || key.path.starts_with("collect.")
    }

    fn from_settings(settings: &Settings) -> Self {
        Self {
            containers: settings.boolean("collect.containers"),
            processes: settings.boolean("collect.processes"),
            ports: settings.boolean("collect.ports"),
            units: settings.boolean("collect.units"),
            sockets: settings.list("collect.sockets").iter().map(PathBuf::from).collect(),
            container_labels: settings.list("collect.container_labels").to_vec(),
            watch: settings.list("watch").to_vec(),
        }
    }
}

impl Places {
    pub fn load(
        file: Option<(&str, &[u8])>,
        env: &[(OsString, OsString)],
        flags: &[(&'static Key, OsString)],
    ) -> Result<Self, Refused> {
        let settings = settings(file, env, flags)?;
        Ok(Self {
            state_dir: PathBuf::from(settings.text("state_dir").unwrap_or_default()),
            join_token_file: settings.text("join_token_file").map(PathBuf::from),
        })
    }
}

/// What it comes to, key by key, as it may be shown to strangers.
pub fn shown(
    file: Option<(&str, &[u8])>,
    env: &[(OsString, OsString)],
    flags: &[(&'static Key, OsString)],
) -> Result<String, Refused> {
    Ok(settings(file, env, flags)?.shown())
}

fn settings(
    file: Option<(&str, &[u8])>,
    env: &[(OsString, OsString)],
    flags: &[(&'static Key, OsString)],
) -> Result<Settings, Refused> {
    let file = file.map(|(name, bytes)| File { name, bytes });
    let layers = Layers { schema: SCHEMA, file, env_prefix: ENV_PREFIX, env, env_allowed: &[ENV_CONFIG], flags };
    Ok(layers.load()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Config, Refused> {
        Config::load(Some(("agent.toml", text.as_bytes())), &[], &[])
    }

    #[test]
    fn the_minimal_file_takes_the_defaults_of_the_reference_box() {
        let config = load("collectors = [\"collector.example.net:9737\"]").expect("it is whole");
        assert_eq!((config.interval_ms, config.spool_ram_bytes, config.spool_disk_bytes), (10_000, 512 * 1024, 0));
    }

    #[test]
    fn a_wrong_key_is_named_with_its_line_and_the_nearest_one() {
        let error = load("collectors = [\"c\"]\nintervall = \"5s\"\n").expect_err("a wrong key").to_string();
        assert!(error.contains("agent.toml:2") && error.contains("interval"), "{error}");
    }

    #[test]
    fn no_collector_and_an_impossible_one_are_refused() {
        assert!(load("").expect_err("none").to_string().contains("collectors"));
        assert!(load("collectors = [\"a b:9\"]").expect_err("impossible").to_string().contains("a b"));
    }

    #[test]
    fn labels_and_the_token_come_from_file_variable_and_flag() {
        let file = "collectors = [\"c\"]\njoin_token_file = \"/t\"\nlabels = { env = \"prod\", role = \"web\" }\n";
        let config = load(file).expect("it is whole");
        assert_eq!(config.join_token_file, Some(PathBuf::from("/t")));
        let pair = |(key, value): (&String, &String)| format!("{key}={value}");
        assert_eq!(config.labels.iter().map(pair).collect::<Vec<_>>(), ["env=prod", "role=web"]);
        let env = [("DUNLIN_AGENT_LABELS".into(), "env=test".into()), ("DUNLIN_JOIN_TOKEN".into(), "x".into())];
        let given = Config::load(Some(("agent.toml", file.as_bytes())), &env, &[]).expect("both are known");
        assert_eq!(given.labels.iter().map(pair).collect::<Vec<_>>(), ["env=test"]);
        let labels = SCHEMA.iter().find(|key| key.path == "labels").expect("there are labels");
        let given = Config::load(None, &env, &[(&SCHEMA[0], "c".into()), (labels, "a=b".into())]).expect("whole");
        assert_eq!(given.labels.iter().map(pair).collect::<Vec<_>>(), ["a=b"]);
    }

    #[test]
    fn what_fits_the_wire_is_the_most_that_labels_may_be() {
        use dunlin_shared::limits::{LABEL_KEY_BYTES_MAX, LABEL_VALUE_BYTES_MAX, LABELS_MAX};
        let labels = (0..LABELS_MAX).map(|n| {
            format!("a{n:0width$} = \"{}\"", "v".repeat(LABEL_VALUE_BYTES_MAX), width = LABEL_KEY_BYTES_MAX - 1)
        });
        let text = format!("collectors = [\"c\"]\n[labels]\n{}\n", labels.collect::<Vec<_>>().join("\n"));
        let config = load(&text).expect("each is at its limit");
        let facts = dunlin_shared::inventory::Facts { labels: config.labels, ..Default::default() };
        let inventory = dunlin_shared::inventory::Inventory::Facts(facts);
        assert!(dunlin_shared::inventory::Inventory::decode(&inventory.encode()).is_ok());
        let error = load(&text.replacen("a0", "aa0", 1)).expect_err("one byte more").to_string();
        assert!(error.contains("agent.toml:3") && error.contains("label"), "{error}");
    }

    #[test]
    fn what_is_sealed_need_not_name_a_collector_but_may_not_be_wrong() {
        let places = |text: &str| Places::load(Some(("agent.toml", text.as_bytes())), &[], &[]);
        let found = places("join_token_file = \"/t\"").expect("it is whole");
        assert_eq!(
            (found.state_dir.to_str(), found.join_token_file),
            (Some("/var/lib/dunlin-agent"), Some("/t".into()))
        );
        assert!(places("state_dirr = \"/x\"").expect_err("a wrong key").to_string().contains("state_dir"));
    }

    #[test]
    fn the_packaged_file_is_what_the_keys_say() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../packaging/agent.toml");
        let committed = std::fs::read_to_string(path).expect("packaging/agent.toml is committed");
        let text = dunlin_shared::config::render_reference(SCHEMA);
        assert!(committed == text, "packaging/agent.toml is not what the schema says; run `make docs`");
    }
}
