//! The only file of the collector that reads a clock or draws randomness.
//!
//! Everything else takes the time as an argument, so that it can be tested on virtual time.

use std::time::{Duration, Instant, SystemTime};

use dunlin_shared::time::{MonoMs, WallMs};

/// Milliseconds since it was made, and the wall clock.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    started: Instant,
}

impl Clock {
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    pub fn start() -> Self {
        Self { started: Instant::now() }
    }

    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    pub fn mono(&self) -> MonoMs {
        MonoMs(u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// As precise as QUIC measures its round trips.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    pub fn now(&self) -> Instant {
        Instant::now()
    }

    /// This moment on both scales.
    #[must_use]
    pub fn both(&self) -> (Instant, MonoMs) {
        let now = self.now();
        (now, MonoMs(u64::try_from((now - self.started).as_millis()).unwrap_or(u64::MAX)))
    }

    /// The moment at which `mono` will read `at`, for timers.
    #[must_use]
    pub fn instant(&self, at: MonoMs) -> Instant {
        self.started + Duration::from_millis(at.0)
    }

    /// A wall clock before 1970 reads as negative.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    pub fn wall(&self) -> WallMs {
        let ms = |passed: Duration| i64::try_from(passed.as_millis()).unwrap_or(i64::MAX);
        match SystemTime::now().duration_since(SystemTime::UNIX_EPOCH) {
            Ok(since) => WallMs(ms(since)),
            Err(before) => WallMs(-ms(before.duration())),
        }
    }

    /// Bytes for keys and ids, from the system.
    #[must_use]
    pub fn random<const N: usize>() -> Option<[u8; N]> {
        let mut bytes = [0; N];
        rustls::crypto::ring::default_provider().secure_random.fill(&mut bytes).ok()?;
        Some(bytes)
    }
}
