//! The authority turns while the fleet goes on.

use std::fs;
use std::path::Path;

use dunlin_tests::deadline::until;

use super::{Host, LIMIT, Site};

/// Authorities that the agent believes.
fn believed(host: &Host) -> usize {
    certificates(&host.state.join("ca.pem"))
}

fn certificates(path: &Path) -> usize {
    fs::read_to_string(path).map_or(0, |text| text.matches("BEGIN CERTIFICATE").count())
}

#[test]
fn agents_follow_their_collector_to_the_next_authority_and_old_tokens_still_join() {
    let site = Site::start();
    let token = site.token(&[]);
    let mut host = site.host("web", (1, 1), Some(&token));
    let id = site.up("web", &host);
    let certificate = fs::read(host.state.join("node.pem")).expect("it is there");

    site.done(&["authority", "prepare"]);
    host.running.terminate(LIMIT).expect("it stops");
    let mut host = site.host("web", (1, 1), None);
    until("it knows the next authority", LIMIT, || (believed(&host) == 2).then_some(())).expect("it is told");
    site.done(&["authority", "activate"]);
    let renewed = || fs::read(host.state.join("node.pem")).is_ok_and(|now| now != certificate);
    host.running.terminate(LIMIT).expect("it stops");
    let restarted = site.host("web", (1, 1), None);
    until("it has a certificate of the next authority", LIMIT, || renewed().then_some(())).expect("it is renewed");
    let late = site.host("late", (2, 2), Some(&token));
    site.up("late", &late);

    site.done(&["authority", "retire"]);
    drop(restarted);
    let host = site.host("web", (1, 1), None);
    site.wait("it is the same node under the next authority", &[&host], |nodes| {
        nodes.iter().any(|node| node["id"] == id.as_str() && node["state"] == "up").then_some(())
    });
    assert!(site.done(&["log"]).contains("authority.retire"));
}
