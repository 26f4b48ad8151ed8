//! When a silent node is suspected, and when it is down.
//!
//! Time here is the time in which the collector could listen: the sum of what its ticks say passed
//! on the monotonic clock, less what it stood still itself. Wall clocks are never compared.

use dunlin_shared::time::{MonoMs, WallMs};

/// Silence after which a node is suspected: an agent speaks every 10 s at least, and one lost
/// heartbeat is made good within half that.
pub const SUSPECT_MS: u64 = 15_000;
/// Silence after which a node is down.
pub const DOWN_MS: u64 = 30_000;
/// A pause as long as this lets connections run out, so that the agents must come back as after a
/// start. Half the idle timeout: an agent may have been silent for the other half.
pub const PAUSE_AS_START_MS: u64 = 15_000;
/// What a record's receive time may say to have passed since the last tick; ticks come every second.
const SINCE_TICK_MS_MAX: i64 = 1_000;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NodeState {
    /// Not seen since the collector started.
    #[default]
    Unknown,
    Up,
    Suspect,
    Down,
    /// It said goodbye.
    Stopped,
}

/// The time in which the collector could listen.
#[derive(Clone, Debug, Default)]
pub(super) struct Listening {
    at_tick: MonoMs,
    /// Receive time of the last tick.
    tick_at: Option<WallMs>,
    /// When the collector began to listen anew: at its start and after a long pause.
    began: MonoMs,
}

impl NodeState {
    pub const ALL: [Self; 5] = [Self::Unknown, Self::Up, Self::Suspect, Self::Down, Self::Stopped];

    /// In the API, in `/metrics` and in `control.db`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Up => "up",
            Self::Suspect => "suspect",
            Self::Down => "down",
            Self::Stopped => "stopped",
        }
    }

    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }

    /// Whether silence changes it.
    const fn awaits(self) -> bool {
        matches!(self, Self::Unknown | Self::Up | Self::Suspect)
    }
}

impl Listening {
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

    /// A record was received between two ticks. The wall clock is believed for a second: a jump of
    /// it shifts a deadline by no more than that.
    pub(super) fn at(&self, received: WallMs) -> MonoMs {
        let since_tick = self.tick_at.map_or(0, |tick| received.since(tick).clamp(0, SINCE_TICK_MS_MAX));
        self.at_tick.plus(since_tick.unsigned_abs())
    }

    /// What becomes of a node that was last heard then. After a start and a long pause each
    /// deadline is two long.
    pub(super) fn judge(&self, state: NodeState, heard: MonoMs) -> NodeState {
        if !state.awaits() {
            return state;
        }
        let silent_for = |ms: u64| self.at_tick >= heard.plus(ms).max(self.began.plus(2 * ms));
        if silent_for(DOWN_MS) {
            NodeState::Down
        } else if state == NodeState::Up && silent_for(SUSPECT_MS) {
            NodeState::Suspect
        } else {
            state
        }
    }
}
