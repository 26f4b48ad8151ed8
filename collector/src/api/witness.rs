//! What is refused to somebody who is known goes to the log of who did what, as what is done does.
//!
//! A flood fills nothing: of what one token is refused again and again only so many lines are written, and
//! then one at every power of two. Whoever shows no good token is counted elsewhere.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::Response;
use dunlin_shared::time::MonoMs;

use super::Api;
use super::params::{decoded, short};
use crate::registry::{Actor, TokenId, What};

/// Refusals that are written one by one: a person who tries again with other words.
const EACH: u64 = 8;
/// Whoever was refused nothing for so long begins anew.
const FORGOTTEN_AFTER_MS: u64 = 3_600_000;
/// Tokens and verbs that are counted apart, 64 bytes each; beyond it all tokens share an account.
const ACCOUNTS_MAX: usize = 1_024;

/// Who asks, and about what: filled in while the request is looked at.
#[derive(Clone, Debug, Default)]
pub(super) struct Witness(Arc<Mutex<Seen>>);

#[derive(Debug, Default)]
struct Seen {
    actor: Option<Actor>,
    target: String,
}

/// In an answer: why it is none.
#[derive(Clone, Debug)]
pub(super) struct Why(pub(super) String);

#[derive(Debug, Default)]
pub(super) struct Refusals {
    accounts: HashMap<(Option<TokenId>, &'static str), Account>,
}

#[derive(Debug, Default)]
struct Account {
    times: u64,
    /// Of those, how many a line tells of.
    told: u64,
    last: MonoMs,
}

impl Witness {
    pub(super) fn actor(&self, actor: &Actor) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).actor = Some(actor.clone());
    }

    /// The word that was given, or the id that it stood for.
    pub(super) fn target(&self, target: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).target = short(target);
    }

    fn take(&self) -> Seen {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Refusals {
    /// How many a line is to tell of, when it is time for one.
    pub(super) fn note(&mut self, token: Option<TokenId>, action: &'static str, now: MonoMs) -> Option<u64> {
        let mut key = (token, action);
        if self.accounts.len() >= ACCOUNTS_MAX && !self.accounts.contains_key(&key) {
            self.accounts.retain(|_, account| now.since(account.last) < FORGOTTEN_AFTER_MS);
            if self.accounts.len() >= ACCOUNTS_MAX {
                key.0 = None;
            }
        }
        let account = self.accounts.entry(key).or_default();
        if now.since(account.last) >= FORGOTTEN_AFTER_MS {
            *account = Account::default();
        }
        account.last = now;
        account.times += 1;
        if account.times > EACH && !account.times.is_power_of_two() {
            return None;
        }
        let untold = account.times - account.told;
        account.told = account.times;
        Some(untold)
    }
}

/// Around every verb. The line is on disk before the answer goes out.
pub(super) async fn watch(State(api): State<Api>, mut request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    let Some((action, word)) = action(request.method(), &path) else {
        return next.run(request).await;
    };
    let witness = Witness::default();
    witness.target(&decoded(word).unwrap_or_default());
    request.extensions_mut().insert(witness.clone());
    let response = next.run(request).await;
    let is_told = matches!(
        response.status(),
        StatusCode::BAD_REQUEST
            | StatusCode::FORBIDDEN
            | StatusCode::NOT_FOUND
            | StatusCode::CONFLICT
            | StatusCode::UNPROCESSABLE_ENTITY
    );
    let Seen { actor: Some(actor), target } = witness.take() else { return response };
    let Some(Why(why)) = response.extensions().get::<Why>().filter(|_| is_told) else { return response };
    if let Some(times) = api.refused(actor.token, action) {
        let (action, why) = (action.to_owned(), why.clone());
        // A line that cannot be stored is no reason to keep the answer back.
        api.published.orders.ask(actor, What::NoteRefused { action, target, why, times }).await.ok();
    }
    response
}

/// The word that stands in the log when it is done, and what the path says it is done to.
pub(super) fn action<'p>(method: &Method, path: &'p str) -> Option<(&'static str, &'p str)> {
    let parts: Vec<&str> = path.strip_prefix("/api/v1/")?.split('/').collect();
    let action = match (method.as_str(), parts.as_slice()) {
        ("PATCH", ["nodes", _]) => "node.label",
        ("DELETE", ["nodes", _]) => "node.forget",
        ("POST", ["nodes", _, "revoke"]) => "node.revoke",
        ("POST", ["nodes", _, "approve"] | ["approvals"]) => "node.approve",
        ("POST", ["nodes", _, "adopt"]) => "node.adopt",
        ("POST", ["nodes", _, "maintenance"]) => "node.maintain",
        ("DELETE", ["nodes", _, "maintenance"]) => "node.end_maintenance",
        ("POST", ["tokens"]) => "token.create",
        ("DELETE", ["tokens", _]) => "token.delete",
        ("POST", ["authority", _]) => "authority.turn",
        ("PUT", ["rules"]) => "rules.apply",
        ("DELETE", ["rule-sets", _]) => "rules.delete",
        ("POST", ["silences"]) => "silence.create",
        ("PATCH", ["silences", _]) => "silence.edit",
        ("DELETE", ["silences", _]) => "silence.expire",
        ("POST", ["alerts", "ack"] | ["alerts", _, "ack"]) => "alert.acknowledge",
        ("DELETE", ["alerts", _, "ack"]) => "alert.unacknowledge",
        _ => return None,
    };
    Some((action, parts.get(1).copied().unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const T0: MonoMs = MonoMs(1);

    #[test]
    fn the_first_refusals_are_told_one_by_one_and_then_at_every_power_of_two() {
        let mut refusals = Refusals::default();
        let told: Vec<u64> = (0..40).filter_map(|_| refusals.note(None, "node.revoke", T0)).collect();
        assert_eq!(told, [1, 1, 1, 1, 1, 1, 1, 1, 8, 16]);
        assert_eq!(refusals.note(None, "node.label", T0), Some(1), "each verb by itself");
        assert_eq!(refusals.note(Some(TokenId(1)), "node.revoke", T0), Some(1), "and each token");
        assert_eq!(refusals.note(None, "node.revoke", T0.plus(FORGOTTEN_AFTER_MS)), Some(1));
    }

    #[test]
    fn a_flood_of_a_million_is_a_few_lines_that_tell_of_almost_all() {
        let mut refusals = Refusals::default();
        let told: Vec<u64> = (0..1_000_000).filter_map(|_| refusals.note(None, "node.revoke", T0)).collect();
        assert!(told.len() < 30, "{}", told.len());
        assert_eq!(told.iter().sum::<u64>(), 1 << 19);
    }

    #[test]
    fn many_tokens_do_not_fill_the_memory_or_the_log() {
        let mut refusals = Refusals::default();
        let lines = (0..100_000).filter_map(|id| refusals.note(Some(TokenId(id)), "node.revoke", T0)).count();
        assert!(refusals.accounts.len() <= ACCOUNTS_MAX + 1 && lines < ACCOUNTS_MAX + 40, "{lines}");
        let later = T0.plus(FORGOTTEN_AFTER_MS);
        refusals.note(Some(TokenId(999_999)), "node.revoke", later);
        assert_eq!(refusals.accounts.len(), 1, "whoever was refused nothing since is forgotten");
    }
}
