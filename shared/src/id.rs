//! Identifiers. Each is a type of its own, so that none can stand where another is meant.
//!
//! A frame is identified by (node, epoch, seq): the collector chose the node id, the agent draws
//! a higher epoch at every start and counts `seq` from 0 within it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A node's id: a version 7 UUID that the collector gave it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeId([u8; 16]);

/// One run of an agent. Persisted and raised at each start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Epoch(pub u32);

/// The number of a frame within its epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Seq(pub u64);

/// What names a frame within its node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FrameId {
    pub epoch: Epoch,
    pub seq: Seq,
}

#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0:?} is not a node id; a node id is a UUID such as 0192f0c1-7c00-7000-8000-000000000001")]
pub struct NodeIdError(String);

impl NodeId {
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    #[must_use]
    pub const fn bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// A version 7 UUID: 48 bits of Unix milliseconds, then randomness, so that ids sort by age.
    #[must_use]
    pub fn v7(unix_ms: u64, random: [u8; 10]) -> Self {
        let mut bytes = [0; 16];
        bytes[..6].copy_from_slice(&unix_ms.to_be_bytes()[2..]);
        bytes[6..].copy_from_slice(&random);
        bytes[6] = 0x70 | (bytes[6] & 0x0f);
        bytes[8] = 0x80 | (bytes[8] & 0x3f);
        Self(bytes)
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Pages of the API are full of ids: whole numbers are written several times as fast as single bytes.
        let n = u128::from_be_bytes(self.0);
        let part = |shift: u32, bits: u32| (n >> shift) & ((1 << bits) - 1);
        let (a, b, c, d, e) = (part(96, 32), part(80, 16), part(64, 16), part(48, 16), part(0, 48));
        write!(f, "{a:08x}-{b:04x}-{c:04x}-{d:04x}-{e:012x}")
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for NodeId {
    type Err = NodeIdError;

    fn from_str(text: &str) -> Result<Self, NodeIdError> {
        let wrong = || NodeIdError(text.chars().take(64).collect());
        let raw = text.as_bytes();
        if raw.len() != 36 || [8, 13, 18, 23].iter().any(|&dash| raw[dash] != b'-') {
            return Err(wrong());
        }
        let mut digits = raw.iter().filter(|&&b| b != b'-');
        let mut bytes = [0; 16];
        for byte in &mut bytes {
            for _ in 0..2 {
                let digit = digits.next().and_then(|&d| char::from(d).to_digit(16)).ok_or_else(wrong)?;
                *byte = (*byte << 4) | u8::try_from(digit).map_err(|_| wrong())?;
            }
        }
        if digits.next().is_some() {
            return Err(wrong());
        }
        Ok(Self(bytes))
    }
}

impl Seq {
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for FrameId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.epoch.0, self.seq.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn node_id_v7_sorts_by_age_and_carries_version_and_variant() {
        let early = NodeId::v7(1_000, [0xff; 10]);
        let late = NodeId::v7(1_001, [0; 10]);
        assert!(early < late);
        assert_eq!(early.to_string(), "00000000-03e8-7fff-bfff-ffffffffffff");
    }

    #[test]
    fn node_id_refuses_what_is_no_uuid() {
        for text in
            ["", "0192f0c1", "0192f0c1-7c00-7000-8000-00000000000g", "0192f0c17-c00-7000-8000-00000000000", "----"]
        {
            assert!(text.parse::<NodeId>().is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn node_id_survives_its_text(bytes: [u8; 16]) {
            let id = NodeId::from_bytes(bytes);
            prop_assert_eq!(id.to_string().parse::<NodeId>(), Ok(id));
        }

        #[test]
        fn node_id_parse_never_panics(text: String) {
            if let Ok(id) = text.parse::<NodeId>() {
                prop_assert_eq!(id.to_string(), text.to_ascii_lowercase());
            }
        }
    }
}
