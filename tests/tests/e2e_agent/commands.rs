//! The agent's commands as a person types them: what they print, how they end, and what a mistake is told.

use std::process::{Command, Output};

use dunlin_tests::netns::Namespace;
use dunlin_tests::pki::{Authority, node_ids};
use dunlin_tests::scratch::Scratch;
use dunlin_tests::site::Collector;

use crate::{agent_binary, loopback};

fn agent(arguments: &[&str]) -> Output {
    Command::new(agent_binary()).args(arguments).output().expect("it starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("it is text")
}

#[test]
fn mistakes_are_answered_with_the_nearest_word_and_exit_2() {
    for (arguments, right) in [
        (&["onec"][..], "once"),
        (&["chekc"], "check"),
        (&["rnu"], "run"),
        (&["once", "--jsn"], "--json"),
        (&["once", "--rot", "/"], "--root"),
        (&["run", "--intervall", "5s"], "--interval"),
        (&["check", "--colectors", "a"], "--collectors"),
        (&["run", "--json"], "check, once"),
        (&["run", "--root", "/"], "check, once"),
        (&["once", "--interval", "5s"], "--watch and --collect-"),
        (&[], "run, check, once"),
        (&["once", "once"], "once"),
        (&["once", "--root"], "--root"),
    ] {
        let output = agent(arguments);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
        assert!(said.contains(right) && output.stdout.is_empty(), "{arguments:?}: {said}");
    }
}

#[test]
fn a_sample_for_people_has_units_and_one_of_a_recorded_root_says_what_is_not_there() {
    let output = agent(&["once"]);
    let said = text(&output.stdout);
    assert!(output.status.success() && output.stderr.is_empty(), "{said}");
    for word in ["host_memory_total_bytes", "GiB", "host_load1", " %", "/s", "processors"] {
        assert!(said.contains(word), "{word}: {said}");
    }
    let scratch = Scratch::new("recorded").expect("a directory");
    std::fs::create_dir(scratch.join("proc")).expect("it is writable");
    std::fs::write(scratch.join("proc/loadavg"), "0.50 1.25 2.00 3/411 99\n").expect("it is writable");
    let root = scratch.path().to_str().expect("it is text");
    let output = agent(&["once", "--root", root]);
    let said = text(&output.stdout);
    assert!(output.status.success() && said.contains("1.25"), "{said}");
    assert!(said.contains("not seen: memory") && said.contains("proc/meminfo cannot be read"), "{said}");
    let output = agent(&["check", "--root", root, "--collectors", "localhost"]);
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.starts_with("WARNING: ") && said.contains("\n  load: "), "{said}");
}

#[test]
fn a_sample_is_of_what_the_configuration_tells_to_collect() {
    let scratch = Scratch::new("once").expect("a directory");
    let file = scratch.join("agent.toml");
    let path = file.to_str().expect("it is text");
    // It needs no collector.
    std::fs::write(&file, "watch = [\"nobody-runs-this\"]\n[collect]\ncontainers = false\n").expect("it is writable");
    let output = agent(&["once", "--json", "--config", path, "--collect-ports", "false"]);
    let said: serde_json::Value = serde_json::from_slice(&output.stdout).expect("it is JSON");
    let lists = ["containers", "ports"].map(|name| said[name].as_array().map(Vec::len));
    assert_eq!(lists, [Some(0), Some(0)], "{said}");
    let groups = said["groups"].as_array().expect("a list");
    assert!(groups.iter().any(|group| group["name"] == "nobody-runs-this"), "{said}");
    std::fs::write(&file, "[collect]\ncontainer = false\n").expect("it is writable");
    let output = agent(&["once", "--config", path]);
    let said = text(&output.stderr);
    assert!(output.status.code() == Some(78) && said.contains("agent.toml:2") && said.contains("containers"), "{said}");
}

#[test]
fn check_tells_what_is_wrong_in_its_first_line_and_by_its_exit_code() {
    let scratch = Scratch::new("check").expect("a directory");
    let state = scratch.join("state");
    std::fs::create_dir(&state).expect("it is writable");
    let state_dir = state.to_str().expect("it is text");
    let first = |output: &Output| text(&output.stdout).lines().next().expect("a summary").to_owned();

    let output = agent(&["check", "--state-dir", state_dir, "--collectors", "localhost"]);
    assert_eq!((output.status.code(), first(&output).contains("not enrolled")), (Some(1), true), "{}", first(&output));
    let output = agent(&["check", "--state-dir", state_dir]);
    assert_eq!((output.status.code(), first(&output).starts_with("CRITICAL: configuration: ")), (Some(2), true));

    let authority = Authority::new().expect("an authority");
    let node = authority.node(node_ids(77, 0)[76]).expect("a certificate");
    node.identity().write(&state, authority.ca_der(), "node").expect("it is writable");
    // Nothing listens on the discard port of this host's loopback.
    let output = agent(&["check", "--state-dir", state_dir, "--collectors", "127.0.0.1:9"]);
    let said = first(&output);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.starts_with("CRITICAL: collector 127.0.0.1:9: "), "{said}");
}

#[test]
fn check_reaches_a_collector_that_lets_the_node_in_and_leaves_no_trace() {
    let namespace = Namespace::new("check").expect("a namespace");
    let authority = Authority::new().expect("an authority");
    let collector = Collector::start(&namespace, &authority).expect("a collector");
    let scratch = Scratch::new("checked").expect("a directory");
    let node = authority.node(node_ids(78, 0)[77]).expect("a certificate");
    node.identity().write(&scratch.join("state"), authority.ca_der(), "node").expect("it is writable");
    let before = names(&scratch);
    let program = dunlin_tests::process::Program::at(agent_binary()).inside(&namespace).arg("check");
    let program = program.arg("--state-dir").arg(scratch.join("state")).args(["--collectors", &loopback()]);
    let mut running = program.start().expect("it starts");
    let status = running.wait_exit(crate::LIMIT).expect("it ends");
    let said = running.log_text();
    assert!(status.success() && said.starts_with("OK: "), "{said}");
    assert!(said.contains("answers and lets this node in"), "{said}");
    assert_eq!(names(&scratch), before, "a check changes nothing");
    drop(collector);
}

fn names(scratch: &Scratch) -> Vec<std::ffi::OsString> {
    let entries = std::fs::read_dir(scratch.join("state")).expect("it is there");
    let mut names: Vec<_> = entries.flatten().map(|entry| entry.file_name()).collect();
    names.sort();
    names
}
