//! What is sent to strangers holds nothing of what makes a node or a collector itself.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use dunlin_tests::process::Program;
use dunlin_tests::site::HTTP;
use dunlin_tests::tool;

use super::{LIMIT, Site};

/// What people call their things.
const NAME: &str = "till-of-acme";
const LABEL: &str = "acme-holding";

/// The texts of an archive that only its owner may read.
fn texts(file: &Path) -> String {
    assert_eq!(fs::metadata(file).expect("it is there").permissions().mode() & 0o777, 0o600);
    tool::run("tar", &["-xOf", &file.to_string_lossy()]).expect("it is a tar file")
}

/// Every secret below a state directory, as it would look when it was copied: what is text line by line, the rest whole.
fn secrets(dir: &Path) -> Vec<String> {
    let files = ["admin-token", "ca.key", "collector.key", "endpoint.key", "node.key", "node.pem", "ca.pem"];
    let found: Vec<_> = files.iter().filter_map(|name| fs::read(dir.join(name)).ok()).collect();
    assert!(found.len() >= 3, "{}", dir.display());
    let lines = |bytes: &Vec<u8>| {
        let text = String::from_utf8_lossy(bytes).into_owned();
        text.lines()
            .filter(|line| line.len() >= 12 && !line.starts_with("-----"))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    found.iter().flat_map(lines).collect()
}

fn holds_none(what: &str, text: &str, secrets: &[String]) {
    for secret in secrets {
        assert!(!text.contains(secret.as_str()), "{what} holds {secret}");
    }
}

#[test]
fn a_bundle_of_either_program_holds_no_secret_and_what_helps() {
    let site = Site::start();
    let token = site.token(&["--label", &format!("tenant={LABEL}")]);
    let host = site.host_of(("host", NAME), (1, 1), Some(&token), "127.0.0.1:9737");
    site.up(NAME, &host);
    let word = fs::read_to_string(&token).expect("it is there").trim().to_owned();
    // The part that is secret; its pin is in every certificate.
    let secret = word.split('.').nth(1).expect("a token has three parts").to_owned();
    let keys = [secrets(&site.state()), secrets(&host.state), vec![secret]].concat();

    let file = site.scratch.join("collector.tar");
    site.does(&["bundle".as_ref(), &file]);
    let text = texts(&file);
    holds_none("the collector's bundle", &text, &keys);
    let version = env!("CARGO_PKG_VERSION");
    for part in [
        &format!("dunlin-collector {version} at "),
        "retention.full = \"2d\"  # default",
        "it runs and is ready",
        "dunlin_frames_committed_total",
        "1 nodes",
        &format!("version {version} up 1"),
        "control.db",
        "INFO ready quic=",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let (done, said) = site.collector_does(&["bundle".as_ref(), &file]);
    assert!(!done && said.contains("it is there already; name another file"), "{said}");

    // The log is for the admin socket alone.
    let answer = site.collector.get(HTTP, "/-/lately").expect("it answers");
    assert!(answer.status == 401 && !answer.body.contains("INFO"), "{} {}", answer.status, answer.body);

    let file = site.scratch.join("quiet.tar");
    site.does(&["bundle".as_ref(), "--without-log".as_ref(), &file]);
    let text = texts(&file);
    holds_none("the collector's bundle without its log", &text, &[&keys[..], &[NAME.into(), LABEL.into()]].concat());
    assert!(!text.contains("INFO ready"), "{text}");

    let file = site.scratch.join("agent.tar");
    let program = Program::ours("dunlin-agent", "dunlin-agent").expect("it is built").inside(&site.namespace);
    let program = program.arg("check").arg("--bundle").arg(&file).arg("--state-dir").arg(&host.state);
    let program = program.arg("--join-token-file").arg(&token).args(["--name", NAME]);
    let program = program.args(["--labels", &format!("tenant={LABEL}"), "--collectors", "127.0.0.1:9737"]);
    let mut running = program.start().expect("it starts");
    running.wait_exit(LIMIT).expect("it ends");
    let text = texts(&file);
    holds_none("the agent's bundle", &text, &[&keys[..], &[NAME.into(), LABEL.into()]].concat());
    for part in ["answers and takes the certificate of this node", "name = (withheld)  # flag", "node.key", "kernel "] {
        assert!(text.contains(part), "{part}: {text}\n{}", running.log_text());
    }
}

#[test]
fn a_bundle_of_a_collector_that_is_stopped_says_so_in_the_place_of_what_it_was_not_told() {
    let mut site = Site::start();
    site.collector.terminate(LIMIT).expect("it stops");
    let file = site.scratch.join("stopped.tar");
    site.does(&["bundle".as_ref(), &file]);
    let text = texts(&file);
    assert_eq!(text.matches("the collector was not asked: ").count(), 3, "{text}");
    assert!(text.contains("files are sound") && text.contains("ca.key"), "{text}");
    holds_none("the bundle", &text, &secrets(&site.state()));
}
