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
    let nodes = || yard.compose(&["exec", "-T", "collector", "dunlin", "nodes", "-o", "json"]);
    let is_up = || {
        let said: Value = serde_json::from_str(&nodes()).ok()?;
        let node = said["items"].as_array()?.first()?.clone();
        (node["state"] == "up" && node["labels"]["env"] == "compose").then_some(())
    };
    until("the node is up", LIMIT, is_up).unwrap_or_else(|error| panic!("{error}: {}\n{}", nodes(), yard.logs()));
    let ports = || yard.compose(&["exec", "-T", "collector", "dunlin", "ports", "-o", "json"]);
    until("the application's port", LIMIT, || ports().contains("8080").then_some(()))
        .unwrap_or_else(|error| panic!("{error}: {}", ports()));
    // What lies in the volumes is found again: the same node, though a new token is made.
    yard.compose(&["down"]);
    yard.compose(&["up", "-d"]);
    until("the node is up again", LIMIT, is_up).unwrap_or_else(|error| panic!("{error}: {}", nodes()));
    let said: Value = serde_json::from_str(&nodes()).expect("it is JSON");
    assert_eq!(said["items"].as_array().map(Vec::len), Some(1), "{said}");
    yard.compose(&["down", "-v"]);
}
