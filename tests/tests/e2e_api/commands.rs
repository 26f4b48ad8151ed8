//! What people type: tables, JSON, exit codes, and what is said when it cannot be.

use std::os::unix::fs::PermissionsExt as _;

use super::*;

#[test]
fn a_fleet_of_one_is_seen_measured_and_worked_on() {
    let site = Site::start();
    let id = site.nodes[0].to_string();
    let _agent = site.agent();
    site.wait("the node is up", &["-o", "json", "nodes", "--state", "up"], |said| {
        said.code == 0 && said.json()["items"].as_array().is_some_and(|items| items.len() == 1)
    });
    let table = site.dunlin(&["nodes"]);
    assert!(table.out.starts_with("NAME "), "{}", table.out);
    assert!(table.out.lines().all(|line| !line.contains('\u{1b}') && !line.ends_with(' ')), "{}", table.out);
    assert!(table.out.lines().any(|line| line.contains(" up ") && line.ends_with(&id)), "{}", table.out);

    site.wait("its first values", &["-o", "json", "metrics", &id], |said| {
        said.json()["items"].as_array().is_some_and(|items| items.len() > 3)
    });
    let series = ["-o", "json", "metrics", &id, "host_load1", "--from", "10m"];
    let said = site.wait("five points", &series, |said| {
        said.json()["items"][0]["points"].as_array().is_some_and(|points| points.len() >= 5)
    });
    let points = said.json()["items"][0]["points"].clone();
    let times: Vec<&str> = points.as_array().expect("points").iter().filter_map(|point| point[0].as_str()).collect();
    assert!(times.is_sorted() && times.iter().all(|time| time.ends_with('Z')), "{times:?}");

    assert_eq!(site.dunlin(&["label", &id, "env=prod", "tier=1"]).code, 0);
    assert_eq!(site.dunlin(&["label", &id, "tier-"]).code, 0);
    site.wait("it bears its label", &["-o", "json", "node", &id], |said| {
        said.json()["labels"]["env"] == "prod" && said.json()["labels"]["tier"].is_null()
    });
    assert_eq!(site.dunlin(&["drain", &id, "--for", "1h"]).code, 0);
    site.wait("it is in maintenance", &["-o", "json", "node", &id], |said| said.json()["state"] == "maintenance");
    assert_eq!(site.dunlin(&["drain", &id, "--end"]).code, 0);
    let log = site.dunlin(&["log"]);
    assert!(log.out.contains("node.label") && log.out.contains("root"), "{}", log.out);
    let events = site.dunlin(&["events", "--kind", "node.maintenance*"]);
    assert_eq!(events.out.lines().count(), 2, "{}", events.out);
    let top = site.dunlin(&["top"]);
    assert!(top.code == 0 && top.out.contains("nodes,") && !top.out.contains('\u{1b}'), "{}{}", top.out, top.err);

    assert_eq!(site.dunlin(&["revoke", &id, "--why", "stolen"]).code, 0);
    site.wait("it is revoked", &["-o", "json", "node", &id], |said| said.json()["state"] == "revoked");
    assert_eq!(site.dunlin(&["forget", &id]).code, 0);
    site.wait("it is gone", &["node", &id], |said| said.code == 1 && said.err.contains("there is no node"));
}

#[test]
fn what_cannot_be_done_says_why_and_ends_with_its_code() {
    let site = Site::start();
    for (arguments, code, words) in [
        (&["node", "nobody"][..], 1, "there is no node \"nobody\""),
        (&["nodes", "--label", "x"], 2, "KEY=VALUE"),
        (&["label", "x", "y"], 2, "KEY-"),
        (&["nodes", "--state", "sideways"], 1, "maintenance"),
        (&["token", "create", "--role", "king"], 1, "operator"),
        (&["token", "delete", "t99999"], 1, "there is no token"),
        (&["frobnicate"], 2, "unrecognized"),
        (&[], 2, "Usage"),
    ] {
        let said = site.dunlin(arguments);
        assert_eq!(said.code, code, "{arguments:?}: {}", said.err);
        assert!(said.err.contains(words) && said.out.is_empty(), "{arguments:?}: {}{}", said.out, said.err);
    }
    let http = format!("http://{HTTP}");
    for (environment, code, words) in [
        (&[("DUNLIN_URL", "http://127.0.0.1:1")][..], 1, "nothing listens there"),
        (&[("DUNLIN_URL", "127.0.0.1:9738")], 78, "https://"),
        (&[("DUNLIN_URL", http.as_str())], 1, "DUNLIN_TOKEN"),
        (
            &[("DUNLIN_URL", http.as_str()), ("DUNLIN_TOKEN", "dunlin-api.AAAAAAAAAAAAAAAAAAAAAAAAAAA")],
            1,
            "out of date",
        ),
        (&[("DUNLIN_URL", "https://127.0.0.1:9738")], 1, "http://"),
    ] {
        let said = site.dunlin_with(environment, &["nodes"]);
        assert_eq!(said.code, code, "{environment:?}: {}", said.err);
        assert!(said.err.contains(words), "{environment:?}: {}", said.err);
    }
}

#[test]
fn two_nodes_of_one_name_are_told_apart_by_their_ids() {
    let site = Site::start();
    let said = site.wait("both are shown", &["node", "rig"], |said| said.err.contains("2 nodes have the name"));
    assert_eq!(said.code, 1);
    assert!(site.nodes.iter().all(|id| said.err.contains(&id.to_string())), "{}", said.err);
}

#[test]
fn tokens_are_made_listed_used_and_taken_back() {
    let site = Site::start();
    let file = site.state().join("admin-token");
    assert_eq!(fs::metadata(&file).expect("it is there").permissions().mode() & 0o777, 0o600);
    let socket = site.state().join("admin.sock");
    assert_eq!(fs::metadata(&socket).expect("it is there").permissions().mode() & 0o777, 0o600);
    let state = site.state().display().to_string();
    let made = site.run(
        "dunlin-collector",
        &[],
        &["token", "--state-dir", &state, "create", "--role", "viewer", "--ttl", "1h", "--name", "wall"],
    );
    assert_eq!(made.code, 0, "{}", made.err);
    assert_eq!(made.out.lines().count(), 1, "the token alone: {}", made.out);
    assert!(made.err.contains("viewer") && made.err.contains("until"), "{}", made.err);
    let http = format!("http://{HTTP}");
    let with = |token: &str, arguments: &[&str]| {
        site.dunlin_with(&[("DUNLIN_URL", &http), ("DUNLIN_TOKEN", token)], arguments)
    };
    let viewer = made.out.trim();
    assert_eq!(with(viewer, &["nodes"]).code, 0);
    let below = with(viewer, &["token", "list"]);
    assert!(below.code == 1 && below.err.contains("admin"), "{}", below.err);
    let listed = with(&site.admin_token(), &["-o", "json", "token", "list"]).json();
    let wall =
        listed["items"].as_array().expect("items").iter().find(|token| token["name"] == "wall").expect("it is listed");
    assert!(!listed.to_string().contains(viewer));
    assert_eq!(with(&site.admin_token(), &["token", "delete", wall["id"].as_str().expect("an id")]).code, 0);
    assert_eq!(with(viewer, &["nodes"]).code, 1);
    let check = site.run("dunlin-collector", &[], &["check", "--state-dir", &state, "--retention-bytes", "1MiB"]);
    assert!(check.code == 0 && check.out.contains("it runs and is ready"), "{}{}", check.out, check.err);
}
