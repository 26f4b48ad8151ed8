//! Every verb of the document, one by one: without a token, below its role, and outside of its labels.

use dunlin_shared::token::JoinToken;
use serde_json::Value;

use super::*;

/// Method, path and the role that the document asks for.
fn verbs() -> Vec<(String, String, Role)> {
    let document: Value = serde_json::from_str(&super::super::openapi()).expect("it is JSON");
    let mut verbs = Vec::new();
    for (path, methods) in document["paths"].as_object().expect("paths") {
        for (method, about) in methods.as_object().expect("methods") {
            let Some(role) = about["security"].as_array().and_then(|all| all.last()?["bearer"][0].as_str()) else {
                assert!(path.starts_with("/-/"), "{method} {path} is open to anybody");
                continue;
            };
            verbs.push((method.to_uppercase(), path.clone(), Role::parse(role).expect("a role")));
        }
    }
    verbs
}

fn body(method: &str, path: &str) -> &'static str {
    match (method, path) {
        ("POST", "/api/v1/tokens") => r#"{"role":"viewer"}"#,
        ("POST", "/api/v1/approvals") => r#"{"state":"held"}"#,
        ("POST", "/api/v1/silences") => r#"{"matchers":{"rule":"x"},"reason":"r","duration":"1h"}"#,
        ("PATCH", "/api/v1/silences/{id}") => r#"{"reason":"r"}"#,
        ("PUT", "/api/v1/rules") | ("POST", "/api/v1/rules/preview") => "[[rule]]",
        ("POST", "/api/v1/alerts/ack") => r#"{"rule":"*"}"#,
        ("PATCH", _) => r#"{"labels":{"env":"prod"}}"#,
        _ => "",
    }
}

/// A path about this node or token, with what it cannot do without.
fn filled(path: &str, id: &str) -> String {
    let query = if path.ends_with("/series") { "?metric=host_load1" } else { "" };
    format!("{}{query}", path.replace("{id}", id).replace("{name}", "busy"))
}

#[tokio::test]
async fn no_verb_is_carried_out_without_a_token_or_below_its_role() {
    let rig = Rig::new();
    let verbs = verbs();
    assert!(verbs.len() >= 18, "{}", verbs.len());
    for (method, path, needed) in verbs {
        let at = filled(&path, &node_id(1).to_string());
        let nobody = rig.ask(&method, &at, None, body(&method, &path)).await;
        assert_eq!(nobody.status, StatusCode::UNAUTHORIZED, "{method} {path}");
        assert!(nobody.headers.contains_key("www-authenticate"), "{method} {path}");
        assert_eq!(nobody.headers["content-type"], "application/problem+json");
        for role in Role::ALL.into_iter().filter(|role| !role.covers(needed)) {
            let refused = rig.ask(&method, &at, Some(&token(role, false)), body(&method, &path)).await;
            assert_eq!(refused.status, StatusCode::FORBIDDEN, "{method} {path} as {role:?}");
            assert_eq!(refused.json()["status"], 403);
        }
    }
    assert!(rig.orders.lock().expect("not poisoned").is_empty());
    assert!(rig.said.lock().expect("not poisoned").is_empty());
}

#[tokio::test]
async fn what_a_limited_token_does_not_see_does_not_exist() {
    let rig = Rig::new();
    let limited = token(Role::Admin, true);
    for (method, path, _) in verbs().into_iter().filter(|(_, path, _)| path.contains("/nodes/{id}")) {
        for other in [node_id(2).to_string(), node_id(4).to_string(), String::from("other")] {
            let hidden = rig.ask(&method, &filled(&path, &other), Some(&limited), body(&method, &path)).await;
            let missing = rig.ask(&method, &filled(&path, "nobody"), Some(&limited), body(&method, &path)).await;
            assert_eq!(
                (hidden.status, missing.status),
                (StatusCode::NOT_FOUND, StatusCode::NOT_FOUND),
                "{method} {path}"
            );
        }
        assert!(rig.orders.lock().expect("not poisoned").is_empty(), "{method} {path}");
        // And what it sees does: of two nodes of one name it sees one.
        let seen = rig.ask(&method, &filled(&path, "twin"), Some(&limited), body(&method, &path)).await;
        assert!(seen.status.is_success(), "{method} {path}: {}", seen.status);
        rig.orders.lock().expect("not poisoned").clear();
    }
    let list = rig.ask("GET", "/api/v1/nodes?label=said%3Da", Some(&limited), "").await.json();
    let ids: Vec<&str> =
        list["items"].as_array().expect("items").iter().filter_map(|node| node["id"].as_str()).collect();
    assert_eq!(ids, [node_id(1).to_string(), node_id(3).to_string()]);
    assert_eq!(rig.ask("GET", "/metrics", Some(&limited), "").await.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn a_limited_admin_cannot_reach_beyond_its_labels() {
    let rig = Rig::new();
    let limited = token(Role::Admin, true);
    let label = r#"{"labels":{"tenant":"b"}}"#;
    let moved = rig.ask("PATCH", "/api/v1/nodes/twin", Some(&limited), label).await;
    assert_eq!(moved.status, StatusCode::FORBIDDEN);
    let wider = rig.ask("POST", "/api/v1/tokens", Some(&limited), r#"{"role":"join","labels":{"tenant":"b"}}"#).await;
    assert_eq!(wider.status, StatusCode::FORBIDDEN);
    assert!(rig.orders.lock().expect("not poisoned").is_empty());
    let made = rig.ask("POST", "/api/v1/tokens", Some(&limited), r#"{"role":"admin"}"#).await;
    assert_eq!(made.status, StatusCode::CREATED);
    let orders = rig.orders.lock().expect("not poisoned");
    let [(actor, What::CreateToken(wish))] = orders.as_slice() else { panic!("{orders:?}") };
    assert_eq!(actor.name, "admin-of-a");
    assert_eq!(wish.labels.get("tenant").map(String::as_str), Some("a"));
}

#[tokio::test]
async fn a_new_token_is_shown_whole_once() {
    let rig = Rig::new();
    let body = r#"{"role":"join","uses":100,"ttl":"24h","labels":{"env":"prod"}}"#;
    let made = rig.ask("POST", "/api/v1/tokens", Some(&token(Role::Admin, false)), body).await;
    assert_eq!(made.status, StatusCode::CREATED);
    let text = made.json()["token"].as_str().expect("a token").to_owned();
    let authority = rig.ask("GET", "/api/v1/authority", Some(&token(Role::Admin, false)), "").await.json();
    let pin = authority["pin"].as_str().and_then(|pin| pin.parse().ok()).expect("a pin");
    assert_eq!(text.parse(), Ok(JoinToken { secret: [9; 20], pin }));
    for wrong in [
        r#"{"role":"king"}"#,
        r#"{"role":"viewer","ttl":"soon"}"#,
        r#"{"role":"viewer","ttl":"1h","expires":"2030-01-01T00:00:00Z"}"#,
        r#"{"role":"viewer","tll":"1h"}"#,
        "{}",
        "[]",
    ] {
        let refused = rig.ask("POST", "/api/v1/tokens", Some(&token(Role::Admin, false)), wrong).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{wrong}");
    }
}

#[tokio::test]
async fn wrong_tokens_are_refused_then_slowed_down_and_noted_and_good_ones_go_on() {
    let rig = Rig::new();
    let wrong = reveal(&[77; 20]);
    let mut statuses = Vec::new();
    for _ in 0..12 {
        statuses.push(rig.ask("GET", "/api/v1/nodes", Some(&wrong), "").await.status);
    }
    assert!(statuses[..10].iter().all(|status| *status == StatusCode::UNAUTHORIZED), "{statuses:?}");
    let slowed = rig.ask("GET", "/api/v1/nodes", Some(&wrong), "").await;
    assert_eq!(slowed.status, StatusCode::TOO_MANY_REQUESTS);
    assert!(slowed.headers.contains_key("retry-after"));
    assert_eq!(rig.get("/api/v1/nodes").await.status, StatusCode::OK);
    while rig.refused.lock().expect("not poisoned").is_empty() {
        tokio::task::yield_now().await;
    }
    let noted = rig.refused.lock().expect("not poisoned");
    let is_note =
        |(_, what): &(Actor, What)| matches!(what, What::NoteRefused { action, .. } if action == "token.refused");
    assert!(!noted.is_empty() && noted.len() <= 4 && noted.iter().all(is_note), "{noted:?}");
}

#[tokio::test]
async fn an_ambiguous_name_is_answered_with_the_ids() {
    let rig = Rig::new();
    let answer = rig.get("/api/v1/nodes/twin").await;
    assert_eq!(answer.status, StatusCode::CONFLICT);
    let ids = [node_id(1).to_string(), node_id(2).to_string()];
    assert_eq!(answer.json()["candidates"], serde_json::json!(ids));
    assert_eq!(rig.get("/api/v1/nodes/alone").await.json()["id"], node_id(3).to_string());
}

#[tokio::test]
async fn a_list_is_paged_without_losing_or_repeating_a_node() {
    let rig = Rig::new();
    let (mut seen, mut after) = (Vec::new(), String::new());
    loop {
        let page = rig.get(&format!("/api/v1/nodes?limit=1{after}")).await.json();
        seen.extend(page["items"].as_array().expect("items").iter().map(|node| node["id"].clone()));
        let Some(next) = page["next"].as_str() else { break };
        after = format!("&after={next}");
    }
    let all: Vec<Value> = (1..=4).map(|number| Value::from(node_id(number).to_string())).collect();
    assert_eq!(seen, all);
}

#[test]
fn the_committed_document_is_what_the_code_says() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/openapi.json");
    let committed = std::fs::read_to_string(path).unwrap_or_default();
    assert!(committed == super::super::openapi(), "docs/openapi.json is not what the code says; run `make docs`");
}

#[tokio::test]
async fn an_authority_turns_in_three_steps_of_which_none_is_left_out() {
    let rig = Rig::new();
    let admin = token(Role::Admin, false);
    let pin = |said: &Value| said["pin"].as_str().map(str::to_owned).expect("a pin");
    let first = rig.ask("GET", "/api/v1/authority", Some(&admin), "").await.json();
    assert_eq!(first["turn"], "none");
    for (step, status, turn) in [
        ("activate", StatusCode::CONFLICT, "none"),
        ("prepare", StatusCode::NO_CONTENT, "prepared"),
        ("prepare", StatusCode::CONFLICT, "prepared"),
        ("activate", StatusCode::NO_CONTENT, "activated"),
        ("prepare", StatusCode::CONFLICT, "activated"),
        ("retire", StatusCode::NO_CONTENT, "none"),
        ("retire", StatusCode::CONFLICT, "none"),
        ("burn", StatusCode::NOT_FOUND, "none"),
    ] {
        let path = format!("/api/v1/authority/{step}");
        assert_eq!(rig.ask("POST", &path, Some(&admin), "").await.status, status, "{step}");
        let said = rig.ask("GET", "/api/v1/authority", Some(&admin), "").await.json();
        assert_eq!(said["turn"], turn, "after {step}");
    }
    let last = rig.ask("GET", "/api/v1/authority", Some(&admin), "").await.json();
    assert_ne!(pin(&first), pin(&last), "new tokens name the authority that signs now");
    let limited = rig.ask("POST", "/api/v1/authority/prepare", Some(&token(Role::Admin, true)), "").await;
    assert_eq!(limited.status, StatusCode::FORBIDDEN);
    let orders = rig.orders.lock().expect("not poisoned");
    let noted = orders.iter().filter(|(_, what)| matches!(what, What::Note { .. })).count();
    assert_eq!(noted, 3, "each step taken stands in the log");
}
