//! What may be said of alerts that fire: that somebody sees to them. Each is an order to the pipeline, answered when it is
//! on disk.

use axum::extract::State;
use axum::http::StatusCode;
use dunlin_shared::rule::{Pattern, Severity};

use super::Api;
use super::alerts::{is_seen, open_one};
use super::body::{Json, Sent, ok};
use super::caller::{Caller, Operator};
use super::nodes::find;
use super::params::{Named, Params, short};
use super::problem::Problem;
use super::silences::severity;
use crate::board::AlertView;
use crate::engine::alert::{AlertId, AlertState};
use crate::policy::{Answer, What};
use crate::registry::Labels;
use crate::shape::{self, AcknowledgeAllRequest, AcknowledgeRequest, Acknowledged};
use crate::view::{FleetView, NodeView};

/// One transaction, of which others wait for the end.
const PAGE_MAX: usize = 1_000;

/// Say that somebody sees to an alert, until it is resolved
#[utoipa::path(post, path = "/api/v1/alerts/{id}/ack", tag = "alerts", security(("bearer" = ["operator"])),
    params(("id" = String, Path, description = "The alert's id, or the first digits of one, at least 6, that no other open one begins with")),
    request_body(content = Option<AcknowledgeRequest>),
    responses(
        (status = 204, description = "It is acknowledged"),
        (status = "4XX", description = "Why not", body = shape::Problem, content_type = "application/problem+json")
    ))]
pub(super) async fn acknowledge(
    Operator(caller): Operator,
    State(api): State<Api>,
    Named(word): Named,
    params: Params,
    Sent(request): Sent<AcknowledgeRequest>,
) -> Result<StatusCode, Problem> {
    params.done()?;
    let alert = named(&api, &caller, &word)?;
    api.published.orders.say(caller.actor, What::Acknowledge { alert, why: request.why }).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Take back that somebody sees to an alert
#[utoipa::path(delete, path = "/api/v1/alerts/{id}/ack", tag = "alerts", security(("bearer" = ["operator"])),
    params(("id" = String, Path, description = "The alert's id, or the first digits of one, at least 6, that no other open one begins with")),
    responses(
        (status = 204, description = "Nobody does"),
        (status = "4XX", description = "Why not", body = shape::Problem, content_type = "application/problem+json")
    ))]
pub(super) async fn unacknowledge(
    Operator(caller): Operator,
    State(api): State<Api>,
    Named(word): Named,
    params: Params,
) -> Result<StatusCode, Problem> {
    params.done()?;
    let alert = named(&api, &caller, &word)?;
    api.published.orders.say(caller.actor, What::Unacknowledge(alert)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Say that somebody sees to many alerts
///
/// Ask again while `more` is true: what is acknowledged is chosen no more. The log has one entry for each answer, the
/// feed an event for each alert.
#[utoipa::path(post, path = "/api/v1/alerts/ack", tag = "alerts", security(("bearer" = ["operator"])),
    request_body = AcknowledgeAllRequest,
    responses(
        (status = 200, description = "So many are acknowledged", body = Acknowledged),
        (status = "4XX", description = "Why not", body = shape::Problem, content_type = "application/problem+json")
    ))]
pub(super) async fn acknowledge_all(
    Operator(caller): Operator,
    State(api): State<Api>,
    params: Params,
    Sent(request): Sent<AcknowledgeAllRequest>,
) -> Result<Json<Acknowledged>, Problem> {
    params.done()?;
    let (mut alerts, chosen) = {
        let (fleet, board) = (api.published.fleet.load(), api.published.board.load());
        let wanted = Wanted::new(&fleet, &caller, &request)?;
        let found = board.alerts.iter().filter(|alert| wanted.fits(&fleet, &caller, alert));
        (found.map(|alert| alert.id).take(PAGE_MAX + 1).collect::<Vec<_>>(), wanted.words())
    };
    let more = alerts.len() > PAGE_MAX;
    alerts.truncate(PAGE_MAX);
    if alerts.is_empty() {
        return Ok(ok(Acknowledged { acknowledged: 0, more }));
    }
    let what = What::AcknowledgeAll { alerts, why: request.why, chosen };
    let answer = api.published.orders.say(caller.actor, what).await?;
    let acknowledged = if let Answer::Acknowledged(count) = answer { count } else { 0 };
    Ok(ok(Acknowledged { acknowledged, more }))
}

/// What is to be acknowledged.
struct Wanted<'a> {
    labels: &'a Labels,
    rule: Option<Pattern>,
    node: Option<&'a NodeView>,
    subject: Option<Pattern>,
    severity: Option<Severity>,
}

impl<'a> Wanted<'a> {
    fn new(fleet: &'a FleetView, caller: &Caller, request: &'a AcknowledgeAllRequest) -> Result<Self, Problem> {
        let AcknowledgeAllRequest { labels, rule, node, subject, severity: word, .. } = request;
        if labels.is_empty() && [rule, node, subject, word].into_iter().all(Option::is_none) {
            let what = "nothing says which alerts; name labels, rule, node, subject or severity, or {\"rule\": \"*\"}";
            return Err(Problem::bad_request(what));
        }
        Ok(Self {
            labels,
            rule: rule.as_deref().map(Pattern::new),
            node: node.as_deref().map(|word| find(fleet, caller, word)).transpose()?,
            subject: subject.as_deref().map(Pattern::new),
            severity: word.as_deref().map(severity).transpose()?,
        })
    }

    fn fits(&self, fleet: &FleetView, caller: &Caller, alert: &AlertView) -> bool {
        let borne = |node: &NodeView| self.labels.iter().all(|(key, value)| node.about.labels.get(key) == Some(value));
        alert.state == AlertState::Firing
            && alert.acknowledged.is_none()
            && self.rule.as_ref().is_none_or(|rule| rule.fits(&alert.rule.name))
            && self.subject.as_ref().is_none_or(|subject| subject.fits(&alert.subject))
            && self.severity.is_none_or(|severity| severity == alert.rule.severity)
            && self.node.is_none_or(|node| alert.node == Some(node.id))
            && is_seen(caller, fleet, alert.node)
            && (self.labels.is_empty() || alert.node.and_then(|node| fleet.node(node)).is_some_and(borne))
    }

    /// For the log.
    fn words(&self) -> String {
        let labels = self.labels.iter().map(|(key, value)| format!("{key}={value}"));
        let named = [
            self.rule.as_ref().map(|rule| format!("rule:{rule}")),
            self.node.map(|node| format!("node:{}", node.id)),
            self.subject.as_ref().map(|subject| format!("subject:{subject}")),
            self.severity.map(|severity| format!("severity:{}", severity.as_str())),
        ];
        short(&labels.chain(named.into_iter().flatten()).collect::<Vec<_>>().join(" "))
    }
}

fn named(api: &Api, caller: &Caller, word: &str) -> Result<AlertId, Problem> {
    let id = open_one(api, caller, word)?.id;
    caller.witness.target(&id.to_string());
    Ok(id)
}
