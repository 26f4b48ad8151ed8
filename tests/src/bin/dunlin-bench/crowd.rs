//! An engine that is none: it lists as many containers as it is told to, describes each as Docker does, and says nothing more.
//!
//! Real ones would be everybody's on this machine, and a dockerd takes half an hour to start them. Its threads end with the program.

use std::fmt::Write as _;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;

use anyhow::{Context, Result};

/// The first port that is published.
const FIRST_PORT: usize = 20_000;
const FILLER: &str = "a label such as those that images bring along, several of them and none of any use to anybody";

/// The socket that it listens on.
pub(crate) fn listen(path: PathBuf, count: usize) -> Result<PathBuf> {
    let listener = UnixListener::bind(&path).context("the socket of an engine")?;
    let list: Arc<str> = list(count).into();
    thread::Builder::new().name(String::from("crowd")).spawn(move || {
        let mut held = Vec::new();
        for stream in listener.incoming().flatten() {
            match answer(stream, &list) {
                // Who follows its events hears nothing, for as long as this lasts.
                Ok(Some(events)) => held.push(events),
                Ok(None) => {}
                Err(error) => tracing::warn!(%error, "who asked an engine went away"),
            }
        }
    })?;
    Ok(path)
}

/// One question a connection, as the agent asks.
fn answer(mut stream: UnixStream, list: &str) -> io::Result<Option<UnixStream>> {
    let mut lines = BufReader::new(stream.try_clone()?).lines().map_while(Result::ok);
    let asked = lines.next().unwrap_or_default();
    lines.take_while(|line| !line.is_empty()).for_each(drop);
    let path = asked.split(' ').nth(1).and_then(|path| path.split('?').next()).unwrap_or_default();
    if path.ends_with("/events") {
        stream.write_all(b"HTTP/1.1 200 OK\r\nServer: Docker/20\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        return Ok(Some(stream));
    }
    let body = match path.rsplit('/').nth(1) {
        _ if path.ends_with("/version") => r#"{"ApiVersion":"1.41","Version":"20.10.24"}"#.into(),
        _ if path.ends_with("/_ping") => "OK".into(),
        _ if path.ends_with("/containers/json") => list.to_owned(),
        Some(id) => inspected(id),
        None => String::new(),
    };
    write!(stream, "HTTP/1.1 200 OK\r\nServer: Docker/20\r\nContent-Length: {}\r\n\r\n", body.len())?;
    stream.write_all(body.as_bytes())?;
    Ok(None)
}

fn list(count: usize) -> String {
    let mut text = String::from("[");
    for number in 0..count {
        let (id, comma) = (format!("{number:064}"), if number == 0 { "" } else { "," });
        let names = format!(r#""Names":["/crowd-{number}"],"Image":"crowd:1","Command":"sleep infinity""#);
        let labels = labels();
        write!(
            text,
            r#"{comma}{{"Id":"{id}",{names},"State":"running","Status":"Up","Labels":{{{labels}}},"Ports":[]}}"#
        )
        .expect("there is memory for it");
    }
    text.push(']');
    text
}

fn inspected(id: &str) -> String {
    let number = id.trim_start_matches('0').parse().unwrap_or(0);
    let (labels, port) = (labels(), FIRST_PORT + number);
    format!(
        r#"{{"Id":"{id}","Name":"/crowd-{number}","Image":"sha256:{id}","RestartCount":0,
"State":{{"Status":"running","OOMKilled":false,"ExitCode":0,"StartedAt":"2026-11-21T18:06:04.085927295Z","FinishedAt":"0001-01-01T00:00:00Z"}},
"HostConfig":{{"NetworkMode":"default","RestartPolicy":{{"Name":"always"}},"Memory":67108864,"NanoCpus":500000000}},
"Config":{{"Env":["A={FILLER}","B={FILLER}"],"Cmd":["sleep","infinity"],"Image":"crowd:1","Labels":{{{labels}}}}},
"NetworkSettings":{{"Ports":{{"80/tcp":[{{"HostIp":"127.0.0.1","HostPort":"{port}"}}]}},"Networks":{{"crowd":{{}}}}}}}}"#
    )
}

fn labels() -> String {
    let label = |number: usize| format!(r#""org.example.label-{number}":"{FILLER}""#);
    (0..8).map(label).collect::<Vec<_>>().join(",")
}
