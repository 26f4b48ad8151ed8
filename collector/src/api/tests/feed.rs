//! The feed: gapless, ordered, resumed wherever its consumer was cut off, and no more than a token may see.

use std::time::Duration;

use serde_json::Value;

use super::*;
use crate::api::events::cursor;

fn cursors(feed: &Value) -> Vec<String> {
    let items = feed["items"].as_array().expect("items");
    items.iter().map(|event| event["cursor"].as_str().expect("a cursor").to_owned()).collect()
}

fn expected(ids: std::ops::RangeInclusive<u64>) -> Vec<String> {
    ids.map(|id| cursor(INCARNATION, id)).collect()
}

#[tokio::test]
async fn a_consumer_that_is_cut_off_at_random_sees_each_event_once() {
    let mut rig = Rig::new();
    let (mut seen, mut after, mut random) = (Vec::new(), None::<String>, 7u64);
    for _ in 0..40 {
        rig.happen(&[Some(1); 50]);
        for _ in 0..8 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let limit = 1 + (random >> 33) % 20;
            let from = after.as_ref().map(|after| format!("&after={after}")).unwrap_or_default();
            let feed = rig.get(&format!("/api/v1/events?limit={limit}{from}")).await.json();
            // Cut off behind one of them: what it had not taken it asks for again.
            let kept = usize::try_from((random >> 50) % 21).expect("small");
            let taken: Vec<String> = cursors(&feed).into_iter().take(kept).collect();
            if let Some(last) = taken.last() {
                after = Some(last.clone());
            }
            seen.extend(taken);
        }
    }
    let rest = rig.get(&format!("/api/v1/events?limit=1000&after={}", after.expect("it saw some"))).await.json();
    seen.extend(cursors(&rest));
    let last = seen.len() as u64;
    assert!(last > 1_000);
    assert_eq!(seen, expected(1..=last));
}

#[tokio::test]
async fn a_limited_token_hears_of_its_nodes_alone_and_its_cursor_moves_on() {
    let mut rig = Rig::new();
    rig.happen(&[Some(1), Some(2), None, Some(3), Some(4), Some(9)]);
    let limited = token(Role::Viewer, true);
    let feed = rig.ask("GET", "/api/v1/events", Some(&limited), "").await.json();
    assert_eq!(cursors(&feed), [cursor(INCARNATION, 1), cursor(INCARNATION, 4)]);
    assert_eq!(feed["next"], cursor(INCARNATION, 6));
    assert_eq!(feed["items"][0]["kind"], "node.up", "a body cannot say what it is");
    let other = rig.ask("GET", &format!("/api/v1/events?node={}", node_id(2)), Some(&limited), "").await;
    assert_eq!(other.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn cursors_of_another_life_or_of_nothing_are_told_apart() {
    let mut rig = Rig::new();
    rig.happen(&[Some(1)]);
    let foreign = rig.get("/api/v1/events?after=8-1").await;
    assert_eq!(foreign.status, StatusCode::GONE);
    assert_eq!(foreign.json()["earliest"], cursor(INCARNATION, 0));
    assert_eq!(rig.get("/api/v1/events?after=7-2").await.status, StatusCode::BAD_REQUEST);
    assert_eq!(rig.get("/api/v1/events?after=x").await.status, StatusCode::BAD_REQUEST);
    let end = rig.get("/api/v1/events?after=7-1").await.json();
    assert_eq!((end["items"].as_array().map(Vec::len), end["next"].as_str()), (Some(0), Some("7-1")));
}

#[tokio::test]
async fn a_wait_ends_with_the_event_or_with_its_time() {
    let mut rig = Rig::new();
    let path = format!("/api/v1/events?after={}&wait=", cursor(INCARNATION, 0));
    let empty = rig.get(&format!("{path}50ms")).await;
    assert_eq!((empty.status, empty.json()["next"].as_str()), (StatusCode::OK, Some("7-0")));
    assert_eq!(rig.get(&format!("{path}61s")).await.status, StatusCode::BAD_REQUEST);
    let router = rig.router.clone();
    let waiting = tokio::spawn(async move {
        let asked = request("GET", &format!("{path}30s"), Some(&token(Role::Viewer, false)), Body::empty());
        router.oneshot(asked).await.expect("the router does not fail").into_body().collect().await
    });
    rig.happen(&[Some(1)]);
    let answer = tokio::time::timeout(Duration::from_secs(20), waiting).await.expect("long before its time");
    let body = answer.expect("it ran").expect("a body").to_bytes();
    assert_eq!(cursors(&serde_json::from_slice(&body).expect("JSON")), expected(1..=1));
}

#[tokio::test]
async fn a_stream_resumes_behind_the_last_event_id() {
    let mut rig = Rig::new();
    rig.happen(&[Some(1), Some(2), Some(3)]);
    let mut asked = request("GET", "/api/v1/events/stream", Some(&token(Role::Viewer, false)), Body::empty());
    asked.headers_mut().insert("last-event-id", cursor(INCARNATION, 1).parse().expect("a value"));
    let answer = rig.router.clone().oneshot(asked).await.expect("the router does not fail");
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    let mut body = answer.into_body();
    let mut text = String::new();
    let mut more = async |text: &mut String, until: &str| {
        while !text.contains(until) {
            let frame = tokio::time::timeout(Duration::from_secs(20), body.frame()).await.expect("it comes");
            let data = frame.expect("it goes on").expect("no error").into_data().expect("data");
            text.push_str(std::str::from_utf8(&data).expect("text"));
        }
    };
    more(&mut text, "id: 7-3\n").await;
    rig.happen(&[Some(4)]);
    more(&mut text, "id: 7-4\n").await;
    assert!(!text.contains("id: 7-1\n"), "{text}");
    let ids: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("id: ")).collect();
    assert_eq!(ids, ["7-2", "7-3", "7-4"]);
    assert!(text.contains("event: node.up\ndata: {\"cursor\":\"7-2\""), "{text}");
}
