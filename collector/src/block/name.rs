//! Names of things by what letter follows which two: hosts call theirs much alike.

use super::mix::Weights;
use super::number::Numbers;
use super::range::{Bit, Coder};

/// Places that the letters seen so far are spread over. Two that fall on one place cost a little, no more.
const PLACES: usize = 1 << 13;

#[derive(Debug)]
pub(super) struct Names {
    after_one: Vec<Bit>,
    after_two: Vec<Bit>,
    anywhere: [Bit; 256],
    weights: Weights,
    lengths: Numbers,
}

impl Names {
    pub(super) fn new() -> Self {
        Self {
            after_one: vec![Bit::UNKNOWN; PLACES],
            after_two: vec![Bit::UNKNOWN; PLACES],
            anywhere: [Bit::UNKNOWN; 256],
            weights: Weights::EVEN,
            lengths: Numbers::new(),
        }
    }

    /// Codes a name of at most `len_max` bytes.
    pub(super) fn code(&mut self, coder: &mut impl Coder, name: &[u8], len_max: usize) -> Vec<u8> {
        let len = self.lengths.code_len(coder, name.len()).min(len_max);
        let mut coded = Vec::with_capacity(len);
        let (mut last, mut before) = (0, 0);
        for at in 0..len {
            let byte = self.code_byte(coder, last, before, name.get(at).copied().unwrap_or(0));
            coded.push(byte);
            (before, last) = (last, usize::from(byte));
        }
        coded
    }

    fn code_byte(&mut self, coder: &mut impl Coder, last: usize, before: usize, byte: u8) -> u8 {
        let mut node = 1_u8;
        let mut coded = 0;
        for level in (0..8).rev() {
            let at = usize::from(node);
            let (one, two) = (place(1 << 24 | last << 8 | at), place(before << 16 | last << 8 | at));
            let opinions = [&mut self.anywhere[at], &mut self.after_one[one], &mut self.after_two[two]];
            let bit = self.weights.code(coder, opinions, byte >> level & 1 == 1);
            node = node << 1 | u8::from(bit);
            coded = coded << 1 | u8::from(bit);
        }
        coded
    }
}

/// Fibonacci hashing.
const fn place(letters: usize) -> usize {
    (letters.wrapping_mul(0x9e37_79b1) >> 12) % PLACES
}
