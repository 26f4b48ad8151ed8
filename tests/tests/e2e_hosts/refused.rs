//! What goes wrong on the way in: the installation is whole all the same, one line of `systemctl status` says what it is,
//! and the service goes on trying where that can help.

use dunlin_tests::firewall::{self, Loss, Way};

use crate::{LIMIT, Pair, VERSION, package};

/// Where nothing answers: the collector's host, another port.
const WRONG_ADDRESS: &str = "10.97.1.1:9999";

#[test]
fn what_is_wrong_on_the_way_in_stands_in_one_line_and_is_mended_by_pasting_the_right_one() {
    let pair = Pair::with_collector();
    pair.web.put(&package("dunlin-agent", VERSION), "/root").expect("it is writable");

    // Nothing is configured: it says so, and is not started again and again.
    let said = pair.web.run("dpkg -i /root/dunlin-agent_*.deb 2>&1").expect("it installs");
    assert!(said.contains("dunlin-collector invite"), "{said}");
    let stopped = pair.web.wait("the end of an agent without a collector", LIMIT, || {
        (pair.web.property("dunlin-agent", "ExecMainStatus").ok()? == "78").then_some(())
    });
    stopped.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(pair.web.property("dunlin-agent", "ActiveState").expect("a state"), "failed");
    let status = pair.web.run("systemctl status dunlin-agent || true").expect("it says");
    assert!(status.contains("collectors") && status.contains("78"), "{status}");

    let line = pair.invitation("--uses 2");
    let wrong = line.replace("10.97.1.1:9737", WRONG_ADDRESS);
    pair.paste(&wrong);
    pair.wait_status(WRONG_ADDRESS);
    assert_eq!(pair.web.property("dunlin-agent", "ActiveState").expect("a state"), "active", "it keeps trying");

    // A word that is no token, and a token that nobody gave.
    let (before, token) = line.split_once("DUNLIN_JOIN_TOKEN=").expect("it has one");
    let (token, after) = token.split_once(' ').expect("the command follows");
    pair.paste(&format!("{before}DUNLIN_JOIN_TOKEN=hunter2 {after}"));
    pair.wait_status("/etc/dunlin/join-token");
    pair.collector.run("dunlin token delete t2").expect("the first is an admin's");
    pair.paste(&format!("{before}DUNLIN_JOIN_TOKEN={token} {after}"));
    pair.wait_status("the join token was revoked");

    // Nothing of it was lost on the way: the next line is enough.
    pair.paste(&pair.invitation(""));
    let node = pair.wait_up();

    firewall::lose(&pair.network.collector, Way::In, Loss::All).expect("a firewall");
    pair.web.run("systemctl restart dunlin-agent").expect("it starts");
    pair.wait_status("10.97.1.1:9737");
    pair.wait_status("not connected");
    firewall::clear(&pair.network.collector).expect("it goes");
    assert_eq!(pair.wait_up(), node);
}

#[test]
fn a_host_where_systemd_does_not_run_gets_the_package_and_starts_it_with_its_next_boot() {
    let mut pair = Pair::with_collector();
    let line = pair.invitation("");
    pair.web.put(&package("dunlin-agent", VERSION), "/root").expect("it is writable");
    // As in an image that is built: dpkg runs, and nothing else.
    let install = format!("unshare -m sh -c 'mount -t tmpfs none /run && cd /root && {line}'");
    pair.web.run(&install).expect("it installs");
    assert_eq!(pair.web.property("dunlin-agent", "ActiveState").expect("a state"), "inactive");
    pair.web.reboot().expect("it boots");
    pair.wait_up();
}
