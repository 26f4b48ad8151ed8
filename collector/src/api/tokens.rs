//! Tokens: which there are, and the orders that make and delete them.
//!
//! A limited admin sees and makes only tokens that are limited at least as much.

use axum::extract::State;
use axum::http::StatusCode;
use dunlin_shared::token::JoinToken;

use super::Api;
use super::body::{Json, Sent, ok};
use super::caller::{Admin, Caller, reveal};
use super::params::{Named, Params, duration_ms, short};
use super::problem::Problem;
use crate::access::Access;
use crate::registry::{Answer, Role, Token, TokenId, TokenWish, What};
use crate::shape::{self, Moment, TokenCreated, TokenPage, TokenRequest};

const PAGE: usize = 100;
const PAGE_MAX: usize = 1_000;

/// The tokens, oldest first; never their secrets
#[utoipa::path(get, path = "/api/v1/tokens", tag = "access", security(("bearer" = ["admin"])),
    params(
        ("limit" = Option<u32>, Query, description = "Tokens in a page: 1 to 1000, 100 when absent"),
        ("after" = Option<String>, Query, description = "`next` of the page before")
    ),
    responses(
        (status = 200, description = "A page", body = TokenPage),
        (status = "4XX", description = "Why not", body = shape::Problem, content_type = "application/problem+json")
    ))]
pub(super) async fn list(
    Admin(caller): Admin,
    State(api): State<Api>,
    mut params: Params,
) -> Result<Json<TokenPage>, Problem> {
    let limit = params.limit(PAGE, PAGE_MAX)?;
    let after = match params.one("after")? {
        Some(text) => Some(id_of(&text)?),
        None => None,
    };
    params.done()?;
    let mut found = seen(&api, &caller).await?;
    found.retain(|(id, _)| after.is_none_or(|after| *id > after));
    let is_more = found.len() > limit;
    found.truncate(limit);
    let items: Vec<_> = found.into_iter().map(|found| shown(&api.published.access, found)).collect();
    let next = if is_more { items.last().map(|last| last.id.clone()) } else { None };
    Ok(ok(TokenPage { items, next }))
}

/// Make a token; the answer is the only one that holds its secret
#[utoipa::path(post, path = "/api/v1/tokens", tag = "access", security(("bearer" = ["admin"])),
    request_body = TokenRequest,
    responses(
        (status = 201, description = "It", body = TokenCreated),
        (status = "4XX", description = "Why not", body = shape::Problem, content_type = "application/problem+json")
    ))]
pub(super) async fn create(
    Admin(caller): Admin,
    State(api): State<Api>,
    params: Params,
    Sent(request): Sent<TokenRequest>,
) -> Result<Json<TokenCreated>, Problem> {
    params.done()?;
    let wish = wish(&api, &caller, request)?;
    let pin = api.published.authority.as_ref().and_then(|authority| authority.pin());
    if wish.role == Role::Join && pin.is_none() {
        return Err(Problem::conflict("no node can enrol here: the authority's key is missing", Vec::new()));
    }
    let (role, expires) = (wish.role, wish.expires);
    let answer = api.published.orders.ask(caller.actor, What::CreateToken(wish)).await?;
    let Answer::Token { id, secret } = answer else {
        return Err(Problem::unavailable("the token was made and its secret was not handed over; delete it"));
    };
    let token = match pin {
        Some(pin) if role == Role::Join => JoinToken { secret, pin }.reveal(),
        _ => reveal(&secret),
    };
    let created =
        TokenCreated { id: id.to_string(), token, role: role.as_str().to_owned(), expires: expires.map(Moment) };
    Ok(Json(StatusCode::CREATED, created))
}

/// Take a token back
#[utoipa::path(delete, path = "/api/v1/tokens/{id}", tag = "access", security(("bearer" = ["admin"])),
    params(("id" = String, Path, description = "Such as `t12`")),
    responses(
        (status = 204, description = "It is good for nothing any more"),
        (status = "4XX", description = "Why not", body = shape::Problem, content_type = "application/problem+json")
    ))]
pub(super) async fn delete(
    Admin(caller): Admin,
    State(api): State<Api>,
    Named(word): Named,
    params: Params,
) -> Result<StatusCode, Problem> {
    params.done()?;
    let missing = || Problem::not_found(format!("there is no token {:?}; one is named like t12", short(&word)));
    let id: TokenId = word.parse().map_err(|_| missing())?;
    if !seen(&api, &caller).await?.iter().any(|(known, _)| *known == id) {
        return Err(missing());
    }
    api.published.orders.ask(caller.actor, What::DeleteToken(id)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What the caller sees of those that are good for something.
pub(super) async fn seen(api: &Api, caller: &Caller) -> Result<Vec<(TokenId, Token)>, Problem> {
    let mut tokens = api.desk.control(|reader| reader.tokens()).await?;
    tokens.retain(|(_, token)| !token.is_deleted && caller.covers(&token.labels));
    tokens.sort_by_key(|(id, _)| *id);
    Ok(tokens)
}

fn id_of(text: &str) -> Result<TokenId, Problem> {
    text.parse().map_err(|_| Problem::bad_request("after is no cursor of this list; give `next` of a page"))
}

fn wish(api: &Api, caller: &Caller, request: TokenRequest) -> Result<TokenWish, Problem> {
    let role = Role::parse(&request.role).ok_or_else(|| {
        let known = Role::ALL.map(Role::as_str).join(", ");
        Problem::bad_request(format!("role is {:?}; it is one of {known}", short(&request.role)))
    })?;
    let expires = match (request.ttl, request.expires) {
        (Some(_), Some(_)) => return Err(Problem::bad_request("ttl and expires exclude each other")),
        (None, expires) => expires.map(|expires| expires.0),
        (Some(ttl), None) => {
            let wrong = || Problem::bad_request(format!("ttl is {:?}; write for example 24h", short(&ttl)));
            Some(api.published.clock.wall().plus(duration_ms(&ttl).ok_or_else(wrong)?))
        }
    };
    let mut labels = request.labels;
    for (key, value) in caller.limits() {
        let given = labels.entry(key.clone()).or_insert_with(|| value.clone());
        if *given != value {
            let detail = format!("your token is limited to {key}={value}, and so must be every token that it makes");
            return Err(Problem::forbidden(detail));
        }
    }
    Ok(TokenWish {
        role,
        name: request.name,
        uses: request.uses,
        expires,
        labels,
        needs_approval: request.needs_approval,
        per_hour: request.per_hour,
        is_ephemeral: request.ephemeral,
    })
}

/// What was shown since it was written down last is newer.
fn shown(access: &Access, (id, token): (TokenId, Token)) -> shape::Token {
    let last_used = token.last_used.max(access.used(id));
    shape::Token {
        id: id.to_string(),
        role: token.role.as_str().to_owned(),
        name: token.name,
        created: Moment(token.created),
        created_by: token.created_by,
        expires: token.expires.map(Moment),
        uses_left: token.uses_left,
        used: token.used,
        last_used: last_used.map(Moment),
        labels: token.labels,
        needs_approval: token.needs_approval,
        per_hour: token.per_hour,
        ephemeral: token.is_ephemeral,
    }
}
