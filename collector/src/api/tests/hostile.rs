//! What no sane client sends: answered with a reason and a 4xx, never a 5xx, never not at all.

use super::*;

fn admin() -> String {
    token(Role::Admin, false)
}

async fn refused(rig: &Rig, method: &str, path: &str, body: &str) -> StatusCode {
    let answer = rig.ask(method, path, Some(&admin()), body).await;
    let status = answer.status;
    assert!(status.is_client_error(), "{method} {path:.80} is answered {status}");
    assert_eq!(answer.headers["content-type"], "application/problem+json", "{method} {path:.80}");
    assert!(answer.json()["detail"].as_str().is_some_and(|detail| !detail.is_empty() && detail.len() < 1_000));
    status
}

#[tokio::test]
async fn injection_in_paths_and_parameters_finds_nothing() {
    let rig = Rig::new();
    for word in ["'%20OR%201=1--", "..%2f..%2fetc%2fpasswd", "%00", "x%0d%0aX-Y:%20z", "%F0%9F%90%A6", "*", "%25s"] {
        assert_eq!(refused(&rig, "GET", &format!("/api/v1/nodes/{word}"), "").await, StatusCode::NOT_FOUND);
        assert_eq!(refused(&rig, "DELETE", &format!("/api/v1/tokens/{word}"), "").await, StatusCode::NOT_FOUND);
        for path in ["nodes?after=", "nodes?state=", "events?after=", "events?node=", "log?after=", "tokens?after="] {
            refused(&rig, "GET", &format!("/api/v1/{path}{word}"), "").await;
        }
    }
    assert!(refused(&rig, "GET", "/api/v1/nodes/%ff", "").await.is_client_error());
    assert!(rig.orders.lock().expect("not poisoned").is_empty());
}

#[tokio::test]
async fn unknown_paths_and_methods_and_parameters_are_named() {
    let rig = Rig::new();
    for path in ["/", "/api/v1", "/api/v2/nodes", "/api/v1/nodes/", "/api/v1/../../etc/passwd", "/admin", "//"] {
        assert_eq!(refused(&rig, "GET", path, "").await, StatusCode::NOT_FOUND, "{path}");
    }
    assert_eq!(refused(&rig, "PUT", "/api/v1/nodes", "").await, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(refused(&rig, "BREW", "/api/v1/nodes/alone", "").await, StatusCode::METHOD_NOT_ALLOWED);
    for query in ["lable=a%3Db", "limit=4294967297", "limit=-1", "limit=1000000", "limit=", "label=x", "state=sideways"]
    {
        assert_eq!(refused(&rig, "GET", &format!("/api/v1/nodes?{query}"), "").await, StatusCode::BAD_REQUEST);
    }
    let series = "/api/v1/nodes/alone/series";
    for query in [
        "",
        "?metric=nonsense",
        "?metric=host_load1&from=yesterday",
        "?metric=host_load1&step=1ms",
        "?metric=host_load1&from=1h&to=2h",
        "?metric=host_load1&fold=sum",
        "?metric=host_load1&subject=%00",
        "?metric=host_load1&from=99999999999999999999h",
        "?metric=host_load1&from=-1h",
    ] {
        assert_eq!(refused(&rig, "GET", &format!("{series}{query}"), "").await, StatusCode::BAD_REQUEST, "{query}");
    }
}

#[tokio::test]
async fn bodies_that_are_too_large_too_deep_or_no_json_are_refused() {
    let rig = Rig::new();
    let at = "/api/v1/tokens";
    let deep = format!("{{\"labels\":{}1", "{\"a\":".repeat(10_000));
    for body in ["{", "null", "\u{0}", "{\"role\":1}", "{\"role\":\"viewer\",\"uses\":-1}", &deep] {
        assert_eq!(refused(&rig, "POST", at, body).await, StatusCode::BAD_REQUEST, "{body:.40}");
    }
    let large = "x".repeat(70_000);
    assert_eq!(refused(&rig, "POST", at, &large).await, StatusCode::PAYLOAD_TOO_LARGE);
    // Also where nobody reads a body, and before anybody asks for a token.
    assert_eq!(refused(&rig, "GET", "/api/v1/nodes", &large).await, StatusCode::PAYLOAD_TOO_LARGE);
    assert!(rig.orders.lock().expect("not poisoned").is_empty());
}

#[tokio::test]
async fn authorization_headers_that_are_none_are_refused() {
    let rig = Rig::new();
    for word in ["", "x", "dunlin-api.", "dunlin-api.AAAA", "dunlin-join.a.b", "dunlin-api.%00", &"A".repeat(4_000)] {
        let answer = rig.ask("GET", "/api/v1/nodes", Some(word), "").await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{word:.40}");
    }
    let mut twice = request("GET", "/api/v1/nodes", Some(&admin()), Body::empty());
    twice.headers_mut().append("authorization", "Bearer x".parse().expect("a value"));
    assert_eq!(rig.send(twice).await.status, StatusCode::BAD_REQUEST);
    let mut basic = request("GET", "/api/v1/nodes", None, Body::empty());
    basic.headers_mut().append("authorization", "Basic eDp5".parse().expect("a value"));
    assert_eq!(rig.send(basic).await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn the_admin_socket_is_root_and_needs_no_token() {
    let rig = Rig::new();
    let mut request = request("POST", "/api/v1/nodes/alone/revoke", None, Body::from("{\"why\":\"stolen\"}"));
    request.extensions_mut().insert(Peer::Root);
    assert_eq!(rig.send(request).await.status, StatusCode::NO_CONTENT);
    let orders = rig.orders.lock().expect("not poisoned");
    let (actor, what) = orders.first().expect("an order");
    assert_eq!(actor.name, "root");
    assert_eq!(*what, What::Revoke { node: node_id(3), why: "stolen".into() });
}
