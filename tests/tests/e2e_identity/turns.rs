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

    let all_know = || site.done(&["authority"]).contains("all 2 were seen since ").then_some(());
    until("all of them know it", LIMIT, all_know).expect("they are up");
    site.done(&["authority", "retire"]);
    drop(restarted);
    let host = site.host("web", (1, 1), None);
    site.wait("it is the same node under the next authority", &[&host], |nodes| {
        nodes.iter().any(|node| node["id"] == id.as_str() && node["state"] == "up").then_some(())
    });
    assert!(site.done(&["log"]).contains("authority.retire"));
}

#[test]
fn a_node_that_slept_through_a_turn_says_what_it_needs_and_is_the_same_node_with_a_new_token() {
    let site = Site::start();
    let token = site.token(&[]);
    let mut host = site.host("web", (1, 1), Some(&token));
    let id = site.up("web", &host);
    host.stop();
    site.done(&["authority", "prepare"]);
    site.done(&["authority", "activate"]);
    let said = site.dunlin(&["authority", "retire"]).expect_err("it would lock the node out").to_string();
    assert!(said.contains("1 of 1 were not seen since ") && said.contains(": web; wait for them"), "{said}");
    site.done(&["authority", "retire", "--anyway"]);
    let mut host = site.host("web", (1, 1), None);
    host.wait_log("this agent does not believe the collector's certificate");
    host.stop();
    // The old token names the authority that is gone.
    let mut host = site.host("web", (1, 1), Some(&token));
    host.wait_log("does not believe the collector's certificate");
    host.stop();
    let host = site.host("web", (1, 1), Some(&site.token(&["--uses", "1"])));
    assert_eq!(site.up("web", &host), id, "by its key");
    assert_eq!(site.nodes().len(), 1);
}
