//! LEB128 integers, the alphabet of the frame codec.
//!
//! Reading takes from the front of a slice and never reads past ten bytes.

use thiserror::Error;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum VarintError {
    #[error("the bytes end within a number")]
    Truncated,
    #[error("a number has more than 64 bits")]
    Overlong,
}

pub fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push((value & 0x7f) as u8);
}

pub fn take(bytes: &mut &[u8]) -> Result<u64, VarintError> {
    let mut value = 0u64;
    for shift in (0..70).step_by(7) {
        let (&byte, rest) = bytes.split_first().ok_or(VarintError::Truncated)?;
        *bytes = rest;
        let bits = u64::from(byte & 0x7f);
        if shift == 63 && bits > 1 {
            return Err(VarintError::Overlong);
        }
        value |= bits << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(VarintError::Overlong)
}

/// Small numbers of either sign to small numbers without one.
#[must_use]
pub const fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

#[must_use]
pub const fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -((value & 1).cast_signed())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_of_more_than_64_bits_are_refused() {
        assert_eq!(take(&mut &[0xff; 11][..]), Err(VarintError::Overlong));
        assert_eq!(take(&mut &[0x80, 0x80][..]), Err(VarintError::Truncated));
    }

    proptest! {
        #[test]
        fn every_number_survives(value: u64, signed: i64) {
            let mut out = Vec::new();
            put(&mut out, value);
            prop_assert!(out.len() <= 10);
            let mut rest = &out[..];
            prop_assert_eq!(take(&mut rest), Ok(value));
            prop_assert!(rest.is_empty());
            prop_assert_eq!(unzigzag(zigzag(signed)), signed);
        }
    }
}
