//! Which nodes of a fleet behave badly, and how: by this the fleet plays them, and the proof knows of whom a collector
//! may tell what.
//!
//! Pure: it follows from seed, node, epoch and tick. A node is bad in one way at most.

use std::fmt;
use std::str::FromStr;

use dunlin_agent::clock::Wrong;
use dunlin_shared::id::Epoch;
use dunlin_shared::time::MonoMs;

use super::load::mix;

/// A share of nodes, in ten thousandths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share(u32);

/// Of the fleet, so many are bad in each way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unruly {
    pub reconnecting: Share,
    pub reading_slowly: Share,
    pub wrong_clock: Share,
    pub cloned: Share,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conduct {
    Well,
    /// It closes its connection now and then and makes another one.
    Reconnects,
    /// It reads what it is told by a few bytes at a time.
    ReadsSlowly,
    /// Its wall clock is off, or is moved while it runs.
    WrongClock(Wrong),
    /// Another machine says that it is this node.
    Cloned,
}

/// A reconnecting node does it at one tick of so many.
const RECONNECTS_ONE_OF: u64 = 6;
/// A clock that is moved is moved at one of so many ticks behind the first of them.
const MOVED_AFTER_TICKS: u64 = 2;
const MOVED_WITHIN_TICKS: u64 = 3;
/// From more than any rule on clocks lets pass to an hour.
const AHEAD_MS: [i64; 8] = [-3_600_000, -300_000, -30_000, -8_000, 8_000, 30_000, 300_000, 3_600_000];

impl Share {
    #[must_use]
    pub const fn percent(percent: u32) -> Self {
        Self(100 * percent)
    }

    #[must_use]
    pub const fn half_percent() -> Self {
        Self(50)
    }

    /// Every so many nodes there is one of them; none without a share.
    fn one_of(self) -> Option<usize> {
        usize::try_from(10_000_u32.checked_div(self.0)?).ok()
    }
}

impl FromStr for Share {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let percent = text.strip_suffix('%').and_then(|percent| percent.parse::<f64>().ok());
        let percent = percent.filter(|percent| (0.0..=50.0).contains(percent));
        let percent = percent.ok_or_else(|| format!("{text:?} is no share; write it like 2%, and 50% at most"))?;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 5,000")]
        Ok(Self((percent * 100.0).round() as u32))
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", f64::from(self.0) / 100.0)
    }
}

impl Unruly {
    /// How the node (its number in the fleet) behaves.
    #[must_use]
    pub fn conduct(&self, seed: u64, node: usize, interval_ms: u64) -> Conduct {
        let shares = [self.cloned, self.wrong_clock, self.reading_slowly, self.reconnecting];
        let is_in = |(at, share): &(usize, Share)| share.one_of().is_some_and(|one_of| node % one_of == at % one_of);
        let found = shares.into_iter().enumerate().map(|(at, share)| (at + 1, share)).find(is_in);
        match found {
            None => Conduct::Well,
            Some((1, _)) => Conduct::Cloned,
            Some((2, _)) => Conduct::WrongClock(wrong(mix(seed ^ mix(node as u64)), interval_ms)),
            Some((3, _)) => Conduct::ReadsSlowly,
            Some(_) => Conduct::Reconnects,
        }
    }
}

/// Whether a reconnecting node does so at this tick.
#[must_use]
pub const fn reconnects_at(seed: u64, node: usize, epoch: Epoch, tick: u64) -> bool {
    mix(mix(seed ^ mix(node as u64)) ^ mix(epoch.0 as u64) ^ tick).is_multiple_of(RECONNECTS_ONE_OF)
}

fn wrong(key: u64, interval_ms: u64) -> Wrong {
    let at = usize::try_from(key % AHEAD_MS.len() as u64).unwrap_or(0);
    let moved_at = MonoMs((MOVED_AFTER_TICKS + mix(key) % MOVED_WITHIN_TICKS) * interval_ms);
    let is_moved = mix(key ^ 1).is_multiple_of(2);
    Wrong { ahead_ms: if is_moved { 0 } else { AHEAD_MS[at] }, moved_at, ahead_then_ms: AHEAD_MS[at] }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(text: &str) -> Share {
        text.parse().expect("it is a share")
    }

    #[test]
    fn each_kind_has_its_share_and_nobody_is_two_kinds() {
        let unruly = Unruly {
            reconnecting: share("2%"),
            reading_slowly: share("1%"),
            wrong_clock: share("4%"),
            cloned: share("0.2%"),
        };
        let all: Vec<Conduct> = (0..10_000).map(|node| unruly.conduct(1, node, 10_000)).collect();
        let count = |is: &dyn Fn(&Conduct) -> bool| all.iter().filter(|conduct| is(conduct)).count();
        assert!((150..=200).contains(&count(&|one| *one == Conduct::Reconnects)));
        assert!((90..=100).contains(&count(&|one| *one == Conduct::ReadsSlowly)));
        assert!((390..=400).contains(&count(&|one| matches!(one, Conduct::WrongClock(_)))));
        assert_eq!(count(&|one| *one == Conduct::Cloned), 20);
        assert!(all.iter().eq(&(0..10_000).map(|node| unruly.conduct(1, node, 10_000)).collect::<Vec<_>>()));
        assert!((0..1_000).all(|node| Unruly::default().conduct(1, node, 10_000) == Conduct::Well));
    }

    #[test]
    fn clocks_are_off_both_ways_and_some_are_moved() {
        let unruly = Unruly { wrong_clock: share("50%"), ..Unruly::default() };
        let conducts = (0..400).map(|node| unruly.conduct(1, node, 10_000));
        let wrong: Vec<Wrong> = conducts
            .filter_map(|conduct| match conduct {
                Conduct::WrongClock(wrong) => Some(wrong),
                _ => None,
            })
            .collect();
        assert!(wrong.iter().all(|wrong| (8_000..=3_600_000).contains(&wrong.ahead_then_ms.abs())));
        assert!(wrong.iter().any(|wrong| wrong.ahead_then_ms == 3_600_000 && wrong.ahead_ms == 0));
        assert!(wrong.iter().any(|wrong| wrong.ahead_ms == -3_600_000));
    }

    #[test]
    fn a_share_is_read_as_it_is_written() {
        for text in ["0%", "2%", "0.5%", "50%"] {
            assert_eq!(share(text).to_string(), text);
        }
        for text in ["", "2", "51%", "-1%", "x%", "NaN%"] {
            assert!(text.parse::<Share>().is_err(), "{text:?}");
        }
    }
}
