//! The only file of the agent that reads a clock or draws randomness.
//!
//! Everything else takes the time as an argument, so that it can be tested on virtual time.

use std::time::{Duration, Instant, SystemTime};

use dunlin_shared::time::{MonoMs, WallMs};

use crate::resolve::system_entropy;

/// Milliseconds since it was made, and the wall clock.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    started: Instant,
    wrong: Wrong,
}

/// By how much the wall clock of a simulated host is ahead, until it is moved and from then on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wrong {
    pub ahead_ms: i64,
    pub moved_at: MonoMs,
    pub ahead_then_ms: i64,
}

impl Clock {
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    pub fn start() -> Self {
        Self { started: Instant::now(), wrong: Wrong::default() }
    }

    /// The same on a simulated host whose wall clock is not right.
    #[must_use]
    pub const fn wrong(self, wrong: Wrong) -> Self {
        Self { wrong, ..self }
    }

    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    pub fn mono(&self) -> MonoMs {
        MonoMs(u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// The moment at which `mono` will read `at`, for timers.
    #[must_use]
    pub fn instant(&self, at: MonoMs) -> tokio::time::Instant {
        (self.started + Duration::from_millis(at.0)).into()
    }

    /// A wall clock before 1970 reads as negative.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    pub fn wall(&self) -> WallMs {
        let ms = |passed: Duration| i64::try_from(passed.as_millis()).unwrap_or(i64::MAX);
        let wall = match SystemTime::now().duration_since(SystemTime::UNIX_EPOCH) {
            Ok(since) => WallMs(ms(since)),
            Err(before) => WallMs(-ms(before.duration())),
        };
        let is_moved = self.mono() >= self.wrong.moved_at;
        wall.plus(if is_moved { self.wrong.ahead_then_ms } else { self.wrong.ahead_ms })
    }

    /// Uniform bits for jitter. Without an entropy source the clock's low digits must do: jitter
    /// spreads load, it protects nothing.
    #[must_use]
    pub fn random(&self) -> u64 {
        system_entropy().unwrap_or_else(|| self.mono().0.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }
}

/// Processor time that this process has used, all threads.
#[must_use]
pub fn process_cpu() -> Duration {
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::try_from(used).unwrap_or_default()
}

/// A deadline so far from now, for what only needs to end in time.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the clock")]
pub fn deadline_in(duration: Duration) -> tokio::time::Instant {
    tokio::time::Instant::now() + duration
}
