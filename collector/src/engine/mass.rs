//! When so many nodes go silent that one cause is likelier than many: then it is one alert, and no
//! node of them is taken for down by itself.
//!
//! It sees counts alone and holds no node. Nothing begins or ends while the collector settles after a
//! start or a long pause: nobody is connected then, and that is no loss.

use dunlin_shared::time::{MonoMs, WallMs};

use super::liveness::SUSPECT_MS;

/// Silent nodes count together when they fell silent within this time.
pub(super) const WINDOW_MS: u64 = 60_000;
/// Fewer are told one by one.
pub(super) const NODES_MIN: usize = 20;
/// It begins above one in so many, and is passing below one in so many.
const BEGINS_ABOVE_ONE_IN: usize = 10;
const ENDS_BELOW_ONE_IN: usize = 20;
/// It is told so long after it was noticed, with all that fell silent by then: who was cut off at the
/// same moment has let the first deadline pass by then.
const GATHER_MS: u64 = SUSPECT_MS;
/// The last of those who come back are given so long: an agent that has its network again speaks at its next tick.
const PASSING_MS: u64 = SUSPECT_MS;
/// Who is silent for so long after a mass loss was told is down, whatever the cause was.
pub(super) const LASTS_MS: u64 = 15 * 60_000;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Mass {
    #[default]
    Calm,
    /// Many are silent. Nobody is told before all that belong to it are known.
    Gathering { until: MonoMs, since: WallMs, passing: Passing },
    /// It was told.
    Told { until: MonoMs, since: WallMs, passing: Passing },
}

/// Since when so few are silent that it passes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Passing(Option<MonoMs>);

/// A mass loss that was told and is not over: what `control.db` keeps of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MassUnderWay {
    pub since: WallMs,
    /// Of the time in which the collector listens.
    pub left_ms: u64,
}

/// How the nodes stand that silence is judged of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) up: usize,
    /// Silent for a deadline, and neither held nor down.
    pub(super) silent: usize,
    /// Fell silent within the window; some may be down already.
    pub(super) fell: usize,
    /// Held by the mass loss.
    pub(super) missing: usize,
}

/// What becomes of the nodes that are due to be down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Each is down by itself.
    Single,
    /// They wait.
    Wait,
    /// A mass loss begins: all that are silent are held.
    Begin { of: usize, since: WallMs },
    /// They join the one under way.
    Join,
    /// It is over: they and all that are held are down.
    End { since: WallMs },
}

impl Mass {
    pub(super) fn resumed(saved: MassUnderWay, now: MonoMs) -> Self {
        Self::Told { until: now.plus(saved.left_ms.min(LASTS_MS)), since: saved.since, passing: Passing::default() }
    }

    pub(super) const fn under_way(self, now: MonoMs) -> Option<MassUnderWay> {
        match self {
            Self::Told { until, since, .. } => Some(MassUnderWay { since, left_ms: until.since(now) }),
            Self::Calm | Self::Gathering { .. } => None,
        }
    }

    pub(super) fn judge(&mut self, (now, at): (MonoMs, WallMs), is_settling: bool, tally: Tally) -> Verdict {
        let base = tally.up + tally.silent + tally.missing;
        let away = tally.silent + tally.missing;
        let is_passing = away * ENDS_BELOW_ONE_IN < base.max(1);
        let is_over = |passing: Passing| away == 0 || passing.lasts(now);
        match *self {
            Self::Told { .. } if is_settling => Verdict::Join,
            Self::Calm | Self::Gathering { .. } if is_settling => {
                *self = Self::Calm;
                Verdict::Wait
            }
            Self::Calm if is_mass(tally) => {
                *self = Self::Gathering { until: now.plus(GATHER_MS), since: at, passing: Passing::default() };
                Verdict::Wait
            }
            Self::Calm => Verdict::Single,
            Self::Gathering { until, since, passing } => {
                let passing = passing.go_on(is_passing, now);
                if is_over(passing) {
                    *self = Self::Calm;
                    return Verdict::Single;
                }
                if now < until || is_passing {
                    *self = Self::Gathering { until, since, passing };
                    return Verdict::Wait;
                }
                *self = Self::Told { until: now.plus(LASTS_MS), since, passing };
                Verdict::Begin { of: base, since }
            }
            Self::Told { until, since, passing } => {
                let passing = passing.go_on(is_passing, now);
                if is_over(passing) || now >= until {
                    *self = Self::Calm;
                    return Verdict::End { since };
                }
                *self = Self::Told { until, since, passing };
                Verdict::Join
            }
        }
    }

    /// Nobody is connected any more: what was gathered says nothing.
    pub(super) const fn started(&mut self) {
        if let Self::Gathering { .. } = self {
            *self = Self::Calm;
        }
    }
}

impl Passing {
    fn go_on(self, is_passing: bool, now: MonoMs) -> Self {
        Self(self.0.or(Some(now)).filter(|_| is_passing))
    }

    /// So long that whoever could come back has.
    fn lasts(self, now: MonoMs) -> bool {
        self.0.is_some_and(|since| now >= since.plus(PASSING_MS))
    }
}

/// Measured against those that were up when the window began: the ones still up, and the ones that fell.
const fn is_mass(tally: Tally) -> bool {
    tally.fell >= NODES_MIN && tally.fell * BEGINS_ABOVE_ONE_IN > tally.up + tally.fell
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: WallMs = WallMs(7);

    fn tally(up: usize, fell: usize) -> Tally {
        Tally { up, silent: fell, fell, missing: 0 }
    }

    fn begins(up: usize, fell: usize) -> bool {
        Mass::Calm.judge((MonoMs(0), AT), false, tally(up, fell)) == Verdict::Wait
    }

    #[test]
    fn it_begins_at_twenty_nodes_and_above_a_tenth() {
        assert!(begins(80, 20) && begins(0, 20) && begins(179, 20) && begins(8_999, 1_001));
        assert!(!begins(81, 19) && !begins(0, 19) && !begins(180, 20) && !begins(9_000, 1_000));
    }

    #[test]
    fn it_is_told_with_all_that_fell_in_the_meantime_and_ends_when_less_than_a_twentieth_stays_away() {
        let mut mass = Mass::default();
        assert_eq!(mass.judge((MonoMs(0), AT), false, tally(800, 150)), Verdict::Wait);
        assert_eq!(mass.judge((MonoMs(14_999), AT), false, tally(800, 200)), Verdict::Wait);
        assert_eq!(mass.judge((MonoMs(15_000), AT), false, tally(800, 200)), Verdict::Begin { of: 1_000, since: AT });
        let left = |mass: Mass, at| mass.under_way(MonoMs(at)).map(|saved| saved.left_ms);
        assert_eq!(left(mass, 20_000), Some(LASTS_MS - 5_000));
        let held = |missing| Tally { up: 1_000 - missing, missing, ..Tally::default() };
        assert_eq!(mass.judge((MonoMs(16_000), AT), false, held(50)), Verdict::Join);
        assert_eq!(mass.judge((MonoMs(17_000), AT), false, held(49)), Verdict::Join, "they are on their way");
        assert_eq!(mass.judge((MonoMs(18_000), AT), false, held(50)), Verdict::Join, "it is not passing after all");
        assert_eq!(mass.judge((MonoMs(20_000), AT), false, held(9)), Verdict::Join);
        assert_eq!(mass.judge((MonoMs(34_999), AT), false, held(9)), Verdict::Join);
        let told = mass;
        assert_eq!(mass.judge((MonoMs(35_000), AT), false, held(9)), Verdict::End { since: AT });
        assert_eq!(mass, Mass::Calm);
        mass = told;
        assert_eq!(
            mass.judge((MonoMs(21_000), AT), false, held(0)),
            Verdict::End { since: AT },
            "nobody is waited for"
        );
    }

    #[test]
    fn those_that_are_back_before_it_is_told_were_no_loss_and_the_last_of_them_are_waited_for() {
        let mut mass = Mass::default();
        mass.judge((MonoMs(0), AT), false, tally(800, 200));
        assert_eq!(mass.judge((MonoMs(1_000), AT), false, tally(960, 40)), Verdict::Wait);
        let mut other = mass;
        assert_eq!(mass.judge((MonoMs(2_000), AT), false, tally(1_000, 0)), Verdict::Single);
        assert_eq!(other.judge((MonoMs(15_999), AT), false, tally(960, 40)), Verdict::Wait);
        assert_eq!(other.judge((MonoMs(16_000), AT), false, tally(960, 40)), Verdict::Single);
        assert_eq!((mass, other), (Mass::Calm, Mass::Calm));
    }

    #[test]
    fn nothing_begins_or_ends_while_the_collector_settles() {
        let mut mass = Mass::default();
        assert_eq!(mass.judge((MonoMs(0), AT), true, tally(0, 1_000)), Verdict::Wait);
        mass.judge((MonoMs(0), AT), false, tally(0, 1_000));
        assert_eq!((mass.judge((MonoMs(1), AT), true, tally(0, 1_000)), mass), (Verdict::Wait, Mass::Calm));
        let mut told = Mass::resumed(MassUnderWay { since: AT, left_ms: 5 }, MonoMs(0));
        assert_eq!(told.judge((MonoMs(90), AT), true, tally(1_000, 0)), Verdict::Join);
        assert_eq!(told.judge((MonoMs(91), AT), false, tally(0, 1_000)), Verdict::End { since: AT });
    }
}
