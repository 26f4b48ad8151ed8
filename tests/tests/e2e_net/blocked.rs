//! What `dunlin-agent check` says of a way to the collector that is shut: each reason by its own words, with what to do.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use dunlin_tests::firewall::{self, Loss, Way};
use dunlin_tests::pki::{Authority, node_ids};
use dunlin_tests::process::Program;
use dunlin_tests::scratch::Scratch;
use dunlin_tests::site::{Collector, QUIC_PORT, with_files};
use dunlin_tests::topology::{COLLECTOR, Direct};

use crate::LIMIT;

const CRITICAL: Option<i32> = Some(2);
/// Nothing listens on this port.
const CLOSED_PORT: u16 = 9741;
/// There is no way to it from a network that leads nowhere else.
const ELSEWHERE: &str = "192.0.2.1";

struct Host<'n> {
    net: &'n Direct,
    files: Scratch,
}

impl Host<'_> {
    /// What a check of this identity says of one collector.
    fn check(&self, state: &Path, collector: &str) -> (Option<i32>, String) {
        let (hosts, conf) = (self.files.join("hosts"), self.files.join("resolv.conf"));
        fs::write(&hosts, "127.0.0.1 localhost\n").expect("it is writable");
        // Nobody answers there, and the kernel says so at once.
        fs::write(&conf, "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n").expect("it is writable");
        let prefix = with_files(&[(&hosts, "/etc/hosts"), (&conf, "/etc/resolv.conf")]).expect("unshare is there");
        let program = Program::ours("dunlin-agent", "dunlin-agent").expect("it is built").inside(&self.net.agent);
        let program = program.under(prefix).arg("check").arg("--state-dir").arg(state);
        let mut running = program.args(["--collectors", collector]).start().expect("it starts");
        let status = running.wait_exit(LIMIT).expect("it ends");
        (status.code(), running.log_text())
    }

    fn is_shut(&self, state: &Path, collector: &str, words: &[&str]) {
        let (code, said) = self.check(state, collector);
        assert_eq!(code, CRITICAL, "{said}");
        let line = said.lines().find(|line| line.starts_with("X collector")).unwrap_or_else(|| panic!("{said}"));
        assert!(words.iter().all(|word| line.contains(word)), "{words:?}: {line}");
    }
}

/// The state of a node of this authority.
fn enrolled(authority: &Authority, number: usize) -> Scratch {
    let state = Scratch::in_memory("checked").expect("a directory");
    let node = node_ids(number, 0)[number - 1];
    let identity = authority.node(node).expect("a certificate");
    identity.identity().write(state.path(), authority.ca_der(), "node").expect("it is writable");
    state
}

#[test]
fn udp_that_is_blocked_refused_or_without_a_way_is_told_apart_from_a_wrong_name_and_a_wrong_authority() {
    let net = Direct::new().expect("the rig makes a network");
    let (authority, other) = (Authority::new().expect("an authority"), Authority::new().expect("an authority"));
    let _collector = Collector::start(&net.collector, &authority).expect("a collector");
    let (state, stranger) = (enrolled(&authority, 41), enrolled(&other, 42));
    let host = Host { net: &net, files: Scratch::new("names").expect("a directory") };
    let address = SocketAddr::from((COLLECTOR, QUIC_PORT)).to_string();

    let (code, said) = host.check(state.path(), &address);
    assert!(code == Some(0) && said.contains("answers and takes the certificate of this node"), "{said}");
    host.is_shut(stranger.path(), &address, &["does not believe the collector's certificate", "dunlin-agent seal"]);
    let names = ["no nameserver could resolve collector.fleet.test", "/etc/resolv.conf"];
    host.is_shut(state.path(), "collector.fleet.test", &names);
    let closed = SocketAddr::from((COLLECTOR, CLOSED_PORT)).to_string();
    host.is_shut(state.path(), &closed, &[&closed, "UDP is refused: nothing listens on this port", "quic_listen"]);
    host.is_shut(state.path(), ELSEWHERE, &["Network is unreachable"]);

    firewall::lose(&net.collector, Way::In, Loss::All).expect("the firewall");
    let blocked = ["UDP is blocked: the host answers TCP", "Let UDP pass to this port and back"];
    host.is_shut(state.path(), &address, &blocked);
    // Before it is enrolled, too.
    let nobody = Scratch::new("nobody").expect("a directory");
    let (code, said) = host.check(nobody.path(), &address);
    assert!(code == Some(1) && said.starts_with("WARNING: identity: this host is not enrolled"), "{said}");
    assert!(blocked.iter().all(|words| said.contains(words)), "{said}");
    firewall::drop_all(&net.collector).expect("the firewall");
    host.is_shut(state.path(), &address, &["neither UDP nor TCP gets an answer", "the host is down"]);
    firewall::clear(&net.collector).expect("the firewall");
    let (code, said) = host.check(nobody.path(), &address);
    assert!(code == Some(1) && said.contains("answers over UDP; no connection was tried"), "{said}");
    assert_eq!(fs::read_dir(nobody.path()).expect("it is there").count(), 0, "a check changes nothing");
}
