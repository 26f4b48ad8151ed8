//! How long to wait before the next attempt, by why the last one failed.
//!
//! Each reason backs off by itself: a collector that is away is asked again soon, one that refuses for a good
//! reason rarely, for only a person can change its mind.

use dunlin_shared::backoff::Backoff;
use dunlin_shared::limits::ASKED_MS_MAX;
use dunlin_shared::wire::CloseCode;
use dunlin_shared::wire::join::{JoinReason, JoinRefusal};

/// A join that fails is tried again within a minute: a machine that was just installed should appear.
const JOIN_MS: (u64, u64) = (1_000, 60_000);
/// A token that is used up stays used up until somebody acts.
const REFUSED_MS: (u64, u64) = (5_000, 600_000);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// The session ended, or never came to be.
    Session,
    /// The join did not come to an answer, something is in the way on this host, or somebody must first approve.
    Join,
    /// For a good reason.
    Refused,
    /// The collector enrols nobody at the moment, and says for how long it wants to be left alone.
    Asked { ms: u64 },
    /// The same of one that is being stopped.
    Drained { ms: u64 },
    /// Something changed: the next attempt may go better.
    Now,
}

#[derive(Debug)]
pub(super) struct Pauses {
    session: Backoff,
    join: Backoff,
    refused: Backoff,
}

impl Why {
    /// For how long the collector is not to be asked again, besides the pause.
    pub(super) fn away_ms(self) -> u64 {
        match self {
            Self::Asked { ms } | Self::Drained { ms } => ms.min(ASKED_MS_MAX.into()),
            Self::Session | Self::Join | Self::Refused | Self::Now => 0,
        }
    }

    /// What to make of a session that the collector closed.
    pub(super) const fn of_close(code: CloseCode) -> Self {
        match code {
            CloseCode::NotApproved | CloseCode::Quarantined => Self::Join,
            CloseCode::Revoked | CloseCode::NotEnrolled => Self::Refused,
            _ => Self::Session,
        }
    }

    pub(super) fn of_refusal(refusal: &JoinRefusal) -> Self {
        match refusal.reason {
            _ if refusal.retry_after_ms > 0 => Self::Asked { ms: u64::from(refusal.retry_after_ms) },
            JoinReason::TooMany | JoinReason::NotNow => Self::Join,
            JoinReason::NoToken
            | JoinReason::UnknownToken
            | JoinReason::ExpiredToken
            | JoinReason::UsedUpToken
            | JoinReason::RevokedToken
            | JoinReason::RevokedNode
            | JoinReason::BadProof
            | JoinReason::Version => Self::Refused,
        }
    }
}

impl Pauses {
    pub(super) const fn new(session_ms: (u64, u64)) -> Self {
        Self {
            session: Backoff::new(session_ms.0, session_ms.1),
            join: Backoff::new(JOIN_MS.0, JOIN_MS.1),
            refused: Backoff::new(REFUSED_MS.0, REFUSED_MS.1),
        }
    }

    /// The pause before the next attempt, whichever collector it goes to.
    pub(super) fn next_ms(&mut self, why: Why, random: u64) -> u64 {
        match why {
            // Those who were sent away together do not come to the next one together.
            Why::Session | Why::Drained { .. } => self.session.next_ms(random),
            Why::Join | Why::Asked { .. } => self.join.next_ms(random),
            Why::Refused => self.refused.next_ms(random),
            Why::Now => 0,
        }
    }

    pub(super) const fn reset(&mut self) {
        self.session.reset();
        self.join.reset();
        self.refused.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn longest(why: Why) -> u64 {
        let mut pauses = Pauses::new((500, 30_000));
        (0..40).map(|_| pauses.next_ms(why, u64::MAX)).max().unwrap_or_default()
    }

    #[test]
    fn each_reason_has_its_own_longest_pause() {
        assert_eq!([Why::Session, Why::Join, Why::Refused, Why::Now].map(longest), [30_000, 60_000, 600_000, 0]);
        let ms = u64::from(u32::MAX);
        for (away, longest_ms) in [(Why::Asked { ms }, 60_000), (Why::Drained { ms }, 30_000)] {
            assert_eq!((longest(away), away.away_ms()), (longest_ms, ASKED_MS_MAX.into()));
        }
        assert_eq!([Why::Session, Why::Join, Why::Refused, Why::Now].map(Why::away_ms), [0; 4]);
    }

    #[test]
    fn only_what_a_person_must_mend_is_tried_rarely() {
        let of = |reason, retry_after_ms| Why::of_refusal(&JoinRefusal { reason, retry_after_ms });
        for reason in JoinReason::ALL {
            let rarely = !matches!(reason, JoinReason::TooMany | JoinReason::NotNow);
            assert_eq!(of(reason, 0), if rarely { Why::Refused } else { Why::Join }, "{reason:?}");
            assert_eq!(of(reason, 7_000), Why::Asked { ms: 7_000 });
        }
        assert_eq!(Why::of_close(CloseCode::Revoked), Why::Refused);
        assert_eq!(Why::of_close(CloseCode::NotApproved), Why::Join);
        assert_eq!(Why::of_close(CloseCode::Overloaded), Why::Session);
    }

    #[test]
    fn a_welcome_makes_the_next_pause_short_again() {
        let mut pauses = Pauses::new((500, 30_000));
        (0..20).for_each(|_| assert!(pauses.next_ms(Why::Refused, u64::MAX) >= 5_000));
        pauses.reset();
        assert_eq!(pauses.next_ms(Why::Refused, u64::MAX), 5_000);
    }
}
