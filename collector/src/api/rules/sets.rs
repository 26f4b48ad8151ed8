//! Sets of rules that came by the API: what there is, and the orders that put, change and delete them.
//!
//! A set is taken whole or not at all. Whoever sends one is told what it changes, before it does or with it.

use axum::extract::State;
use dunlin_shared::rule::Rule;

use super::super::Api;
use super::super::body::{Json, SentText, ok};
use super::super::caller::{Operator, Viewer};
use super::super::params::{Named, Params, short};
use super::super::problem::Problem;
use super::{Open, whole_fleet};
use crate::rules::{Difference, NamedSet, NotTaken, RuleBook, is_set_name};
use crate::shape::{self, Moment, RuleChange, RuleDifference, RuleField, RuleSetPage};

/// The sets of rules that came by the API, by name
#[utoipa::path(get, path = "/api/v1/rule-sets", tag = "rules", security(("bearer" = ["viewer"])),
    responses(
        (status = 200, description = "All of them", body = RuleSetPage),
        (status = "4XX", description = "Why not", body = shape::Problem, content_type = "application/problem+json")
    ))]
pub(in super::super) async fn list(
    Viewer(caller): Viewer,
    State(api): State<Api>,
    params: Params,
) -> Result<Json<RuleSetPage>, Problem> {
    params.done()?;
    whole_fleet(&caller)?;
    let book = api.published.rules.book();
    let items = book.sets.iter().map(|(name, set)| shown(&book, name, set)).collect();
    Ok(ok(RuleSetPage { items, next: None }))
}

/// One set, with its text
#[utoipa::path(get, path = "/api/v1/rule-sets/{name}", tag = "rules", security(("bearer" = ["viewer"])),
    params(("name" = String, Path, description = "Its name")),
    responses(
        (status = 200, description = "It", body = shape::RuleSet),
        (status = "4XX", description = "Why not", body = shape::Problem, content_type = "application/problem+json")
    ))]
pub(in super::super) async fn one(
    Viewer(caller): Viewer,
    State(api): State<Api>,
    Named(name): Named,
    params: Params,
) -> Result<Json<shape::RuleSet>, Problem> {
    params.done()?;
    whole_fleet(&caller)?;
    let book = api.published.rules.book();
    let set = named(&book, &name)?;
    Ok(ok(shape::RuleSet { text: Some(set.text.to_string()), ..shown(&book, &name, set) }))
}

/// Put a set of rules in force, or another text of one
///
/// The body is TOML, as `text/plain` or `application/toml`. It is taken whole or not at all: every mistake is a line of
/// `lines`, with name, line and column. The answer says what became other, and with `dry_run=true` what would.
#[utoipa::path(put, path = "/api/v1/rules", tag = "rules", security(("bearer" = ["operator"])),
    params(
        ("set" = String, Query, description = "What it is called: letters, digits, - and _, at most 63"),
        ("dry_run" = Option<bool>, Query, description = "`true`: nothing is done")
    ),
    request_body(content = String, content_type = "application/toml"),
    responses(
        (status = 200, description = "What became other", body = RuleDifference),
        (status = 422, description = "What is wrong with it", body = shape::Problem, content_type = "application/problem+json"),
        (status = "4XX", description = "Why not", body = shape::Problem, content_type = "application/problem+json")
    ))]
pub(in super::super) async fn put(
    Operator(caller): Operator,
    State(api): State<Api>,
    mut params: Params,
    SentText { text, .. }: SentText,
) -> Result<Json<RuleDifference>, Problem> {
    let set = params.one("set")?.ok_or_else(|| Problem::bad_request("set is missing; name it, as in ?set=web"))?;
    let dry_run = match params.one("dry_run")?.as_deref() {
        None | Some("false") => false,
        Some("true") => true,
        Some(other) => {
            return Err(Problem::bad_request(format!("dry_run is {:?}; it is true or false", short(other))));
        }
    };
    params.done()?;
    caller.witness.target(&set);
    whole_fleet(&caller)?;
    if !is_set_name(&set) {
        let detail = format!("set is {:?}; a set is named by letters, digits, - and _, at most 63", short(&set));
        return Err(Problem::bad_request(detail));
    }
    if text.trim().is_empty() {
        return Err(Problem::bad_request("the body is empty; send TOML, or delete the set"));
    }
    let (rules, now) = (&api.published.rules, api.published.clock.wall());
    let open = Open::of(&api, &caller);
    let closing = Closing::of(&api);
    let difference = if dry_run {
        rules.compare(&caller.actor, &set, text, now).await
    } else {
        rules.put(caller.actor.clone(), &set, text, now).await
    };
    Ok(ok(closing.shown(set, dry_run, &difference?, &open)))
}

/// Delete a set of rules: what it alone had is in force no more
#[utoipa::path(delete, path = "/api/v1/rule-sets/{name}", tag = "rules", security(("bearer" = ["operator"])),
    params(("name" = String, Path, description = "Its name")),
    responses(
        (status = 200, description = "What became other", body = RuleDifference),
        (status = "4XX", description = "Why not", body = shape::Problem, content_type = "application/problem+json")
    ))]
pub(in super::super) async fn delete(
    Operator(caller): Operator,
    State(api): State<Api>,
    Named(name): Named,
    params: Params,
) -> Result<Json<RuleDifference>, Problem> {
    params.done()?;
    whole_fleet(&caller)?;
    named(&api.published.rules.book(), &name)?;
    let (open, closing) = (Open::of(&api, &caller), Closing::of(&api));
    let difference = api.published.rules.delete(caller.actor.clone(), &name).await?;
    Ok(ok(closing.shown(name, false, &difference, &open)))
}

impl From<NotTaken> for Problem {
    fn from(not_taken: NotTaken) -> Self {
        match not_taken {
            NotTaken::Refused(refused) => refused.into(),
            NotTaken::Wrong(lines) => wrong(lines),
        }
    }
}

/// What is wrong with a text, with the first line outright.
pub(super) fn wrong(lines: Vec<String>) -> Problem {
    let first = lines.first().map(|line| line.chars().take(500).collect::<String>()).unwrap_or_default();
    let more = if lines.len() > 1 { format!("; {} mistakes in all", lines.len()) } else { String::new() };
    Problem::wrong_text(format!("the rules stay as they are: {first}{more}"), lines)
}

/// What is open before rules change.
struct Closing {
    alerts: Vec<Alert>,
}

/// Its rule, its node's labels, and what it is about.
struct Alert {
    rule: Box<str>,
    labels: Option<crate::registry::Labels>,
    subject: std::sync::Arc<str>,
}

impl Closing {
    fn of(api: &Api) -> Self {
        let (fleet, board) = (api.published.fleet.load(), api.published.board.load());
        let alert = |alert: &std::sync::Arc<crate::board::AlertView>| Alert {
            rule: alert.rule.name.clone(),
            labels: alert.node.and_then(|node| fleet.node(node)).map(|node| node.about.labels.clone()),
            subject: std::sync::Arc::clone(&alert.subject),
        };
        Self { alerts: board.alerts.iter().map(alert).collect() }
    }

    /// How many a rule closes at once that is so from now on.
    fn count(&self, after: &Rule) -> usize {
        let is_on = |alert: &Alert| {
            let labels = alert.labels.as_ref();
            labels.is_none_or(|labels| after.is_on(|key| labels.get(key).map(String::as_str)))
        };
        let is_closed = |alert: &&Alert| !after.is_enabled || !is_on(alert) || !after.is_about(&alert.subject);
        self.alerts.iter().filter(|alert| alert.rule == after.name).filter(is_closed).count()
    }

    fn shown(&self, set: String, dry_run: bool, difference: &Difference, open: &Open) -> RuleDifference {
        let plain = |rule: &Rule, closes: usize| RuleChange {
            name: rule.name.to_string(),
            fields: Vec::new(),
            open: open.count(&rule.name),
            closes,
        };
        let changed = difference.changed.iter().map(|changed| {
            let fields = changed.fields.iter().map(|field| RuleField {
                field: field.field.to_owned(),
                before: field.before.clone(),
                after: field.after.clone(),
            });
            RuleChange { fields: fields.collect(), ..plain(&changed.after, self.count(&changed.after)) }
        });
        RuleDifference {
            set,
            dry_run,
            added: difference.added.iter().map(|rule| plain(rule, 0)).collect(),
            changed: changed.collect(),
            removed: difference.removed.iter().map(|rule| plain(rule, open.count(&rule.name))).collect(),
            unchanged: difference.unchanged,
        }
    }
}

fn named<'a>(book: &'a RuleBook, name: &str) -> Result<&'a NamedSet, Problem> {
    let missing = || Problem::not_found(format!("there is no set of rules {:?}", short(name)));
    book.sets.get(name).map(|set| &**set).ok_or_else(missing)
}

fn shown(book: &RuleBook, name: &str, set: &NamedSet) -> shape::RuleSet {
    shape::RuleSet {
        name: name.to_owned(),
        by: set.by.clone(),
        at: Moment(set.at),
        bytes: set.text.len(),
        rules: book.count_of(name),
        left_out: book.left_out.get(name).cloned().unwrap_or_default(),
        text: None,
    }
}
