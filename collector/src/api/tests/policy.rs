//! Silences and acknowledgements: what is taken, what is refused and with what words, and what a limited token may.

use dunlin_shared::id::FrameId;
use dunlin_shared::rule::file::parse;
use serde_json::json;

use super::*;
use crate::board::AlertView;
use crate::engine::alert::{AlertId, AlertState};
use crate::policy::{self, Matchers, Silence, SilenceId};

const RULES: &str = "[[rule]]\nname = \"busy\"\nwhen = \"node_state == stopped\"\nfor = \"0s\"\nsummary = \"s\"\n";

fn alert(number: u8, node: Option<u8>, state: AlertState) -> Arc<AlertView> {
    let rule = parse("rules.toml", RULES).expect("good").remove(0);
    let node = node.map(node_id);
    Arc::new(AlertView {
        id: alert_id(number),
        rule: Arc::new(rule),
        node,
        subject: "host".into(),
        state,
        value: None,
        threshold: None,
        since: WallMs(0),
        began: WallMs(0),
        is_flapping: false,
        words: Arc::default(),
        acknowledged: None,
        silenced: None,
    })
}

fn alert_id(number: u8) -> AlertId {
    AlertId::of("busy", Some(node_id(number)), "host", FrameId::new(1, number.into()))
}

fn silence(matchers: Matchers, end: WallMs) -> Arc<Silence> {
    Arc::new(Silence {
        matchers,
        author: String::from("ann"),
        reason: String::from("because"),
        created: WallMs(0),
        start: WallMs(0),
        end: Some(end),
        weekly: None,
        ended_by: None,
    })
}

fn on_tenant(tenant: &str) -> Matchers {
    Matchers { labels: [("tenant".into(), dunlin_shared::rule::Pattern::new(tenant))].into(), ..Matchers::default() }
}

/// Silences of `tenant=a`, of `tenant=b`, of a node of each, of everybody, and one that is over.
fn rig() -> Rig {
    let rig = Rig::new();
    let ever = WallMs(i64::MAX);
    let of_node = |number| Matchers { node: Some(node_id(number)), ..Matchers::default() };
    let rule = Matchers { rule: Some(dunlin_shared::rule::Pattern::new("*")), ..Matchers::default() };
    let all = [on_tenant("a"), on_tenant("b"), of_node(1), of_node(2), rule];
    let mut silences: Vec<_> = all.into_iter().map(|matchers| silence(matchers, ever)).collect();
    silences.push(silence(on_tenant("a"), WallMs(1)));
    let silences = (1..).map(SilenceId).zip(silences).collect();
    rig.silences.store(Arc::new(SilenceBoard { silences }));
    let alerts = vec![
        alert(1, Some(1), AlertState::Firing),
        alert(2, Some(2), AlertState::Firing),
        alert(3, Some(3), AlertState::Pending),
        alert(4, None, AlertState::Firing),
    ];
    rig.board.store(Arc::new(AlertBoard::new(alerts, Arc::default())));
    rig
}

fn ids(answer: &Answered) -> Vec<String> {
    let items = answer.json()["items"].as_array().cloned().expect("items");
    items.iter().filter_map(|item| item["id"].as_str().map(str::to_owned)).collect()
}

#[tokio::test]
async fn silences_are_listed_by_state_and_page() {
    let rig = rig();
    assert_eq!(ids(&rig.get("/api/v1/silences").await), ["s1", "s2", "s3", "s4", "s5", "s6"]);
    assert_eq!(ids(&rig.get("/api/v1/silences?state=expired").await), ["s6"]);
    let (mut seen, mut after) = (Vec::new(), String::new());
    loop {
        let page = rig.get(&format!("/api/v1/silences?limit=2&state=active{after}")).await;
        seen.extend(ids(&page));
        let Some(next) = page.json()["next"].as_str().map(str::to_owned) else { break };
        after = format!("&after={next}");
    }
    assert_eq!(seen, ["s1", "s2", "s3", "s4", "s5"]);
    let one = rig.get("/api/v1/silences/s6").await.json();
    assert_eq!((&one["state"], &one["until"], &one["author"]), (&json!("expired"), &json!(null), &json!("ann")));
    assert_eq!(one["matchers"], json!({ "labels": { "tenant": "a" } }));
    for (path, status) in [
        ("/api/v1/silences/s9", StatusCode::NOT_FOUND),
        ("/api/v1/silences/9", StatusCode::NOT_FOUND),
        ("/api/v1/silences?state=loud", StatusCode::BAD_REQUEST),
        ("/api/v1/silences?after=x", StatusCode::BAD_REQUEST),
    ] {
        assert_eq!(rig.get(path).await.status, status, "{path}");
    }
}

#[tokio::test]
async fn a_limited_token_sees_changes_and_makes_only_what_is_within_its_labels() {
    let rig = rig();
    let limited = token(Role::Operator, true);
    let list = rig.ask("GET", "/api/v1/silences", Some(&limited), "").await;
    assert_eq!(ids(&list), ["s1", "s3", "s6"], "of its label, and of a node that it sees");
    for (id, edited, status) in [
        ("s1", r#"{"reason":"other"}"#, StatusCode::NO_CONTENT),
        ("s2", r#"{"reason":"other"}"#, StatusCode::NOT_FOUND),
        ("s3", r#"{"reason":"other"}"#, StatusCode::FORBIDDEN),
        ("s5", r#"{"reason":"other"}"#, StatusCode::NOT_FOUND),
    ] {
        let path = format!("/api/v1/silences/{id}");
        assert_eq!(rig.ask("PATCH", &path, Some(&limited), edited).await.status, status, "{id}");
        assert_eq!(rig.ask("DELETE", &path, Some(&limited), "").await.status, status, "{id}");
    }
    assert_eq!(rig.said.lock().expect("not poisoned").drain(..).count(), 2);
    for (matchers, status) in [
        (json!({ "rule": "x" }), StatusCode::CREATED),
        (json!({ "labels": { "tenant": "a" } }), StatusCode::CREATED),
        (json!({ "labels": { "tenant": "b" } }), StatusCode::FORBIDDEN),
        (json!({ "labels": { "tenant": "*" } }), StatusCode::FORBIDDEN),
        (json!({ "node": node_id(2).to_string() }), StatusCode::NOT_FOUND),
        (json!({ "node": "twin" }), StatusCode::CREATED),
    ] {
        let body = json!({ "matchers": matchers, "reason": "r", "duration": "1h" }).to_string();
        let made = rig.ask("POST", "/api/v1/silences", Some(&limited), &body).await;
        assert_eq!(made.status, status, "{matchers}: {:?}", made.json());
    }
    let said = rig.said.lock().expect("not poisoned");
    assert_eq!(said.len(), 3);
    for (_, what) in said.iter() {
        let policy::What::Silence(wish) = what else { panic!("{what:?}") };
        assert!(wish.matchers.is_within(&Labels::from([("tenant".into(), "a".into())])), "{what:?}");
    }
}

#[tokio::test]
async fn a_silence_is_made_of_everything_that_it_says() {
    let rig = rig();
    let operator = token(Role::Operator, false);
    let body = json!({
        "matchers": { "labels": { "env": "pr*" }, "rule": "disk-*", "node": "alone", "subject": "fs:*", "severity": "warning" },
        "reason": "backups",
        "weekly": { "zone": "europe/berlin", "windows": [{ "days": ["sat", "sun"], "start": "02:00", "duration": "240m" }] },
    });
    let made = rig.ask("POST", "/api/v1/silences", Some(&operator), &body.to_string()).await;
    assert_eq!((made.status, made.json()["id"].as_str()), (StatusCode::CREATED, Some("s1")));
    let said = rig.said.lock().expect("not poisoned").pop();
    let Some((actor, policy::What::Silence(wish))) = said else { panic!("{said:?}") };
    let words = format!("env=pr* rule:disk-* node:{} subject:fs:* severity:warning", node_id(3));
    assert_eq!((actor.name.as_str(), wish.matchers.to_string(), wish.end), ("operator", words, None));
    let weekly = wish.weekly.map(|weekly| weekly.to_string());
    assert_eq!(weekly.as_deref(), Some("Europe/Berlin; sat,sun 02:00 4h"));
    let edit = |body: &'static str| rig.ask("PATCH", "/api/v1/silences/s1", Some(&operator), body);
    assert_eq!(edit(r#"{"end":null}"#).await.status, StatusCode::NO_CONTENT);
    assert_eq!(edit(r#"{"duration":"1h","end":null}"#).await.status, StatusCode::BAD_REQUEST);
    let said = rig.said.lock().expect("not poisoned").pop();
    assert!(matches!(&said, Some((_, policy::What::Edit { edit, .. })) if edit.end == Some(None)), "{said:?}");
}

#[tokio::test]
async fn what_is_wrong_with_a_silence_is_said() {
    let rig = rig();
    let operator = token(Role::Operator, false);
    for (body, says) in [
        ("{}", "matchers"),
        (r#"{"matchers":{"rule":"x","severity":"bad"},"reason":"r","duration":"1h"}"#, "critical"),
        (r#"{"matchers":{"rule":"x"},"reason":"r","duration":"soon"}"#, "2h"),
        (r#"{"matchers":{"rule":"x"},"reason":"r","duration":"1h","end":"2030-01-01T00:00:00Z"}"#, "exclude"),
        (r#"{"matchers":{"rules":"x"},"reason":"r","duration":"1h"}"#, "rules"),
        (
            r#"{"matchers":{"rule":"x"},"reason":"r","weekly":{"zone":"Mars","windows":[{"days":["sat"],"start":"02:00","duration":"1h"}]}}"#,
            "IANA",
        ),
        (
            r#"{"matchers":{"rule":"x"},"reason":"r","weekly":{"zone":"UTC","windows":[{"days":["day"],"start":"02:00","duration":"1h"}]}}"#,
            "is no day",
        ),
        (r#"{"matchers":{"rule":"x"},"reason":"r","weekly":{"zone":"UTC","windows":[]}}"#, "1 to 16"),
    ] {
        let refused = rig.ask("POST", "/api/v1/silences", Some(&operator), body).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{body}");
        let detail = refused.json()["detail"].as_str().expect("a reason").to_owned();
        assert!(detail.contains(says), "{body}: {detail}");
    }
    assert!(rig.said.lock().expect("not poisoned").is_empty());
}

#[tokio::test]
async fn alerts_are_acknowledged_one_by_one_and_by_what_they_have_in_common() {
    let rig = rig();
    let operator = token(Role::Operator, false);
    let limited = token(Role::Operator, true);
    for (number, limited_status) in [
        (1, StatusCode::NO_CONTENT),
        (2, StatusCode::NOT_FOUND),
        (4, StatusCode::NOT_FOUND),
        (9, StatusCode::NOT_FOUND),
    ] {
        let path = format!("/api/v1/alerts/{}/ack", alert_id(number));
        let status = if number == 9 { StatusCode::NOT_FOUND } else { StatusCode::NO_CONTENT };
        for method in ["POST", "DELETE"] {
            assert_eq!(rig.ask(method, &path, Some(&operator), "").await.status, status, "{method} {number}");
            assert_eq!(rig.ask(method, &path, Some(&limited), "").await.status, limited_status, "{method} {number}");
        }
    }
    rig.said.lock().expect("not poisoned").clear();
    let all = |token: String, body: &'static str| {
        let rig = &rig;
        async move { rig.ask("POST", "/api/v1/alerts/ack", Some(&token), body).await }
    };
    let some = all(operator.clone(), r#"{"rule":"b*","why":"on it"}"#).await.json();
    assert_eq!(some, json!({ "acknowledged": 3, "more": false }), "one is pending");
    assert_eq!(all(limited.clone(), r#"{"rule":"*"}"#).await.json()["acknowledged"], 1);
    assert_eq!(all(operator.clone(), r#"{"labels":{"tenant":"b"}}"#).await.json()["acknowledged"], 1);
    assert_eq!(all(operator.clone(), r#"{"node":"other","severity":"warning"}"#).await.json()["acknowledged"], 0);
    assert_eq!(all(limited, r#"{"node":"other"}"#).await.status, StatusCode::NOT_FOUND);
    assert_eq!(all(operator, "{}").await.status, StatusCode::BAD_REQUEST);
    let said = rig.said.lock().expect("not poisoned");
    let chosen = |what: &policy::What| match what {
        policy::What::AcknowledgeAll { chosen, why, .. } => format!("{chosen}; {why}"),
        other => panic!("{other:?}"),
    };
    assert_eq!(
        said.iter().map(|(_, what)| chosen(what)).collect::<Vec<_>>(),
        ["rule:b*; on it", "rule:*; ", "tenant=b; "]
    );
}
