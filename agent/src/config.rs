//! The agent's configuration: which keys there are, and what they come to.
//!
//! Flag over environment over file over default. Any mistake stops the start; none is guessed away.

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
    Key { path: "name", kind: Kind::Text, default: None, help: "What the node calls itself. Without it, the host's name." },
    Key { path: "interval", kind: Kind::Duration { min_ms: INTERVAL_MS_MIN, max_ms: INTERVAL_MS_MAX }, default: Some("10s"), help: "How often the host is sampled." },
    Key { path: "spool.ram", kind: Kind::Size { min: SPOOL_BYTES_MIN, max: 1 << 30 }, default: Some("512KiB"), help: "Memory for frames that no collector has acknowledged yet. The default holds hours." },
    Key { path: "spool.disk", kind: Kind::Size { min: 0, max: 1 << 40 }, default: Some("0"), help: "Space below state_dir for the same, which survives a kill of the agent. 0 keeps frames in memory only." },
];

#[derive(Clone, Debug)]
pub struct Config {
    pub collectors: Vec<String>,
    pub state_dir: PathBuf,
    pub name: Option<String>,
    pub interval_ms: u64,
    pub spool_ram_bytes: usize,
    pub spool_disk_bytes: u64,
}

impl Config {
    pub fn load(
        file: Option<(&str, &[u8])>,
        env: &[(OsString, OsString)],
        flags: &[(&'static Key, OsString)],
    ) -> Result<Self, Refused> {
        let file = file.map(|(name, bytes)| File { name, bytes });
        let layers = Layers { schema: SCHEMA, file, env_prefix: ENV_PREFIX, env, env_allowed: &[ENV_CONFIG], flags };
        Self::from_settings(&layers.load()?)
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
            name,
            interval_ms: settings.duration_ms("interval"),
            spool_ram_bytes: usize::try_from(settings.size_bytes("spool.ram")).unwrap_or(usize::MAX),
            spool_disk_bytes: settings.size_bytes("spool.disk"),
        })
    }
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
    fn the_packaged_file_is_what_the_keys_say() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../packaging/agent.toml");
        let committed = std::fs::read_to_string(path).expect("packaging/agent.toml is committed");
        let text = dunlin_shared::config::render_reference(SCHEMA);
        assert!(committed == text, "packaging/agent.toml is not what the schema says; run `make docs`");
    }
}
