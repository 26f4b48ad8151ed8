//! Bodies, both ways: JSON of a bounded size that comes within a bounded time.
//!
//! A body that is too large is read to its end and thrown away, within bounds, so that whoever sends it
//! hears why instead of a broken connection.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, HttpBody as _};
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use dunlin_shared::limits::RULE_FILE_BYTES_MAX;
use http_body_util::BodyExt as _;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::OwnedSemaphorePermit;

use super::Api;
use super::params::short;
use super::problem::Problem;

/// The largest body of JSON that anything here takes has a kilobyte.
pub(super) const BODY_BYTES_MAX: u64 = 64 * 1024;
/// For a body of that size on a slow line.
const BODY_TIME: Duration = Duration::from_secs(10);
/// What is read and thrown away of a body that is too large, before the connection is cut.
const DISCARD_BYTES_MAX: u64 = 128 * 1024 * 1024;

/// For a whole file of rules on a slow line.
const TEXT_TIME: Duration = Duration::from_secs(60);
/// Texts that are taken at once: each may be as large as a file of rules.
pub(super) const TEXTS_MAX: usize = 4;

/// What was asked for, as JSON.
#[derive(Debug)]
pub(super) struct Json<T>(pub(super) StatusCode, pub(super) T);

/// What was sent, from JSON. An empty body is an empty object.
#[derive(Debug)]
pub(super) struct Sent<T>(pub(super) T);

/// A text of rules that was sent. It holds one of few places while it is looked at.
#[derive(Debug)]
pub(super) struct SentText {
    pub(super) text: String,
    _place: OwnedSemaphorePermit,
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        match serde_json::to_vec(&self.1) {
            Ok(body) => {
                let kind = (header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
                (self.0, [kind], body).into_response()
            }
            Err(error) => Problem::unavailable(format!("the answer cannot be written: {error}")).into_response(),
        }
    }
}

pub(super) const fn ok<T>(body: T) -> Json<T> {
    Json(StatusCode::OK, body)
}

impl<T: DeserializeOwned> FromRequest<Api> for Sent<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &Api) -> Result<Self, Problem> {
        let bytes = tokio::time::timeout(BODY_TIME, collect(request.into_body(), BODY_BYTES_MAX))
            .await
            .map_err(|_| Problem::too_slow(format!("the body did not come within {} s", BODY_TIME.as_secs())))??;
        let text: &[u8] = if bytes.is_empty() { b"{}" } else { &bytes };
        // serde_json counts how deep it goes, and stops long before the stack ends.
        let value = serde_json::from_slice(text);
        value.map(Self).map_err(|error| Problem::bad_request(format!("the body: {}", short(&error.to_string()))))
    }
}

impl FromRequest<Api> for SentText {
    type Rejection = Problem;

    async fn from_request(request: Request, api: &Api) -> Result<Self, Problem> {
        let kind = request.headers().get(header::CONTENT_TYPE).map(|kind| kind.to_str().unwrap_or_default().to_owned());
        let kind = kind.as_deref().map(|kind| kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase());
        if let Some(kind) = kind.filter(|kind| !["text/plain", "application/toml"].contains(&kind.as_str())) {
            let detail =
                format!("the body is said to be {:?}; send TOML as application/toml or text/plain", short(&kind));
            return Err(Problem::unsupported(detail));
        }
        let busy = || Problem::too_many("too many others send rules; try again in a second", 1);
        let place = Arc::clone(&api.texts).try_acquire_owned().map_err(|_| busy())?;
        let bytes =
            tokio::time::timeout(TEXT_TIME, collect(request.into_body(), RULE_FILE_BYTES_MAX as u64))
                .await
                .map_err(|_| Problem::too_slow(format!("the body did not come within {} s", TEXT_TIME.as_secs())))??;
        let text = String::from_utf8(bytes).map_err(|error| {
            let at = error.utf8_error().valid_up_to();
            Problem::bad_request(format!("the body is no UTF-8: byte {at} belongs to no character"))
        })?;
        Ok(Self { text, _place: place })
    }
}

/// How large a body may be there.
fn bytes_max(request: &Request) -> u64 {
    match (request.method().as_str(), request.uri().path()) {
        ("PUT", "/api/v1/rules") | ("POST", "/api/v1/rules/preview") => RULE_FILE_BYTES_MAX as u64,
        _ => BODY_BYTES_MAX,
    }
}

/// In front of everything: a body that says that it is too large is refused before anybody looks at it.
pub(super) async fn refuse_large(request: Request, next: Next) -> Response {
    let declared = request.body().size_hint().lower();
    let most = bytes_max(&request);
    if declared <= most {
        return next.run(request).await;
    }
    let mut body = request.into_body();
    // Whether it ends in time changes nothing: the answer is the same.
    tokio::time::timeout(BODY_TIME, discard(&mut body, 0)).await.ok();
    too_large(most).into_response()
}

async fn collect(mut body: Body, most: u64) -> Result<Vec<u8>, Problem> {
    let mut whole = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Problem::bad_request("the body ended early"))?;
        let Some(data) = frame.data_ref() else { continue };
        if whole.len() as u64 + data.len() as u64 > most {
            discard(&mut body, most).await;
            return Err(too_large(most));
        }
        whole.extend_from_slice(data);
    }
    Ok(whole)
}

async fn discard(body: &mut Body, mut seen: u64) {
    while let Some(Ok(frame)) = body.frame().await {
        seen += frame.data_ref().map_or(0, |data| data.len() as u64);
        if seen > DISCARD_BYTES_MAX {
            return;
        }
    }
}

fn too_large(most: u64) -> Problem {
    Problem::too_large(format!("the body is too large; {most} bytes are allowed"))
}
