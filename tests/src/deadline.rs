//! Waiting for a state. Owns the only polling loop of the rig: a test says what it waits for and how long at most.
//!
//! It never takes the passing of time for the state itself.

use std::time::{Duration, Instant};

use thiserror::Error;

/// How often a state is looked at: short beside every deadline in use, long beside the cost of one look.
const LOOK_EVERY: Duration = Duration::from_millis(5);

#[derive(Debug, Error)]
#[error("{what} did not come within {limit:?}")]
pub struct TimedOut {
    pub what: String,
    pub limit: Duration,
}

/// Looks until `look` gives a value, and once more at the deadline.
pub fn until<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Option<T>) -> Result<T, TimedOut> {
    let end = Instant::now() + limit;
    loop {
        let last = Instant::now() >= end;
        if let Some(found) = look() {
            return Ok(found);
        }
        if last {
            return Err(TimedOut { what: what.to_owned(), limit });
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn until_returns_the_state_that_came() {
        let mut looks = 0;
        let found = until("the third look", Duration::from_secs(60), || {
            looks += 1;
            (looks == 3).then_some(looks)
        });
        assert_eq!(found.expect("the third look comes"), 3);
    }

    #[test]
    fn until_says_what_did_not_come() {
        let error = until("the moon", Duration::ZERO, || None::<()>).expect_err("it never comes");
        assert_eq!(error.to_string(), "the moon did not come within 0ns");
    }
}
