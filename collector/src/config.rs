//! The collector's configuration: which keys there are, and what they come to.
//!
//! Flag over environment over file over default. Any mistake stops the start; none is guessed away.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

use dunlin_shared::config::{File, Key, Kind, Layers, Refused, Settings};
use rustls::pki_types::ServerName;

use crate::engine::Retiring;
use crate::tuning::Tuning;
use crate::window::retain::Retention;

pub const ENV_PREFIX: &str = "DUNLIN_COLLECTOR";
/// Names the file, so it cannot be a key of it.
pub const ENV_CONFIG: &str = "DUNLIN_COLLECTOR_CONFIG";
pub const DEFAULT_FILE: &str = "/etc/dunlin/collector.toml";

#[rustfmt::skip]
pub const SCHEMA: &[Key] = &[
    Key { path: "state_dir", kind: Kind::Text, default: Some("/var/lib/dunlin-collector"), help: "Where the collector keeps its keys and databases." },
    Key { path: "quic_listen", kind: Kind::Text, default: Some("[::]:9737"), help: "UDP address for agents. [::] serves IPv4 as well." },
    Key { path: "http_listen", kind: Kind::Text, default: Some("127.0.0.1:9738"), help: "TCP address for people and programs." },
    Key { path: "insecure_http", kind: Kind::Bool, default: Some("false"), help: "Plain HTTP also on an address that is not loopback, where HTTP speaks TLS otherwise." },
    Key { path: "rules_dir", kind: Kind::Text, default: Some("/etc/dunlin/rules.d"), help: "Where rules lie, in files that end in .toml. Those that ship with the collector are in force beside them; a rule of the same name takes their place." },
    Key { path: "retire_after", kind: Kind::Duration { min_ms: 3_600_000, max_ms: 3_650 * 86_400_000 }, default: Some("30d"), help: "A node that was not seen for so long is shown no more, until it comes back." },
    Key { path: "retire_ephemeral_after", kind: Kind::Duration { min_ms: 60_000, max_ms: 3_650 * 86_400_000 }, default: Some("1h"), help: "The same for nodes that joined by an ephemeral token; they are forgotten, and come back as new nodes." },
    Key { path: "events.keep", kind: Kind::Duration { min_ms: 10_000, max_ms: 3_650 * 86_400_000 }, default: Some("30d"), help: "How long events are kept in the feed; of more than 500,000 the oldest go before." },
    Key { path: "tls.names", kind: Kind::List, default: None, help: "Names and addresses by which people and programs reach HTTP: the collector's own authority certifies them." },
    Key { path: "tls.cert", kind: Kind::Text, default: None, help: "A certificate chain in PEM for HTTP, in place of one from the collector's own authority." },
    Key { path: "tls.key", kind: Kind::Text, default: None, help: "The key of that certificate, in PEM." },
    Key { path: "retention.bytes", kind: Kind::Size { min: 1 << 20, max: 1 << 50 }, default: None, help: "What the window may take of the disk: 60 % for every sample, 25 % for roll-ups of five minutes, 15 % for roll-ups of an hour; of each the oldest goes first. Absent, half of what the disk has for it, and 20 GB at most." },
    Key { path: "retention.full", kind: Kind::Duration { min_ms: 600_000, max_ms: 3_650 * 86_400_000 }, default: Some("48h"), help: "How long every sample is kept, when its bytes allow." },
    Key { path: "retention.five_minutes", kind: Kind::Duration { min_ms: 600_000, max_ms: 3_650 * 86_400_000 }, default: Some("30d"), help: "How long roll-ups of five minutes are kept, when their bytes allow." },
    Key { path: "retention.hours", kind: Kind::Duration { min_ms: 600_000, max_ms: 3_650 * 86_400_000 }, default: Some("400d"), help: "How long roll-ups of an hour are kept, when their bytes allow." },
];

#[derive(Clone, Debug)]
pub struct CollectorConfig {
    pub state_dir: PathBuf,
    pub quic_listen: SocketAddr,
    pub http_listen: SocketAddr,
    pub http: Http,
    pub rules_dir: PathBuf,
    pub tuning: Tuning,
    /// As it may be shown to strangers.
    pub shown: String,
}

/// How HTTP is spoken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Http {
    /// Nobody but this host can reach it.
    Loopback,
    /// Others can reach it and read along: somebody asked for that.
    Insecure,
    /// TLS with a certificate of the operator's.
    Given { cert: PathBuf, key: PathBuf },
    /// TLS with a certificate of the collector's own authority for these names.
    Own { names: Vec<String> },
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
        let http = http(settings, http_listen).unwrap_or_else(|line| {
            lines.push(line);
            Http::Loopback
        });
        let retention = Retention {
            bytes: settings.size_bytes_if_given("retention.bytes"),
            full_ms: settings.duration_ms("retention.full"),
            mid_ms: settings.duration_ms("retention.five_minutes"),
            long_ms: settings.duration_ms("retention.hours"),
        };
        if retention.long_ms < retention.mid_ms {
            lines.push(String::from(
                "retention.hours: is shorter than retention.five_minutes; hours are made of those, so shorten both or neither",
            ));
        }
        if !lines.is_empty() {
            return Err(Refused { lines });
        }
        Ok(Self {
            state_dir: PathBuf::from(settings.text("state_dir").unwrap_or_default()),
            quic_listen,
            http_listen,
            http,
            rules_dir: PathBuf::from(settings.text("rules_dir").unwrap_or_default()),
            shown: settings.shown(),
            tuning: Tuning {
                retention,
                events_keep_ms: settings.duration_ms("events.keep"),
                retiring: Retiring {
                    after_ms: settings.duration_ms("retire_after"),
                    ephemeral_after_ms: settings.duration_ms("retire_ephemeral_after"),
                },
            },
        })
    }
}

/// Reads the file that the flag, the environment or the default names. Only the default may be missing.
pub fn load(file: Option<OsString>, flags: &[(&'static Key, OsString)]) -> Result<CollectorConfig, Refused> {
    let env: Vec<_> = std::env::vars_os().collect();
    let named = file.or_else(|| std::env::var_os(ENV_CONFIG));
    let path = named.clone().unwrap_or_else(|| DEFAULT_FILE.into());
    let name = path.to_string_lossy().into_owned();
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => Some(bytes),
        Err(error) if named.is_none() && error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(Refused { lines: vec![format!("{name}: cannot be read: {error}")] }),
    };
    CollectorConfig::load(bytes.as_deref().map(|bytes| (name.as_str(), bytes)), &env, flags)
}

fn http(settings: &Settings, listen: SocketAddr) -> Result<Http, String> {
    let file = |key: &str| settings.text(key).filter(|path| !path.is_empty()).map(PathBuf::from);
    let given = match (file("tls.cert"), file("tls.key")) {
        (Some(cert), Some(key)) => Some(Http::Given { cert, key }),
        (None, None) => None,
        (Some(_), None) => return Err(String::from("tls.cert needs tls.key beside it")),
        (None, Some(_)) => return Err(String::from("tls.key needs tls.cert beside it")),
    };
    if listen.ip().is_loopback() {
        return Ok(Http::Loopback);
    }
    if settings.boolean("insecure_http") {
        return Ok(Http::Insecure);
    }
    if let Some(given) = given {
        return Ok(given);
    }
    let mut names = settings.list("tls.names").to_vec();
    if names.is_empty() && listen.ip().is_unspecified() {
        return Err(format!(
            "tls.names: none given, and http_listen {listen} speaks TLS; write names = [\"collector.example.net\"], or give tls.cert and tls.key, or set insecure_http = true if plain HTTP is meant"
        ));
    }
    if !listen.ip().is_unspecified() && !names.contains(&listen.ip().to_string()) {
        names.push(listen.ip().to_string());
    }
    if let Some(name) = names.iter().find(|name| ServerName::try_from(name.as_str()).is_err()) {
        return Err(format!("tls.names: {name:?} is neither a host name nor an address"));
    }
    Ok(Http::Own { names })
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
    fn http_off_loopback_speaks_tls_unless_plain_is_asked_for() {
        let http = |text: &str| load(text).map(|config| config.http).map_err(|refused| refused.to_string());
        assert_eq!(http("tls.names = [\"c.example.net\"]"), Ok(Http::Loopback));
        assert_eq!(http("http_listen = \"0.0.0.0:80\"\ninsecure_http = true"), Ok(Http::Insecure));
        assert!(http("http_listen = \"0.0.0.0:80\"").is_err_and(|said| said.contains("insecure_http")));
        let own = |names: &[&str]| Ok(Http::Own { names: names.iter().map(|&name| name.to_owned()).collect() });
        assert_eq!(http("http_listen = \"0.0.0.0:80\"\ntls.names = [\"c\"]"), own(&["c"]));
        assert_eq!(http("http_listen = \"192.0.2.1:80\""), own(&["192.0.2.1"]));
        let given = Http::Given { cert: "a".into(), key: "b".into() };
        assert_eq!(http("http_listen = \"0.0.0.0:80\"\ntls.cert = \"a\"\ntls.key = \"b\""), Ok(given));
        assert!(http("tls.cert = \"a\"").is_err_and(|said| said.contains("tls.key")));
        assert!(http("http_listen = \"0.0.0.0:80\"\ntls.names = [\"a b\"]").is_err());
    }

    #[test]
    fn hours_are_kept_as_long_as_what_they_are_made_of() {
        assert!(load("[retention]\nhours = \"29d\"").is_err_and(|said| said.to_string().contains("five_minutes")));
        assert!(load("[retention]\nfive_minutes = \"20d\"\nhours = \"20d\"").is_ok());
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
