//! Silences: which there are, and the orders that make, change and end them.
//!
//! A limited token sees those that name its labels outright, or a node that it sees. What it makes names its labels, and
//! only that may it change: a silence of one tenant never covers another.

use axum::extract::State;
use axum::http::StatusCode;
use dunlin_shared::rule::{Pattern, Severity};
use dunlin_shared::time::WallMs;

use super::Api;
use super::body::{Json, Sent, ok};
use super::caller::{Caller, Operator, Viewer};
use super::nodes::find;
use super::params::{Named, Params, duration_ms, short};
use super::problem::Problem;
use crate::policy::{
    Answer, Days, Matchers, Silence, SilenceEdit, SilenceId, SilenceState, SilenceWish, Weekly, What, Window,
};
use crate::shape::{self, Moment, SilenceChange, SilencePage, SilenceRequest, WeeklyWindow};

const PAGE: usize = 100;
const PAGE_MAX: usize = 1_000;

/// The silences, oldest first, also those that are over
#[utoipa::path(get, path = "/api/v1/silences", tag = "alerts", security(("bearer" = ["viewer"])),
    params(
        ("limit" = Option<u32>, Query, description = "Silences in a page: 1 to 1000, 100 when absent"),
        ("after" = Option<String>, Query, description = "`next` of the page before"),
        ("state" = Option<Vec<String>>, Query, description = "`pending`, `active` or `expired`; repeated, any of them")
    ),
    responses(
        (status = 200, description = "A page", body = SilencePage),
        (status = "4XX", description = "Why not", body = shape::Problem, content_type = "application/problem+json")
    ))]
pub(super) async fn list(
    Viewer(caller): Viewer,
    State(api): State<Api>,
    mut params: Params,
) -> Result<Json<SilencePage>, Problem> {
    let limit = params.limit(PAGE, PAGE_MAX)?;
    let wrong = || Problem::bad_request("after is no cursor of this list; give `next` of a page");
    let after = params.one("after")?.map(|text| text.parse::<SilenceId>().map_err(|_| wrong())).transpose()?;
    let states = params.all("state").iter().map(|word| state(word)).collect::<Result<Vec<_>, _>>()?;
    params.done()?;
    let now = api.published.clock.wall();
    let board = api.published.silences.load_full();
    let from = after.map_or(0, |after| board.silences.partition_point(|(id, _)| *id <= after));
    let mut items: Vec<shape::Silence> = Vec::new();
    for (id, silence) in &board.silences[from..] {
        if !sees(&api, &caller, silence) || !(states.is_empty() || states.contains(&silence.standing(now).state)) {
            continue;
        }
        if items.len() == limit {
            let next = items.last().map(|last| last.id.clone());
            return Ok(ok(SilencePage { items, next }));
        }
        items.push(shown(now, *id, silence));
    }
    Ok(ok(SilencePage { items, next: None }))
}

/// One silence
#[utoipa::path(get, path = "/api/v1/silences/{id}", tag = "alerts", security(("bearer" = ["viewer"])),
    params(("id" = String, Path, description = "Such as `s12`")),
    responses(
        (status = 200, description = "It", body = shape::Silence),
        (status = "4XX", description = "Why not", body = shape::Problem, content_type = "application/problem+json")
    ))]
pub(super) async fn one(
    Viewer(caller): Viewer,
    State(api): State<Api>,
    Named(word): Named,
    params: Params,
) -> Result<Json<shape::Silence>, Problem> {
    params.done()?;
    let (id, silence) = named(&api, &caller, &word)?;
    Ok(ok(shown(api.published.clock.wall(), id, &silence)))
}

/// Make a silence
///
/// With a token that is limited to labels it is about these, whether they are named or not.
#[utoipa::path(post, path = "/api/v1/silences", tag = "alerts", security(("bearer" = ["operator"])),
    request_body = SilenceRequest,
    responses(
        (status = 201, description = "It", body = shape::Silence),
        (status = "4XX", description = "Why not", body = shape::Problem, content_type = "application/problem+json")
    ))]
pub(super) async fn create(
    Operator(caller): Operator,
    State(api): State<Api>,
    params: Params,
    Sent(request): Sent<SilenceRequest>,
) -> Result<Json<shape::Silence>, Problem> {
    params.done()?;
    let now = api.published.clock.wall();
    let SilenceRequest { matchers, reason, start, end, duration, weekly } = request;
    let start = start.map(|start| start.0);
    let from = start.unwrap_or(now).max(now);
    let end = end_of(from, end.map(Some), duration)?.flatten();
    let matchers = matchers_of(&api, &caller, matchers)?;
    let weekly = weekly.map(weekly_of).transpose()?;
    let wish = SilenceWish { matchers, reason, start, end, weekly };
    let Answer::Silenced(id) = api.published.orders.say(caller.actor, What::Silence(wish)).await? else {
        return Err(Problem::unavailable("the silence was made and its id was not handed over; list them"));
    };
    let board = api.published.silences.load();
    let made = board.silence(id).ok_or_else(|| Problem::not_found(format!("silence {id} is over and gone already")))?;
    Ok(Json(StatusCode::CREATED, shown(api.published.clock.wall(), id, made)))
}

/// Move the end of a silence, or give another reason
#[utoipa::path(patch, path = "/api/v1/silences/{id}", tag = "alerts", security(("bearer" = ["operator"])),
    params(("id" = String, Path, description = "Such as `s12`")),
    request_body = SilenceChange,
    responses(
        (status = 204, description = "It is so"),
        (status = "4XX", description = "Why not", body = shape::Problem, content_type = "application/problem+json")
    ))]
pub(super) async fn edit(
    Operator(caller): Operator,
    State(api): State<Api>,
    Named(word): Named,
    params: Params,
    Sent(change): Sent<SilenceChange>,
) -> Result<StatusCode, Problem> {
    params.done()?;
    let silence = changeable(&api, &caller, &word)?;
    let end = end_of(api.published.clock.wall(), change.end, change.duration)?;
    let edit = SilenceEdit { end, reason: change.reason };
    api.published.orders.say(caller.actor, What::Edit { silence, edit }).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// End a silence before its time; it is kept for the record
#[utoipa::path(delete, path = "/api/v1/silences/{id}", tag = "alerts", security(("bearer" = ["operator"])),
    params(("id" = String, Path, description = "Such as `s12`")),
    responses(
        (status = 204, description = "It is over"),
        (status = "4XX", description = "Why not", body = shape::Problem, content_type = "application/problem+json")
    ))]
pub(super) async fn expire(
    Operator(caller): Operator,
    State(api): State<Api>,
    Named(word): Named,
    params: Params,
) -> Result<StatusCode, Problem> {
    params.done()?;
    let id = changeable(&api, &caller, &word)?;
    api.published.orders.say(caller.actor, What::Expire(id)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What a person means by `info`, `warning` or `critical`.
pub(super) fn severity(word: &str) -> Result<Severity, Problem> {
    Severity::parse(word).ok_or_else(|| {
        let known = Severity::ALL.map(Severity::as_str).join(", ");
        Problem::bad_request(format!("severity is {:?}; it is one of {known}", short(word)))
    })
}

fn sees(api: &Api, caller: &Caller, silence: &Silence) -> bool {
    let of_node = || {
        let fleet = api.published.fleet.load();
        silence.matchers.node.and_then(|node| fleet.node(node)).is_some_and(|node| caller.sees(node))
    };
    silence.matchers.is_within(&caller.limits()) || of_node()
}

fn named(api: &Api, caller: &Caller, word: &str) -> Result<(SilenceId, std::sync::Arc<Silence>), Problem> {
    let missing = || Problem::not_found(format!("there is no silence {:?}; one is named like s12", short(word)));
    let id: SilenceId = word.parse().map_err(|_| missing())?;
    let board = api.published.silences.load();
    let silence = board.silence(id).filter(|silence| sees(api, caller, silence)).ok_or_else(missing)?;
    Ok((id, std::sync::Arc::clone(silence)))
}

fn changeable(api: &Api, caller: &Caller, word: &str) -> Result<SilenceId, Problem> {
    let (id, silence) = named(api, caller, word)?;
    if !silence.matchers.is_within(&caller.limits()) {
        let detail = format!("silence {id} is not made for the labels that your token is limited to");
        return Err(Problem::forbidden(detail));
    }
    Ok(id)
}

fn state(word: &str) -> Result<SilenceState, Problem> {
    SilenceState::parse(word).ok_or_else(|| {
        let known = SilenceState::ALL.map(SilenceState::as_str).join(", ");
        Problem::bad_request(format!("state is {:?}; it is one of {known}", short(word)))
    })
}

/// `Some(None)` is an end that nobody named.
fn end_of(
    from: WallMs,
    end: Option<Option<Moment>>,
    duration: Option<String>,
) -> Result<Option<Option<WallMs>>, Problem> {
    match (end, duration) {
        (Some(_), Some(_)) => Err(Problem::bad_request("end and duration exclude each other")),
        (end, None) => Ok(end.map(|end| end.map(|end| end.0))),
        (None, Some(text)) => {
            let wrong = || Problem::bad_request(format!("duration is {:?}; write for example 2h", short(&text)));
            Ok(Some(Some(from.plus(duration_ms(&text).ok_or_else(wrong)?))))
        }
    }
}

fn matchers_of(api: &Api, caller: &Caller, given: shape::Matchers) -> Result<Matchers, Problem> {
    let mut labels = given.labels;
    for (key, value) in caller.limits() {
        if labels.entry(key.clone()).or_insert_with(|| value.clone()) != &value || value.contains('*') {
            let detail = format!("your token is limited to {key}={value}, and so must be every silence that it makes");
            return Err(Problem::forbidden(detail));
        }
    }
    let node = match given.node {
        Some(word) => Some(find(&api.published.fleet.load(), caller, &word)?.id),
        None => None,
    };
    Ok(Matchers {
        labels: labels.iter().map(|(key, value)| (key.as_str().into(), Pattern::new(value))).collect(),
        rule: given.rule.as_deref().map(Pattern::new),
        node,
        subject: given.subject.as_deref().map(Pattern::new),
        severity: given.severity.as_deref().map(severity).transpose()?,
    })
}

fn weekly_of(given: shape::Weekly) -> Result<Weekly, Problem> {
    let window = |window: &WeeklyWindow| {
        Window::new(Days::new(window.days.iter().map(String::as_str))?, &window.start, &window.duration)
    };
    let made = || Weekly::new(given.zone.parse()?, given.windows.iter().map(window).collect::<Result<_, _>>()?);
    made().map_err(|wrong: String| Problem::bad_request(format!("weekly: {wrong}")))
}

fn shown(now: WallMs, id: SilenceId, silence: &Silence) -> shape::Silence {
    let matchers = &silence.matchers;
    let text = |pattern: &Option<Pattern>| pattern.as_ref().map(ToString::to_string);
    let window = |window: &Window| WeeklyWindow {
        days: window.days.names().map(str::to_owned).collect(),
        start: window.start(),
        duration: window.duration(),
    };
    let weekly = |weekly: &Weekly| shape::Weekly {
        zone: weekly.zone().to_owned(),
        windows: weekly.windows().iter().map(window).collect(),
    };
    let standing = silence.standing(now);
    shape::Silence {
        id: id.to_string(),
        state: standing.state.as_str().to_owned(),
        until: standing.until.map(Moment),
        matchers: shape::Matchers {
            labels: matchers.labels.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect(),
            rule: text(&matchers.rule),
            node: matchers.node.map(|node| node.to_string()),
            subject: text(&matchers.subject),
            severity: matchers.severity.map(|severity| severity.as_str().to_owned()),
        },
        author: silence.author.clone(),
        reason: silence.reason.clone(),
        created: Moment(silence.created),
        start: Moment(silence.start),
        end: silence.end.map(Moment),
        weekly: silence.weekly.as_ref().map(weekly),
        ended_by: silence.ended_by.clone(),
    }
}
