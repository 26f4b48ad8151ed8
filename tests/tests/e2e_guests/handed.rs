//! A machine from an image that holds no secret: it is booted with a join token as a system credential, enrols by it with
//! the labels of its image, and can be sealed into an image again.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::Command;

use dunlin_tests::deadline::until;
use dunlin_tests::guest::{Base, Guest, OUTSIDE};
use dunlin_tests::netns::Namespace;
use dunlin_tests::pki::join_token;
use dunlin_tests::site::{Collector, QUIC_PORT};
use dunlin_tests::tool;
use serde_json::Value;

use crate::{LIMIT, WORD_PORT, between, debian, write};

const SETTINGS: &str = "
[Service]
Environment=DUNLIN_AGENT_INTERVAL=1s DUNLIN_AGENT_COLLECTORS=";

/// The nodes that the collector knows.
fn nodes(collector: &Collector<'_>) -> Vec<Value> {
    let test = std::env::current_exe().expect("a test has a path");
    let binary = test.ancestors().nth(2).unwrap_or(Path::new("/")).join("dunlin");
    let url = format!("unix:{}", collector.state_dir().join("admin.sock").display());
    let mut command = Command::new(binary);
    let said = tool::finish(command.args(["nodes", "-o", "json"]).env("DUNLIN_URL", url)).expect("it answers");
    let said: Value = serde_json::from_str(&said).expect("it is JSON");
    said["items"].as_array().expect("a list").clone()
}

#[test]
fn a_machine_that_is_booted_with_a_token_enrols_with_the_labels_of_its_image_and_can_be_sealed_again() {
    let namespace = Namespace::new("handed").expect("a namespace");
    let (collector, token) = Collector::start_enrolling(&namespace, join_token(1)).expect("a collector");
    let listen = || TcpListener::bind((Ipv4Addr::LOCALHOST, WORD_PORT));
    let listener = namespace.enter(listen).expect("the namespace is there").expect("it is free");
    let files = debian(include_str!("handed.probe"));
    let unit = |name: &str, text: &str| write(files.path(), &format!("etc/systemd/system/{name}"), text);
    unit("dunlin-agent.service", include_str!("../../../systemd/dunlin-agent.service"));
    unit("dunlin-agent.service.d/test.conf", &format!("{SETTINGS}{OUTSIDE}:{QUIC_PORT}\n"));
    unit("dunlin-join-token.service", include_str!("../../../packaging/image/machine/dunlin-join-token.service"));
    write(files.path(), "etc/dunlin/agent.toml", include_str!("../../../packaging/image/machine/agent.toml"));
    write(files.path(), "postinst", include_str!("../../../packaging/deb/dunlin-agent.postinst"));
    write(files.path(), "usr/lib/dunlin/agent-setup", include_str!("../../../packaging/agent/setup"));
    write(files.path(), "seal", include_str!("../../../packaging/image/machine/seal"));
    let words = format!("systemd.set_credential=join-token:{}", token.reveal());
    let mut guest = Guest::start_with(&namespace, Base::Debian, files.path(), &words).expect("a guest");
    guest.wait_said("=== waits", LIMIT).unwrap_or_else(|error| panic!("{error}\n{}", guest.said()));
    // What the agent says of itself comes after it is up.
    let is_up = |node: &Value| node["state"] == "up" && node["labels"]["image"] == "web-1";
    let up = until("a node that is up", LIMIT, || nodes(&collector).iter().any(is_up).then_some(()));
    up.unwrap_or_else(|error| panic!("{error}: {:#?}\n{}", nodes(&collector), guest.said()));
    assert_eq!(between(&guest.said(), "=== handed", "=== waits"), "dunlin-agent 400");

    let (mut guests, _) = listener.accept().expect("the guest waits");
    guests.write_all(b"seal\n").expect("it listens");
    guests.read_to_end(&mut Vec::new()).expect("it hangs up");
    guest.wait_said("=== end", LIMIT).unwrap_or_else(|error| panic!("{error}\n{}", guest.said()));
    let said = guest.said();
    assert!(said.contains("removed /var/lib/dunlin-agent/node.key"), "{said}");
    assert!(said.contains("OK: everything that was looked at is well"), "{said}");
    assert!(said.contains("sealed 0 machine-id 0"), "{said}");
}
