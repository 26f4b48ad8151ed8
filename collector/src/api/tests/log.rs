//! What is refused to somebody who is known stands in the log, and a flood of it does not fill it; and
//! letting in many at once.

use serde_json::json;

use super::super::witness;
use super::*;

type Line = (String, String, String, u64);

impl Rig {
    /// Who was refused what, about whom and how often.
    fn lines(&self) -> Vec<Line> {
        let noted = self.refused.lock().expect("not poisoned");
        let line = |(actor, what): &(Actor, What)| match what {
            What::NoteRefused { action, target, times, .. } => {
                (actor.name.clone(), action.clone(), target.clone(), *times)
            }
            other => panic!("{other:?}"),
        };
        noted.iter().map(line).collect()
    }
}

fn line(who: &str, action: &str, target: &str) -> Line {
    (who.into(), action.into(), target.into(), 1)
}

#[test]
fn every_verb_that_changes_something_has_its_word_in_the_log() {
    let document: Value = serde_json::from_str(&super::super::openapi()).expect("it is JSON");
    // What rules would have said is asked with a body, and changes nothing.
    let is_reading = |path: &str| path == "/api/v1/rules/preview";
    let paths = document["paths"].as_object().expect("paths");
    for (path, methods) in paths.iter().filter(|(path, _)| !is_reading(path)) {
        for method in methods.as_object().expect("methods").keys().filter(|method| *method != "get") {
            let method = method.to_uppercase().parse().expect("a method");
            assert!(witness::action(&method, path).is_some(), "{method} {path}");
        }
    }
}

#[tokio::test]
async fn a_refusal_is_in_the_log_with_who_asked_and_what_for_before_it_is_answered() {
    let rig = Rig::new();
    let [viewer, limited, admin] = [(Role::Viewer, false), (Role::Admin, true), (Role::Admin, false)];
    let other = node_id(2).to_string();
    for ((role, is_limited), method, path, body, expected) in [
        (viewer, "POST", "/api/v1/nodes/alone/revoke", "", line("viewer", "node.revoke", "alone")),
        (limited, "DELETE", &format!("/api/v1/nodes/{other}"), "", line("admin-of-a", "node.forget", &other)),
        (
            limited,
            "PATCH",
            "/api/v1/nodes/alone",
            r#"{"labels":{"tenant":"b"}}"#,
            line("admin-of-a", "node.label", &node_id(3).to_string()),
        ),
        (admin, "POST", "/api/v1/nodes/nobody/adopt", "", line("admin", "node.adopt", "nobody")),
        (admin, "POST", "/api/v1/tokens", r#"{"role":"king"}"#, line("admin", "token.create", "")),
        (admin, "DELETE", "/api/v1/tokens/t99", "", line("admin", "token.delete", "t99")),
        (admin, "POST", "/api/v1/authority/burn", "", line("admin", "authority.turn", "burn")),
    ] {
        let answer = rig.ask(method, path, Some(&token(role, is_limited)), body).await;
        assert!(answer.status.is_client_error(), "{method} {path}: {}", answer.status);
        assert_eq!(rig.lines().pop(), Some(expected), "{method} {path}");
    }
    let (noted, reads) = (rig.lines().len(), [("GET", "/api/v1/nodes/nobody"), ("GET", "/api/v1/log?after=x")]);
    for (method, path) in reads {
        assert!(rig.ask(method, path, Some(&token(Role::Admin, false)), "").await.status.is_client_error());
    }
    assert!(rig.ask("DELETE", "/api/v1/nodes/alone", None, "").await.status.is_client_error());
    assert_eq!(rig.lines().len(), noted, "reading changes nothing, and nobody is nobody");
}

#[tokio::test]
async fn a_flood_of_refusals_is_a_few_lines_that_say_how_many() {
    let rig = Rig::new();
    for number in 0..1_000 {
        let path = format!("/api/v1/nodes/guess-{number}/revoke");
        assert_eq!(rig.ask("POST", &path, Some(&token(Role::Viewer, false)), "").await.status, StatusCode::FORBIDDEN);
    }
    let lines = rig.lines();
    assert_eq!(lines.len(), 8 + 6, "{lines:?}");
    assert_eq!(lines.iter().map(|(.., times)| times).sum::<u64>(), 512);
    assert_eq!(lines.last().map(|(_, _, target, times)| (target.as_str(), *times)), Some(("guess-511", 256)));
}

#[tokio::test]
async fn many_are_let_in_by_what_they_wait_for_and_what_they_bear() {
    let waiting = [("n1", "a", Admission::Held), ("n2", "b", Admission::Held), ("n3", "a", Admission::Pending)];
    let nodes = (1..).zip(waiting).map(|(number, (name, tenant, admission))| {
        let shown = node(number, name, tenant);
        let about = About { admission, ..About::clone(&shown.about) };
        NodeView { about: Arc::new(about), state: NodeState::parse(admission.as_str()).expect("a state"), ..shown }
    });
    let rig = Rig::with(nodes.collect());
    let held = rig.get("/api/v1/nodes?state=held").await.json();
    let names: Vec<_> = held["items"].as_array().expect("items").iter().map(|node| node["name"].clone()).collect();
    assert_eq!(names, ["n1", "n2"]);
    let admin = token(Role::Admin, false);
    for (token, body, answer, chosen) in [
        (&admin, json!({"state": "held", "limit": 1}), json!({"approved": 1, "more": true}), vec![1]),
        (&admin, json!({"state": "held"}), json!({"approved": 2, "more": false}), vec![1, 2]),
        (&admin, json!({"state": "held", "labels": {"tenant": "b"}}), json!({"approved": 1, "more": false}), vec![2]),
        (&admin, json!({"state": "held", "labels": {"tenant": "c"}}), json!({"approved": 0, "more": false}), vec![]),
        (&admin, json!({"state": "pending"}), json!({"approved": 1, "more": false}), vec![3]),
        (&token(Role::Admin, true), json!({"state": "held"}), json!({"approved": 1, "more": false}), vec![1]),
    ] {
        let said = rig.ask("POST", "/api/v1/approvals", Some(token), &body.to_string()).await;
        assert_eq!(said.json(), answer, "{body}");
        let ordered = std::mem::take(&mut *rig.orders.lock().expect("not poisoned"));
        let ids = |(_, what): &(Actor, What)| match what {
            What::ApproveAll { nodes, .. } => nodes.clone(),
            other => panic!("{other:?}"),
        };
        let ids: Vec<_> = ordered.iter().flat_map(ids).collect();
        assert_eq!(ids, chosen.into_iter().map(node_id).collect::<Vec<_>>(), "{body}");
    }
    for wrong in [
        json!({}),
        json!({"state": "up"}),
        json!({"state": "held", "limit": 0}),
        json!({"state": "held", "limit": 1001}),
    ] {
        let said = rig.ask("POST", "/api/v1/approvals", Some(&admin), &wrong.to_string()).await;
        assert_eq!(said.status, StatusCode::BAD_REQUEST, "{wrong}");
    }
}
