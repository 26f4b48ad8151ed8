//! An error with its causes, on one line, for the log.
//!
//! Displays never name their source; what one says already is not said twice.

use std::error::Error;

#[must_use]
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        // A handshake's text already explains its cause.
        let more = next.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = next.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Told {
        text: &'static str,
        #[source]
        source: Option<Box<Self>>,
    }

    fn told(text: &'static str, source: Option<Told>) -> Told {
        Told { text, source: source.map(Box::new) }
    }

    #[test]
    fn causes_follow_on_one_line_and_none_is_said_twice() {
        let error = told("no way: a wall", Some(told("a wall", Some(told("of brick", None)))));
        assert_eq!(chain(&error), "no way: a wall: of brick");
    }
}
