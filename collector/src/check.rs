//! `dunlin-collector check`: whether what the collector needs is there and sound, one line each.
//!
//! It changes nothing. The files of a collector that runs are its own: that one is asked how it is.

use std::io::Write;
use std::path::Path;

use crate::api::{self, HttpCertificate};
use crate::client::{Client, ClientError, Target, Trust};
use crate::config::{CollectorConfig, Http};
use crate::shape::Moment;
use crate::store::{self, Files, Level, StateLock, StoreError};
use crate::window;

/// Whether all is well. What cannot be printed is not the collector's trouble.
pub fn check(config: &CollectorConfig, out: &mut dyn Write) -> bool {
    let mut is_well = true;
    let mut line = |what: &str, found: Result<String, String>| {
        is_well &= found.is_ok();
        let (word, text) = match &found {
            Ok(text) => ("ok   ", text),
            Err(text) => ("WRONG", text),
        };
        writeln!(out, "{word}  {what}: {text}").ok();
    };
    line("configuration", Ok(String::from("it can be used")));
    files(config, &mut line);
    line("disk", headroom(config));
    line("certificates for agents", certificates(&config.state_dir));
    line("HTTP", http(config));
    is_well
}

fn files(config: &CollectorConfig, line: &mut dyn FnMut(&str, Result<String, String>)) {
    let state_dir = &config.state_dir;
    if !state_dir.exists() {
        return line("state", Ok(format!("{} is made at the first start", state_dir.display())));
    }
    reaches(state_dir, line);
    match StateLock::take(state_dir) {
        Err(StoreError::Locked { .. }) => line("collector", running(state_dir)),
        Err(error) => line("state", Err(said(&error))),
        Ok(_lock) if !state_dir.join("control.db").exists() => {
            line("state", Ok(String::from("there is nothing yet")));
        }
        Ok(_lock) => match store::check(state_dir) {
            Err(error) => line("databases", Err(said(&error))),
            Ok(checked) => {
                sealed(state_dir, line);
                let (damaged, sound): (Vec<_>, Vec<_>) = checked.into_iter().partition(|file| file.damage.is_some());
                line("databases", Ok(format!("{} files are sound", sound.len())));
                for damage in damaged.into_iter().filter_map(|file| file.damage) {
                    line("database", Err(said(&damage)));
                }
            }
        },
    }
}

/// Every row of the sealed files.
fn sealed(state_dir: &Path, line: &mut dyn FnMut(&str, Result<String, String>)) {
    let Ok(files) = Files::list(&state_dir.join("window")) else { return };
    for name in &files.sealed {
        match window::verify(name, window::Depth::Values) {
            Ok(None) => {}
            Ok(Some(what)) => line("window", Err(format!("{}: {what}", name.path().display()))),
            Err(error) => line("window", Err(said(&error))),
        }
    }
}

/// How far back each resolution reaches, whether a collector runs or not.
fn reaches(state_dir: &Path, line: &mut dyn FnMut(&str, Result<String, String>)) {
    let dir = state_dir.join("window");
    if !dir.exists() {
        return;
    }
    let files = match Files::list(&dir) {
        Ok(files) => files,
        Err(error) => return line("window", Err(said(&error))),
    };
    let reach = |level: Level| {
        let since = window::reaches(&files, level).map(|since| Moment(since).to_string());
        format!("{} since {}", level.as_str(), since.unwrap_or_else(|| String::from("nothing")))
    };
    let reaches: Vec<String> = Level::ALL.into_iter().map(reach).collect();
    line("window", Ok(format!("{} sealed files; {}", files.sealed.len(), reaches.join(", "))));
}

fn running(state_dir: &Path) -> Result<String, String> {
    let target = Target::Unix(api::socket_path(state_dir));
    let asked = Client::new(target, None, &Trust::default()).and_then(|client| client.order("GET", "/-/ready", None));
    match asked {
        Ok(()) => Ok(String::from("it runs and is ready; its databases are checked when it is stopped")),
        Err(ClientError::Answer { .. }) => Err(String::from("it runs and is not ready; its log says why")),
        Err(error) => Err(error.to_string()),
    }
}

fn headroom(config: &CollectorConfig) -> Result<String, String> {
    // Before the first start the directory above counts: it will hold it.
    let place = config.state_dir.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    let disk = rustix::fs::statvfs(place).map_err(|error| format!("{}: {error}", place.display()))?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    let window = config.state_dir.join("window");
    let taken: u64 = std::fs::read_dir(window)
        .map_or(0, |entries| entries.filter_map(|entry| entry.ok()?.metadata().ok()).map(|data| data.len()).sum());
    let room = config.tuning.retention.room((taken, free));
    let needed = room.0.saturating_sub(taken).saturating_add(config.tuning.retention.reserve((taken, free)));
    let mib = |bytes: u64| bytes >> 20;
    let (free, needed) = (mib(free), mib(needed));
    let text = format!("{free} MiB are free at {}, and the window may still need {needed} MiB", place.display());
    if free >= needed { Ok(text) } else { Err(format!("{text}; lower retention.bytes or give it more room")) }
}

fn certificates(state_dir: &Path) -> Result<String, String> {
    if !state_dir.join("ca.pem").exists() {
        return Ok(String::from("they are made at the first start"));
    }
    // What is missing would be made: nothing is opened that could be changed.
    let found = HttpCertificate::from_files(&state_dir.join("collector.pem"), &state_dir.join("collector.key"));
    found.map(|_| String::from("they can be used")).map_err(|error| said(&error))
}

fn http(config: &CollectorConfig) -> Result<String, String> {
    let listen = config.http_listen;
    match &config.http {
        Http::Loopback => Ok(format!("{listen}, plain, for this host alone")),
        Http::Insecure => Ok(format!("{listen}, plain: whoever is on the way reads tokens along (insecure_http)")),
        Http::Own { names } => Ok(format!("{listen}, TLS by the collector's own authority for {}", names.join(", "))),
        Http::Given { cert, key } => HttpCertificate::from_files(cert, key)
            .map(|_| format!("{listen}, TLS with {}", cert.display()))
            .map_err(|error| said(&error)),
    }
}

/// With every cause.
fn said(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}
