//! When a session's certificate is to be made anew, and whether the session knows the newest authority. Pure.
//!
//! The collector's clock alone counts; an agent's may stand in 1970.

use dunlin_shared::backoff::scale;
use dunlin_shared::id::NodeId;
use dunlin_shared::time::WallMs;

use super::talk::spread;
use crate::authority::{Certificate, NODE_LIFE_MS, PublicKey};

/// Nodes that enrolled together are not renewed together: a tenth of the life lies between the first and the last.
const JITTER_MS: u64 = NODE_LIFE_MS.unsigned_abs() / 10;

/// What is known of the certificate that a session goes on with.
#[derive(Debug)]
pub(super) struct Renewal {
    /// `None` when we would not sign it: it is none of ours.
    pub(super) key: Option<PublicKey>,
    issuer: Box<[u8]>,
    due: WallMs,
    /// The turns of the authority that were looked at.
    turns: Option<u64>,
    /// Those that the agent was welcomed with.
    told: Option<u64>,
}

impl Renewal {
    pub(super) fn of(node: NodeId, certificate: &Certificate) -> Self {
        Self {
            key: PublicKey::parse(&certificate.spki),
            issuer: certificate.issuer.clone().into_boxed_slice(),
            due: due(node, certificate.not_after),
            turns: None,
            told: None,
        }
    }

    /// The agent hears of the authority as it is now.
    pub(super) const fn told(&mut self, turns: u64) {
        self.told = Some(turns);
    }

    pub(super) fn was_told(&self, turns: u64) -> bool {
        self.told == Some(turns)
    }

    /// Whether there is something new about the authority since it was asked last.
    pub(super) fn has_turned(&mut self, turns: u64) -> bool {
        self.turns.replace(turns) != Some(turns)
    }

    pub(super) fn issuer(&self) -> &[u8] {
        &self.issuer
    }

    /// Its issuer signs no more.
    pub(super) const fn issuer_is_gone(&mut self) {
        self.due = WallMs(i64::MIN);
    }

    pub(super) fn is_due(&self, now: WallMs) -> bool {
        self.key.is_some() && self.due <= now
    }

    /// A new one is on its way.
    pub(super) fn renewed(&mut self, node: NodeId, now: WallMs) {
        self.due = due(node, now.plus(NODE_LIFE_MS));
    }
}

/// When half of its life is over, or a little later.
fn due(node: NodeId, not_after: WallMs) -> WallMs {
    let later_ms = scale(spread(node, 0), JITTER_MS);
    not_after.plus(i64::try_from(later_ms).unwrap_or(0) - NODE_LIFE_MS / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOT_AFTER: WallMs = WallMs(1_790_000_000_000);

    #[test]
    fn certificates_are_renewed_in_the_second_half_of_their_life_and_not_all_at_once() {
        let node = |n: u64| {
            let bytes = n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
            let mut random = [0; 10];
            random[..8].copy_from_slice(&bytes);
            NodeId::v7(7, random)
        };
        let left_ms: Vec<_> = (0..1_000).map(|n| NOT_AFTER.since(due(node(n), NOT_AFTER))).collect();
        let (least, most) = (left_ms.iter().min().copied(), left_ms.iter().max().copied());
        assert!(most <= Some(NODE_LIFE_MS / 2) && least >= Some(NODE_LIFE_MS * 4 / 10), "{least:?} {most:?}");
        assert!(most > Some(NODE_LIFE_MS * 49 / 100) && least < Some(NODE_LIFE_MS * 41 / 100), "{least:?} {most:?}");
    }

    #[test]
    fn a_turn_of_the_authority_is_told_once() {
        let mut renewal = Renewal { key: None, issuer: Box::default(), due: NOT_AFTER, turns: None, told: None };
        assert!(renewal.has_turned(0) && !renewal.has_turned(0) && renewal.has_turned(1));
        renewal.issuer_is_gone();
        assert!(!renewal.is_due(NOT_AFTER), "without a key of ours there is nothing to sign");
    }
}
