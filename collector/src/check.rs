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
use crate::window::{self, Depth};

/// Whether all is well. What cannot be printed is not the collector's trouble.
pub fn check(config: &CollectorConfig, depth: Depth, out: &mut dyn Write) -> bool {
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
    files(config, depth, &mut line);
    line("disk", headroom(config));
    line("certificates for agents", certificates(&config.state_dir));
    line("HTTP", http(config));
    is_well
}

fn files(config: &CollectorConfig, depth: Depth, line: &mut dyn FnMut(&str, Result<String, String>)) {
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
                sealed(state_dir, depth, line);
                let (damaged, sound): (Vec<_>, Vec<_>) = checked.into_iter().partition(|file| file.damage.is_some());
                line("databases", Ok(format!("{} files are sound", sound.len())));
                for damage in damaged.into_iter().filter_map(|file| file.damage) {
                    line("database", Err(said(&damage)));
                }
            }
        },
    }
}

/// Every row of the sealed files; what is in the rows only when that was asked for.
fn sealed(state_dir: &Path, depth: Depth, line: &mut dyn FnMut(&str, Result<String, String>)) {
    let Ok(files) = Files::list(&state_dir.join("window")) else { return };
    let mut sound = 0;
    for name in &files.sealed {
        match window::verify(name, depth) {
            Ok(None) => sound += 1,
            Ok(Some(what)) => line("window", Err(format!("{}: {what}", name.path().display()))),
            Err(error) => line("window", Err(said(&error))),
        }
    }
    let how = match depth {
        Depth::Sums => "every checksum is right; --deep decodes every value as well",
        Depth::Values => "every value can be decoded",
    };
    line("sealed files", Ok(format!("{sound} of {} are sound: {how}", files.sealed.len())));
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

#[cfg(test)]
mod tests {
    use dunlin_shared::id::NodeId;
    use dunlin_shared::time::WallMs;

    use super::*;
    use crate::record::{NodeKey, Pos};
    use crate::store::tests::Dir;
    use crate::store::{Block, Builder, Control, Log, Span};

    fn said_of(state_dir: &Path, depth: Depth) -> String {
        let text = format!("state_dir = {:?}", state_dir.display().to_string());
        let config = CollectorConfig::load(Some(("c", text.as_bytes())), &[], &[]).expect("good");
        let mut out = Vec::new();
        check(&config, depth, &mut out);
        String::from_utf8(out).expect("it is text")
    }

    #[test]
    fn values_are_decoded_only_when_that_is_asked_for() {
        let dir = Dir::new();
        let window = dir.path().join("window");
        Log::open(&window, WallMs(0), Pos(0)).expect("a new log").0.close().expect("closed");
        drop(Control::open(&dir.path().join("control.db"), WallMs(0), 1).expect("a new control.db"));
        let mut builder = Builder::begin(&window, Level::Full, Span::FiveMinutes, 600).expect("begin");
        let (begins, ends, node_id) = (WallMs(600_000), WallMs(601_000), NodeId::v7(1, [1; 10]));
        // As it was written, and no block.
        let body = vec![0xff; 40];
        let block = Block { node: NodeKey(1), part: 0, node_id, begins, ends, rows: 3, apart: None, body };
        builder.put_block(&block).expect("it has room");
        let name = builder.publish(Pos(1), Pos(9), WallMs(0)).expect("it is written");

        let said = said_of(dir.path(), Depth::Sums);
        assert!(said.contains("sealed files: 1 of 1 are sound: every checksum is right"), "{said}");
        let said = said_of(dir.path(), Depth::Values);
        assert!(said.contains(&format!("WRONG  window: {}: ", name.path().display())), "{said}");
        assert!(said.contains("sealed files: 0 of 1 are sound"), "{said}");
    }
}
