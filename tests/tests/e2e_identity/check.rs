//! What `dunlin-agent check` says of an identity: what a handshake tells, and for the rest what the service tells.

use std::fs;
use std::path::Path;

use dunlin_tests::process::Program;

use super::{Host, LIMIT, Site};

/// Exit codes of a Nagios check.
const OK: Option<i32> = Some(0);
const WARNING: Option<i32> = Some(1);
const CRITICAL: Option<i32> = Some(2);

impl Site {
    /// Of the host with this state directory, as root on it.
    fn check(&self, state: &Path, token: Option<&Path>) -> (Option<i32>, String) {
        let program = Program::ours("dunlin-agent", "dunlin-agent").expect("it is built").inside(&self.namespace);
        let program = program.arg("check").arg("--state-dir").arg(state);
        let mut program = program.args(["--collectors", "127.0.0.1:9737"]);
        if let Some(token) = token {
            program = program.arg("--join-token-file").arg(token);
        }
        let mut running = program.start().expect("it starts");
        let status = running.wait_exit(LIMIT).expect("it ends");
        (status.code(), running.log_text())
    }

    /// A host that was a node and stands still.
    fn stopped(&self, name: &str) -> Host {
        let token = self.token(&[]);
        let mut host = self.host(name, (1, 1), Some(&token));
        self.up(name, &host);
        host.stop();
        host
    }
}

#[test]
fn a_check_says_that_a_certificate_has_expired_and_leaves_it_alone() {
    let site = Site::start();
    let host = site.stopped("web");
    // A service that has ended is a warning of its own.
    fs::remove_file(host.state.join("sight")).ok();
    let (code, said) = site.check(&host.state, None);
    assert_eq!(code, OK, "{said}");
    assert!(said.contains("answers and takes the certificate of this node"), "{said}");
    let expired = super::expired::expire(&site, &host);
    let (code, said) = site.check(&host.state, None);
    assert_eq!(code, CRITICAL, "{said}");
    assert!(said.contains("the time of this agent's certificate is up"), "{said}");
    assert!(!said.contains("takes the certificate"), "{said}");
    assert_eq!(fs::read(host.state.join("node.pem")).expect("it is there"), expired);
}

#[test]
fn a_check_says_that_a_node_was_revoked_whether_its_service_runs_or_not() {
    let site = Site::start();
    let token = site.token(&[]);
    let mut host = site.host("web", (1, 1), Some(&token));
    site.up("web", &host);
    site.done(&["revoke", "web"]);
    host.wait_log("this node was revoked");
    for runs in [true, false] {
        if !runs {
            host.stop();
        }
        let (code, said) = site.check(&host.state, None);
        assert_eq!(code, CRITICAL, "{runs}: {said}");
        assert!(said.contains("this node was revoked") && said.contains("dunlin-agent seal"), "{runs}: {said}");
    }
}

#[test]
fn a_check_says_what_the_service_is_told_of_its_node() {
    let site = Site::start();
    let token = site.token(&["--approve"]);
    let mut host = site.host("late", (1, 1), Some(&token));
    host.wait_log("this node waits for approval; somebody must approve it on the collector");
    let file = host.state.join("sight");
    let sight = |words: &str| {
        let told = || fs::read_to_string(&file).is_ok_and(|text| text.contains(words));
        dunlin_tests::deadline::until(words, LIMIT, || told().then_some(())).expect("the service tells it");
    };
    sight("source\tuplink\tfailed\t");
    let (code, said) = site.check(&host.state, None);
    assert_eq!(code, CRITICAL, "{said}");
    assert!(said.contains("X collector 127.0.0.1:9737: ") && said.contains("! what the service sends: "), "{said}");
    assert!(said.matches("this node waits for approval").count() >= 2, "{said}");

    site.done(&["approve", "late"]);
    host.stop();
    let mut host = site.host("late", (1, 1), None);
    host.wait_log("streaming to the collector");
    sight("source\tuplink\tworks\t");
    let (_, said) = site.check(&host.state, None);
    assert!(said.contains("  what the service sends: works: streaming to 127.0.0.1:9737"), "{said}");
    assert!(said.contains("answers and takes the certificate of this node"), "{said}");
    // The fleet's picture is made anew each second.
    let is_up = || matches!(&site.nodes()[..], [one] if one["state"] == "up").then_some(());
    dunlin_tests::deadline::until("the node is up", LIMIT, is_up).expect("a check is no second machine");
}

#[test]
fn a_check_before_the_first_start_tries_the_collector_of_the_join_token_and_uses_nothing_of_it() {
    let site = Site::start();
    let other = Site::start();
    let state = site.scratch.join("web");
    let (code, said) = site.check(&state, None);
    assert_eq!(code, WARNING, "{said}");
    assert!(said.contains("this host is not enrolled, and no join token is seen: give it a join token"), "{said}");

    let token = site.token(&["--uses", "1"]);
    let (code, said) = site.check(&state, Some(&token));
    assert_eq!(code, OK, "{said}");
    assert!(said.contains("answers and is the collector of the join token, of which nothing was sent"), "{said}");
    let (code, said) = site.check(&state, Some(&other.token(&[])));
    assert_eq!(code, CRITICAL, "{said}");
    assert!(said.contains("is not the collector of this join token"), "{said}");
    let garbage = site.scratch.join("garbage");
    fs::write(&garbage, "hunter2").expect("it is writable");
    let (code, said) = site.check(&state, Some(&garbage));
    assert_eq!(code, CRITICAL, "{said}");
    assert!(said.contains("this is no join token") && !said.contains("hunter2"), "{said}");

    assert!(!state.exists(), "a check changes nothing");
    let host = site.host("web", (1, 1), Some(&token));
    site.up("web", &host);
}
