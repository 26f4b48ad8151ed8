//! The compose file, by docker-compose itself: one command, and the host is watched.

use std::process::Command;

use dunlin_tests::deadline::until;
use dunlin_tests::engines::IMAGE;
use dunlin_tests::netns::Namespace;
use dunlin_tests::tool;
use serde_json::Value;

use super::{LIMIT, Yard, packaging};

impl Yard<'_> {
    fn compose(&self, words: &[&str]) -> String {
        let mut command = Command::new("env");
        command.arg(format!("DOCKER_HOST=unix://{}", self.docker.socket().display()));
        command.arg(format!("APPLICATION_IMAGE={IMAGE}")).arg("DUNLIN_INTERVAL=1s");
        command.arg(tool::find("docker-compose").unwrap_or_else(|error| panic!("{error}")));
        command.args(["--project-name", "dunlin", "-f"]).arg(packaging().join("compose.yaml")).args(words);
        self.namespace.finish(&mut command).unwrap_or_else(|error| panic!("{error}\n{}", self.logs()))
    }
}

#[test]
fn one_command_brings_up_collector_agent_and_application_and_the_node_is_up() {
    let namespace = Namespace::new("compose").expect("a namespace");
    let yard = Yard::new(&namespace);
    yard.compose(&["up", "-d"]);
    // The engine itself answers many times as fast as the command that made them.
    let ask = |words: &[&str]| {
        // What it is called differs from one version of compose to the next.
        let collector = yard.run(&["ps", "-q", "--filter", "label=com.docker.compose.service=collector"]);
        yard.run(&[&["exec", &collector, "dunlin", "-o", "json"], words].concat())
    };
    let node = || {
        let said: Value = serde_json::from_str(&ask(&["nodes"])).ok()?;
        let [node] = &said["items"].as_array()?[..] else { return None };
        (node["state"] == "up" && node["labels"]["env"] == "compose").then(|| node["id"].to_string())
    };
    let up = |what: &str| {
        until(what, LIMIT, node).unwrap_or_else(|error| panic!("{error}: {}\n{}", ask(&["nodes"]), yard.logs()))
    };
    let id = up("the node is up");
    until("the application's port", LIMIT, || ask(&["ports"]).contains("8080").then_some(()))
        .unwrap_or_else(|error| panic!("{error}: {}", ask(&["ports"])));
    // What lies in the volumes is found again: the same node, though another token is made.
    yard.compose(&["down"]);
    yard.compose(&["up", "-d"]);
    assert_eq!(up("the node is up again"), id);
}
