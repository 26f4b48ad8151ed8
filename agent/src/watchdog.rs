//! Ends this process when its loop does not turn any more, so that whoever keeps it running starts it anew.
//!
//! The loop beats in every turn, and turns at least once between two looks of a thread of its own. Looks are counted and
//! no clock is read: a machine that slept, or a process that was stopped, is looked at once and not taken for wedged.
//! Invariant: the end waits for nothing that the loop may be waiting for, the log included.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, Builder};
use std::time::Duration;

use tracing::error;

use crate::notify::Systemd;

/// A tick takes milliseconds, and waits at most half a second. A host that swaps may hold it up for as long as anything
/// else, and would be helped by no new process: this is far beyond what such a host comes back from.
const WEDGED_MS: u64 = 120_000;
/// The last of them ends the process.
const LOOKS: u32 = 8;
/// For the last line to be written.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// A line of the log.
const STACK_BYTES: usize = 128 * 1024;

/// What a loop shows that it turns by.
#[derive(Clone, Debug)]
pub struct Pulse {
    beats: Arc<AtomicU64>,
    /// It is to beat so often at least.
    pub every_ms: u64,
}

impl Pulse {
    /// `patience_ms`: whoever started this process ends it after such a silence. Its loop is ended before, with a word.
    #[must_use]
    pub fn new(patience_ms: Option<u64>) -> Self {
        let wedged_ms = patience_ms.map_or(WEDGED_MS, |ms| WEDGED_MS.min(ms / 2));
        Self { beats: Arc::default(), every_ms: (wedged_ms / u64::from(LOOKS)).max(1) }
    }

    /// Without a beat for so long the loop is wedged.
    #[must_use]
    pub fn wedged_ms(&self) -> u64 {
        self.every_ms * u64::from(LOOKS)
    }

    pub fn beat(&self) {
        self.beats.fetch_add(1, Ordering::Relaxed);
    }

    /// Beats while something else is waited for.
    pub async fn beating(&self) {
        loop {
            self.beat();
            tokio::time::sleep(Duration::from_millis(self.every_ms)).await;
        }
    }
}

/// Watches until the process ends.
pub fn watch(pulse: &Pulse, systemd: Option<Systemd>) -> io::Result<()> {
    let (pulse, mut looks) = (pulse.clone(), Looks::default());
    Builder::new().name("watchdog".to_owned()).stack_size(STACK_BYTES).spawn(move || {
        loop {
            thread::sleep(Duration::from_millis(pulse.every_ms));
            match looks.look(pulse.beats.load(Ordering::Relaxed)) {
                Found::Turning => systemd.iter().for_each(Systemd::is_alive),
                Found::Still => {}
                Found::Wedged => end(pulse.wedged_ms()),
            }
        }
    })?;
    Ok(())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    Turning,
    Still,
    Wedged,
}

/// Decides; it neither waits nor ends anything.
#[derive(Debug, Default)]
struct Looks {
    beats: u64,
    still: u32,
}

impl Looks {
    fn look(&mut self, beats: u64) -> Found {
        if std::mem::replace(&mut self.beats, beats) != beats {
            self.still = 0;
            return Found::Turning;
        }
        self.still += 1;
        if self.still < LOOKS { Found::Still } else { Found::Wedged }
    }
}

fn end(still_ms: u64) -> ! {
    let word =
        move || error!(still_ms, "the agent's loop does not turn any more: the process ends, to be started anew");
    // A log that nobody reads may be what the loop waits for.
    let told = Builder::new().stack_size(STACK_BYTES).spawn(word);
    if told.is_ok() {
        thread::sleep(LAST_WORDS);
    }
    std::process::abort()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_is_wedged_after_that_many_looks_in_a_row_without_a_turn() {
        let mut looks = Looks::default();
        let mut look = |beats, times| (0..times).map(|_| looks.look(beats)).last();
        assert_eq!(look(3, 1), Some(Found::Turning));
        assert_eq!(look(3, LOOKS - 1), Some(Found::Still));
        assert_eq!(look(4, 1), Some(Found::Turning), "one turn is enough");
        assert_eq!(look(4, LOOKS - 1), Some(Found::Still));
        assert_eq!(look(4, 1), Some(Found::Wedged));
    }

    #[test]
    fn the_loop_is_ended_before_systemd_would_and_beats_in_between() {
        for (patience_ms, every_ms) in [(None, 15_000), (Some(300_000), 15_000), (Some(4_000), 250), (Some(1), 1)] {
            assert_eq!(Pulse::new(patience_ms).every_ms, every_ms);
        }
    }
}
