//! A host that changes while its agent runs: the collector is told what it is now.

use std::ffi::OsString;

use dunlin_tests::netns::Namespace;
use dunlin_tests::pki::Authority;
use dunlin_tests::site::{Agent, Collector};
use dunlin_tests::tool;

use crate::{LIMIT, loopback};

#[test]
fn renamed_host_is_told_without_a_restart() {
    let namespace = Namespace::new("renamed").expect("a namespace");
    let authority = Authority::new().expect("an authority");
    let collector = Collector::start(&namespace, &authority).expect("a collector");
    let rename = |name: &str| format!("echo {name} > /proc/sys/kernel/hostname");
    let unshare = tool::find("unshare").expect("util-linux is there");
    // A host name of its own; the process stays the one that we wait for.
    let script = format!("{} && exec \"$0\" \"$@\"", rename("before.example"));
    let words = ["-u", "/bin/sh", "-c", &script].map(OsString::from);
    let prefix = [vec![unshare.into()], words.to_vec()].concat();
    let mut agent = Agent::start_under(&namespace, &authority, &loopback(), prefix).expect("an agent");
    let node = agent.node;
    let wait = |what: &str, wanted: &[&str]| {
        let told = collector.wait_window(what, LIMIT, |window| {
            let facts = &window.of(node).ok()?.facts;
            facts.iter().map(|facts| facts.host_name.as_str()).eq(wanted.iter().copied()).then_some(())
        });
        told.expect("the facts arrive, each once");
    };
    wait("the first name", &["before.example"]);
    let pid = agent.running().pid().to_string();
    tool::run("nsenter", &["-t", &pid, "-u", "/bin/sh", "-c", &rename("after.example")]).expect("it can be renamed");
    wait("the second name", &["before.example", "after.example"]);
    collector
        .window()
        .expect("it is readable")
        .of(node)
        .expect("the node is known")
        .check()
        .expect("nothing is missing");
}
