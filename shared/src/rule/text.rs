//! Where something stands in a file: offsets as lines and columns, and offsets within a string as offsets in the file.
//!
//! Lines are found once for a file: a place in a file of ten thousand rules costs no walk through it.

use std::borrow::Cow;
use std::ops::Range;

use super::error::Span;

pub(super) struct Lines<'a> {
    text: &'a str,
    /// Where each line begins.
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    pub(super) fn of(text: &'a str) -> Self {
        let after = text.match_indices('\n').map(|(at, _)| at + 1);
        Self { text, starts: std::iter::once(0).chain(after).collect() }
    }

    /// Both from one, the column in characters. Any offset has an answer.
    pub(super) fn place(&self, offset: usize) -> (usize, usize) {
        let offset = offset.min(self.text.len());
        let line = self.starts.partition_point(|start| *start <= offset).max(1);
        let start = self.starts.get(line - 1).copied().unwrap_or(0);
        let before = String::from_utf8_lossy(&self.text.as_bytes()[start..offset]);
        (line, before.chars().count() + 1)
    }
}

/// What a string of the file says, and where it stands, with its quotes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Written<'a> {
    pub(super) text: &'a str,
    span: Span,
}

impl<'a> Written<'a> {
    pub(super) const fn new(span: Range<usize>, text: &'a str) -> Self {
        Self { text, span: Span { start: span.start, end: span.end } }
    }

    pub(super) const fn start(&self) -> usize {
        self.span.start
    }

    /// The place in the file of an offset in what the string says.
    pub(super) fn offset(&self, file: &str, offset: usize) -> usize {
        let raw = self.span.of(file);
        let (quotes, has_escapes) = match raw {
            raw if raw.starts_with("'''") => (3, false),
            raw if raw.starts_with("\"\"\"") => (3, true),
            raw => (1, raw.starts_with('"')),
        };
        let rest = |at: usize| raw.get(at..).unwrap_or_default();
        let mut at = quotes;
        // A line break behind three quotes is none of the text.
        if quotes == 3 {
            at += if rest(at).starts_with("\r\n") { 2 } else { usize::from(rest(at).starts_with('\n')) };
        }
        let mut said = 0;
        let mut letters = self.text.chars();
        loop {
            at += if has_escapes { joined_len(rest(at)) } else { 0 };
            let Some(letter) = letters.next().filter(|_| said < offset) else { break };
            at += match rest(at).chars().next() {
                Some('\\') if has_escapes => escape_len(rest(at)),
                Some('\r') if letter == '\n' => 2,
                Some(first) => first.len_utf8(),
                None => break,
            };
            said += letter.len_utf8();
        }
        self.span.start + at.min(raw.len())
    }
}

/// The length of a backslash at the end of its line, with everything blank behind it.
fn joined_len(rest: &str) -> usize {
    let Some(behind) = rest.strip_prefix('\\') else { return 0 };
    let next = behind.trim_start();
    let blank = &behind[..behind.len() - next.len()];
    if blank.contains('\n') { rest.len() - next.len() } else { 0 }
}

/// `\n`, `\x41`, `\u00e9`, `\U0001f600`.
fn escape_len(rest: &str) -> usize {
    let len = match rest.as_bytes().get(1) {
        Some(b'x') => 4,
        Some(b'u') => 6,
        Some(b'U') => 10,
        _ => 2,
    };
    len.min(rest.len())
}

/// Where lists and tables stand within more than `most` others. Strings, comments and what is neither are told apart as
/// the parser does it; what closes nothing counts for nothing, so that the parser never sees more levels than this does.
pub(super) fn too_deep(text: &str, most: usize) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut open = Vec::new();
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        at += match byte {
            b'#' => len_until(&bytes[at..], b"\n"),
            b'"' | b'\'' => string_len(&bytes[at..], *byte),
            b'{' | b'[' => {
                open.push(if *byte == b'{' { b'}' } else { b']' });
                if open.len() > most {
                    return Some(at);
                }
                1
            }
            b'}' | b']' => {
                if open.last() == Some(byte) {
                    open.pop();
                }
                1
            }
            // A quote within a word opens no string.
            _ => len_until(&bytes[at..], b".=,[]{} \t#\r\n").max(1),
        };
    }
    None
}

fn len_until(rest: &[u8], ends: &[u8]) -> usize {
    rest.iter().position(|byte| ends.contains(byte)).unwrap_or(rest.len())
}

fn string_len(rest: &[u8], quote: u8) -> usize {
    let is_long = rest.starts_with(&[quote; 3]);
    let mut at = if is_long { 3 } else { 1 };
    while let Some(byte) = rest.get(at) {
        let next = rest.get(at + 1);
        if *byte == b'\\' && quote == b'"' && next.is_some_and(|next| b"\\\"".contains(next)) {
            at += 1;
        } else if *byte == b'\n' && !is_long {
            return at;
        } else if *byte == quote && !is_long {
            return at + 1;
        } else if rest[at..].starts_with(&[quote; 3]) {
            // Two more are the last of what it says.
            let more = rest[at + 3..].iter().take(2).take_while(|byte| **byte == quote).count();
            return at + 3 + more;
        }
        at += 1;
    }
    rest.len()
}

/// For a message: one line, without control characters.
pub(super) fn plain(text: &str) -> Cow<'_, str> {
    if text.contains(char::is_control) { text.replace(char::is_control, " ").into() } else { text.into() }
}
