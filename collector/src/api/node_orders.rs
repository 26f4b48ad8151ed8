//! What may be done to a node. Each is an order to the pipeline, answered when it is on disk.

use axum::extract::State;
use axum::http::StatusCode;
use dunlin_shared::id::NodeId;
use serde::Deserialize;
use utoipa::ToSchema;

use super::Api;
use super::body::Sent;
use super::caller::{Admin, Caller, Operator};
use super::nodes::find;
use super::params::{Named, Params, duration_ms, short};
use super::problem::Problem;
use crate::registry::What;
use crate::shape::{self, LabelChange, MaintenanceRequest};

/// What is said about it in the feed and the log.
const WHY_BYTES_MAX: usize = 256;

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RevokeRequest {
    /// For the feed and the log.
    #[serde(default)]
    why: String,
}

type Done = Result<StatusCode, Problem>;

/// Give a node labels, or take them away
#[utoipa::path(patch, path = "/api/v1/nodes/{id}", tag = "nodes", security(("bearer" = ["admin"])),
    params(("id" = String, Path, description = "An id, or a name that one node alone has")),
    request_body = LabelChange,
    responses(
        (status = 204, description = "It bears them"),
        (status = "4XX", description = "Why not", body = shape::Problem, content_type = "application/problem+json")
    ))]
pub(super) async fn label(
    Admin(caller): Admin,
    State(api): State<Api>,
    Named(word): Named,
    params: Params,
    Sent(change): Sent<LabelChange>,
) -> Done {
    params.done()?;
    let node = named(&api, &caller, &word)?;
    if let Some(key) = change.labels.keys().find(|key| caller.limits().contains_key(*key)) {
        let detail = format!("the token is limited by label {:?}, and cannot change it", short(key));
        return Err(Problem::forbidden(detail));
    }
    if change.labels.is_empty() {
        return Err(Problem::bad_request(
            "labels is empty; write for example {\"labels\": {\"env\": \"prod\", \"old\": null}}",
        ));
    }
    order(&api, caller, What::Label { node, labels: change.labels }).await
}

/// Revoke a node and hide it; it comes back as a new node, with a token
#[utoipa::path(delete, path = "/api/v1/nodes/{id}", tag = "nodes", security(("bearer" = ["admin"])),
    params(("id" = String, Path, description = "An id, or a name that one node alone has")),
    responses(
        (status = 204, description = "It is forgotten"),
        (status = "4XX", description = "Why not", body = shape::Problem, content_type = "application/problem+json")
    ))]
pub(super) async fn forget(Admin(caller): Admin, State(api): State<Api>, Named(word): Named, params: Params) -> Done {
    params.done()?;
    let node = named(&api, &caller, &word)?;
    order(&api, caller, What::Forget(node)).await
}

/// Let a node in no more; its session ends within seconds
#[utoipa::path(post, path = "/api/v1/nodes/{id}/revoke", tag = "nodes", security(("bearer" = ["admin"])),
    params(("id" = String, Path, description = "An id, or a name that one node alone has")),
    request_body(content = Option<RevokeRequest>),
    responses(
        (status = 204, description = "It is out"),
        (status = "4XX", description = "Why not", body = shape::Problem, content_type = "application/problem+json")
    ))]
pub(super) async fn revoke(
    Admin(caller): Admin,
    State(api): State<Api>,
    Named(word): Named,
    params: Params,
    Sent(request): Sent<RevokeRequest>,
) -> Done {
    params.done()?;
    check_why("why", &request.why)?;
    let node = named(&api, &caller, &word)?;
    order(&api, caller, What::Revoke { node, why: request.why }).await
}

/// Let a node in that waits for a person
#[utoipa::path(post, path = "/api/v1/nodes/{id}/approve", tag = "nodes", security(("bearer" = ["admin"])),
    params(("id" = String, Path, description = "An id, or a name that one node alone has")),
    responses(
        (status = 204, description = "It may send"),
        (status = "4XX", description = "Why not", body = shape::Problem, content_type = "application/problem+json")
    ))]
pub(super) async fn approve(Admin(caller): Admin, State(api): State<Api>, Named(word): Named, params: Params) -> Done {
    params.done()?;
    let node = named(&api, &caller, &word)?;
    order(&api, caller, What::Approve(node)).await
}

/// Let the other machine be the node: lifts every quarantine, and whoever is live now has to go
#[utoipa::path(post, path = "/api/v1/nodes/{id}/adopt", tag = "nodes", security(("bearer" = ["admin"])),
    params(("id" = String, Path, description = "An id, or a name that one node alone has")),
    responses(
        (status = 204, description = "It is"),
        (status = "4XX", description = "Why not", body = shape::Problem, content_type = "application/problem+json")
    ))]
pub(super) async fn adopt(Admin(caller): Admin, State(api): State<Api>, Named(word): Named, params: Params) -> Done {
    params.done()?;
    let node = named(&api, &caller, &word)?;
    order(&api, caller, What::Adopt(node)).await
}

/// Planned downtime begins
#[utoipa::path(post, path = "/api/v1/nodes/{id}/maintenance", tag = "nodes", security(("bearer" = ["operator"])),
    params(("id" = String, Path, description = "An id, or a name that one node alone has")),
    request_body(content = Option<MaintenanceRequest>),
    responses(
        (status = 204, description = "It is in maintenance"),
        (status = "4XX", description = "Why not", body = shape::Problem, content_type = "application/problem+json")
    ))]
pub(super) async fn maintain(
    Operator(caller): Operator,
    State(api): State<Api>,
    Named(word): Named,
    params: Params,
    Sent(request): Sent<MaintenanceRequest>,
) -> Done {
    params.done()?;
    let now = api.published.clock.wall();
    let until = match (request.until, request.duration) {
        (Some(_), Some(_)) => return Err(Problem::bad_request("until and duration exclude each other")),
        (until, None) => until.map(|until| until.0),
        (None, Some(text)) => {
            let wrong = || Problem::bad_request(format!("duration is {:?}; write for example 1h", short(&text)));
            Some(now.plus(duration_ms(&text).ok_or_else(wrong)?))
        }
    };
    let reason = request.reason.unwrap_or_default();
    check_why("reason", &reason)?;
    let node = named(&api, &caller, &word)?;
    order(&api, caller, What::Maintain { node, until, reason }).await
}

/// Planned downtime ends
#[utoipa::path(delete, path = "/api/v1/nodes/{id}/maintenance", tag = "nodes", security(("bearer" = ["operator"])),
    params(("id" = String, Path, description = "An id, or a name that one node alone has")),
    responses(
        (status = 204, description = "It is over"),
        (status = "4XX", description = "Why not", body = shape::Problem, content_type = "application/problem+json")
    ))]
pub(super) async fn end_maintenance(
    Operator(caller): Operator,
    State(api): State<Api>,
    Named(word): Named,
    params: Params,
) -> Done {
    params.done()?;
    let node = named(&api, &caller, &word)?;
    order(&api, caller, What::EndMaintenance(node)).await
}

fn check_why(name: &str, text: &str) -> Result<(), Problem> {
    if text.len() > WHY_BYTES_MAX || text.chars().any(char::is_control) {
        return Err(Problem::bad_request(format!("{name} has at most {WHY_BYTES_MAX} bytes on one line")));
    }
    Ok(())
}

fn named(api: &Api, caller: &Caller, word: &str) -> Result<NodeId, Problem> {
    let id = find(&api.published.fleet.load(), caller, word)?.id;
    caller.witness.target(&id.to_string());
    Ok(id)
}

async fn order(api: &Api, caller: Caller, what: What) -> Done {
    api.published.orders.ask(caller.actor, what).await?;
    Ok(StatusCode::NO_CONTENT)
}
