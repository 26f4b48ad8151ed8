//! What an agent says when its collector, its token or its certificate is not the right one: one line that says
//! which and what to do, and again only at every power of two of its tries.

use std::fs;
use std::path::PathBuf;

use dunlin_tests::pki::{Authority, node_ids};

use super::{Host, Site};

/// Nothing listens there.
const NOBODY: &str = "127.0.0.1:9741";

impl Host {
    /// Waits for the complaint, which is all in one line, and for nothing else of its kind beside it.
    pub(super) fn complains(&mut self, words: &[&str]) {
        self.complains_of(&[words]);
    }

    /// The same of several: each all in one line, and nothing else of their kind beside them.
    pub(super) fn complains_of(&mut self, complaints: &[&[&str]]) {
        for words in complaints {
            self.wait_log(words[0]);
        }
        let said = self.running.log_text();
        for words in complaints {
            let lines: Vec<&str> = said.lines().filter(|line| line.contains(words[0])).collect();
            assert!(words.iter().all(|word| lines[0].contains(word)), "{words:?}: {said}");
            assert!(lines[0].contains("WARN"), "{said}");
            let times = lines.iter().map(|line| {
                let number = line.split("times=").nth(1).and_then(|rest| rest.split_whitespace().next());
                number.and_then(|number| number.parse::<u64>().ok()).unwrap_or_else(|| panic!("{line}"))
            });
            let expected = (0..).map(|power| 1_u64 << power).take(lines.len());
            assert!(times.eq(expected), "{said}");
        }
        let is_known = |line: &str| complaints.iter().any(|words| line.contains(words[0]));
        let others: Vec<_> = said.lines().filter(|line| line.contains("not connected") && !is_known(line)).collect();
        assert!(others.is_empty(), "{others:?}");
    }
}

impl Site {
    /// The word of a token, in a file of its own.
    fn token_file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.scratch.join(name);
        fs::write(&path, text).expect("it can be written");
        path
    }

    fn join_token(&self, arguments: &[&str]) -> String {
        self.done(&[&["token", "create", "--role", "join"], arguments].concat())
    }
}

#[test]
fn a_token_that_is_no_good_is_named_with_the_reason_and_what_to_do() {
    let site = Site::start();
    let good = site.join_token(&[]);
    let pin = good.trim().rsplit_once('.').expect("a token ends with its pin").1.to_owned();
    let deleted = site.join_token(&["--name", "gone"]);
    let listed = site.done(&["token", "list"]);
    let id = listed.lines().find(|line| line.contains("gone")).and_then(|line| line.split(' ').next());
    site.done(&["token", "delete", id.expect("it is listed")]);
    let another = "make another one";
    let cases = [
        ("expired", site.join_token(&["--ttl", "1ms"]), ["the time of the join token is up", another]),
        ("deleted", deleted, ["the join token was revoked", another]),
        (
            "guessed",
            format!("dunlin-join.AAAAAAAAAAAAAAAAAAAAAAAAAAA.{pin}"),
            ["the collector does not know the join token", another],
        ),
        ("garbage", String::from("hunter2"), ["this is no join token", "garbage.token"]),
    ];
    for (name, token, words) in cases {
        let file = site.token_file(&format!("{name}.token"), &token);
        site.host(name, (1, 1), Some(&file)).complains(&words);
    }
    // One of the API is none either, and says for what it is.
    let viewer = site.done(&["token", "create", "--role", "viewer"]);
    let file = site.token_file("viewer.token", &viewer);
    site.host("viewer", (1, 1), Some(&file)).complains(&["this is no join token", "viewer.token"]);
    assert!(site.nodes().is_empty(), "{:#?}", site.nodes());
    let log = site.done(&["log"]);
    assert!(log.contains("join.refused"), "who tries tokens stands in the log: {log}");
}

#[test]
fn a_collector_that_is_not_there_or_another_one_is_named_with_what_to_do() {
    let site = Site::start();
    let other = Site::start();
    let token = other.token(&[]);
    // The token of another fleet: its authority is another one.
    let mut stray = site.host("stray", (1, 1), Some(&token));
    stray.complains(&["is not the collector of this join token", "127.0.0.1:9737", "take a token of this collector"]);
    assert!(fs::metadata(stray.state.join("node.pem")).is_err(), "it believed nobody");

    // A node of another fleet: neither side believes the other, and it is told how to move.
    let mut moved = other.host("moved", (1, 1), Some(&token));
    other.up("moved", &moved);
    moved.stop();
    moved.copied_to(&other, "kept");
    fs::rename(other.scratch.join("kept"), site.scratch.join("moved")).expect("both are ours");
    let mut moved = site.host("moved", (1, 1), None);
    moved.complains(&[
        "this agent does not believe the collector's certificate",
        "is its ca.pem that of this collector?",
        "dunlin-agent seal",
    ]);

    // Nobody listens there.
    let own = site.token(&[]);
    let mut alone = site.host_of(("alone", "alone"), (1, 1), Some(&own), NOBODY);
    alone.complains(&[NOBODY, "did not answer within 5 s", "is the collector running", "does UDP reach it?"]);
    assert!(site.nodes().is_empty(), "{:#?}", site.nodes());
}

#[test]
fn a_certificate_that_the_collector_does_not_take_is_said_with_what_to_do() {
    let site = Site::start();
    // Of an authority that only calls itself the fleet's: the agent believes the collector, and not the other way.
    let stranger = site.scratch.join("stranger");
    let node = Authority::new().and_then(|other| other.node(node_ids(1, 9)[0])).expect("a certificate");
    let ca = fs::read(site.scratch.join("collector").join("ca.pem")).expect("it is there");
    node.identity().write(&stranger, &[], "node").expect("it is writable");
    fs::write(stranger.join("ca.pem"), ca).expect("it is writable");
    let mut host = site.host("stranger", (1, 1), None);
    host.wait_log("the collector does not know this agent's key, and there is no join token");
    let said = host.running.log_text();
    assert!(said.contains("give it a join token"), "{said}");
    let warned: Vec<_> = said.lines().filter(|line| line.contains("not connected")).collect();
    assert!(warned.iter().all(|line| line.contains("times=")) && warned.len() <= 3, "{warned:?}");

    // A token mends it without anybody's hand on the host: the key stays, and is a node from now on.
    let id = {
        let token = site.token(&[]);
        host.stop();
        let host = site.host("stranger", (1, 1), Some(&token));
        site.up("stranger", &host)
    };
    assert_ne!(id, node.id.to_string(), "what its certificate said counts for nothing");
}
