//! Secrets that containers are started with, in arguments, environment, entry point and health check: they stand in no
//! frame, no file, no log, no answer, and nothing that the agent's commands print.

use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use dunlin_collector::record::{Event, Pos};
use dunlin_collector::store::Reader;
use dunlin_tests::deadline::until;
use dunlin_tests::engines::{Engine, IMAGE, Kind};
use dunlin_tests::netns::Namespace;
use dunlin_tests::site::QUIC_PORT;
use serde_json::Value;

use crate::{LIMIT, SECRET, Site, container, engine};

/// How long an answer that does not end is read.
const STREAM_LIMIT: Duration = Duration::from_secs(2);
/// A real server, with what it needs of the host's files.
const REDIS: &[&str] = &["-v", "/usr:/usr:ro", "-v", "/lib:/lib:ro", "-v", "/lib64:/lib64:ro", "-v", "/etc:/etc:ro"];
const ENTRY: &str = r#"ENTRYPOINT ["sh","-c","while :; do sleep 0.1; done # S3CRET3"]"#;
/// All of them begin as `SECRET` does.
const SECRETS: [&str; 4] = ["S3CRET1", "S3CRET2", "S3CRET3", "S3CRET4"];

#[test]
fn secrets_of_containers_reach_no_frame_file_log_or_answer() {
    let namespace = Namespace::new("secret").expect("a namespace");
    let docker = engine(Kind::Docker, &namespace);
    start_vaults(&docker);
    let mut site = Site::start(&namespace, &docker);
    for name in ["vault", "entry"] {
        site.wait(name, |history| container(history, name).filter(|one| one.is_told));
    }
    let is_group = |one: &Value| one["name"] == "redis-server" && one["container"] == "vault";
    site.wait_listed("processes", is_group);
    // The engine knows them, and so does every process that may look.
    let known = docker.run(&["inspect", "vault", "entry"]).expect("it tells");
    assert!(SECRETS.iter().all(|secret| known.contains(secret)), "{known}");
    docker.run(&["exec", "-e", "TOKEN=S3CRET2", "vault", "/bin/sh", "-c", "true # S3CRET1"]).expect("it does");
    docker.run(&["restart", "-t", "0", "vault"]).expect("it does");
    site.wait_happened("vault", "container.started", 1);

    for (what, text) in answers(&site) {
        assert!(!text.is_empty() && !text.contains(SECRET), "{what}: {text}");
    }
    // Who does not stay gives an engine a second, which a busy machine may not have.
    for (words, parts) in [
        (&["once"][..], &["vault", "redis-server"][..]),
        (&["once", "--json"], &["\"name\":\"vault\"", "\"image\":\"box\"", "\"name\":\"docker at /"]),
        (&["check"], &["engine.sock: works: 3 containers: docker, API "]),
    ] {
        let said = until(&format!("{words:?} with {parts:?}"), LIMIT, || {
            let said = site.said_by_agent(words);
            assert!(!said.contains(SECRET), "{words:?}: {said}");
            parts.iter().all(|part| said.contains(part)).then_some(said)
        });
        said.unwrap_or_else(|error| panic!("{error}: {}", site.said_by_agent(words)));
    }
    site.has_no_secret();
    frames_have_no_secret(&site);
    // What a stopping agent parks, and what a stopping collector writes.
    assert!(site.agent.terminate(LIMIT).expect("it ends").success(), "{}", site.agent.log_text());
    site.collector.terminate().expect("it ends");
    site.has_no_secret();
    frames_have_no_secret(&site);
}

fn start_vaults(docker: &Engine<'_>) {
    let options =
        ["--network", "none", "-e", "TOKEN=S3CRET2", "--health-cmd", "true # S3CRET4", "--health-interval", "1s"];
    let words = ["/usr/bin/redis-server", "--requirepass", "S3CRET1", "--save", ""];
    docker.launch("vault", &[&options[..], REDIS].concat(), &words).expect("it starts");
    docker.run(&["create", "--name", "model", IMAGE, "true"]).expect("it is made");
    docker.run(&["commit", "--change", ENTRY, "model", "entry"]).expect("it is made");
    docker.run(&["run", "-d", "--name", "entry", "--network", "host", "entry"]).expect("it starts");
}

/// Every frame as its agent built it, whatever its form on disk.
fn frames_have_no_secret(site: &Site<'_>) {
    let reader = Reader::new(&site.collector.state_dir().join("window"));
    let mut frames = 0;
    for record in reader.scan(Pos(0)).expect("it can be read") {
        let (_, record) = record.expect("it is whole");
        if let Event::Frame { frame, .. } = record.event {
            frames += 1;
            assert!(!holds(&frame.body), "{:?}", frame.id);
        }
    }
    assert!(frames > 3, "{frames}");
}

fn holds(bytes: &[u8]) -> bool {
    bytes.windows(SECRET.len()).any(|part| part == SECRET.as_bytes())
}

/// Whatever can be asked of the collector by reading, as its own description lists it, and what `dunlin` makes of it.
fn answers(site: &Site<'_>) -> Vec<(String, String)> {
    let described = get(site, "/openapi.json");
    let described: Value = serde_json::from_str(&described).expect("it is JSON");
    let paths = described["paths"].as_object().expect("paths");
    let node = site.node().to_string();
    let mut answers = Vec::new();
    for (path, verbs) in paths.iter().filter(|(_, verbs)| verbs.get("get").is_some()) {
        let mut path = path.replace("/nodes/{id}", &format!("/nodes/{node}"));
        // What is not there is told without what was asked for.
        for (place, named) in NAMED {
            path = path.replace(place, named);
        }
        assert!(verbs["get"].is_object() && !path.contains('{'), "{path} is about something that nobody named");
        for metric in if path.ends_with("/series") { METRICS } else { &[""] } {
            let path = format!("{path}{metric}");
            answers.push((path.clone(), get(site, &path)));
        }
    }
    assert!(answers.len() >= 12, "{}", answers.len());
    for words in [&["nodes"][..], &["node", &node], &["containers"], &["processes"], &["ports"], &["metrics", &node]] {
        answers.push((words.join(" "), site.dunlin(words).to_string()));
    }
    answers
}

/// Something of each that is about one thing; the rule ships.
const NAMED: [(&str, &str); 4] = [
    ("/rules/{name}", "/rules/container-down"),
    ("/rule-sets/{name}", "/rule-sets/none"),
    ("/alerts/{id}", "/alerts/000000"),
    ("/silences/{id}", "/silences/s1"),
];

const METRICS: &[&str] = &[
    "?metric=container_memory_used_bytes&from=1h",
    "?metric=process_count&from=1h",
    "?metric=process_cpu_seconds&from=1h",
    "?metric=host_memory_used_bytes&from=1h",
];

/// Over the socket of the collector's own host, where root is an admin.
fn get(site: &Site<'_>, path: &str) -> String {
    let mut stream = UnixStream::connect(site.collector.state_dir().join("admin.sock")).expect("it listens");
    stream.set_read_timeout(Some(STREAM_LIMIT)).expect("a limit");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").expect("it reads");
    let (mut answer, mut piece) = (Vec::new(), [0; 65_536]);
    loop {
        match stream.read(&mut piece) {
            Ok(0) => break,
            Ok(got) => answer.extend_from_slice(&piece[..got]),
            // A stream goes on for ever.
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => panic!("{path}: {error}"),
        }
    }
    let answer = String::from_utf8(answer).expect("it is text");
    let may_be_missing = NAMED.iter().any(|(_, named)| path.contains(named));
    let is_missing = may_be_missing && answer.starts_with("HTTP/1.1 404");
    assert!(answer.starts_with("HTTP/1.1 200") || is_missing, "{path}: {answer}");
    let (_, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    // Where it came in pieces, each has its length in front; a description is one object all the same.
    if path == "/openapi.json" {
        body[body.find('{').unwrap_or(0)..=body.rfind('}').unwrap_or(0)].to_owned()
    } else {
        body.to_owned()
    }
}

impl Site<'_> {
    /// What the agent's command prints, as the service is configured.
    fn said_by_agent(&self, words: &[&str]) -> String {
        let mut command = std::process::Command::new(crate::binary("dunlin-agent"));
        command.args(words).env("DUNLIN_AGENT_COLLECT_SOCKETS", &self.sockets);
        command.env("DUNLIN_AGENT_COLLECTORS", format!("127.0.0.1:{QUIC_PORT}"));
        command.env("DUNLIN_AGENT_STATE_DIR", self.agent.state_dir()).env("DUNLIN_LOG", "trace");
        let output = self.namespace.enter(|| command.output()).expect("the namespace is there").expect("it starts");
        let both = [output.stdout, output.stderr].concat();
        String::from_utf8(both).expect("it is text")
    }
}
