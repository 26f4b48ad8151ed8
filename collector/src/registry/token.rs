//! A token: what it is good for, and how often it still is.

use dunlin_shared::time::WallMs;
use dunlin_shared::wire::join::JoinReason;

use super::member::check_labels;
use super::what::{Labels, Refused, Role, SecretHash, TokenWish};

const HOUR_MS: i64 = 3_600_000;
const NAME_BYTES_MAX: usize = 64;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    pub role: Role,
    pub name: String,
    pub secret: SecretHash,
    pub created: WallMs,
    pub created_by: String,
    pub expires: Option<WallMs>,
    /// How many more nodes may join by it.
    pub uses_left: Option<u32>,
    pub used: u32,
    pub labels: Labels,
    pub needs_approval: bool,
    pub per_hour: Option<u32>,
    /// The hour that counts, and how many nodes joined in it.
    pub hour: (WallMs, u32),
    pub is_ephemeral: bool,
    /// When a node joined by it, or somebody showed it, to the minute.
    pub last_used: Option<WallMs>,
    /// Taken back. It is kept, so that whoever still bears it is told so.
    pub is_deleted: bool,
}

/// Why it lets nobody join now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NoUse {
    pub(super) reason: JoinReason,
    pub(super) retry_after_ms: u32,
}

impl Token {
    pub(super) fn new(now: WallMs, by: &str, wish: TokenWish, secret: SecretHash) -> Result<Self, Refused> {
        let TokenWish { role, name, uses, expires, labels, needs_approval, per_hour, is_ephemeral } = wish;
        if name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control) {
            return Err(Refused::Invalid(format!("a token's name has at most {NAME_BYTES_MAX} bytes on one line")));
        }
        if expires.is_some_and(|expires| expires <= now) {
            return Err(Refused::Invalid(String::from("the token would be out of date at once")));
        }
        if uses == Some(0) || per_hour == Some(0) {
            return Err(Refused::Invalid(String::from("a token of no use is not made; ask for 1 or more")));
        }
        if role != Role::Join && (uses.is_some() || per_hour.is_some() || needs_approval || is_ephemeral) {
            let what = "uses, per_hour, approve and ephemeral are for tokens of the role join alone";
            return Err(Refused::Invalid(String::from(what)));
        }
        check_labels(&labels)?;
        Ok(Self {
            role,
            name,
            secret,
            created: now,
            created_by: by.to_owned(),
            expires,
            uses_left: uses,
            used: 0,
            labels,
            needs_approval,
            per_hour,
            hour: (now, 0),
            is_ephemeral,
            last_used: None,
            is_deleted: false,
        })
    }

    /// One node joins by it.
    pub(super) fn spend(&mut self, now: WallMs) -> Result<(), NoUse> {
        let no = |reason| Err(NoUse { reason, retry_after_ms: 0 });
        if self.role != Role::Join {
            return no(JoinReason::UnknownToken);
        }
        if self.is_deleted {
            return no(JoinReason::RevokedToken);
        }
        if self.expires.is_some_and(|expires| expires <= now) {
            return no(JoinReason::ExpiredToken);
        }
        if self.uses_left == Some(0) {
            return no(JoinReason::UsedUpToken);
        }
        // A clock that went back begins a new hour, and never waits for the old one.
        let in_hour = now.since(self.hour.0);
        if !(0..HOUR_MS).contains(&in_hour) {
            self.hour = (now, 0);
        } else if self.per_hour.is_some_and(|most| self.hour.1 >= most) {
            let retry_after_ms = u32::try_from(HOUR_MS - in_hour).unwrap_or(u32::MAX);
            return Err(NoUse { reason: JoinReason::TooMany, retry_after_ms });
        }
        self.hour.1 += 1;
        self.uses_left = self.uses_left.map(|left| left - 1);
        self.used = self.used.saturating_add(1);
        self.last_used = Some(now);
        Ok(())
    }
}
