//! What the agent counts of itself, for its own rows: written where it happens, read once a tick.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::line::Line;

#[derive(Debug, Default)]
pub struct Stats {
    /// Without a line, as in one sample on a terminal, there is nothing to say of it.
    has_line: AtomicBool,
    spool_frames: AtomicU64,
    spool_bytes: AtomicU64,
    frames_dropped: AtomicU64,
    connections: AtomicU64,
    values_left_out: AtomicU64,
}

/// One reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LineStats {
    pub spool_frames: u64,
    pub spool_bytes: u64,
    pub frames_dropped: u64,
    pub reconnects: u64,
    pub values_left_out: u64,
}

impl Stats {
    pub fn note(&self, line: &Line) {
        for (counter, value) in [
            (&self.spool_frames, line.spool().len_frames()),
            (&self.spool_bytes, line.spool().len_bytes() as u64),
            (&self.frames_dropped, line.spool().dropped()),
            (&self.connections, line.connections()),
            (&self.values_left_out, line.left_out()),
        ] {
            counter.store(value, Ordering::Relaxed);
        }
        self.has_line.store(true, Ordering::Release);
    }

    #[must_use]
    pub fn line(&self) -> Option<LineStats> {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        self.has_line.load(Ordering::Acquire).then(|| LineStats {
            spool_frames: read(&self.spool_frames),
            spool_bytes: read(&self.spool_bytes),
            frames_dropped: read(&self.frames_dropped),
            reconnects: read(&self.connections).saturating_sub(1),
            values_left_out: read(&self.values_left_out),
        })
    }
}
