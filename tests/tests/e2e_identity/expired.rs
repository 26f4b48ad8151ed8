//! A certificate of which the time is up: the key that is proved brings another one, and nobody a second identity.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use dunlin_shared::time::WallMs;
use dunlin_tests::pki::age_certificate;
use dunlin_tests::site::counter;

use super::{Host, REVOKED, Site};

const EXPIRED: &[&str] = &["the time of this agent's certificate is up", "it is asked for another one"];

/// Certificates of nodes last seven days.
const OFF_MS: i64 = 10 * 24 * 3_600_000;

/// As if the host had been off for longer than its certificate lasts.
pub(super) fn expire(site: &Site, host: &Host) -> Vec<u8> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is later than 1970");
    let then = WallMs(i64::try_from(now.as_millis()).expect("it fits for long")).plus(-OFF_MS);
    let copy = site.scratch.join("authority");
    age_certificate(&site.scratch.join("collector"), &host.state, &copy, then).expect("it is signed");
    fs::read(host.state.join("node.pem")).expect("it is there")
}

#[test]
fn a_node_that_was_off_too_long_proves_its_key_and_comes_back_as_the_node_that_it_was() {
    let site = Site::start();
    let token = site.token(&["--uses", "1", "--label", "env=prod"]);
    let mut host = site.host("web", (1, 1), Some(&token));
    let id = site.up("web", &host);
    let key = fs::read(host.state.join("node.key")).expect("it is there");
    host.stop();
    fs::remove_file(&token).expect("it is there");
    let expired = expire(&site, &host);

    let mut host = site.host("web", (2, 1), None);
    host.wait_log("streaming to the collector");
    host.complains(EXPIRED);
    assert_eq!(site.up("web", &host), id);
    assert_ne!(fs::read(host.state.join("node.pem")).expect("it is there"), expired);
    assert_eq!(fs::read(host.state.join("node.key")).expect("it is there"), key, "a renewal changes no key");
    let nodes = site.nodes();
    assert_eq!((nodes.len(), &nodes[0]["labels"]["env"]), (1, &"prod".into()), "{nodes:#?}");
    assert_eq!(site.events("node.enrolled"), 1);
    assert!(counter(&site.scrape(), "dunlin_handshakes_failed_total", &[]) >= 1, "TLS turned the old one away");
    assert!(!host.running.log_text().contains("panicked"));
}

#[test]
fn a_revoked_node_is_not_let_in_again_for_the_sake_of_an_expired_certificate() {
    let site = Site::start();
    let token = site.token(&[]);
    let mut host = site.host("web", (1, 1), Some(&token));
    let id = site.up("web", &host);
    site.done(&["revoke", "web"]);
    host.complains(REVOKED);
    host.stop();
    let expired = expire(&site, &host);

    // With a token that is good for any number of new nodes: it is no new node.
    let mut host = site.host("web", (1, 1), Some(&token));
    host.complains_of(&[EXPIRED, REVOKED]);
    let nodes = site.nodes();
    assert_eq!((nodes.len(), &nodes[0]["id"], &nodes[0]["state"]), (1, &id.into(), &"revoked".into()), "{nodes:#?}");
    assert_eq!(fs::read(host.state.join("node.pem")).expect("it is there"), expired, "it was given nothing");
    let refused = counter(&site.scrape(), "dunlin_joins_refused_total", &[("reason", "revoked_node")]);
    assert!(refused >= 1, "{}", site.collector.log_text());
    assert!(!host.running.log_text().contains("streaming"), "{}", host.running.log_text());
}
