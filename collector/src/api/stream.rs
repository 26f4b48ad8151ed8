//! The feed as server-sent events: `id` is the cursor, so that a browser resumes by itself.
//!
//! A stream ends when its token does, and says why when its cursor is lost to it.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use http_body_util::channel::{Channel, Sender};

use super::Api;
use super::caller::{Caller, Viewer};
use super::events::{Filter, Written, came_after, cursor, position, read, waiting_turn};
use super::params::Params;
use super::problem::Problem;

/// Events that are read at a time.
const BATCH: usize = 100;
/// Batches on their way to a consumer; then it is waited for.
const BATCHES_WAITING: usize = 2;
/// Proxies cut what is silent for a minute.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// What happens, as server-sent events
///
/// `id` is the cursor, `event` the kind, `data` the event as JSON. A comment keeps it alive every 15 seconds.
#[utoipa::path(get, path = "/api/v1/events/stream", tag = "feed", security(("bearer" = ["viewer"])),
    params(
        ("Last-Event-ID" = Option<String>, Header, description = "A cursor; it counts more than `after`"),
        ("after" = Option<String>, Query, description = "A cursor; without one it begins with the earliest event that is kept"),
        ("kind" = Option<Vec<String>>, Query, description = "Such as `node.down`, or `node.*`; repeated, any of them"),
        ("node" = Option<String>, Query, description = "An id, or a name that one node alone has"),
        ("label" = Option<Vec<String>>, Query, description = "`KEY=VALUE` of the node; repeated, all must be borne")
    ),
    responses(
        (status = 200, description = "The stream", body = String, content_type = "text/event-stream"),
        (status = "4XX", description = "Why not", body = crate::shape::Problem, content_type = "application/problem+json")
    ))]
pub(super) async fn stream(
    Viewer(caller): Viewer,
    State(api): State<Api>,
    headers: HeaderMap,
    mut params: Params,
) -> Result<Response, Problem> {
    let after = params.one("after")?;
    let filter = Filter::take(&mut params, &api, &caller)?;
    params.done()?;
    let resumed = match headers.get("last-event-id") {
        Some(value) => {
            let text = value.to_str().map_err(|_| Problem::bad_request("Last-Event-ID is no cursor"))?;
            Some(text.to_owned()).filter(|text| !text.is_empty())
        }
        None => None,
    };
    let from = position(&api, resumed.or(after).as_deref()).await?;
    let turn = waiting_turn(&api)?;
    let (sender, body) = Channel::<Bytes>::new(BATCHES_WAITING);
    tokio::spawn(async move {
        // The consumer has gone, or has been told why it ends.
        follow(&api, &caller, &filter, from, sender).await.ok();
        drop(turn);
    });
    let kind = (header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    Ok(([kind], Body::new(body)).into_response())
}

struct Ended;

async fn follow(
    api: &Api,
    caller: &Caller,
    filter: &Filter,
    mut after: u64,
    mut sender: Sender<Bytes>,
) -> Result<(), Ended> {
    say(&mut sender, String::from("retry: 2000\n\n")).await?;
    while caller.is_still_good(api) {
        let batch = match read(api, caller, filter, after, BATCH).await {
            Ok(batch) => batch,
            Err(problem) => return say(&mut sender, lost(&problem)).await,
        };
        let mut text: String = batch.events.iter().map(written).collect();
        if text.is_empty() && batch.upto > after {
            // Nothing for this consumer, and still it need not go over it again.
            text = format!("id: {}\n\n", cursor(api.published.incarnation, batch.upto));
        }
        after = batch.upto;
        if !text.is_empty() {
            say(&mut sender, text).await?;
        } else if !came_after(api, after, KEEP_ALIVE).await {
            say(&mut sender, String::from(": still here\n\n")).await?;
            // Nobody publishes any more when the collector stops.
            if api.published.newest_event.has_changed().is_err() {
                return Ok(());
            }
        }
    }
    Ok(())
}

async fn say(sender: &mut Sender<Bytes>, text: String) -> Result<(), Ended> {
    sender.send_data(Bytes::from(text)).await.map_err(|_| Ended)
}

fn written(event: &Written) -> String {
    format!("id: {}\nevent: {}\ndata: {}\n\n", event.cursor, event.kind, event.json)
}

fn lost(problem: &Problem) -> String {
    format!("event: problem\ndata: {}\n\n", problem.to_json())
}
