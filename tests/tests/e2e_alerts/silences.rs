//! What people say of alerts, through the real programs: silences, acknowledgements, planned downtime.

use super::*;

/// It fires when the agent is stopped, and is over when it is back.
const STOPPED: &str = r#"
[[rule]]
name = "own-stopped"
when = 'node_state == stopped'
summary = "{node} was stopped"
severity = "warning"
"#;

impl Site {
    fn up(&self) {
        self.wait_nodes("up", 1);
    }

    fn wait_nodes(&self, state: &str, count: usize) {
        let such = ["-o", "json", "nodes", "--state", state];
        let are = || {
            let said = self.dunlin(&such).json();
            (said["items"].as_array()?.len() == count).then_some(())
        };
        self.wait(&format!("{count} nodes that are {state}"), are);
    }

    /// What the feed tells of a rule's alerts: the kind, who acknowledged, and under which silence.
    fn said_of(&self, rule: &str, count: usize) -> Vec<String> {
        let word = |value: &Value| value.as_str().unwrap_or("-").to_owned();
        let line = |event: &Value| {
            let alert = &event["alert"];
            format!("{} {} {}", word(&event["kind"]), word(&alert["acknowledged"]["who"]), word(&alert["silenced"]))
        };
        let all = || {
            let said = self.dunlin(&["-o", "json", "events", "--kind", "alert.*"]);
            let events = said.out.lines().map(|text| serde_json::from_str::<Value>(text).expect("a line is an event"));
            events.filter(|event| event["alert"]["rule"] == *rule).map(|event| line(&event)).collect::<Vec<_>>()
        };
        self.wait(&format!("{count} events of {rule}"), || Some(all()).filter(|told| told.len() >= count))
    }

    fn done(&self, arguments: &[&str]) -> String {
        let said = self.dunlin(arguments);
        assert_eq!(said.code, 0, "{arguments:?}: {}{}", said.out, said.err);
        said.out.trim().to_owned()
    }
}

#[test]
fn a_silence_mutes_what_it_names_until_it_ends_and_the_feed_tells_both_once() {
    let mut site = Site::start(STOPPED);
    let node = site.node.to_string();
    let mut agent = site.agent();
    site.up();
    site.done(&["label", &node, "env=prod"]);
    let other = site.done(&["silence", "add", "--label", "env=test", "--reason", "not ours", "--for", "1h"]);
    let add = ["silence", "add", "--label", "env=pr*", "--rule", "own-*", "--reason", "a new kernel", "--for", "1h"];
    let silence = site.done(&add);
    let listed = site.dunlin(&["silence", "list"]);
    let line = listed.out.lines().find(|line| line.starts_with(&format!("{silence} "))).expect("it is listed");
    assert!(line.contains("active") && line.contains("env=pr* rule:own-*") && line.contains("a new kernel"), "{line}");

    agent.terminate(LIMIT).expect("it says goodbye");
    let alert = site.wait_alert("own-stopped", "firing");
    assert_eq!(alert["silenced"], silence.as_str(), "it fires under it");
    // Neither a crash nor a restart tells anything again, or forgets the silence.
    site.collector.kill9().expect("it runs");
    site.collector = launch(&site.namespace, &site.scratch);
    site.collector.wait_ready(HTTP, LIMIT).expect("it gets ready");
    let alert = site.wait_alert("own-stopped", "firing");
    assert_eq!(alert["silenced"], silence.as_str());
    let shown = site.dunlin(&["-o", "json", "silence", "show", &silence]).json();
    assert_eq!((&shown["state"], &shown["author"]), (&Value::from("active"), &Value::from("root")));

    site.done(&["silence", "expire", &silence]);
    let again = site.dunlin(&["silence", "expire", &silence]);
    assert!(again.code == 1 && again.err.contains("is over"), "{}", again.err);
    // One that the clock ends, and one that is active in a window that is open all day.
    let short = site.done(&["silence", "add", "--node", &node, "--reason", "for a moment", "--for", "2s"]);
    let told =
        format!("alert.firing - {silence}, alert.unsilenced - -, alert.silenced - {short}, alert.unsilenced - -");
    assert_eq!(site.said_of("own-stopped", 4).join(", "), told);
    let window = ["--weekly", "daily 00:00 24h", "--zone", "UTC"];
    let daily = site.done(&[&["silence", "add", "--subject", "host", "--reason", "every day"][..], &window].concat());
    assert_eq!(site.said_of("own-stopped", 5)[4], format!("alert.silenced - {daily}"));
    let weekly = site.dunlin(&["-o", "json", "silence", "show", &daily]).json();
    assert_eq!((&weekly["weekly"]["zone"], &weekly["end"]), (&Value::from("UTC"), &Value::Null));
    site.done(&["silence", "edit", &daily, "--for", "2s", "--reason", "no longer"]);
    assert_eq!(site.said_of("own-stopped", 6)[5], "alert.unsilenced - -");
    let all = site.dunlin(&["-o", "json", "silence", "list", "--all"]).json();
    let states: Vec<_> = all["items"].as_array().expect("a list").iter().map(|item| item["state"].clone()).collect();
    assert_eq!(states, ["active", "expired", "expired", "expired"], "{other} goes on");
}

#[test]
fn who_sees_to_an_alert_is_told_until_it_is_resolved() {
    let site = Site::start(STOPPED);
    let mut agent = site.agent();
    site.up();
    agent.terminate(LIMIT).expect("it says goodbye");
    let id = site.wait_alert("own-stopped", "firing")["id"].as_str().expect("an id").to_owned();
    site.done(&["alert", "ack", &id, "--why", "on it"]);
    let alert = site.wait_alert("own-stopped", "firing");
    assert_eq!((&alert["acknowledged"]["who"], &alert["acknowledged"]["why"]), (&"root".into(), &"on it".into()));
    let again = site.dunlin(&["alert", "ack", &id]);
    assert!(again.code == 1 && again.err.contains("acknowledged already, by root"), "{}", again.err);
    site.done(&["alert", "unack", &id]);
    assert_eq!(site.wait_alert("own-stopped", "firing")["acknowledged"], Value::Null);
    assert_eq!(site.done(&["alert", "ack", "--rule", "own-*", "--severity", "warning"]), "1 alerts are acknowledged");
    assert_eq!(site.done(&["alert", "ack", "--rule", "own-*"]), "0 alerts are acknowledged");
    let _agent = site.agent();
    let told = site.said_of("own-stopped", 5);
    let kinds = ["firing -", "acknowledged root", "unacknowledged -", "acknowledged root", "resolved root"];
    assert_eq!(told, kinds.map(|kind| format!("alert.{kind} -")));
    let late = site.dunlin(&["alert", "ack", &id]);
    assert!(late.code == 1 && late.err.contains("no alert"), "{}", late.err);
    let log = site.dunlin(&["log"]);
    assert!(log.out.contains("alert.acknowledge") && log.out.contains("alert.unacknowledge"), "{}", log.out);
}

#[test]
fn a_limited_operator_silences_and_acknowledges_its_own_nodes_alone() {
    let site = Site::start(STOPPED);
    let mut agent = site.agent();
    site.up();
    let token = site.done(&["token", "create", "--role", "operator", "--name", "theirs", "--label", "tenant=theirs"]);
    let http = format!("http://{HTTP}");
    let limited = [("DUNLIN_URL", http.as_str()), ("DUNLIN_TOKEN", token.as_str())];
    agent.terminate(LIMIT).expect("it says goodbye");
    let id = site.wait_alert("own-stopped", "firing")["id"].as_str().expect("an id").to_owned();
    let made = site.dunlin_with(&limited, &["silence", "add", "--rule", "*", "--reason", "all of it", "--for", "1h"]);
    assert_eq!(made.code, 0, "{}", made.err);
    let silence = site.dunlin(&["-o", "json", "silence", "show", made.out.trim()]).json();
    assert_eq!(silence["matchers"]["labels"]["tenant"], "theirs", "{silence}");
    assert_eq!(site.wait_alert("own-stopped", "firing")["silenced"], Value::Null, "the node is not theirs");
    let ours = site.done(&["silence", "add", "--rule", "*", "--reason", "ours", "--for", "1h"]);
    for (arguments, says) in [
        (&["alert", "ack", &id][..], "no alert"),
        (&["silence", "expire", &ours], "there is no silence"),
        (&["silence", "add", "--label", "tenant=*", "--reason", "r", "--for", "1h"], "limited to tenant=theirs"),
    ] {
        let refused = site.dunlin_with(&limited, arguments);
        assert!(refused.code == 1 && refused.err.contains(says), "{arguments:?}: {}", refused.err);
    }
    assert_eq!(site.dunlin_with(&limited, &["alert", "ack", "--rule", "*"]).out.trim(), "0 alerts are acknowledged");
    // Once the node is theirs, it is silent by theirs too, when ours is gone.
    site.done(&["label", &site.node.to_string(), "tenant=theirs"]);
    site.done(&["silence", "expire", &ours]);
    assert_eq!(site.wait_alert("own-stopped", "firing")["silenced"], made.out.trim());
    assert_eq!(site.dunlin_with(&limited, &["alert", "ack", "--rule", "*"]).out.trim(), "1 alerts are acknowledged");
}

#[test]
fn downtime_is_planned_for_a_node_or_for_all_that_bear_a_label() {
    let site = Site::start(STOPPED);
    let node = site.node.to_string();
    let _agent = site.agent();
    site.up();
    site.done(&["label", &node, "rack=7"]);
    assert_eq!(site.done(&["drain", "--label", "rack=8", "--for", "1h"]), "0 nodes are in maintenance");
    let drain = ["drain", "--label", "rack=7", "--for", "1h", "--reason", "a new switch"];
    assert_eq!(site.done(&drain), "1 nodes are in maintenance");
    site.wait_nodes("maintenance", 1);
    let said = site.dunlin(&["-o", "json", "events", "--kind", "node.maintenance"]);
    assert_eq!(said.json()["reason"], "a new switch");
    assert!(site.dunlin(&["log"]).out.contains("a new switch"));
    assert_eq!(site.done(&["undrain", "--label", "rack=7"]), "1 nodes are in maintenance no more");
    assert_eq!(site.done(&["undrain", "--label", "rack=7"]), "0 nodes are in maintenance no more");
    site.wait_nodes("maintenance", 0);
    site.done(&["drain", &node]);
    site.done(&["undrain", &node]);
    let over = site.dunlin(&["undrain", &node]);
    assert!(over.code == 1 && over.err.contains("not in maintenance"), "{}", over.err);
}

#[test]
fn what_makes_no_sense_is_refused_with_what_would_be_right() {
    let site = Site::start(STOPPED);
    for (arguments, code, words) in [
        (&["silence", "add", "--reason", "r", "--for", "1h"][..], 2, "--rule"),
        (&["silence", "add", "--rule", "x", "--for", "1h"], 2, "--reason"),
        (&["silence", "add", "--rule", "x", "--reason", "r"], 1, "open-ended"),
        (&["silence", "add", "--rule", "x", "--reason", " ", "--for", "1h"], 1, "say why"),
        (&["silence", "add", "--rule", "x", "--reason", "r", "--for", "soon"], 1, "2h"),
        (&["silence", "add", "--rule", "x", "--reason", "r", "--weekly", "sat 02:00", "--zone", "UTC"], 2, "START"),
        (&["silence", "add", "--rule", "x", "--reason", "r", "--weekly", "sat 2:00 1h", "--zone", "UTC"], 1, "02:30"),
        (&["silence", "add", "--rule", "x", "--reason", "r", "--weekly", "sat 02:00 1h", "--zone", "Mars"], 1, "IANA"),
        (&["silence", "add", "--node", "nobody", "--reason", "r", "--for", "1h"], 1, "there is no node"),
        (&["silence", "add", "--severity", "bad", "--reason", "r", "--for", "1h"], 1, "critical"),
        (&["silence", "show", "s9"], 1, "there is no silence"),
        (&["silence", "edit", "s9"], 2, "--reason"),
        (&["alert", "ack"], 2, "--rule"),
        (&["alert", "ack", "nothing"], 1, "no alert"),
        (&["drain"], 2, "--label"),
        (&["drain", "--label", "x"], 2, "KEY=VALUE"),
    ] {
        let said = site.dunlin(arguments);
        assert_eq!(said.code, code, "{arguments:?}: {}", said.err);
        assert!(said.err.contains(words) && said.out.is_empty(), "{arguments:?}: {}{}", said.out, said.err);
    }
    assert_eq!(site.dunlin(&["-o", "json", "silence", "list", "--all"]).json()["items"], Value::Array(Vec::new()));
}
