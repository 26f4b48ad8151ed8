//! For machines: is it alive, is it ready, what does it count, and what can be asked.

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::Api;
use super::caller::{Root, Scraper};

/// The process answers
#[utoipa::path(get, path = "/-/healthy", tag = "machines", responses((status = 200, description = "It does", body = String)))]
pub(super) async fn healthy() -> &'static str {
    "healthy\n"
}

/// Agents can connect, and what they send is stored
#[utoipa::path(get, path = "/-/ready", tag = "machines", responses(
    (status = 200, description = "So it is", body = String),
    (status = 503, description = "Why not", body = String)
))]
pub(super) async fn ready(State(api): State<Api>) -> Response {
    match api.published.health.ready() {
        Ok(()) => "ready\n".into_response(),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
    }
}

/// What the collector counts about itself, in the Prometheus text format
///
/// Without a token on an address that only the collector's own host reaches; elsewhere for viewers that see
/// the whole fleet.
#[utoipa::path(get, path = "/metrics", tag = "machines", security((), ("bearer" = ["viewer"])), responses(
    (status = 200, description = "The page", body = String, content_type = "text/plain")
))]
pub(super) async fn metrics(_: Scraper, State(api): State<Api>) -> Response {
    let published = &api.published;
    let mut page = published.stats.render();
    page.push_str("# HELP dunlin_storing Whether frames can be stored.\n# TYPE dunlin_storing gauge\n");
    page.push_str(&format!("dunlin_storing {}\n", u8::from(published.health.is_storing())));
    page.push_str("# HELP dunlin_nodes Nodes by state.\n# TYPE dunlin_nodes gauge\n");
    for (state, count) in &published.fleet.load().counts {
        page.push_str(&format!("dunlin_nodes{{state=\"{}\"}} {count}\n", state.as_str()));
    }
    let board = published.board.load();
    page.push_str("# HELP dunlin_alerts Alerts that are open, by state and severity.\n# TYPE dunlin_alerts gauge\n");
    for (state, severity, count) in board.counts() {
        let (state, severity) = (state.as_str(), severity.as_str());
        page.push_str(&format!("dunlin_alerts{{state=\"{state}\",severity=\"{severity}\"}} {count}\n"));
    }
    page.push_str("# HELP dunlin_rules Rules that are in force.\n# TYPE dunlin_rules gauge\n");
    page.push_str(&format!("dunlin_rules {}\n", board.rules.len()));
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], page).into_response()
}

/// The last lines of the log, for a bundle.
pub(super) async fn lately(_: Root) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], crate::lately::lines()).into_response()
}

pub(super) async fn document(State(api): State<Api>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], api.document.clone()).into_response()
}
