//! The rules that are in force, and where each comes from.
//!
//! Rules are about the whole fleet. A token that is limited to labels reads those that may be about its nodes, and changes
//! none.

pub(super) mod preview;
pub(super) mod sets;

use std::collections::HashMap;

use axum::extract::State;

use super::Api;
use super::alerts::is_seen;
use super::body::{Json, ok};
use super::caller::{Caller, Viewer};
use super::params::{Named, Params, short};
use super::problem::Problem;
use crate::rules::{Origin, duration};
use crate::shape::{self, RuleOrigin, RulePage};

const PAGE: usize = 100;
const PAGE_MAX: usize = 1_000;

/// The rules in force, by name
#[utoipa::path(get, path = "/api/v1/rules", tag = "rules", security(("bearer" = ["viewer"])),
    params(
        ("limit" = Option<u32>, Query, description = "Rules in a page: 1 to 1000, 100 when absent"),
        ("after" = Option<String>, Query, description = "`next` of the page before")
    ),
    responses(
        (status = 200, description = "A page", body = RulePage),
        (status = "4XX", description = "Why not", body = shape::Problem, content_type = "application/problem+json")
    ))]
pub(super) async fn list(
    Viewer(caller): Viewer,
    State(api): State<Api>,
    mut params: Params,
) -> Result<Json<RulePage>, Problem> {
    let limit = params.limit(PAGE, PAGE_MAX)?;
    let after = params.one("after")?;
    params.done()?;
    let book = api.published.rules.book();
    let from = match &after {
        None => 0,
        Some(after) if book.rule(after).is_some() => book.rules.partition_point(|rule| *rule.name <= **after),
        Some(after) => {
            let detail = format!("after is {:?}, which is no cursor of this list; give `next` of a page", short(after));
            return Err(Problem::bad_request(detail));
        }
    };
    let open = Open::of(&api, &caller);
    let mut items: Vec<shape::Rule> = Vec::new();
    for rule in book.rules[from..].iter().filter(|rule| may_concern(&caller, rule)) {
        if items.len() == limit {
            let next = items.last().map(|last| last.name.clone());
            return Ok(ok(RulePage { items, next }));
        }
        items.push(shown(rule, &open));
    }
    Ok(ok(RulePage { items, next: None }))
}

/// One rule
#[utoipa::path(get, path = "/api/v1/rules/{name}", tag = "rules", security(("bearer" = ["viewer"])),
    params(("name" = String, Path, description = "Its name")),
    responses(
        (status = 200, description = "It", body = shape::Rule),
        (status = "4XX", description = "Why not", body = shape::Problem, content_type = "application/problem+json")
    ))]
pub(super) async fn one(
    Viewer(caller): Viewer,
    State(api): State<Api>,
    Named(name): Named,
    params: Params,
) -> Result<Json<shape::Rule>, Problem> {
    params.done()?;
    named(&api, &caller, &name)
}

/// The rule of the name that stands for another verb here.
pub(super) async fn called_preview(
    Viewer(caller): Viewer,
    State(api): State<Api>,
    params: Params,
) -> Result<Json<shape::Rule>, Problem> {
    params.done()?;
    named(&api, &caller, "preview")
}

fn named(api: &Api, caller: &Caller, name: &str) -> Result<Json<shape::Rule>, Problem> {
    let book = api.published.rules.book();
    let rule = book.rule(name).filter(|rule| may_concern(caller, rule));
    let missing = || Problem::not_found(format!("no rule {:?} is in force", short(name)));
    Ok(ok(shown(rule.ok_or_else(missing)?, &Open::of(api, caller))))
}

/// How many alerts each rule has open, of those that somebody sees.
struct Open(HashMap<Box<str>, usize>);

impl Open {
    fn of(api: &Api, caller: &Caller) -> Self {
        let (fleet, board) = (api.published.fleet.load(), api.published.board.load());
        let mut counts = HashMap::new();
        for alert in board.alerts.iter().filter(|alert| is_seen(caller, &fleet, alert.node)) {
            *counts.entry(alert.rule.name.clone()).or_insert(0) += 1;
        }
        Self(counts)
    }

    fn count(&self, rule: &str) -> usize {
        self.0.get(rule).copied().unwrap_or(0)
    }
}

/// A rule that names another value of a label by which somebody is limited is about none of its nodes.
fn may_concern(caller: &Caller, rule: &dunlin_shared::rule::Rule) -> bool {
    let fits = |key: &str, value: &str| rule.labels.get(key).is_none_or(|pattern| pattern.fits(value));
    caller.limits().iter().all(|(key, value)| fits(key, value))
}

/// Rules are for the whole fleet.
fn whole_fleet(caller: &Caller) -> Result<(), Problem> {
    if caller.is_limited() {
        let detail = "sets of rules are about the whole fleet, and the token is limited to a part of it";
        return Err(Problem::forbidden(detail));
    }
    Ok(())
}

fn shown(rule: &dunlin_shared::rule::Rule, open: &Open) -> shape::Rule {
    let origin = Origin::of(rule);
    let labels = rule.labels.iter().map(|(key, value)| (key.to_string(), value.to_string()));
    shape::Rule {
        name: rule.name.to_string(),
        enabled: rule.is_enabled,
        severity: rule.severity.as_str().to_owned(),
        when: rule.when_text.to_string(),
        clear: rule.clear_text.as_ref().map(ToString::to_string),
        for_: duration(rule.for_ms),
        keep_firing_for: duration(rule.keep_firing_ms),
        where_: labels.collect(),
        subjects: rule.subjects.iter().map(ToString::to_string).collect(),
        summary: rule.summary.to_string(),
        summary_zh: rule.summary_zh.as_ref().map(ToString::to_string),
        runbook: rule.runbook.as_ref().map(ToString::to_string),
        origin: RuleOrigin {
            kind: origin.kind().to_owned(),
            place: (origin != Origin::Shipped).then(|| format!("{}:{}", origin.name(), rule.place.line)),
        },
        open: open.count(&rule.name),
    }
}
