//! A text that others fit: as it is, or with `*` for anything. No other character means anything else, so matching takes
//! no longer than the product of both lengths, whatever a person writes.

use std::fmt;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pattern(Box<str>);

impl Pattern {
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    #[must_use]
    pub fn fits(&self, text: &str) -> bool {
        let mut pieces = self.0.split('*');
        let Some(mut rest) = pieces.next().and_then(|first| text.strip_prefix(first)) else { return false };
        let mut pieces = pieces.peekable();
        if pieces.peek().is_none() {
            return rest.is_empty();
        }
        while let Some(piece) = pieces.next() {
            if pieces.peek().is_none() {
                return rest.ends_with(piece);
            }
            // The first place is as good as any: whatever fits behind a later one fits behind it too.
            let Some(found) = rest.find(piece) else { return false };
            rest = &rest[found + piece.len()..];
        }
        true
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The plain definition, which takes exponential time.
    fn fits(pattern: &[char], text: &[char]) -> bool {
        match (pattern, text) {
            ([], []) => true,
            (['*', rest @ ..], _) => (0..=text.len()).any(|at| fits(rest, &text[at..])),
            ([one, rest @ ..], [other, text @ ..]) => one == other && fits(rest, text),
            _ => false,
        }
    }

    #[test]
    fn a_star_stands_for_anything() {
        let fits = |pattern: &str, text: &str| Pattern::new(pattern).fits(text);
        assert!(fits("fs:/var*", "fs:/var/lib") && fits("fs:/var*", "fs:/var") && !fits("fs:/var*", "fs:/srv"));
        assert!(fits("*", "") && fits("a*b*c", "aXbXbc") && !fits("a*a", "a") && !fits("web", "web-1"));
        let long = Pattern::new(&"a*".repeat(2_000));
        assert!(!long.fits(&format!("{}b", "a".repeat(1_000))));
    }

    proptest! {
        #[test]
        fn fits_as_the_plain_definition_says(pattern in "[ab*]{0,8}", text in "[ab]{0,10}") {
            let plain = |text: &str| text.chars().collect::<Vec<_>>();
            prop_assert_eq!(Pattern::new(&pattern).fits(&text), fits(&plain(&pattern), &plain(&text)));
        }
    }
}
