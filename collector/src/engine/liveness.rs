//! When silence counts, and for how long.
//!
//! Time here is the time in which the collector could listen: the sum of what its ticks say passed
//! on the monotonic clock, less what it stood still itself. Wall clocks are never compared.

use dunlin_shared::time::{MonoMs, WallMs};

/// Silence after which a node is suspected: an agent speaks every 11 s at least, and one lost
/// heartbeat is made good within the rest.
pub const SUSPECT_MS: u64 = 15_000;
/// Silence after which a node is down.
pub const DOWN_MS: u64 = 30_000;
/// A pause as long as this lets connections run out, so that the agents must come back as after a
/// start. Half the idle timeout: an agent may have been silent for the other half.
pub const PAUSE_AS_START_MS: u64 = 15_000;
/// What a record's receive time may say to have passed since the last tick; ticks come every second.
const SINCE_TICK_MS_MAX: i64 = 1_000;

/// The time in which the collector could listen.
#[derive(Clone, Debug, Default)]
pub(super) struct Listening {
    at_tick: MonoMs,
    /// Receive time of the last tick.
    tick_at: Option<WallMs>,
    /// When the collector began to listen anew: at its start and after a long pause.
    began: MonoMs,
}

impl Listening {
    /// It had listened for so long at its last tick, which was received then. What is replayed behind that is as late as
    /// it was.
    pub(super) fn resumed(ran: MonoMs, at: WallMs) -> Self {
        // A collector that never ticked has no such time.
        Self { at_tick: ran, tick_at: Some(at).filter(|at| at.0 != 0), began: ran }
    }

    pub(super) fn tick(&mut self, at: WallMs, elapsed_ms: u64, paused_ms: u64) {
        self.at_tick = self.at_tick.plus(elapsed_ms.saturating_sub(paused_ms));
        self.tick_at = Some(at);
        if paused_ms >= PAUSE_AS_START_MS {
            self.began = self.at_tick;
        }
    }

    pub(super) fn started(&mut self) {
        self.tick_at = None;
        self.began = self.at_tick;
    }

    /// At the last tick.
    pub(super) const fn now(&self) -> MonoMs {
        self.at_tick
    }

    /// A record was received between two ticks. The wall clock is believed for a second: a jump of
    /// it shifts a deadline by no more than that.
    pub(super) fn at(&self, received: WallMs) -> MonoMs {
        let since_tick = self.tick_at.map_or(0, |tick| received.since(tick).clamp(0, SINCE_TICK_MS_MAX));
        self.at_tick.plus(since_tick.unsigned_abs())
    }

    /// Whether a node that was last heard then has let a deadline pass. After a start and a long
    /// pause each deadline is two long.
    pub(super) fn is_past(&self, heard: MonoMs, deadline_ms: u64) -> bool {
        self.at_tick >= heard.plus(deadline_ms).max(self.began.plus(2 * deadline_ms))
    }

    /// How long it listened since a start or a long pause.
    pub(super) const fn for_ms(&self) -> u64 {
        self.at_tick.since(self.began)
    }

    /// So shortly after a start or a long pause, agents are still on their way back: silence is the
    /// collector's own.
    pub(super) const fn is_settling(&self) -> bool {
        self.for_ms() < 2 * DOWN_MS
    }

    /// From then on a node's silence counts when it is given two deadlines from now.
    pub(super) const fn with_two_deadlines(&self) -> MonoMs {
        self.at_tick.plus(DOWN_MS)
    }
}
