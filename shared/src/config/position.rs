//! Offsets in a text as a person counts them: lines and columns from one, columns in characters.
//! Any offset has an answer: one beyond the end or within a character is no reason to panic.

use std::ops::Range;

use super::Place;

pub(super) fn line_around(text: &str, offset: usize) -> Range<usize> {
    let offset = offset.min(text.len());
    let bytes = text.as_bytes();
    let start = bytes[..offset].iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
    let end = bytes[offset..].iter().position(|byte| *byte == b'\n').map_or(text.len(), |rest| offset + rest);
    // The end itself belongs to the line: complaints about what is missing point there.
    start..end + 1
}

pub(super) fn line_and_column(text: &str, offset: usize) -> (usize, usize) {
    let offset = offset.min(text.len());
    let start = line_around(text, offset).start;
    let line = text.as_bytes()[..start].iter().filter(|byte| **byte == b'\n').count() + 1;
    let before = String::from_utf8_lossy(&text.as_bytes()[start..offset]);
    (line, before.chars().count() + 1)
}

pub(super) fn place(file: &str, text: &str, offset: usize) -> Place {
    let (line, column) = line_and_column(text, offset);
    Place::File { file: file.to_owned(), line, column }
}
