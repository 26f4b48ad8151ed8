//! A mount that really hangs: a FUSE file system whose daemon never answers. Its statfs waits inside the kernel.
//!
//! It is mounted in a mount and process namespace of its own, so that nothing else on this machine can run into it.

use std::ffi::OsString;
use std::path::Path;

use dunlin_collector::record::Pos;
use dunlin_tests::netns::Namespace;
use dunlin_tests::pki::Authority;
use dunlin_tests::process::Program;
use dunlin_tests::scratch::Scratch;
use dunlin_tests::site::{Agent, Collector};
use dunlin_tests::tool;

use crate::{LIMIT, loopback};

/// Runs what follows where `dir` is a file system that never answers; it dies with its parent.
fn with_hung_mount(dir: &Path) -> Vec<OsString> {
    let unshare = tool::find("unshare").expect("util-linux is there");
    let options = "fd=7,rootmode=40000,user_id=0,group_id=0";
    let script =
        format!("exec 7<>/dev/fuse && mount -i -t fuse -o {options} hung {} && exec \"$0\" \"$@\"", dir.display());
    let words = ["-m", "-p", "-f", "--kill-child", "--mount-proc", "/bin/sh", "-c", &script].map(OsString::from);
    [vec![unshare.into()], words.to_vec()].concat()
}

#[test]
fn one_sample_beside_a_hung_mount_has_all_the_rest() {
    let scratch = Scratch::new("hung").expect("a directory");
    let log = scratch.join("said");
    let dir = scratch.join("mnt");
    std::fs::create_dir(&dir).expect("it is writable");
    let program = Program::ours("dunlin-agent", "dunlin-agent").expect("it is built").args(["once", "--json"]);
    let mut running = program.under(with_hung_mount(&dir)).log(&log).start().expect("it starts");
    let status = running.wait_exit(LIMIT).expect("it ends");
    let text = running.log_text();
    assert!(status.success(), "{text}");
    let said: serde_json::Value = serde_json::from_str(&text).expect("it is JSON");
    let series = said["series"].as_array().expect("a list");
    let of = |subject: &str, metric: &str| {
        let found = series.iter().find(|series| series["subject"] == subject && series["metric"] == metric);
        found.and_then(|series| series["value"].as_f64())
    };
    let subject = format!("fs:{}", dir.display());
    assert_eq!((of(&subject, "fs_responding"), of(&subject, "fs_total_bytes")), (Some(0.0), None), "{text}");
    assert_eq!(of("fs:/", "fs_responding"), Some(1.0), "{text}");
    assert!(of("host", "host_load1").is_some() && of("fs:/", "fs_total_bytes") > Some(0.0));
    let failures = said["failures"].to_string();
    assert!(failures.contains(&format!("{} did not answer", dir.display())), "{failures}");
}

#[test]
fn agent_beside_a_hung_mount_sends_every_tick_and_says_so_seldom() {
    let namespace = Namespace::new("hung").expect("a namespace");
    let authority = Authority::new().expect("an authority");
    let collector = Collector::start(&namespace, &authority).expect("a collector");
    let scratch = Scratch::new("mount").expect("a directory");
    let dir = scratch.join("mnt");
    std::fs::create_dir(&dir).expect("it is writable");
    let mut agent = Agent::start_under(&namespace, &authority, &loopback(), with_hung_mount(&dir)).expect("an agent");
    agent.wait_log("did not answer", LIMIT).expect("it says so");
    let outcome = collector.wait_window("eight ticks", LIMIT, |window| {
        let history = window.of(agent.node).ok()?;
        (history.frames.len() >= 10).then(|| history.on_time(Pos(0)))
    });
    outcome.expect("frames go on arriving").expect("each tick is on time");
    let said = agent.log_text();
    // Of eight ticks and a few more, the first, the second, the fourth and the eighth are worth a line.
    assert!((1..=5).contains(&said.matches("did not answer").count()), "{said}");
}
