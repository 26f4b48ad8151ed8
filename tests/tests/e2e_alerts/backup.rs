//! What rules, alerts and people's words become when a collector is put back to a backup: what they were.

use std::path::Path;

use super::*;

/// All of a node that was stopped, so that nothing moves while it is looked at. One waits for an hour.
const STOPPED: &str = r#"
[[rule]]
name = "own-stopped"
when = 'node_state == stopped'
summary = "{node} was stopped"

[[rule]]
name = "own-waits"
when = 'node_state == stopped'
for = "1h"
summary = "{node} was stopped long ago"
"#;

/// Of a set that was sent.
const SENT: &str = r#"
[[rule]]
name = "own-sent"
when = 'node_state == stopped'
severity = "critical"
summary = "{node} was stopped, says a set"
"#;

/// What of an alert does not depend on the moment at which it is looked at.
const FIELDS: [&str; 9] =
    ["id", "rule", "severity", "state", "since", "subject", "summary", "acknowledged", "silenced"];

impl Site {
    fn collector_does(&self, arguments: &[&Path]) -> String {
        let log = self.scratch.join("command.log");
        fs::remove_file(&log).ok();
        let program = Program::ours("dunlin-collector", "dunlin-collector").expect("it is built").log(log);
        let program = arguments.iter().fold(program, |program, argument| program.arg(argument));
        let program = program.arg("--state-dir").arg(self.scratch.join("collector"));
        let mut running = program.start().expect("it starts");
        let status = running.wait_exit(LIMIT).expect("it ends");
        assert!(status.success(), "{}\n{}", running.log_text(), self.collector.log_text());
        running.log_text()
    }

    /// Alerts that are open, silences, and the rules and sets of our own, as people see them.
    fn stands(&self) -> Value {
        let alert = |alert: &Value| FIELDS.map(|field| alert[field].clone()).to_vec();
        let open = |rule: &str, state: &str| self.alerts(rule, state).iter().map(alert).collect::<Vec<_>>();
        let alerts: Vec<_> = [("own-stopped", "firing"), ("own-sent", "firing"), ("own-waits", "pending")]
            .iter()
            .flat_map(|(rule, state)| open(rule, state))
            .collect();
        let rules = self.dunlin(&["-o", "json", "rules", "list"]).json();
        let own = |rule: &&Value| rule["name"].as_str().is_some_and(|name| name.starts_with("own-"));
        let rules: Vec<Value> = rules["items"].as_array().expect("a list").iter().filter(own).cloned().collect();
        let silences = self.dunlin(&["-o", "json", "silence", "list", "--all"]).json();
        serde_json::json!({ "alerts": alerts, "rules": rules, "silences": silences["items"] })
    }

    fn does(&self, arguments: &[&str]) -> String {
        let said = self.dunlin(arguments);
        assert_eq!(said.code, 0, "{arguments:?}: {}{}", said.out, said.err);
        said.out.trim().to_owned()
    }
}

#[test]
fn sets_of_rules_silences_acknowledgements_and_open_alerts_are_put_back_as_they_were() {
    let mut site = Site::start(STOPPED);
    let set = site.scratch.join("sent.toml");
    fs::write(&set, SENT).expect("it is writable");
    let set = set.display().to_string();
    site.does(&["rules", "apply", &set, "--set", "sent", "--yes"]);
    let silence = site.does(&["silence", "add", "--rule", "own-sent", "--reason", "a move", "--for", "5h"]);
    let over = site.does(&["silence", "add", "--rule", "none", "--reason", "a mistake", "--for", "5h"]);
    site.does(&["silence", "expire", &over]);
    let mut agent = site.agent();
    let node = site.node.to_string();
    site.wait("it is up", || (site.dunlin(&["-o", "json", "node", &node]).json()["state"] == "up").then_some(()));
    agent.terminate(LIMIT).expect("it says goodbye");
    let fired = site.wait_alert("own-stopped", "firing")["id"].as_str().expect("an id").to_owned();
    site.does(&["alert", "ack", &fired, "--why", "it is on my desk"]);
    assert_eq!(site.wait_alert("own-sent", "firing")["silenced"], silence.as_str());
    site.wait_alert("own-waits", "pending");

    let before = site.stands();
    assert_eq!(before["alerts"].as_array().map(Vec::len), Some(3), "{before}");
    assert_eq!(before["alerts"][0][7]["why"], "it is on my desk", "{before}");
    assert_eq!(before["silences"].as_array().map(Vec::len), Some(2), "{before}");
    assert_eq!(before["rules"].as_array().map(Vec::len), Some(3), "{before}");
    let file = site.scratch.join("state.tar");
    site.collector_does(&["backup".as_ref(), &file]);

    // All of it becomes another.
    site.does(&["rules", "delete", "sent"]);
    site.does(&["silence", "expire", &silence]);
    site.does(&["silence", "add", "--rule", "own-*", "--reason", "all of them", "--for", "1h"]);
    site.does(&["alert", "unack", &fired]);
    let mut agent = site.agent();
    assert_eq!(site.wait_alert("own-stopped", "resolved")["id"], fired.as_str());
    agent.kill9().expect("it runs");
    let meanwhile = site.stands();
    assert_eq!(meanwhile["alerts"].as_array().map(Vec::len), Some(0), "{meanwhile}");

    site.collector.terminate(LIMIT).expect("it stops");
    site.collector_does(&["restore".as_ref(), &file, "--over".as_ref()]);
    site.collector = launch(&site.namespace, &site.scratch);
    site.collector.wait_ready(HTTP, LIMIT).expect("it gets ready");
    let after = site.wait("the alerts that were open", || {
        Some(site.stands()).filter(|stands| stands["alerts"].as_array().is_some_and(|alerts| alerts.len() == 3))
    });
    assert_eq!(after, before);
    let told: Vec<_> = site.told("own-stopped").into_iter().map(|told| told.kind).collect();
    assert_eq!(told, ["alert.firing", "alert.acknowledged"], "nothing is told again, and what came later is gone");

    let _agent = site.agent();
    assert_eq!(site.wait_alert("own-stopped", "resolved")["id"], fired.as_str(), "it is the one that was open");
}
