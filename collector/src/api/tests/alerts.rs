//! What is wrong, through the router: open and over, filters and pages, limits of tokens, and an alert that explains itself.

use std::collections::BTreeSet;

use dunlin_shared::rule::{Rule, RuleSet};
use dunlin_shared::time::MonoMs;
use serde_json::{Value, json};

use super::*;
use crate::board::{AlertView, AtFiring, Words};
use crate::engine::alert::{AlertId, AlertState, Now, Resolution};
use crate::policy::{self, Acknowledgement};
use crate::store::{AlertRow, AlertUpdate};

const RULES: &str = r#"
[[rule]]
name = "memory-high"
when = 'host_memory_used_ratio > 90%'
for = "5m"
clear = '< 85%'
severity = "critical"
summary = "x"
[[rule]]
name = "disk-low"
when = 'fs_used_ratio > 90%'
summary = "x"
[[rule]]
name = "node-down"
when = 'node_state == down'
severity = "critical"
summary = "x"
[[rule]]
name = "fleet-loss"
when = 'fleet_nodes_missing > 0'
severity = "info"
summary = "x"
"#;

fn rules() -> Arc<[Arc<Rule>]> {
    let set = RuleSet::of(&[], &[(String::from("r.toml"), RULES.to_owned())]).expect("they are right");
    set.rules().iter().cloned().map(Arc::new).collect()
}

fn id(number: u8) -> AlertId {
    AlertId::from_bytes([number; 10])
}

/// Of so many that are alike but for their number, node and rule.
fn open(number: u8, node: Option<u8>, rule: &str, state: AlertState) -> Arc<AlertView> {
    let rule = rules().iter().find(|known| *known.name == *rule).cloned().expect("it is one of them");
    let (summary, summary_zh, runbook) = (format!("alert {number}"), Some(String::from("警报")), None);
    Arc::new(AlertView {
        id: id(number),
        rule,
        node: node.map(node_id),
        subject: if number.is_multiple_of(2) { "fs:/var".into() } else { "host".into() },
        state,
        value: Some(0.931),
        threshold: Some(0.9),
        since: WallMs(700_000),
        began: WallMs(400_000),
        is_flapping: false,
        words: Arc::new(Words { summary, summary_zh, runbook }),
        acknowledged: None,
        silenced: None,
    })
}

/// Over, unless it is still open in the database.
fn row(number: u8, node: Option<u8>, resolved: Option<i64>) -> AlertRow {
    let now = |at| Now { wall: WallMs(at), ran: MonoMs(0) };
    let then = AtFiring {
        value: Some(0.91),
        threshold: Some(0.9),
        cpu: vec![(String::from("process:java"), 1.5)],
        memory: vec![(String::from("container:db"), 2e9)],
        disk: Vec::new(),
    };
    AlertRow {
        id: id(number),
        rule: String::from("memory-high"),
        node: node.map(|node| NodeKey(node.into())),
        subject: String::from("host"),
        severity: String::from("critical"),
        state: if resolved.is_some() { AlertState::Resolved } else { AlertState::Firing },
        began: now(400_000),
        fired: Some(now(700_000)),
        resolved: resolved.map(|at| (WallMs(at), Resolution::Recovered)),
        value: Some(0.8),
        threshold: Some(0.9),
        is_flapping: false,
        fires: Vec::new(),
        over: None,
        words: Words { summary: format!("alert {number}"), ..Words::default() }.write(),
        top: then.write(),
    }
}

impl Rig {
    fn show(&self, alerts: Vec<Arc<AlertView>>) {
        self.board.store(Arc::new(AlertBoard::new(alerts, rules())));
    }

    fn keep(&mut self, rows: Vec<AlertRow>) {
        let nodes: Vec<_> = (1..=9).map(|number| (NodeKey(u32::from(number)), node_id(number))).collect();
        self.control.restore_nodes(&nodes, None, WallMs(0)).expect("stored");
        let applied_pos = self.control.applied_pos().expect("read").next();
        let alerts = rows.into_iter().map(|row| AlertUpdate::Put(Box::new(row))).collect();
        self.control.apply(&ControlBatch { applied_pos, alerts, ..ControlBatch::default() }).expect("stored");
    }

    /// The numbers of the alerts that are listed.
    async fn numbers(&self, query: &str) -> Vec<u8> {
        let answer = self.get(&format!("/api/v1/alerts?{query}")).await;
        assert_eq!(answer.status, StatusCode::OK, "{query}: {}", answer.json());
        numbers(&answer.json())
    }
}

fn numbers(page: &Value) -> Vec<u8> {
    let items = page["items"].as_array().expect("items");
    let number = |item: &Value| item["id"].as_str().and_then(|id| u8::from_str_radix(&id[..2], 16).ok());
    items.iter().map(|item| number(item).expect("an id")).collect()
}

/// Nodes 1 and 3 are of tenant a, 2 and 4 of tenant b.
fn wrong() -> Rig {
    let rig = Rig::new();
    rig.show(vec![
        open(5, Some(1), "memory-high", AlertState::Firing),
        open(6, Some(2), "disk-low", AlertState::Firing),
        open(7, None, "fleet-loss", AlertState::Firing),
        open(8, Some(3), "disk-low", AlertState::Pending),
        open(9, Some(4), "node-down", AlertState::Firing),
        // Of a node that is gone.
        open(10, Some(9), "disk-low", AlertState::Firing),
    ]);
    rig
}

#[tokio::test]
async fn an_alert_has_the_fields_that_programs_rely_on() {
    let rig = wrong();
    let said = rig.get(&format!("/api/v1/alerts/{}", id(5))).await.json();
    let expected = json!({
        "id": id(5).to_string(), "rule": "memory-high", "severity": "critical", "state": "firing",
        "node": node_id(1).to_string(), "name": "twin", "subject": "host", "value": 0.931, "threshold": 0.9,
        "since": "1970-01-01T00:11:40.000Z", "began": "1970-01-01T00:06:40.000Z", "summary": "alert 5",
        "summary_zh": "警报", "runbook": null, "labels": { "tenant": "a", "said": "a" }, "acknowledged": null,
        "silenced": null, "flapping": false, "held": null, "resolved": null, "reason": null
    });
    assert_eq!(said, expected);
    let fleet = rig.get(&format!("/api/v1/alerts/{}", id(7))).await.json();
    assert_eq!((&fleet["node"], &fleet["name"], &fleet["labels"]), (&Value::Null, &Value::Null, &json!({})));
}

#[tokio::test]
async fn what_fires_is_listed_unless_other_states_are_asked_for_and_filters_narrow_it_down() {
    let rig = wrong();
    for (query, expected) in [
        ("", &[5, 6, 7, 9, 10][..]),
        ("state=pending", &[8]),
        ("state=pending&state=firing", &[5, 6, 7, 8, 9, 10]),
        ("severity=critical", &[5, 9]),
        ("severity=info&severity=warning", &[6, 7, 10]),
        ("rule=disk-low", &[6, 10]),
        ("rule=disk-*&rule=node-down", &[6, 9, 10]),
        ("subject=fs%3A*", &[6, 10]),
        ("label=tenant%3Da", &[5]),
        ("node=alone&state=pending", &[8]),
        ("node=alone", &[]),
        ("rule=nobody", &[]),
    ] {
        assert_eq!(rig.numbers(query).await, expected, "{query}");
    }
    assert_eq!(rig.numbers(&format!("node={}", node_id(9))).await, [10], "of a node that is gone");
    for (query, word) in [
        ("state=open", "pending, firing or resolved"),
        ("state=firing&state=resolved", "stands alone"),
        ("severity=fatal", "critical"),
        ("after=1-2", "cursor"),
        ("node=twin", "2 nodes have the name"),
        ("limit=0", "1000"),
        ("sev=info", "unknown parameter"),
    ] {
        let refused = rig.get(&format!("/api/v1/alerts?{query}")).await;
        assert!(refused.status.is_client_error(), "{query}: {}", refused.status);
        assert!(refused.json()["detail"].as_str().is_some_and(|detail| detail.contains(word)), "{query}");
    }
}

#[tokio::test]
async fn pages_of_any_length_show_each_alert_once() {
    let mut rig = wrong();
    rig.keep((20..29).map(|number| row(number, Some(1), Some(i64::from(number / 2)))).collect());
    for state in ["firing", "resolved"] {
        let whole = rig.numbers(&format!("state={state}&limit=1000")).await;
        for limit in 1..=whole.len() + 1 {
            let (mut seen, mut after) = (Vec::new(), String::new());
            loop {
                let page = rig.get(&format!("/api/v1/alerts?state={state}&limit={limit}{after}")).await.json();
                seen.extend(numbers(&page));
                let Some(next) = page["next"].as_str() else { break };
                after = format!("&after={next}");
            }
            assert_eq!(seen, whole, "{state}, pages of {limit}");
        }
    }
    assert_eq!(rig.numbers("state=resolved&limit=3").await, [28, 27, 26], "the newest first");
}

#[tokio::test]
async fn what_is_over_says_when_and_why_and_is_found_as_well() {
    let mut rig = wrong();
    rig.keep(vec![row(20, Some(1), Some(900_000)), row(21, Some(9), Some(800_000)), row(22, None, Some(1_000_000))]);
    assert_eq!(rig.numbers("state=resolved").await, [22, 20, 21]);
    assert_eq!(rig.numbers(&format!("state=resolved&node={}", node_id(1))).await, [20]);
    assert_eq!(rig.numbers(&format!("state=resolved&node={}", node_id(9))).await, [21]);
    assert_eq!(rig.numbers("state=resolved&label=tenant%3Da").await, [20]);
    let said = rig.get(&format!("/api/v1/alerts/{}", id(20))).await.json();
    assert_eq!(
        (&said["state"], &said["resolved"], &said["reason"], &said["name"]),
        (&json!("resolved"), &json!("1970-01-01T00:15:00.000Z"), &json!("recovered"), &json!("twin"))
    );
    let gone = rig.get(&format!("/api/v1/alerts/{}", id(21))).await.json();
    assert_eq!(gone["node"], node_id(9).to_string(), "the database knows whom it was about");
}

#[tokio::test]
async fn the_first_digits_of_an_id_are_enough_when_no_other_begins_so() {
    let mut rig = wrong();
    let other = AlertId::from_bytes([5, 5, 5, 5, 5, 5, 5, 5, 5, 6]);
    rig.keep(vec![AlertRow { id: other, ..row(5, Some(1), Some(1)) }, row(6, Some(2), None)]);
    assert_eq!(rig.get("/api/v1/alerts/060606").await.json()["id"], id(6).to_string(), "it is on the board and a row");
    assert_eq!(rig.get("/api/v1/alerts/060606").await.json()["value"], 0.931, "as it is now");
    assert_eq!(rig.get("/api/v1/alerts/0A0A0A").await.json()["id"], id(10).to_string());
    let many = rig.get("/api/v1/alerts/050505").await;
    assert_eq!(many.status, StatusCode::CONFLICT);
    assert_eq!(many.json()["candidates"], json!([id(5).to_string(), other.to_string()]));
    assert_eq!(rig.get(&format!("/api/v1/alerts/{other}")).await.json()["state"], "resolved");
    for (word, status) in [
        ("06060", StatusCode::BAD_REQUEST),
        ("ffffff", StatusCode::NOT_FOUND),
        ("nothex", StatusCode::NOT_FOUND),
        ("060606060606060606060", StatusCode::NOT_FOUND),
        ("%27%20OR%201", StatusCode::NOT_FOUND),
    ] {
        for what in ["", "/context"] {
            assert_eq!(rig.get(&format!("/api/v1/alerts/{word}{what}")).await.status, status, "{word}{what}");
        }
    }
}

#[tokio::test]
async fn alerts_beyond_the_limits_of_a_token_do_not_exist() {
    let mut rig = wrong();
    let of = |number: u8| Some(1 + (number - 20) % 4);
    rig.keep(
        (20..28).map(|number| row(number, of(number), Some(number.into()))).chain([row(28, None, Some(1))]).collect(),
    );
    let limited = token(Role::Admin, true);
    let ask = async |path: &str| rig.ask("GET", &format!("/api/v1/alerts{path}"), Some(&limited), "").await;
    for (query, expected) in [
        ("?state=firing&state=pending", &[5, 8][..]),
        ("?state=resolved", &[26, 24, 22, 20]),
        ("?state=resolved&limit=1", &[26]),
        ("?label=tenant%3Db", &[]),
        ("?label=said%3Da", &[5]),
    ] {
        let page = ask(query).await;
        assert_eq!((page.status, numbers(&page.json())), (StatusCode::OK, expected.to_vec()), "{query}");
    }
    assert_eq!(ask("?node=other").await.status, StatusCode::NOT_FOUND);
    for hidden in [6, 7, 9, 10, 21, 23, 28] {
        for what in ["", "/context"] {
            let answer = ask(&format!("/{}{what}", id(hidden))).await;
            assert_eq!(answer.status, StatusCode::NOT_FOUND, "{hidden}{what}");
            let missing = ask(&format!("/{}{what}", id(99))).await;
            assert_eq!(answer.json()["title"], missing.json()["title"]);
        }
    }
    for seen in [5, 8, 20, 22] {
        assert_eq!(ask(&format!("/{}/context", id(seen))).await.status, StatusCode::OK, "{seen}");
    }
    // Of two that begin alike it sees one.
    let twin = AlertId::from_bytes([5, 5, 5, 5, 5, 5, 5, 5, 5, 9]);
    rig.keep(vec![AlertRow { id: twin, ..row(5, Some(2), Some(1)) }]);
    let seen = rig.ask("GET", "/api/v1/alerts/050505", Some(&limited), "").await;
    assert_eq!(seen.json()["id"], id(5).to_string());
}

#[tokio::test]
async fn who_sees_to_an_alert_and_which_silence_it_is_under_is_said_of_it_and_its_first_digits_are_enough_to_say_so() {
    let rig = wrong();
    let mut seen_to = (*open(5, Some(1), "memory-high", AlertState::Firing)).clone();
    let said = Acknowledgement { by: String::from("ann"), at: WallMs(1_000), why: String::from("mine") };
    (seen_to.acknowledged, seen_to.silenced) = (Some(Arc::new(said)), Some(SilenceId(12)));
    let twin = AlertView { id: AlertId::from_bytes([7, 7, 7, 7, 7, 7, 7, 7, 7, 8]), ..seen_to.clone() };
    rig.show(vec![Arc::new(seen_to), open(7, None, "fleet-loss", AlertState::Firing), Arc::new(twin.clone())]);
    let shown = rig.get("/api/v1/alerts/050505").await.json();
    assert_eq!(shown["acknowledged"], json!({ "who": "ann", "when": "1970-01-01T00:00:01.000Z", "why": "mine" }));
    assert_eq!(shown["silenced"], "s12");

    let admin = token(Role::Admin, false);
    let ack = async |word: &str| rig.ask("POST", &format!("/api/v1/alerts/{word}/ack"), Some(&admin), "").await;
    assert_eq!(ack("050505").await.status, StatusCode::NO_CONTENT);
    let ambiguous = ack("070707").await;
    assert_eq!(ambiguous.status, StatusCode::CONFLICT);
    assert_eq!(ambiguous.json()["candidates"], json!([id(7).to_string(), twin.id.to_string()]));
    for word in ["05050", "080808", "x", "05050505050505050505050"] {
        assert_eq!(ack(word).await.status, StatusCode::NOT_FOUND, "{word}");
    }
    // A limited token sees one of the two.
    let limited = rig.ask("POST", "/api/v1/alerts/070707/ack", Some(&token(Role::Operator, true)), "").await;
    assert_eq!(limited.status, StatusCode::NO_CONTENT);
    let said: Vec<_> = rig.said.lock().expect("not poisoned").iter().map(|(_, what)| what.clone()).collect();
    let acknowledge = |alert| policy::What::Acknowledge { alert, why: String::new() };
    assert_eq!(said, [acknowledge(id(5)), acknowledge(twin.id)]);
}

#[tokio::test]
async fn what_is_measured_of_a_node_that_is_silent_decides_nothing_and_that_is_said() {
    let rig = wrong();
    let mut fleet = (*rig.fleet.load_full()).clone();
    fleet.nodes[0].state = NodeState::Maintenance;
    fleet.nodes[1].state = NodeState::Down;
    fleet.nodes[3].state = NodeState::Down;
    rig.fleet.store(Arc::new(fleet));
    let page = rig.get("/api/v1/alerts").await.json();
    let held: Vec<&Value> = page["items"].as_array().expect("items").iter().map(|item| &item["held"]).collect();
    assert_eq!(held, [&json!("maintenance"), &json!("down"), &Value::Null, &Value::Null, &Value::Null]);
}

#[tokio::test]
async fn an_alert_explains_itself() {
    let mut rig = wrong();
    let mut kept = vec![row(5, Some(1), None), row(20, Some(1), Some(900_000)), row(21, Some(2), Some(900_000))];
    kept.push(AlertRow { began: kept[0].began, ..row(22, Some(1), Some(100_000)) });
    rig.keep(kept);
    let event = |at, kind, node| NewEvent {
        at: WallMs(at),
        kind,
        node: Some(node_id(node)),
        body: String::from(r#"{"name":"twin"}"#),
    };
    // Ten minutes before it began there was nothing; and what came after it fired, it is not of.
    let events = vec![
        event(-200_001, "container.started", 1),
        event(-199_000, "container.started", 1),
        event(390_000, "container.crashed", 2),
        event(500_000, "container.crashed", 1),
        event(700_000, "alert.firing", 1),
        event(700_000, "node.rebooted", 1),
        event(700_001, "node.rebooted", 1),
    ];
    rig.control.apply_with(&ControlBatch::default(), &Ordered { events, ..Ordered::default() }).expect("stored");
    let said = rig.get(&format!("/api/v1/alerts/{}/context", id(5))).await;
    assert_eq!(said.status, StatusCode::OK, "{}", said.json());
    let said = said.json();
    assert_eq!(said["alert"]["id"], id(5).to_string());
    let rule = json!({ "name": "memory-high", "when": "host_memory_used_ratio > 90%", "clear": "< 85%", "for": "5m",
        "keep_firing_for": "0s", "place": "r.toml:3" });
    assert_eq!(said["rule"], rule);
    assert_eq!((&said["now"]["value_text"], &said["now"]["threshold_text"]), (&json!("93.1 %"), &json!("90 %")));
    assert_eq!((&said["fired"]["value_text"], &said["fired"]["at"]), (&json!("91 %"), &said["alert"]["since"]));
    let by: Vec<&Value> = said["top"].as_array().expect("lists").iter().map(|list| &list["by"]).collect();
    assert_eq!(by, ["memory", "cpu"], "the resource in question first, and no list of nothing");
    assert_eq!(said["top"][0]["items"], json!([{ "subject": "container:db", "value": 2e9 }]));
    let changes: Vec<&Value> = said["changes"].as_array().expect("events").iter().map(|event| &event["at"]).collect();
    assert_eq!(
        changes,
        ["1970-01-01T00:11:40.000Z", "1970-01-01T00:08:20.000Z", "1969-12-31T23:56:41.000Z"],
        "{}",
        said["changes"]
    );
    // It is still open, so what ended in 1970 is long past.
    assert_eq!(said["others"], json!([]));

    // One that is over looks back from its end.
    let over = rig.get(&format!("/api/v1/alerts/{}/context", id(20))).await.json();
    let others: BTreeSet<_> = over["others"]
        .as_array()
        .expect("alerts")
        .iter()
        .map(|other| other["id"].clone())
        .map(|id| id.to_string())
        .collect();
    let expected = [id(5), id(22)].map(|id| json!(id.to_string()).to_string());
    assert_eq!(others, BTreeSet::from(expected), "one that is open, one that ended before, none of another node");
    assert_eq!((&over["now"]["at"], &over["series"]), (&over["alert"]["resolved"], &json!([])));
}

#[tokio::test]
async fn a_fleet_wide_alert_and_one_whose_rule_is_gone_explain_what_is_known() {
    let mut rig = wrong();
    rig.keep(vec![AlertRow { rule: String::from("gone"), top: String::from("garbage"), ..row(20, Some(1), Some(9)) }]);
    let fleet = rig.get(&format!("/api/v1/alerts/{}/context", id(7))).await.json();
    assert_eq!((&fleet["changes"], &fleet["fired"], &fleet["top"]), (&json!([]), &Value::Null, &json!([])));
    let gone = rig.get(&format!("/api/v1/alerts/{}/context", id(20))).await.json();
    assert_eq!((&gone["rule"], &gone["now"]["value_text"], &gone["top"]), (&Value::Null, &json!("0.8"), &json!([])));
}

#[tokio::test]
async fn nodes_and_metrics_count_what_fires() {
    let rig = wrong();
    let count =
        async |number: u8| rig.get(&format!("/api/v1/nodes/{}", node_id(number))).await.json()["alerts"].clone();
    assert_eq!([count(1).await, count(3).await], [1, 0], "what is pending does not fire");
    let list = rig.get("/api/v1/nodes").await.json();
    let counts: Vec<&Value> = list["items"].as_array().expect("items").iter().map(|node| &node["alerts"]).collect();
    assert_eq!(counts, [&json!(1), &json!(1), &json!(0), &json!(1)]);
    let page = String::from_utf8(rig.get("/metrics").await.body.to_vec()).expect("text");
    for line in [
        "dunlin_alerts{state=\"firing\",severity=\"critical\"} 2\n",
        "dunlin_alerts{state=\"pending\",severity=\"warning\"} 1\n",
        "dunlin_alerts{state=\"pending\",severity=\"info\"} 0\n",
        "dunlin_rules 4\n",
    ] {
        assert!(page.contains(line), "{line} is not in {page}");
    }
}
