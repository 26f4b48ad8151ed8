//! Bits to bytes at their entropy: a binary range coder, and the bits that learn how likely they are.
//!
//! Everything above is written once for both directions: given an `Encoder`, a coding function writes
//! what it is handed and hands it back; given a `Decoder`, it hands back what was written. Reading past
//! the end yields zeros and is noticed by `Decoder::is_spent`. Integers only: the same on every machine.

/// A probability has 16 bits, and neither outcome is ever impossible.
const PROBABILITY_MIN: u32 = 48;

/// Bytes that a decoder reads ahead, and so those that may be left out at the end when they are zeros.
const TRIMMED_MAX: usize = 4;

/// One step of the code, in the direction of whoever implements it.
pub(crate) trait Coder {
    /// A bit that is set with a probability of `set` of 65,536.
    fn code(&mut self, set: u32, bit: bool) -> bool;

    /// The lowest `count` bits of a value, of which nothing is known.
    fn plain(&mut self, count: u32, value: u64) -> u64;

    /// A bit whose probability is learnt on the way.
    #[inline]
    fn bit(&mut self, learnt: &mut Bit, bit: bool) -> bool {
        let bit = self.code(learnt.set().clamp(PROBABILITY_MIN, 0x1_0000 - PROBABILITY_MIN), bit);
        learnt.learn(bit);
        bit
    }
}

/// How likely a bit is set: the probability in the upper half, how often it was seen in the lower.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bit(u32);

/// Beyond so many sightings a bit follows what it sees at a constant pace. From 20 to 250 measure alike.
const SEEN_MAX: u32 = 60;

/// By how much of the difference a bit moves, of 65,536, by how often it was seen: 1/(n + 1.6).
const PACE: [u32; SEEN_MAX as usize + 1] = {
    let mut pace = [0; SEEN_MAX as usize + 1];
    let mut seen = 0;
    while seen <= SEEN_MAX {
        pace[seen as usize] = 655_360 / (10 * seen + 16);
        seen += 1;
    }
    pace
};

impl Bit {
    pub(crate) const UNKNOWN: Self = Self::believed(0x8000, 0);

    /// Set with a probability of `set` of 65,536, believed as if it had been seen so often.
    pub(crate) const fn believed(set: u32, seen: u32) -> Self {
        Self((set << 16) | seen)
    }

    #[inline]
    pub(crate) const fn set(self) -> u32 {
        self.0 >> 16
    }

    #[inline]
    pub(crate) fn learn(&mut self, bit: bool) {
        let (set, seen) = (self.0 >> 16, self.0 & 0xffff);
        let pace = PACE[seen.min(SEEN_MAX) as usize];
        let set = if bit { set + (((0xffff - set) * pace) >> 16) } else { set - ((set * pace) >> 16) };
        self.0 = (set << 16) | (seen + 1).min(SEEN_MAX);
    }
}

/// Writes: `low` is the lower end of the interval, in 32 bits and a carry.
#[derive(Debug)]
pub(crate) struct Encoder {
    low: u64,
    range: u32,
    /// The last byte, which a carry may still change; none before the first.
    held: Option<u8>,
    /// Bytes of 0xff behind it, through which the carry would run.
    pending: usize,
    out: Vec<u8>,
}

impl Encoder {
    pub(crate) const fn new() -> Self {
        Self { low: 0, range: u32::MAX, held: None, pending: 0, out: Vec::new() }
    }

    /// The fewest bytes that name a number within the interval: what is missing at the end reads as zeros.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        for bits in [24, 16, 8, 0] {
            let rest = (1_u64 << bits) - 1;
            let rounded = (self.low + rest) & !rest;
            if rounded < self.low + u64::from(self.range) {
                self.low = rounded;
                break;
            }
        }
        for _ in 0..=TRIMMED_MAX {
            self.shift();
        }
        let zeros = self.out.iter().rev().take(TRIMMED_MAX).take_while(|&&byte| byte == 0).count();
        self.out.truncate(self.out.len() - zeros);
        self.out
    }

    fn shift(&mut self) {
        let [_, _, _, carry, top, ..] = self.low.to_be_bytes();
        if carry == 0 && top == 0xff {
            self.pending += 1;
        } else {
            if let Some(held) = self.held {
                self.out.push(held.wrapping_add(carry));
            }
            for _ in 0..std::mem::take(&mut self.pending) {
                self.out.push(carry.wrapping_sub(1));
            }
            self.held = Some(top);
        }
        self.low = (self.low & 0x00ff_ffff) << 8;
    }

    #[inline]
    fn narrow(&mut self, offset: u32, range: u32) {
        self.low += u64::from(offset);
        self.range = range;
        while self.range < 1 << 24 {
            self.range <<= 8;
            self.shift();
        }
    }
}

impl Coder for Encoder {
    #[inline]
    fn code(&mut self, set: u32, bit: bool) -> bool {
        let bound = (self.range >> 16) * set;
        if bit {
            self.narrow(0, bound);
        } else {
            self.narrow(bound, self.range - bound);
        }
        bit
    }

    fn plain(&mut self, count: u32, value: u64) -> u64 {
        for (bits, below) in sixteens(count) {
            let unit = self.range >> bits;
            let part = (value >> below) & ((1 << bits) - 1);
            self.low += u64::from(unit) * part;
            self.narrow(0, unit);
        }
        value
    }
}

#[derive(Debug)]
pub(crate) struct Decoder<'a> {
    range: u32,
    code: u32,
    bytes: &'a [u8],
    missing: usize,
}

impl<'a> Decoder<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        let mut decoder = Self { range: u32::MAX, code: 0, bytes, missing: 0 };
        for _ in 0..4 {
            decoder.code = decoder.code << 8 | decoder.byte();
        }
        decoder
    }

    /// Whether more was read than an encoder can have left out: what was read last was never written.
    pub(crate) const fn is_spent(&self) -> bool {
        self.missing > TRIMMED_MAX
    }

    #[inline]
    fn byte(&mut self) -> u32 {
        match self.bytes.split_first() {
            Some((&byte, rest)) => {
                self.bytes = rest;
                u32::from(byte)
            }
            None => {
                self.missing += 1;
                0
            }
        }
    }

    #[inline]
    fn narrow(&mut self, offset: u32, range: u32) {
        self.code = self.code.wrapping_sub(offset);
        self.range = range;
        while self.range < 1 << 24 {
            self.range <<= 8;
            self.code = self.code << 8 | self.byte();
        }
    }
}

impl Coder for Decoder<'_> {
    #[inline]
    fn code(&mut self, set: u32, _: bool) -> bool {
        let bound = (self.range >> 16) * set;
        let bit = self.code < bound;
        if bit {
            self.narrow(0, bound);
        } else {
            self.narrow(bound, self.range - bound);
        }
        bit
    }

    fn plain(&mut self, count: u32, _: u64) -> u64 {
        let mut value = 0;
        for (bits, _) in sixteens(count) {
            let unit = self.range >> bits;
            // What no encoder wrote may lie beyond the last part.
            let part = (self.code / unit).min((1 << bits) - 1);
            self.narrow(unit * part, unit);
            value = value << bits | u64::from(part);
        }
        value
    }
}

/// How many bits each step of a plain value takes, with how many are below them.
fn sixteens(count: u32) -> impl Iterator<Item = (u32, u32)> {
    (0..count.div_ceil(16)).rev().map(move |step| ((count - 16 * step).min(16), 16 * step))
}
