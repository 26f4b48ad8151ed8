//! The collector's configuration: which keys there are, and what they come to.
//!
//! Flag over environment over file over default. Any mistake stops the start; none is guessed away.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

use dunlin_shared::config::{File, Key, Kind, Layers, Refused, Settings};

use crate::writer::Retention;

pub const ENV_PREFIX: &str = "DUNLIN_COLLECTOR";
/// Names the file, so it cannot be a key of it.
pub const ENV_CONFIG: &str = "DUNLIN_COLLECTOR_CONFIG";
pub const DEFAULT_FILE: &str = "/etc/dunlin/collector.toml";

#[rustfmt::skip]
pub const SCHEMA: &[Key] = &[
    Key { path: "state_dir", kind: Kind::Text, default: Some("/var/lib/dunlin-collector"), help: "Where the collector keeps its keys and databases." },
    Key { path: "quic_listen", kind: Kind::Text, default: Some("[::]:9737"), help: "UDP address for agents. [::] serves IPv4 as well." },
    Key { path: "http_listen", kind: Kind::Text, default: Some("127.0.0.1:9738"), help: "TCP address for people and programs." },
    Key { path: "insecure_http", kind: Kind::Bool, default: Some("false"), help: "Allow plain HTTP on an address that is not loopback." },
    Key { path: "retention.bytes", kind: Kind::Size { min: 1 << 20, max: 1 << 50 }, default: Some("4GiB"), help: "What the log may take of the disk; the oldest goes first." },
    Key { path: "retention.age", kind: Kind::Duration { min_ms: 600_000, max_ms: 400 * 86_400_000 }, default: Some("48h"), help: "How long the log is kept, when its bytes allow." },
];

#[derive(Clone, Debug)]
pub struct CollectorConfig {
    pub state_dir: PathBuf,
    pub quic_listen: SocketAddr,
    pub http_listen: SocketAddr,
    pub retention: Retention,
}

impl CollectorConfig {
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
        let mut lines = Vec::new();
        let mut address = |key: &str, example: &str| {
            let text = settings.text(key).unwrap_or_default();
            text.parse::<SocketAddr>().unwrap_or_else(|_| {
                lines.push(format!("{key}: {text:?} is no address with a port; write for example {example:?}"));
                SocketAddr::from(([127, 0, 0, 1], 0))
            })
        };
        let quic_listen = address("quic_listen", "[::]:9737");
        let http_listen = address("http_listen", "127.0.0.1:9738");
        if !http_listen.ip().is_loopback() && !settings.boolean("insecure_http") {
            lines.push(format!(
                "http_listen: {http_listen} is not loopback, and HTTP there would be plain; set insecure_http = true if that is meant"
            ));
        }
        if !lines.is_empty() {
            return Err(Refused { lines });
        }
        Ok(Self {
            state_dir: PathBuf::from(settings.text("state_dir").unwrap_or_default()),
            quic_listen,
            http_listen,
            retention: Retention {
                bytes: settings.size_bytes("retention.bytes"),
                age_ms: settings.duration_ms("retention.age"),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<CollectorConfig, Refused> {
        CollectorConfig::load(Some(("collector.toml", text.as_bytes())), &[], &[])
    }

    #[test]
    fn an_empty_file_serves_agents_everywhere_and_people_on_loopback() {
        let config = load("").expect("defaults suffice");
        assert!(config.http_listen.ip().is_loopback());
        assert_eq!((config.quic_listen.port(), config.http_listen.port()), (9737, 9738));
    }

    #[test]
    fn plain_http_off_loopback_needs_to_be_asked_for() {
        assert!(load("http_listen = \"0.0.0.0:80\"").expect_err("plain").to_string().contains("insecure_http"));
        assert!(load("http_listen = \"0.0.0.0:80\"\ninsecure_http = true").is_ok());
    }

    #[test]
    fn every_mistake_is_reported_at_once() {
        let text = load("quic_listen = \"here\"\nhttp_listen = \"there\"").expect_err("two").to_string();
        assert_eq!(text.lines().count(), 2, "{text}");
    }

    #[test]
    fn the_packaged_file_is_what_the_keys_say() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../packaging/collector.toml");
        let committed = std::fs::read_to_string(path).expect("packaging/collector.toml is committed");
        let text = dunlin_shared::config::render_reference(SCHEMA);
        assert!(committed == text, "packaging/collector.toml is not what the schema says; run `make docs`");
    }
}
