//! A DNS name in its uncompressed wire form: length-prefixed labels and a final zero.
//! Names that a person wrote are checked for letters and lengths; names from an answer may hold any byte.
//! Invariant: a `Name` is at most 255 bytes on the wire and each label is 1 to 63 bytes.

use std::fmt;

/// RFC 1035, 2.3.4: a name is at most 255 bytes on the wire, the final zero included.
const WIRE_LEN_MAX: usize = 255;
/// RFC 1035, 2.3.4: a label is at most 63 bytes.
pub(super) const LABEL_LEN_MAX: usize = 63;

/// Compares without regard to ASCII case, as DNS does.
#[derive(Clone)]
pub struct Name(Vec<u8>);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("the name is empty")]
    Empty,
    #[error("the name has an empty part between two dots or before the first one")]
    EmptyLabel,
    #[error("the part {label:?} is longer than 63 characters")]
    LabelTooLong { label: String },
    #[error("the name is longer than 253 characters")]
    TooLong,
    #[error(
        "the character {character:?} is not allowed; a name has letters, digits, - and _ (write an international name in its xn-- form)"
    )]
    Character { character: char },
    #[error("it ends in a number but is no IPv4 address of four numbers from 0 to 255")]
    Number,
}

impl Name {
    /// The text of a name as a person writes it. One final dot is accepted and dropped.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let text = text.strip_suffix('.').unwrap_or(text);
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        let mut name = Self::root();
        for label in text.split('.') {
            let legal = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
            if let Some(character) = label.chars().find(|c| !legal(*c)) {
                return Err(NameError::Character { character });
            }
            if label.is_empty() {
                return Err(NameError::EmptyLabel);
            }
            if label.len() > LABEL_LEN_MAX {
                let label = label.to_owned();
                return Err(NameError::LabelTooLong { label });
            }
            if !name.push(label.as_bytes()) {
                return Err(NameError::TooLong);
            }
        }
        let last = name.labels().last().unwrap_or_default();
        if last.iter().all(u8::is_ascii_digit) {
            return Err(NameError::Number);
        }
        Ok(name)
    }

    pub(super) fn root() -> Self {
        Self(vec![0])
    }

    /// Adds a label at the end. False, and no change, if the label or the name would break the limits.
    #[must_use]
    pub(super) fn push(&mut self, label: &[u8]) -> bool {
        let Ok(len) = u8::try_from(label.len()) else {
            return false;
        };
        if len == 0 || label.len() > LABEL_LEN_MAX || self.0.len() + 1 + label.len() > WIRE_LEN_MAX {
            return false;
        }
        self.0.pop();
        self.0.push(len);
        self.0.extend_from_slice(label);
        self.0.push(0);
        true
    }

    /// This name below `domain`; none if that would be too long.
    pub(super) fn below(&self, domain: &Self) -> Option<Self> {
        let mut joined = self.clone();
        domain.labels().all(|label| joined.push(label)).then_some(joined)
    }

    pub(super) fn wire(&self) -> &[u8] {
        &self.0
    }

    pub(super) fn labels(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = self.0.as_slice();
        std::iter::from_fn(move || {
            let (len, tail) = rest.split_first()?;
            let (label, tail) = tail.split_at_checked(usize::from(*len))?;
            rest = tail;
            (!label.is_empty()).then_some(label)
        })
    }

    pub(super) fn dots(&self) -> usize {
        self.labels().count().saturating_sub(1)
    }

    /// RFC 6761, 6.3: `localhost` and every name below it mean this machine.
    pub(super) fn is_localhost(&self) -> bool {
        self.labels().last().is_some_and(|label| label.eq_ignore_ascii_case(b"localhost"))
    }

    /// The same name with the case of its letters drawn from `bits`, which a forger then has to guess too.
    pub(super) fn with_mixed_case(&self, bits: u64) -> Self {
        let mut mixed = self.clone();
        for (index, byte) in mixed.0.iter_mut().enumerate() {
            // A length byte is at most 63 and so is never taken for a letter.
            if byte.is_ascii_alphabetic() && (bits >> (index % 64)) & 1 == 1 {
                *byte ^= 0x20;
            }
        }
        mixed
    }

    pub(super) fn same_case(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        self.0.eq_ignore_ascii_case(&other.0)
    }
}

impl Eq for Name {}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, label) in self.labels().enumerate() {
            let dot = if index == 0 { "" } else { "." };
            write!(f, "{dot}{}", label.escape_ascii())?;
        }
        Ok(())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Name({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_round_trips_and_drops_one_final_dot() {
        let name = Name::parse("Node-1._x.example.").expect("legal");
        assert_eq!(name.to_string(), "Node-1._x.example");
        assert_eq!(name.wire(), b"\x06Node-1\x02_x\x07example\0");
        assert_eq!(name.dots(), 2);
        assert_eq!(name, Name::parse("node-1._X.EXAMPLE").expect("legal"));
    }

    #[test]
    fn illegal_names_are_refused_with_their_reason() {
        let long = "a".repeat(64);
        let deep = "abc.".repeat(64);
        assert_eq!(Name::parse(""), Err(NameError::Empty));
        assert_eq!(Name::parse("."), Err(NameError::Empty));
        for text in ["a..b", ".a", "a.."] {
            assert_eq!(Name::parse(text), Err(NameError::EmptyLabel), "{text}");
        }
        assert_eq!(Name::parse(&long), Err(NameError::LabelTooLong { label: long.clone() }));
        assert_eq!(Name::parse(&deep), Err(NameError::TooLong));
        for (text, character) in [("a b", ' '), ("ü.example", 'ü'), ("a/b", '/')] {
            assert_eq!(Name::parse(text), Err(NameError::Character { character }));
        }
        assert_eq!(Name::parse("10.0.0.256"), Err(NameError::Number));
    }

    #[test]
    fn name_of_253_characters_is_the_longest() {
        let longest = format!("{}b", "a.".repeat(126));
        assert_eq!(longest.len(), 253);
        let name = Name::parse(&longest).expect("253 characters are legal");
        assert_eq!(name.wire().len(), 255);
        assert_eq!(Name::parse(&format!("{longest}b")), Err(NameError::TooLong));
        assert_eq!(name.below(&Name::parse("x").expect("legal")), None);
    }

    #[test]
    fn mixed_case_changes_only_letters() {
        let name = Name::parse("abcdefgh-1.example").expect("legal");
        let mixed = name.with_mixed_case(0xAAAA_AAAA_AAAA_AAAA);
        assert_eq!(mixed, name);
        assert!(!mixed.same_case(&name));
        assert!(name.with_mixed_case(0).same_case(&name));
    }

    #[test]
    fn localhost_is_known_by_its_last_label() {
        let is = |text: &str| Name::parse(text).expect("legal").is_localhost();
        assert!(is("LocalHost") && is("a.localhost."));
        assert!(!is("localhost.example") && !is("notlocalhost"));
    }
}
