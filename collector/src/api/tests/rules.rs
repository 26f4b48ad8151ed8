//! Rules: what is in force, what another set changes, what is refused with which places, and what a limited token may.

use dunlin_shared::id::FrameId;
use serde_json::json;

use super::*;
use crate::board::AlertView;
use crate::engine::alert::{AlertId, AlertState};

fn rule(name: &str, more: &str) -> String {
    format!(
        "[[rule]]\nname = \"{name}\"\nwhen = 'host_load1 > 8'\nsummary = \"{{node}} {{{{x}}}} {{value}}\"\n{more}\n"
    )
}

/// An alert of a rule on each of these nodes is open.
fn open(rig: &Rig, rule: &str, nodes: &[u8]) {
    let rule = Arc::clone(rig.book.load().rule(rule).expect("in force"));
    let alert = |node: &u8| {
        Arc::new(AlertView {
            id: AlertId::of(&rule.name, Some(node_id(*node)), "host", FrameId::new(1, 1)),
            rule: Arc::clone(&rule),
            node: Some(node_id(*node)),
            subject: "host".into(),
            state: AlertState::Firing,
            value: None,
            threshold: None,
            since: WallMs(0),
            began: WallMs(0),
            is_flapping: false,
            words: Arc::default(),
            acknowledged: None,
            silenced: None,
        })
    };
    let mut alerts: Vec<_> = nodes.iter().map(alert).collect();
    alerts.sort_by_key(|alert| alert.id);
    rig.board.store(Arc::new(AlertBoard::new(alerts, Arc::default())));
}

impl Rig {
    async fn send_text(&self, method: &str, path: &str, token: &str, body: impl Into<Body>, kind: &str) -> Answered {
        let mut request = request(method, path, Some(token), body.into());
        if !kind.is_empty() {
            request.headers_mut().insert("content-type", kind.parse().expect("a value"));
        }
        self.send(request).await
    }

    async fn put(&self, query: &str, text: &str) -> Answered {
        let path = format!("/api/v1/rules?{query}");
        self.send_text("PUT", &path, &token(Role::Operator, false), text.to_owned(), "application/toml").await
    }
}

#[tokio::test]
async fn rules_are_listed_by_page_with_their_origin_and_what_they_have_open() {
    let rig = Rig::new();
    let text = rule("web", "for = \"90s\"\nclear = '< 5'\nwhere = { role = \"web*\" }\nsubject = \"host\"");
    assert_eq!(rig.put("set=own", &text).await.status, StatusCode::OK);
    open(&rig, "busy", &[1, 2]);
    let (mut seen, mut after) = (Vec::new(), String::new());
    loop {
        let page = rig.get(&format!("/api/v1/rules?limit=7{after}")).await.json();
        seen.extend(page["items"].as_array().expect("items").clone());
        let Some(next) = page["next"].as_str() else { break };
        after = format!("&after={next}");
    }
    assert_eq!(seen.len(), rig.book.load().rules.len());
    let busy = rig.get("/api/v1/rules/busy").await.json();
    assert_eq!((&busy["origin"], &busy["open"]), (&json!({ "kind": "file", "place": "d/a.toml:2" }), &json!(2)));
    let web = rig.get("/api/v1/rules/web").await.json();
    let told = json!({
        "name": "web", "enabled": true, "severity": "warning", "when": "host_load1 > 8", "clear": "< 5", "for": "90s",
        "keep_firing_for": "0s", "where": { "role": "web*" }, "subjects": ["host"], "summary": "{node} {{x}} {value}",
        "origin": { "kind": "set", "place": "own:2" }, "open": 0,
    });
    assert_eq!(web, told);
    assert_eq!(rig.get("/api/v1/rules/node-down").await.json()["origin"], json!({ "kind": "shipped" }));
    for (path, status) in [
        ("/api/v1/rules/nobody", StatusCode::NOT_FOUND),
        ("/api/v1/rules/preview", StatusCode::NOT_FOUND),
        ("/api/v1/rules?after=nobody", StatusCode::BAD_REQUEST),
        ("/api/v1/rules?limit=0", StatusCode::BAD_REQUEST),
    ] {
        assert_eq!(rig.get(path).await.status, status, "{path}");
    }
    assert_eq!(rig.put("set=other", &rule("preview", "")).await.status, StatusCode::OK);
    assert_eq!(rig.get("/api/v1/rules/preview").await.json()["name"], "preview");
}

#[tokio::test]
async fn what_a_set_changes_is_said_before_it_does_and_with_it() {
    let rig = Rig::new();
    let first = rig.put("set=own", &[rule("a", ""), rule("b", ""), rule("c", "")].concat()).await.json();
    assert_eq!(
        (&first["dry_run"], &first["added"][1]),
        (&json!(false), &json!({ "name": "b", "open": 0, "closes": 0 }))
    );
    open(&rig, "b", &[1, 3]);
    let text = [rule("b", "where = { tenant = \"b\" }"), rule("c", ""), rule("d", "")].concat();
    let would = rig.put("set=own&dry_run=true", &text).await.json();
    let field = json!({ "field": "where", "before": "", "after": "{ tenant = \"b\" }" });
    assert_eq!(would["changed"], json!([{ "name": "b", "fields": [field], "open": 2, "closes": 2 }]));
    assert_eq!(would["removed"], json!([{ "name": "a", "open": 0, "closes": 0 }]));
    assert_eq!(rig.ruled.lock().expect("not poisoned").len(), 1, "nothing was done");
    assert!(rig.book.load().rule("a").is_some());
    let mut did = rig.put("set=own", &text).await.json();
    did["dry_run"] = json!(true);
    assert_eq!(did, would);
    open(&rig, "d", &[1, 2, 3]);
    let sets = rig.get("/api/v1/rule-sets").await.json();
    assert_eq!((&sets["items"][0]["name"], &sets["items"][0]["rules"]), (&json!("own"), &json!(3)));
    assert_eq!(rig.get("/api/v1/rule-sets/own").await.json()["text"], text);
    let operator = token(Role::Operator, false);
    let gone = rig.ask("DELETE", "/api/v1/rule-sets/own", Some(&operator), "").await.json();
    assert_eq!(gone["removed"][2], json!({ "name": "d", "open": 3, "closes": 3 }));
    assert_eq!(rig.ask("DELETE", "/api/v1/rule-sets/own", Some(&operator), "").await.status, StatusCode::NOT_FOUND);
    let long = format!("/api/v1/rule-sets/{}", "A".repeat(8_000));
    let missing = rig.ask("DELETE", &long, Some(&operator), "").await;
    assert!(missing.status == StatusCode::NOT_FOUND && missing.body.len() < 1_000, "{:?}", missing.body);
    let ruled = rig.ruled.lock().expect("not poisoned");
    let asked: Vec<_> = ruled.iter().map(|(actor, order)| (actor.name.as_str(), order.set.clone())).collect();
    assert_eq!(asked.len(), 3);
    assert!(matches!(asked[2], ("operator", Some((ref name, None))) if name == "own"), "{asked:?}");
}

#[tokio::test]
async fn a_text_that_is_wrong_is_refused_whole_with_every_place() {
    let rig = Rig::new();
    let operator = token(Role::Operator, false);
    let text = format!(
        "{}{}",
        rule("a", "form = \"5m\""),
        "[[rule]]\nname = \"b\"\nwhen = 'host_lood1 > 8'\nsummary = \"s\"\n"
    );
    let refused = rig.put("set=own", &text).await;
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
    let lines = refused.json()["lines"].clone();
    let lines: Vec<&str> = lines.as_array().expect("lines").iter().filter_map(|line| line.as_str()).collect();
    assert!(lines.len() == 2 && lines[0].starts_with("own:5:1: ") && lines[1].starts_with("own:8:9: "), "{lines:?}");
    let clash = rig.put("set=own", &rule("busy", "")).await.json();
    assert_eq!(clash["lines"], json!(["own:2:8: two rules are named busy; the other is at d/a.toml:2"]));
    for (query, body, status) in [
        ("", rule("a", ""), StatusCode::BAD_REQUEST),
        ("set=", rule("a", ""), StatusCode::BAD_REQUEST),
        ("set=a.toml", rule("a", ""), StatusCode::BAD_REQUEST),
        ("set=own&dry_run=yes", rule("a", ""), StatusCode::BAD_REQUEST),
        ("set=own", String::from(" \n"), StatusCode::BAD_REQUEST),
        ("set=own", rule("a", "# \u{0}"), StatusCode::UNPROCESSABLE_ENTITY),
        ("set=own", "[".repeat(100_000), StatusCode::UNPROCESSABLE_ENTITY),
        (
            "set=own",
            (0..10_001).map(|number| rule(&format!("r{number}"), "")).collect(),
            StatusCode::UNPROCESSABLE_ENTITY,
        ),
    ] {
        let refused = rig.put(query, &body).await;
        assert_eq!(refused.status, status, "{query} {body:.40}");
        assert!(refused.json()["detail"].as_str().is_some_and(|detail| detail.len() < 1_000), "{query} {body:.40}");
    }
    let latin = rig.send_text("PUT", "/api/v1/rules?set=own", &operator, vec![b'#', 0xff], "text/plain").await;
    assert_eq!(latin.status, StatusCode::BAD_REQUEST);
    assert!(latin.json()["detail"].as_str().is_some_and(|detail| detail.contains("byte 1")), "{:?}", latin.json());
    let as_json = rig.send_text("PUT", "/api/v1/rules?set=own", &operator, rule("a", ""), "application/json").await;
    assert_eq!(as_json.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    for (method, path) in [("PUT", "/api/v1/rules?set=own"), ("POST", "/api/v1/rules/preview")] {
        let large = rig.send_text(method, path, &operator, vec![b' '; 100 << 20], "text/plain").await;
        assert_eq!(large.status, StatusCode::PAYLOAD_TOO_LARGE, "{method} {path}");
    }
    assert!(rig.ruled.lock().expect("not poisoned").is_empty(), "nothing was ordered");
    let kept = rig.put("set=own", &format!("{}#{}", rule("a", ""), " ".repeat(1 << 20))).await;
    assert_eq!(kept.status, StatusCode::OK, "a megabyte is a file of rules");
}

#[tokio::test]
async fn a_limited_token_reads_rules_that_may_be_about_its_nodes_and_changes_none() {
    let rig = Rig::new();
    let text = [rule("ours", "where = { tenant = \"a*\" }"), rule("theirs", "where = { tenant = \"b\" }")].concat();
    assert_eq!(rig.put("set=own", &text).await.status, StatusCode::OK);
    open(&rig, "busy", &[1, 2]);
    let limited = token(Role::Operator, true);
    let get = |path: &'static str| rig.ask("GET", path, Some(&limited), "");
    assert_eq!(get("/api/v1/rules/ours").await.status, StatusCode::OK);
    assert_eq!(get("/api/v1/rules/theirs").await.status, StatusCode::NOT_FOUND);
    assert_eq!(get("/api/v1/rules/busy").await.json()["open"], 1, "of the nodes that it sees");
    let list = get("/api/v1/rules").await.json().to_string();
    assert!(list.contains("\"ours\"") && !list.contains("\"theirs\""), "{list}");
    for (method, path) in [
        ("GET", "/api/v1/rule-sets"),
        ("GET", "/api/v1/rule-sets/own"),
        ("DELETE", "/api/v1/rule-sets/own"),
        ("PUT", "/api/v1/rules?set=own"),
        ("PUT", "/api/v1/rules?set=own&dry_run=true"),
    ] {
        let refused = rig.send_text(method, path, &limited, rule("a", ""), "text/plain").await;
        assert_eq!(refused.status, StatusCode::FORBIDDEN, "{method} {path}");
    }
    assert_eq!(rig.ruled.lock().expect("not poisoned").len(), 1);
}

#[tokio::test]
async fn a_preview_says_what_it_cannot_and_what_would_be_too_dear() {
    let rig = Rig::new();
    let viewer = token(Role::Viewer, false);
    let preview = |query: &'static str, body: String| {
        let (rig, viewer) = (&rig, &viewer);
        async move { rig.send_text("POST", &format!("/api/v1/rules/preview{query}"), viewer, body, "text/plain").await }
    };
    let state = "[[rule]]\nname = \"down\"\nwhen = 'node_state == down'\nsummary = \"s\"\n";
    let said = preview("", format!("{}{state}", rule("a", "enabled = false"))).await.json();
    assert_eq!((&said["nodes"], &said["items"], &said["more"]), (&json!(4), &json!([]), &json!(false)));
    assert_eq!(said["rules"][0], json!({ "rule": "a", "alerts": 0, "nodes": 0, "seconds": 0.0 }));
    let why = "node_state is known to the collector alone, and its past is not kept";
    assert_eq!(said["rules"][1]["not_previewed"], why);
    assert_eq!(preview("?label=tenant%3Db", rule("a", "")).await.json()["nodes"], 2);
    let limited = token(Role::Viewer, true);
    let ours = rig.send_text("POST", "/api/v1/rules/preview", &limited, rule("a", ""), "text/plain").await;
    assert_eq!(ours.json()["nodes"], 2, "of those that it sees");
    for (query, body, says) in [
        ("?from=1h&to=2h", rule("a", ""), "before to"),
        ("?from=3650d", rule("a", ""), "ask with from="),
        ("?from=3650d&to=1000d", rule("a", ""), "shorter time"),
        ("?limit=0", rule("a", ""), "limit"),
        ("?lable=a", rule("a", ""), "lable"),
        ("", String::from("# none"), "1 to 100"),
        ("", (0..101).map(|number| rule(&format!("r{number}"), "")).collect(), "1 to 100"),
    ] {
        let refused = preview(query, body).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{query}");
        assert!(refused.json()["detail"].as_str().is_some_and(|detail| detail.contains(says)), "{:?}", refused.json());
    }
    let wrong = preview("", String::from("[[rule]]")).await;
    assert_eq!(wrong.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(wrong.json()["lines"][0].as_str().is_some_and(|line| line.starts_with("body:1:1: ")), "{:?}", wrong.json());
}
