//! Numbers and names of which there are few: lengths, first values, what a host calls its things.

use super::range::{Bit, Coder};

/// Numbers of one sort: how many bits they have is learnt, and the highest of those.
#[derive(Clone, Debug)]
pub(crate) struct Numbers {
    bits: [Bit; 128],
    second: [Bit; 65],
}

impl Numbers {
    pub(crate) const fn new() -> Self {
        Self { bits: [Bit::UNKNOWN; 128], second: [Bit::UNKNOWN; 65] }
    }

    pub(crate) fn code(&mut self, coder: &mut impl Coder, value: u64) -> u64 {
        // A tree of seven levels; what is above 64 no encoder writes.
        let bits = u64::from(u64::BITS - value.leading_zeros());
        let bits = code_tree(coder, &mut self.bits, 7, bits).min(64);
        if bits < 2 {
            return bits;
        }
        let below = bits as u32 - 2;
        let second = u64::from(coder.bit(&mut self.second[bits as usize], value >> below & 1 == 1));
        let rest = coder.plain(below, value & ((1 << below) - 1));
        (2 | second) << below | rest
    }

    pub(crate) fn code_len(&mut self, coder: &mut impl Coder, len: usize) -> usize {
        usize::try_from(self.code(coder, len as u64)).unwrap_or(usize::MAX)
    }
}

/// A symbol of `levels` bits, the highest first, each learnt under those before it. `tree` has `1 << levels`.
pub(crate) fn code_tree(coder: &mut impl Coder, tree: &mut [Bit], levels: u32, symbol: u64) -> u64 {
    let mut node = 1_usize;
    for level in (0..levels).rev() {
        let bit = coder.bit(&mut tree[node], symbol >> level & 1 == 1);
        node = node << 1 | usize::from(bit);
    }
    node as u64 - (1 << levels)
}
