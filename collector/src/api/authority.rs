//! The authority of the fleet: how it stands, and its turns.
//!
//! A turn is three steps with days between them: nodes learn the next authority, it signs, the one before
//! is dropped. Each is taken by a person, and stands in the log of who did what.

use axum::extract::State;
use axum::http::StatusCode;

use super::body::{Json, ok};
use super::caller::{Admin, Caller};
use super::params::{Named, Params, short};
use super::problem::Problem;
use super::{Api, Published};
use crate::authority::{Authority as Signer, AuthorityError, Turn};
use crate::registry::What;
use crate::shape::{self, Authority, AuthorityTurn};

/// How the authority stands
#[utoipa::path(get, path = "/api/v1/authority", tag = "access", security(("bearer" = ["admin"])),
    responses(
        (status = 200, description = "It", body = Authority),
        (status = "4XX", description = "Why not", body = shape::Problem, content_type = "application/problem+json")
    ))]
pub(super) async fn show(
    Admin(caller): Admin,
    State(api): State<Api>,
    params: Params,
) -> Result<Json<Authority>, Problem> {
    params.done()?;
    unlimited(&caller)?;
    let signer = signer(&api.published)?;
    let turn = match signer.turn() {
        Turn::None => AuthorityTurn::None,
        Turn::Prepared => AuthorityTurn::Prepared,
        Turn::Activated => AuthorityTurn::Activated,
    };
    Ok(ok(Authority { pin: signer.pin().map(|pin| pin.to_string()), turn }))
}

/// Take the next step of a turn
#[utoipa::path(post, path = "/api/v1/authority/{step}", tag = "access", security(("bearer" = ["admin"])),
    params(("step" = String, Path, description = "`prepare`, `activate` or `retire`")),
    responses(
        (status = 204, description = "It is taken"),
        (status = "4XX", description = "Why not", body = shape::Problem, content_type = "application/problem+json")
    ))]
pub(super) async fn turn(
    Admin(caller): Admin,
    State(api): State<Api>,
    Named(step): Named,
    params: Params,
) -> Result<StatusCode, Problem> {
    params.done()?;
    unlimited(&caller)?;
    let take: fn(&Signer, _) -> Result<(), AuthorityError> = match step.as_str() {
        "prepare" => Signer::prepare_next,
        "activate" => Signer::activate_next,
        "retire" => Signer::retire_old,
        other => {
            let detail =
                format!("there is no step {:?} of an authority; there are prepare, activate, retire", short(other));
            return Err(Problem::not_found(detail));
        }
    };
    let (signer, now) = (signer(&api.published)?, api.published.clock.wall());
    let taken = tokio::task::spawn_blocking(move || take(&signer, now)).await;
    taken.map_err(|_| Problem::unavailable("the step was given up"))?.map_err(refused)?;
    let note = What::Note { action: format!("authority.{step}"), target: String::from("authority") };
    api.published.orders.ask(caller.actor, note).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The authority is everybody's.
fn unlimited(caller: &Caller) -> Result<(), Problem> {
    if caller.limits().is_empty() {
        return Ok(());
    }
    Err(Problem::forbidden("the token is limited by labels, and the authority is the whole fleet's"))
}

fn signer(published: &Published) -> Result<std::sync::Arc<Signer>, Problem> {
    let missing = || Problem::conflict("this collector has no authority of its own", Vec::new());
    published.authority.clone().ok_or_else(missing)
}

fn refused(error: AuthorityError) -> Problem {
    match error {
        AuthorityError::Prepared
        | AuthorityError::NotPrepared
        | AuthorityError::OldTrusted
        | AuthorityError::NothingOld
        | AuthorityError::NoKey(_) => Problem::conflict(error.to_string(), Vec::new()),
        other => Problem::unavailable(format!("the authority's files cannot be written: {other}")),
    }
}
