//! The window as text for other programs, of any length: read in turns, sent as fast as it is taken.
//!
//! Nobody's turn at the files is held while a client is waited for, and so much is held for it as is on its way. An
//! export that fails is cut off: it never looks whole.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use http_body_util::channel::{Channel, Sender};
use thiserror::Error;
use tokio::sync::OwnedSemaphorePermit;
use tracing::warn;

use super::Api;
use super::caller::{Caller, Viewer};
use super::nodes::find;
use super::params::{Params, short};
use super::problem::Problem;
use super::series::{INTERVAL_MS, known, resolution, subject, too_dear};
use crate::export::{Asked, Export, Format, Node};
use crate::store::Level;
use crate::view::NodeView;

/// Each holds some megabytes and takes its turns beside everybody else's.
pub(super) const EXPORTS_MAX: usize = 2;
/// Chunks on their way to a client; then it is waited for.
const CHUNKS_WAITING: usize = 2;
/// An export takes seconds to minutes.
const RETRY_AFTER_S: u64 = 10;

/// Samples or roll-ups as CSV or OpenMetrics
///
/// Streamed; what is not whole ends without `# EOF`, or with a broken transfer. In `csv` nodes stand one after the other, each in
/// the order of time. Gaps are left out. At most two at once; then 429.
#[utoipa::path(get, path = "/api/v1/export", tag = "nodes", security(("bearer" = ["viewer"])),
    params(
        ("format" = Option<String>, Query, description = "`csv` (when absent) or `openmetrics`"),
        ("metric" = Option<Vec<String>>, Query, description = "A name of docs/metrics.md, or `x_*` in full; repeated, each of them; absent, all"),
        ("subject" = Option<Vec<String>>, Query, description = "Such as `host` or `fs:/var`; repeated, each of them; absent, all"),
        ("node" = Option<Vec<String>>, Query, description = "An id, or a name that one node alone has; repeated, each of them; absent, all"),
        ("label" = Option<Vec<String>>, Query, description = "`KEY=VALUE` of the node; repeated, all must be borne"),
        ("from" = Option<String>, Query, description = "RFC 3339, or a duration before now such as `2h`; all that there is when absent"),
        ("to" = Option<String>, Query, description = "The same; now when absent"),
        ("resolution" = Option<String>, Query, description = "`full` (when absent): every sample; `5m` or `1h`: least, most, mean, last and count of each"),
        ("counter" = Option<String>, Query, description = "`value` (when absent): as it is counted; or `rate`, which is all that roll-ups hold")
    ),
    responses(
        (status = 200, description = "The text", content(
            (String = "text/csv"),
            (String = "application/openmetrics-text")
        )),
        (status = "4XX", description = "Why not", body = crate::shape::Problem, content_type = "application/problem+json")
    ))]
pub(super) async fn export(
    Viewer(caller): Viewer,
    State(api): State<Api>,
    mut params: Params,
) -> Result<Response, Problem> {
    let asked = question(&api, &caller, &mut params)?;
    let kind = match asked.format {
        Format::Csv => "text/csv; charset=utf-8; header=present",
        Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
    };
    let place = Arc::clone(&api.exports).try_acquire_owned().map_err(|_| {
        Problem::too_many(format!("{EXPORTS_MAX} exports are under way, and no more are allowed"), RETRY_AFTER_S)
    })?;
    let mut export = Export::new(asked);
    // What fails at once is answered as anything else is.
    let more = read(&api, &mut export).await?;
    let (sender, body) = Channel::<Bytes, CutOff>::new(CHUNKS_WAITING);
    tokio::spawn(deliver(api, caller, (export, more), sender, place));
    Ok(([(header::CONTENT_TYPE, HeaderValue::from_static(kind))], Body::new(body)).into_response())
}

#[derive(Debug, Error)]
#[error("the export is not whole")]
struct CutOff;

fn question(api: &Api, caller: &Caller, params: &mut Params) -> Result<Asked, Problem> {
    let now = api.published.clock.wall();
    let format = match params.one("format")?.as_deref() {
        None | Some("csv") => Format::Csv,
        Some("openmetrics") => Format::OpenMetrics,
        Some(text) => {
            return Err(Problem::bad_request(format!("format is {:?}; it is csv or openmetrics", short(text))));
        }
    };
    let metrics = known(params.all("metric"))?;
    let subjects = params.all("subject").iter().map(|text| subject(text)).collect::<Result<_, _>>()?;
    let level = resolution(params)?.unwrap_or(Level::Full);
    let rates = match (params.one("counter")?.as_deref(), level) {
        (None | Some("value"), Level::Full) => false,
        (None | Some("rate"), _) => true,
        (Some("value"), _) => {
            return Err(Problem::bad_request("counter=value needs every sample: roll-ups hold rates"));
        }
        (Some(text), _) => {
            return Err(Problem::bad_request(format!("counter is {:?}; it is value or rate", short(text))));
        }
    };
    let to = params.time("to", now)?.unwrap_or(now).min(now);
    let from = params.time("from", now)?;
    if from.is_some_and(|from| from >= to) {
        return Err(Problem::bad_request("from is not before to"));
    }
    let (nodes, own) = nodes(api, caller, params)?;
    params.done()?;
    Ok(Asked { format, level, rates, metrics, own, subjects, from, to, nodes })
}

/// The nodes that are asked for, and the metrics of their own that they have now.
fn nodes(api: &Api, caller: &Caller, params: &mut Params) -> Result<(Vec<Node>, Vec<String>), Problem> {
    let (words, labels) = (params.all("node"), params.labels()?);
    let fleet = api.published.fleet.load();
    let mut found: Vec<&NodeView> = if words.is_empty() {
        fleet.nodes.iter().filter(|node| caller.sees(node)).collect()
    } else {
        words.iter().map(|word| find(&fleet, caller, word)).collect::<Result<_, _>>()?
    };
    found.retain(|node| node.bears(&labels));
    found.sort_unstable_by_key(|node| node.id);
    found.dedup_by_key(|node| node.id);
    let open = found.iter().filter_map(|node| node.latest.as_ref()).flat_map(|reading| &reading.layout.open);
    let mut own: Vec<String> = open.map(|own| own.name().to_owned()).collect();
    own.sort_unstable();
    own.dedup();
    let node = |node: &NodeView| {
        let about = &node.about;
        let interval_ms = about.interval_ms.unwrap_or(INTERVAL_MS);
        let skew_ms = about.skew_ms.unwrap_or(0);
        Some(Node { id: node.id, key: about.key?, name: Arc::clone(&about.name), interval_ms, skew_ms })
    };
    Ok((found.into_iter().filter_map(node).collect(), own))
}

/// One turn at the files.
async fn read(api: &Api, export: &mut Export) -> Result<bool, Problem> {
    let mut moved = std::mem::take(export);
    let turn = api.desk.window_in_turn(move |window| {
        let more = moved.read(window).map_err(|error| too_dear(error, "or fewer nodes"))?;
        Ok((moved, more))
    });
    let (moved, more) = turn.await?;
    *export = moved;
    Ok(more)
}

async fn deliver(
    api: Api,
    caller: Caller,
    (mut export, mut more): (Export, bool),
    mut sender: Sender<Bytes, CutOff>,
    _place: OwnedSemaphorePermit,
) {
    while more {
        loop {
            let chunk = export.chunk();
            if chunk.is_empty() {
                break;
            }
            if sender.send_data(Bytes::from(chunk)).await.is_err() {
                // Whoever asked has gone.
                return;
            }
        }
        if !caller.is_still_good(&api) {
            return sender.abort(CutOff);
        }
        more = match read(&api, &mut export).await {
            Ok(more) => more,
            Err(problem) => {
                warn!(reason = problem.to_json(), "an export is cut off");
                return sender.abort(CutOff);
            }
        };
    }
}
