//! The one alert that a word names, among those that the caller sees: on the board, or in the database.

use std::sync::Arc;

use dunlin_shared::id::NodeId;

use super::super::Api;
use super::super::caller::Caller;
use super::super::params::short;
use super::super::problem::Problem;
use super::{is_seen, picture, shown, shown_kept};
use crate::board::AlertView;
use crate::engine::alert::AlertId;
use crate::shape;
use crate::store::KeptAlert;
use crate::view::FleetView;

/// As few digits as tell a hundred alerts apart, as good as always; fewer are a typing error.
const DIGITS_MIN: usize = 6;
/// Ids that are listed of those that begin so.
const CANDIDATES: usize = 16;

#[derive(Debug)]
pub(super) enum Found {
    Open(Arc<AlertView>),
    Kept(Box<KeptAlert>),
}

impl Found {
    pub(super) fn id(&self) -> AlertId {
        match self {
            Self::Open(alert) => alert.id,
            Self::Kept(kept) => kept.row.id,
        }
    }

    pub(super) fn node(&self) -> Option<NodeId> {
        match self {
            Self::Open(alert) => alert.node,
            Self::Kept(kept) => kept.node.as_ref().map(|(id, _)| *id),
        }
    }

    pub(super) fn shown(&self, fleet: &FleetView) -> shape::Alert {
        match self {
            Self::Open(alert) => shown(alert, fleet),
            Self::Kept(kept) => shown_kept(kept, fleet),
        }
    }
}

/// The one of those that are open.
pub(in super::super) fn open_one(api: &Api, caller: &Caller, word: &str) -> Result<Arc<AlertView>, Problem> {
    let missing = || Problem::not_found(format!("no alert {:?} is open", short(word)));
    let range = AlertId::beginning(&word.to_ascii_lowercase()).filter(|_| word.len() >= DIGITS_MIN);
    let (range, (board, fleet)) = (range.ok_or_else(missing)?, picture(api));
    let mut seen = board.alerts_in(&range).iter().filter(|alert| is_seen(caller, &fleet, alert.node));
    match (seen.next(), seen.next()) {
        (None, _) => Err(missing()),
        (Some(one), None) => Ok(Arc::clone(one)),
        (Some(one), Some(other)) => {
            Err(ambiguous(word, &[&[one.id, other.id][..], &seen.map(|alert| alert.id).collect::<Vec<_>>()].concat()))
        }
    }
}

pub(super) async fn find(api: &Api, caller: &Caller, word: &str) -> Result<Found, Problem> {
    let missing = || Problem::not_found(format!("there is no alert {:?}", short(word)));
    let range = AlertId::beginning(&word.to_ascii_lowercase()).ok_or_else(missing)?;
    if word.len() < DIGITS_MIN {
        return Err(Problem::bad_request(format!("give at least {DIGITS_MIN} digits of an alert's id")));
    }
    let (board, fleet) = picture(api);
    let open = board.alerts_in(&range).iter().filter(|alert| is_seen(caller, &fleet, alert.node));
    let mut found: Vec<Found> = open.take(CANDIDATES).map(|alert| Found::Open(Arc::clone(alert))).collect();
    if range.start() != range.end() || found.is_empty() {
        match api.desk.control(move |reader| reader.alerts_in(&range, 2 * CANDIDATES)).await {
            Ok(kept) => found.extend(kept.into_iter().map(|kept| Found::Kept(Box::new(kept)))),
            // What is wrong now can be said while the disk is in trouble, and then it matters most.
            Err(_) if !found.is_empty() => {}
            Err(problem) => return Err(problem),
        }
        // An alert that is open stands on the board as it is now, and in the database as it was.
        let is_open = |one: &Found| matches!(one, Found::Kept(_)) && board.alert(one.id()).is_some();
        found.retain(|one| !is_open(one) && is_seen(caller, &fleet, one.node()));
    }
    if found.len() > 1 {
        return Err(ambiguous(word, &found.iter().map(Found::id).collect::<Vec<_>>()));
    }
    found.pop().ok_or_else(missing)
}

fn ambiguous(word: &str, ids: &[AlertId]) -> Problem {
    let detail = format!("{} alerts have ids that begin with {:?}; give more digits", ids.len(), short(word));
    Problem::conflict(detail, ids.iter().take(CANDIDATES).map(ToString::to_string).collect())
}
