//! Every answer that is not what was asked for: a problem body (RFC 9457) that says what was wrong and what
//! would be right.

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use tracing::error;

use super::witness::Why;
use crate::registry::Refused;
use crate::shape;
use crate::store::StoreError;

#[derive(Debug)]
pub(super) struct Problem(Box<Inner>);

#[derive(Debug)]
struct Inner {
    status: StatusCode,
    body: shape::Problem,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Problem {
    pub(super) fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad-request", detail)
    }

    pub(super) fn unauthenticated(detail: impl Into<String>) -> Self {
        let problem = Self::new(StatusCode::UNAUTHORIZED, "unauthenticated", detail);
        problem.header(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"dunlin\""))
    }

    pub(super) fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", detail)
    }

    pub(super) fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", detail)
    }

    pub(super) fn method_not_allowed(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", detail)
    }

    pub(super) fn conflict(detail: impl Into<String>, candidates: Vec<String>) -> Self {
        let mut problem = Self::new(StatusCode::CONFLICT, "conflict", detail);
        problem.0.body.candidates = candidates;
        problem
    }

    /// A text in which every line tells of a mistake.
    pub(super) fn wrong_text(detail: impl Into<String>, lines: Vec<String>) -> Self {
        let mut problem = Self::new(StatusCode::UNPROCESSABLE_ENTITY, "wrong-text", detail);
        problem.0.body.lines = lines;
        problem
    }

    pub(super) fn unsupported(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported", detail)
    }

    /// A cursor that is no longer good.
    pub(super) fn gone(detail: impl Into<String>, earliest: String) -> Self {
        let mut problem = Self::new(StatusCode::GONE, "cursor-gone", detail);
        problem.0.body.earliest = Some(earliest);
        problem
    }

    pub(super) fn too_large(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", detail)
    }

    pub(super) fn too_slow(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, "too-slow", detail)
    }

    pub(super) fn too_many(detail: impl Into<String>, retry_after_s: u64) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "too-many", detail)
            .header(header::RETRY_AFTER, HeaderValue::from(retry_after_s))
    }

    pub(super) fn unavailable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", detail)
            .header(header::RETRY_AFTER, HeaderValue::from(1))
    }

    #[cfg(test)]
    pub(super) fn detail(&self) -> &str {
        &self.0.body.detail
    }

    /// The body.
    pub(super) fn to_json(&self) -> String {
        serde_json::to_string(&self.0.body).unwrap_or_default()
    }

    fn new(status: StatusCode, word: &str, detail: impl Into<String>) -> Self {
        let body = shape::Problem {
            kind: format!("urn:dunlin:problem:{word}"),
            title: status.canonical_reason().unwrap_or("Error").to_owned(),
            status: status.as_u16(),
            detail: detail.into(),
            ..shape::Problem::default()
        };
        Self(Box::new(Inner { status, body, headers: Vec::new() }))
    }

    fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.headers.push((name, value));
        self
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = (self.0.status, self.to_json()).into_response();
        response.extensions_mut().insert(Why(self.0.body.detail.clone()));
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.extend(self.0.headers);
        response
    }
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        let detail = refused.to_string();
        match refused {
            Refused::NotFound(_) => Self::not_found(detail),
            Refused::Conflict(_) => Self::conflict(detail, Vec::new()),
            Refused::Invalid(_) => Self::bad_request(detail),
            Refused::Join { .. } => Self::forbidden(detail),
            Refused::NotNow(_) | Refused::Stopping => Self::unavailable(detail),
        }
    }
}

impl From<StoreError> for Problem {
    fn from(failed: StoreError) -> Self {
        match failed {
            StoreError::Unavailable { .. } | StoreError::Locked { .. } => Self::unavailable(failed.to_string()),
            other => {
                error!("a request could not be answered: {other}");
                let detail = "the collector cannot read what it keeps; its log says why";
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", detail)
            }
        }
    }
}
