//! CRC-32C over what a row holds. SQLite notices torn pages of its WAL, but not a bit that rots in
//! its database file; with this no row is read that was not written.

/// Castagnoli's polynomial, reflected; its Hamming distance at a frame's size is better than that of
/// the older CRC-32.
const POLYNOMIAL: u32 = 0x82f6_3b78;

/// Eight tables take eight bytes a step: a 200-byte row costs about 0.1 us instead of 0.5.
static TABLES: [[u32; 256]; 8] = tables();

#[derive(Clone, Copy, Debug)]
pub(super) struct Sum(u32);

impl Sum {
    pub(super) const fn new() -> Self {
        Self(!0)
    }

    pub(super) fn add(&mut self, bytes: &[u8]) {
        let (chunks, rest) = bytes.as_chunks::<8>();
        for chunk in chunks {
            let x = u64::from_le_bytes(*chunk) ^ u64::from(self.0);
            self.0 = x.to_le_bytes().iter().zip(TABLES.iter().rev()).fold(0, |sum, (&b, t)| sum ^ t[usize::from(b)]);
        }
        for &byte in rest {
            self.0 = (self.0 >> 8) ^ TABLES[0][usize::from(self.0.to_le_bytes()[0] ^ byte)];
        }
    }

    pub(super) fn add_number(&mut self, number: i64) {
        self.add(&number.to_le_bytes());
    }

    /// As SQLite stores it in four bytes: signed.
    pub(super) const fn value(self) -> i32 {
        (!self.0).cast_signed()
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the index of a table is below 256")]
const fn tables() -> [[u32; 256]; 8] {
    let mut tables = [[0; 256]; 8];
    let mut i = 0;
    while i < 256 {
        let mut value = i as u32;
        let mut bit = 0;
        while bit < 8 {
            value = if value & 1 == 1 { (value >> 1) ^ POLYNOMIAL } else { value >> 1 };
            bit += 1;
        }
        tables[0][i] = value;
        i += 1;
    }
    let mut i = 0;
    while i < 256 {
        let mut t = 1;
        while t < 8 {
            let before = tables[t - 1][i];
            tables[t][i] = (before >> 8) ^ tables[0][(before & 0xff) as usize];
            t += 1;
        }
        i += 1;
    }
    tables
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(bytes: &[u8]) -> i32 {
        let mut sum = Sum::new();
        sum.add(bytes);
        sum.value()
    }

    #[test]
    fn it_is_crc_32c() {
        assert_eq!(of(b"123456789"), 0xe306_9283_u32.cast_signed());
        assert_eq!(of(&[0; 32]), 0x8a91_36aa_u32.cast_signed());
    }

    proptest! {
        #[test]
        fn it_is_the_same_however_the_bytes_come(bytes in prop::collection::vec(any::<u8>(), 0..200), cut in 0usize..200) {
            let cut = cut.min(bytes.len());
            let mut sum = Sum::new();
            sum.add(&bytes[..cut]);
            sum.add(&bytes[cut..]);
            prop_assert_eq!(sum.value(), of(&bytes));
        }
    }
}
