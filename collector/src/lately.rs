//! The last lines of the log, kept in memory: the collector owns no log file, and whoever wants to help needs them.
//!
//! Bounded in lines and in bytes; the oldest goes first. It is told to the admin socket alone.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Mutex, PoisonError};

/// Some hours of a collector that is well, and the last minutes of one that is not.
const LINES_MAX: usize = 500;
const LINE_BYTES_MAX: usize = 1024;

static LINES: Mutex<VecDeque<String>> = Mutex::new(VecDeque::new());

/// Beside stderr: what is written to it is one event.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lately;

impl Write for Lately {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let line = String::from_utf8_lossy(&bytes[..bytes.len().min(LINE_BYTES_MAX)]).trim_end().to_owned();
        let mut lines = LINES.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() >= LINES_MAX {
            lines.pop_front();
        }
        lines.push_back(line);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Oldest first, one a line.
#[must_use]
pub fn lines() -> String {
    let lines = LINES.lock().unwrap_or_else(PoisonError::into_inner);
    lines.iter().fold(String::new(), |text, line| text + line + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_kept_and_none_is_long() {
        for number in 0..=LINES_MAX {
            assert_eq!(
                Lately.write(format!("{number} {}\n", "x".repeat(2_000)).as_bytes()).ok(),
                Some(2_000 + 1 + number.to_string().len() + 1)
            );
        }
        let kept = lines();
        assert_eq!(kept.lines().count(), LINES_MAX);
        assert!(kept.starts_with("1 x") && kept.lines().all(|line| line.len() <= LINE_BYTES_MAX));
    }
}
