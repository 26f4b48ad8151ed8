//! Letting in many nodes at once, a page at a time.

use axum::extract::State;

use super::Api;
use super::body::{Json, Sent, ok};
use super::caller::Admin;
use super::params::Params;
use super::problem::Problem;
use crate::registry::{Admission, Answer, What};
use crate::shape::{self, ApprovalRequest, Approved, Waiting};
use crate::view::NodeView;

/// One transaction, of which others wait for the end.
const PAGE_MAX: u32 = 1_000;

/// Let in many nodes that wait, the oldest first
///
/// Ask again while `more` is true: who was let in waits no more. The log has one entry for each answer, the
/// feed an event for each node.
#[utoipa::path(post, path = "/api/v1/approvals", tag = "nodes", security(("bearer" = ["admin"])),
    request_body = ApprovalRequest,
    responses(
        (status = 200, description = "So many were let in", body = Approved),
        (status = "4XX", description = "Why not", body = shape::Problem, content_type = "application/problem+json")
    ))]
pub(super) async fn approve(
    Admin(caller): Admin,
    State(api): State<Api>,
    params: Params,
    Sent(request): Sent<ApprovalRequest>,
) -> Result<Json<Approved>, Problem> {
    params.done()?;
    let ApprovalRequest { state, labels, limit } = request;
    let limit = limit.unwrap_or(PAGE_MAX);
    if !(1..=PAGE_MAX).contains(&limit) {
        return Err(Problem::bad_request(format!("limit is {limit}; it is a number from 1 to {PAGE_MAX}")));
    }
    let (waits, word) = match state {
        Waiting::Held => (Admission::Held, "held"),
        Waiting::Pending => (Admission::Pending, "pending"),
    };
    let (nodes, more) = {
        let fleet = api.published.fleet.load();
        let fits = |node: &&NodeView| caller.sees(node) && node.about.admission == waits && node.bears(&labels);
        let mut found = fleet.nodes.iter().filter(fits);
        let nodes: Vec<_> = found.by_ref().take(limit as usize).map(|node| node.id).collect();
        (nodes, found.next().is_some())
    };
    if nodes.is_empty() {
        return Ok(ok(Approved { approved: 0, more }));
    }
    let chosen = labels.iter().map(|(key, value)| format!(" {key}={value}")).collect::<String>();
    let what = What::ApproveAll { nodes, waits, detail: format!("{word}{chosen}") };
    let answer = api.published.orders.ask(caller.actor, what).await?;
    let approved = if let Answer::Approved(count) = answer { count } else { 0 };
    Ok(ok(Approved { approved, more }))
}
