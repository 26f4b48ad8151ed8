//! The join token: what a new agent needs to find that a collector is the right one, and to be let in.
//!
//! ```text
//! dunlin-join.SECRET.PIN      both base64url without padding
//! ```
//!
//! SECRET is 160 random bits, which the collector keeps as a hash alone; PIN is the SHA-256 of the
//! authority's SubjectPublicKeyInfo. A token is never printed by accident.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::limits::JOIN_TOKEN_SECRET_BYTES;

pub const PIN_BYTES: usize = 32;
const PREFIX: &str = "dunlin-join";

/// The SHA-256 of the SubjectPublicKeyInfo of an authority.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Pin(pub [u8; PIN_BYTES]);

#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    pub secret: [u8; JOIN_TOKEN_SECRET_BYTES],
    pub pin: Pin,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum TokenError {
    #[error("this is no join token: one begins with {PREFIX}. and has two dots")]
    Shape,
    #[error("the join token is cut off or has a wrong character; copy it anew, all of it")]
    Damaged,
}

impl JoinToken {
    /// What is handed to an operator, once.
    #[must_use]
    pub fn reveal(&self) -> String {
        format!("{PREFIX}.{}.{}", encode(&self.secret), encode(&self.pin.0))
    }
}

impl FromStr for JoinToken {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let mut parts = text.trim().split('.');
        let (Some(PREFIX), Some(secret), Some(pin), None) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(TokenError::Shape);
        };
        let secret = decode(secret).ok_or(TokenError::Damaged)?;
        let pin = decode(pin).ok_or(TokenError::Damaged)?;
        Ok(Self { secret, pin: Pin(pin) })
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinToken").field("pin", &self.pin).finish_non_exhaustive()
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&encode(&self.0))
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pin({self})")
    }
}

impl FromStr for Pin {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        decode(text.trim()).map(Self).ok_or(TokenError::Damaged)
    }
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// base64url without padding.
#[must_use]
pub fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let group = chunk.iter().fold(0u32, |group, &byte| group << 8 | u32::from(byte)) << (8 * (3 - chunk.len()));
        for at in 0..=chunk.len() {
            let digit = group >> (18 - 6 * at) & 63;
            text.push(char::from(ALPHABET[digit as usize]));
        }
    }
    text
}

/// Exactly so many bytes, written the one way in which they can be.
#[must_use]
pub fn decode<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != (N * 8).div_ceil(6) {
        return None;
    }
    let mut bytes = [0; N];
    let (mut group, mut bits, mut at) = (0u32, 0, 0);
    for digit in text.bytes() {
        let value = ALPHABET.iter().position(|&known| known == digit)?;
        group = group << 6 | u32::try_from(value).ok()?;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            *bytes.get_mut(at)? = u8::try_from(group >> bits & 0xff).ok()?;
            at += 1;
        }
    }
    // Bits that are left over are zero in what we write.
    (group & ((1 << bits) - 1) == 0).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn base64url_is_that_of_the_standard() {
        let known = [("", ""), ("f", "Zg"), ("fo", "Zm8"), ("foo", "Zm9v"), ("foob", "Zm9vYg"), ("fooba", "Zm9vYmE")];
        for (plain, written) in known {
            assert_eq!(encode(plain.as_bytes()), written);
        }
        assert_eq!(encode(&[0xfb, 0xff]), "-_8");
    }

    #[test]
    fn a_token_says_what_is_wrong_with_it() {
        let token = JoinToken { secret: [1; JOIN_TOKEN_SECRET_BYTES], pin: Pin([2; PIN_BYTES]) };
        let text = token.reveal();
        assert_eq!(text.parse::<JoinToken>(), Ok(token.clone()));
        assert_eq!(format!("  {text}\n").parse(), Ok(token), "a file ends with a line break");
        assert_eq!(text[..text.len() - 1].parse::<JoinToken>(), Err(TokenError::Damaged));
        assert_eq!("hunter2".parse::<JoinToken>(), Err(TokenError::Shape));
        assert_eq!(format!("{text}.x").parse::<JoinToken>(), Err(TokenError::Shape));
    }

    #[test]
    fn a_token_is_not_printed_with_what_holds_it() {
        let token = JoinToken { secret: [0xaa; JOIN_TOKEN_SECRET_BYTES], pin: Pin([2; PIN_BYTES]) };
        assert!(!format!("{token:?}").contains(&encode(&token.secret)));
    }

    proptest! {
        #[test]
        fn every_token_is_read_as_it_was_written(secret: [u8; JOIN_TOKEN_SECRET_BYTES], pin: [u8; PIN_BYTES]) {
            let token = JoinToken { secret, pin: Pin(pin) };
            prop_assert_eq!(token.reveal().parse::<JoinToken>(), Ok(token));
        }

        #[test]
        fn what_is_read_is_written_the_same(text in "dunlin-join\\.[A-Za-z0-9_-]{27}\\.[A-Za-z0-9_-]{43}") {
            if let Ok(token) = text.parse::<JoinToken>() {
                prop_assert_eq!(token.reveal(), text);
            }
        }
    }
}
