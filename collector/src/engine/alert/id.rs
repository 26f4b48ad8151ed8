//! What names an alert. It follows from what began it and from nothing else, so that whoever is fed the same frames
//! gives it the same name.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use dunlin_shared::id::{FrameId, NodeId};

/// Ten bytes, written as twenty hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AlertId([u8; 10]);

/// The basis and the prime of FNV-1a with 128 bits. Nobody gains by two alerts of one name: he who could choose what
/// begins them sends those frames anyway.
const BASIS: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;

impl AlertId {
    #[must_use]
    pub fn of(rule: &str, node: Option<NodeId>, subject: &str, began: FrameId) -> Self {
        let mut sum = BASIS;
        let mut take = |bytes: &[u8]| {
            for byte in bytes {
                sum = (sum ^ u128::from(*byte)).wrapping_mul(PRIME);
            }
        };
        take(rule.as_bytes());
        // No rule and no subject holds a zero.
        take(&[0]);
        take(subject.as_bytes());
        take(&[0]);
        take(node.as_ref().map_or(&[][..], |node| node.bytes()));
        take(&began.epoch.0.to_le_bytes());
        take(&began.seq.0.to_le_bytes());
        // The lowest bits of each byte reach the highest of the sum by no other way.
        let bytes = (sum ^ (sum >> 59)).wrapping_mul(PRIME).to_be_bytes();
        let mut id = [0; 10];
        id.copy_from_slice(&bytes[..10]);
        Self(id)
    }

    /// All ids that begin with these digits; `None` for what no id begins with.
    #[must_use]
    pub fn beginning(digits: &str) -> Option<RangeInclusive<Self>> {
        let is_begin = (1..=20).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        let filled = |with: char| format!("{digits}{}", with.to_string().repeat(20 - digits.len())).parse().ok();
        is_begin.then(|| Some(filled('0')?..=filled('f')?)).flatten()
    }

    #[must_use]
    pub const fn from_bytes(bytes: [u8; 10]) -> Self {
        Self(bytes)
    }

    #[must_use]
    pub const fn bytes(&self) -> &[u8; 10] {
        &self.0
    }
}

impl fmt::Display for AlertId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let n = self.0.iter().fold(0_u128, |n, byte| n << 8 | u128::from(*byte));
        write!(f, "{n:020x}")
    }
}

impl fmt::Debug for AlertId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for AlertId {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let is_hex = text.len() == 20 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let mut id = [0; 10];
        for (at, byte) in id.iter_mut().enumerate() {
            let digits = text.get(2 * at..2 * at + 2).filter(|_| is_hex).ok_or(())?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| ())?;
        }
        Ok(Self(id))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn what_began_it_names_it_and_whatever_differs_names_another() {
        let node = |number| Some(NodeId::v7(number, [1; 10]));
        let id = AlertId::of("memory-high", node(1), "host", FrameId::new(3, 9));
        assert_eq!(id, AlertId::of("memory-high", node(1), "host", FrameId::new(3, 9)));
        assert_eq!(id.to_string().parse(), Ok(id));
        let mut all = HashSet::from([id]);
        for number in 0..1_000 {
            all.insert(AlertId::of("memory-high", node(1), "host", FrameId::new(4, number)));
            all.insert(AlertId::of("memory-high", node(number + 2), "host", FrameId::new(3, 9)));
            all.insert(AlertId::of("memory-high", node(1), &format!("fs:/{number}"), FrameId::new(3, 9)));
            all.insert(AlertId::of(&format!("rule-{number}"), None, "fleet", FrameId::new(3, 9)));
        }
        assert_eq!(all.len(), 4_001);
        let tops: HashSet<_> = all.iter().map(|id| id.0[0]).collect();
        assert!(tops.len() > 200, "whoever reads its first digits alone can tell it from most others");
    }

    #[test]
    fn the_first_digits_stand_for_all_ids_that_begin_with_them() {
        let id = AlertId::from_bytes([0xab; 10]);
        let text = id.to_string();
        for len in 1..=20 {
            assert!(AlertId::beginning(&text[..len]).is_some_and(|range| range.contains(&id)), "{len}");
        }
        assert_eq!(AlertId::beginning(&text), Some(id..=id));
        assert!(AlertId::beginning("abac").is_some_and(|range| !range.contains(&id)));
        for other in ["", "x", "ab ", "é", "abababababababababab0"] {
            assert_eq!(AlertId::beginning(other), None, "{other:?}");
        }
    }

    #[test]
    fn other_texts_are_no_ids() {
        for text in
            ["", "zz", "0123456789abcdef012", "0123456789abcdef012g", "0123456789abcdef01234", "é123456789abcdef012"]
        {
            assert_eq!(text.parse::<AlertId>(), Err(()), "{text}");
        }
    }
}
