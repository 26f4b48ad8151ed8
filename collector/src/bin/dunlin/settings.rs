//! Which collector is asked, with which token, and whom to trust: flags over environment over file, or the
//! admin socket of the collector on this host.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;
use dunlin_collector::client::{Client, Target, Trust};
use dunlin_shared::config::{File, Key, Kind, Layers, Settings};

use crate::Failure;

/// Where the package's collector keeps its state.
const SOCKET: &str = "/var/lib/dunlin-collector/admin.sock";

#[rustfmt::skip]
const SCHEMA: &[Key] = &[
    Key { path: "url", kind: Kind::Text, default: None, help: "Where the collector is, such as https://collector.example.net:9738." },
    Key { path: "token", kind: Kind::Text, default: None, help: "A token of the API." },
    Key { path: "token_file", kind: Kind::Text, default: None, help: "A file that holds one." },
    Key { path: "ca_file", kind: Kind::Text, default: None, help: "The authority to trust: the collector's ca.pem." },
    Key { path: "ca_pin", kind: Kind::Text, default: None, help: "The authority to trust, by its pin: the end of a join token." },
];

#[derive(Debug, Args)]
pub(crate) struct Places {
    #[arg(long, global = true, help = "Where the collector is, such as https://collector.example.net:9738")]
    url: Option<OsString>,
    /// A file in place of ~/.config/dunlin/cli.toml
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
}

pub(crate) fn client(places: &Places) -> Result<Client, Failure> {
    let settings = settings(places)?;
    let text = |key: &str| settings.text(key).filter(|text| !text.is_empty()).map(str::to_owned);
    let token = match (text("token"), text("token_file")) {
        (None, Some(file)) => {
            let read = std::fs::read_to_string(&file);
            Some(read.map_err(|error| Failure::Configuration(format!("token_file {file} cannot be read: {error}")))?)
        }
        (token, _) => token,
    };
    let pin = text("ca_pin").map(|pin| {
        pin.parse().map_err(|_| {
            Failure::Configuration(String::from(
                "ca_pin (DUNLIN_CA_PIN) is no pin: it is the part of a join token behind its last dot",
            ))
        })
    });
    let trust = Trust { ca_file: text("ca_file").map(PathBuf::from), ca_pin: pin.transpose()? };
    let target = match text("url") {
        Some(url) => Target::parse(&url).map_err(|wrong| Failure::Configuration(wrong.to_string()))?,
        None if std::path::Path::new(SOCKET).parent().is_some_and(std::path::Path::exists) => {
            Target::Unix(SOCKET.into())
        }
        None => {
            return Err(Failure::Configuration(String::from(
                "which collector? Set DUNLIN_URL (https://HOST:9738) and DUNLIN_TOKEN, or write url and token into ~/.config/dunlin/cli.toml",
            )));
        }
    };
    Ok(Client::new(target, token.map(|token| token.trim().to_owned()), &trust)?)
}

fn settings(places: &Places) -> Result<Settings, Failure> {
    let known = [
        ("DUNLIN_URL", "DUNLIN_URL"),
        ("DUNLIN_TOKEN", "DUNLIN_TOKEN"),
        ("DUNLIN_TOKEN_FILE", "DUNLIN_TOKEN_FILE"),
        ("DUNLIN_CA", "DUNLIN_CA_FILE"),
        ("DUNLIN_CA_PIN", "DUNLIN_CA_PIN"),
    ];
    let variable = |(name, key): (&str, &str)| Some((OsString::from(key), std::env::var_os(name)?));
    let env: Vec<_> = known.into_iter().filter_map(variable).collect();
    let flag = |url: &OsString| (&SCHEMA[0], url.clone());
    let flags: Vec<(&'static Key, OsString)> = places.url.iter().map(flag).collect();
    let path = places.config.clone().or_else(|| {
        let home = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from);
        let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".config")));
        home.map(|home| home.join("dunlin/cli.toml"))
    });
    let name = path.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
    let bytes = match path.as_ref().map(std::fs::read) {
        None => None,
        Some(Ok(bytes)) => Some(bytes),
        Some(Err(error)) if error.kind() == std::io::ErrorKind::NotFound && places.config.is_none() => None,
        Some(Err(error)) => return Err(Failure::Configuration(format!("{name} cannot be read: {error}"))),
    };
    let file = bytes.as_deref().map(|bytes| File { name: &name, bytes });
    let layers = Layers { schema: SCHEMA, file, env_prefix: "DUNLIN", env: &env, env_allowed: &[], flags: &flags };
    layers.load().map_err(|errors| {
        let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
        Failure::Configuration(lines.join("\n"))
    })
}
