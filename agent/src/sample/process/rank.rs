//! Which process groups are told: the first by processor time and by memory, and those that are watched.
//!
//! Pure. A group that is told stays until it was outside of the first ones for `STAY_TICKS` ticks in a row, so that two
//! that take turns are both told all the time, and a group that is gone is seen to have no processes.

/// By each of the two measures. Six containers, their engine, a few services and a shell are told twice over.
pub(super) const FIRST: usize = 12;
/// A group of frames: its next keyframe is due then anyhow.
pub(super) const STAY_TICKS: u32 = 30;
/// With those that are about to leave. Beyond it they leave sooner, the longest outside first.
pub(super) const TOLD_MAX: usize = 64;
/// A tick of the kernel's clock in ten seconds, in processors. Who uses less is not told for it.
const LOAD_MIN: f64 = 0.001;

/// What a group is ranked by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    pub(super) group: u32,
    /// Processors in use, smoothed.
    pub(super) load: f64,
    pub(super) memory: u64,
    pub(super) is_watched: bool,
}

/// Those that are told, in the order in which they came, so that their series keep their places.
#[derive(Debug, Default)]
pub(super) struct Ranks {
    told: Vec<Held>,
}

#[derive(Clone, Copy, Debug)]
struct Held {
    group: u32,
    /// Ticks outside of the first ones.
    outside: u32,
}

impl Ranks {
    pub(super) fn told(&self) -> impl Iterator<Item = u32> {
        self.told.iter().map(|held| held.group)
    }

    /// One tick. A group that is no candidate any more has no processes and is remembered by nobody.
    pub(super) fn turn(&mut self, candidates: &mut [Candidate]) {
        self.told.retain(|held| candidates.iter().any(|candidate| candidate.group == held.group));
        for held in &mut self.told {
            held.outside += 1;
        }
        for watched in candidates.iter().filter(|candidate| candidate.is_watched) {
            self.enter(watched.group);
        }
        candidates.sort_by(|a, b| b.load.total_cmp(&a.load).then(a.group.cmp(&b.group)));
        for first in candidates.iter().take(FIRST).filter(|candidate| candidate.load >= LOAD_MIN) {
            self.enter(first.group);
        }
        candidates.sort_by(|a, b| b.memory.cmp(&a.memory).then(a.group.cmp(&b.group)));
        for first in candidates.iter().take(FIRST).filter(|candidate| candidate.memory > 0) {
            self.enter(first.group);
        }
        self.told.retain(|held| held.outside < STAY_TICKS);
        while self.told.len() > TOLD_MAX {
            let longest = self.told.iter().enumerate().max_by_key(|(_, held)| held.outside);
            match longest {
                Some((at, held)) if held.outside > 0 => self.told.remove(at),
                // All of them are among the first or watched.
                _ => break,
            };
        }
    }

    fn enter(&mut self, group: u32) {
        match self.told.iter_mut().find(|held| held.group == group) {
            Some(held) => held.outside = 0,
            None => self.told.push(Held { group, outside: 0 }),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn group(group: u32, load: f64, memory: u64) -> Candidate {
        Candidate { group, load, memory, is_watched: false }
    }

    fn told(ranks: &Ranks) -> Vec<u32> {
        let mut told: Vec<_> = ranks.told().collect();
        told.sort_unstable();
        told
    }

    #[test]
    fn the_first_by_each_measure_are_told_and_the_watched_ones() {
        let mut all: Vec<_> = (0..100).map(|n| group(n, f64::from(n), u64::from(200 - n))).collect();
        all[50].is_watched = true;
        let mut ranks = Ranks::default();
        ranks.turn(&mut all);
        assert_eq!(told(&ranks), (0..12).chain([50]).chain(88..100).collect::<Vec<_>>());
    }

    #[test]
    fn on_a_host_at_rest_nobody_is_told_for_its_processor_time() {
        let mut ranks = Ranks::default();
        ranks.turn(&mut [group(1, 0.0, 0), group(2, 0.000_9, 0), group(3, 0.001, 0)]);
        assert_eq!(told(&ranks), [3]);
    }

    #[test]
    fn two_that_take_turns_stay_both_and_one_that_fell_leaves_after_thirty_ticks() {
        let mut ranks = Ranks::default();
        let others = |skip: usize| (0..11_u32).map(|n| group(n, 9.0, 0)).skip(skip);
        for tick in 0..100 {
            let (a, b) = if tick % 20 < 10 { (2.0, 1.0) } else { (1.0, 2.0) };
            ranks.turn(&mut others(0).chain([group(20, a, 0), group(21, b, 0)]).collect::<Vec<_>>());
            assert!(tick < 10 || (told(&ranks).contains(&20) && told(&ranks).contains(&21)), "{tick}");
        }
        for tick in 1..=STAY_TICKS {
            ranks.turn(&mut others(0).chain([group(20, 2.0, 0), group(21, 0.0, 0)]).collect::<Vec<_>>());
            // At the last tick of the turns above it was among the first.
            assert_eq!(told(&ranks).contains(&21), tick < STAY_TICKS, "{tick}");
        }
    }

    #[test]
    fn a_list_that_churns_is_bounded_and_loses_those_that_fell_first() {
        let mut ranks = Ranks::default();
        for tick in 0..20_u32 {
            ranks.turn(&mut (0..400).map(|n| group(n, if n / 12 == tick { 1.0 } else { 0.0 }, 0)).collect::<Vec<_>>());
            assert!(told(&ranks).len() <= TOLD_MAX);
        }
        let told = told(&ranks);
        assert!(told.len() == TOLD_MAX && told.ends_with(&(180..240).collect::<Vec<_>>()), "{told:?}");
    }

    proptest! {
        #[test]
        fn who_is_among_the_first_is_told_at_once(loads in proptest::collection::vec(proptest::collection::vec(0_u32..9, 30), 1..20)) {
            let mut ranks = Ranks::default();
            for tick in loads {
                let mut all: Vec<_> = (0..).zip(&tick).map(|(n, &load)| group(n, f64::from(load), 0)).collect();
                ranks.turn(&mut all);
                let least = ranks.told().map(|n| tick[n as usize]).max().unwrap_or(0);
                prop_assert!(tick.iter().all(|&load| load <= least), "{:?}", told(&ranks));
                prop_assert!(told(&ranks).windows(2).all(|pair| pair[0] != pair[1]));
            }
        }
    }
}
