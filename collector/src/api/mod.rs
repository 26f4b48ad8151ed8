//! HTTP for machines: is it alive, is it ready, what does it count.
//!
//! It reads what others publish and changes nothing.

use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tracing::error;

use crate::health::Health;
use crate::stats::Stats;
use crate::view::FleetView;

#[derive(Clone, Debug)]
pub struct Published {
    pub health: Arc<Health>,
    pub stats: Arc<Stats>,
    pub fleet: Arc<ArcSwap<FleetView>>,
}

/// Serves until the runtime ends.
pub async fn serve(listener: TcpListener, published: Published) {
    let router = Router::new()
        .route("/-/healthy", get(|| async { "healthy\n" }))
        .route("/-/ready", get(ready))
        .route("/metrics", get(metrics))
        .with_state(published);
    if let Err(error) = axum::serve(listener, router).await {
        error!("HTTP is no longer served: {error}");
    }
}

async fn ready(State(published): State<Published>) -> Response {
    match published.health.ready() {
        Ok(()) => "ready\n".into_response(),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
    }
}

async fn metrics(State(published): State<Published>) -> Response {
    let mut page = published.stats.render();
    page.push_str("# HELP dunlin_storing Whether frames can be stored.\n# TYPE dunlin_storing gauge\n");
    page.push_str(&format!("dunlin_storing {}\n", u8::from(published.health.is_storing())));
    page.push_str("# HELP dunlin_nodes Nodes by state.\n# TYPE dunlin_nodes gauge\n");
    for (state, count) in &published.fleet.load().counts {
        page.push_str(&format!("dunlin_nodes{{state=\"{}\"}} {count}\n", state.as_str()));
    }
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], page).into_response()
}
