//! Bodies, both ways: JSON of a bounded size that comes within a bounded time.
//!
//! A body that is too large is read to its end and thrown away, within bounds, so that whoever sends it
//! hears why instead of a broken connection.

use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody as _};
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http_body_util::BodyExt as _;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Api;
use super::params::short;
use super::problem::Problem;

/// The largest body that anything here takes has a kilobyte.
pub(super) const BODY_BYTES_MAX: u64 = 64 * 1024;
/// For a body of that size on a slow line.
const BODY_TIME: Duration = Duration::from_secs(10);
/// What is read and thrown away of a body that is too large, before the connection is cut.
const DISCARD_BYTES_MAX: u64 = 128 * 1024 * 1024;

/// What was asked for, as JSON.
#[derive(Debug)]
pub(super) struct Json<T>(pub(super) StatusCode, pub(super) T);

/// What was sent, from JSON. An empty body is an empty object.
#[derive(Debug)]
pub(super) struct Sent<T>(pub(super) T);

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
        let bytes = tokio::time::timeout(BODY_TIME, collect(request.into_body()))
            .await
            .map_err(|_| Problem::too_slow(format!("the body did not come within {} s", BODY_TIME.as_secs())))??;
        let text = if bytes.is_empty() { Bytes::from_static(b"{}") } else { bytes };
        // serde_json counts how deep it goes, and stops long before the stack ends.
        let value = serde_json::from_slice(&text);
        value.map(Self).map_err(|error| Problem::bad_request(format!("the body: {}", short(&error.to_string()))))
    }
}

/// In front of everything: a body that says that it is too large is refused before anybody looks at it.
pub(super) async fn refuse_large(request: Request, next: Next) -> Response {
    let declared = request.body().size_hint().lower();
    if declared <= BODY_BYTES_MAX {
        return next.run(request).await;
    }
    let mut body = request.into_body();
    // Whether it ends in time changes nothing: the answer is the same.
    tokio::time::timeout(BODY_TIME, discard(&mut body, 0)).await.ok();
    too_large().into_response()
}

async fn collect(mut body: Body) -> Result<Bytes, Problem> {
    let mut whole = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Problem::bad_request("the body ended early"))?;
        let Some(data) = frame.data_ref() else { continue };
        if whole.len() as u64 + data.len() as u64 > BODY_BYTES_MAX {
            discard(&mut body, BODY_BYTES_MAX).await;
            return Err(too_large());
        }
        whole.extend_from_slice(data);
    }
    Ok(whole.into())
}

async fn discard(body: &mut Body, mut seen: u64) {
    while let Some(Ok(frame)) = body.frame().await {
        seen += frame.data_ref().map_or(0, |data| data.len() as u64);
        if seen > DISCARD_BYTES_MAX {
            return;
        }
    }
}

fn too_large() -> Problem {
    Problem::too_large(format!("the body is too large; {BODY_BYTES_MAX} bytes are allowed"))
}
