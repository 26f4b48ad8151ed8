//! What goes when there is not room for everything. Pure.
//!
//! Bytes win over age: each level has its part of what the window may take, and within it keeps what its age allows.
//! When the disk itself runs out, resolution goes first and the newest data last.

use dunlin_shared::time::WallMs;

use crate::store::Level;

/// What the window may take of the disk, and how long each level is kept when that allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// `None` for half of what the disk has for it, and `BYTES_MAX` at most.
    pub bytes: Option<u64>,
    pub full_ms: u64,
    pub mid_ms: u64,
    pub long_ms: u64,
}

/// A file, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    pub level: Level,
    pub bytes: u64,
    /// When what it holds had come.
    pub ends: WallMs,
    /// Roll-ups of five minutes of which those of the hour are not made yet: with them the hour would go.
    pub is_pending: bool,
}

/// Bytes that the window may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room(pub u64);

/// What is to go, by its place among the files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Too old, or more than its level may have.
    pub drop: Vec<usize>,
    /// Because the disk is nearly full.
    pub shed: Vec<usize>,
}

/// Parts of a hundred of the bytes.
const PARTS: [(Level, u64); 3] = [(Level::Full, 60), (Level::Mid, 25), (Level::Long, 15)];
/// What a window takes for which no size was given.
const BYTES_MAX: u64 = 20_000_000_000;
/// What must stay free of the disk: a tenth of what the window may take, for what is sealed and merged meanwhile.
const FREE_PART: u64 = 10;
/// What a stretch without data adds to the age of what is before it, at most: a clock that was moved by years, or a
/// collector that was away for days, makes nothing so much older.
const GAP_MS_MAX: i64 = 6 * 3_600_000;
/// And for small windows so much: journals of a few minutes.
const FREE_BYTES_MIN: u64 = 32 * 1024 * 1024;

impl Retention {
    /// What it may take, given what it takes and what the disk has left.
    #[must_use]
    pub fn room(&self, (taken, free): (u64, u64)) -> Room {
        Room(self.bytes.unwrap_or_else(|| (taken.saturating_add(free) / 2).min(BYTES_MAX)))
    }

    /// What is to stay free of the disk. Where more was asked for than the disk has, it is a part of that.
    #[must_use]
    pub fn reserve(&self, (taken, free): (u64, u64)) -> u64 {
        let room = self.room((taken, free)).0;
        (room.min(taken.saturating_add(free)) / FREE_PART).max(FREE_BYTES_MIN.min(room))
    }

    #[must_use]
    pub const fn age_ms(&self, level: Level) -> u64 {
        match level {
            Level::Full => self.full_ms,
            Level::Mid => self.mid_ms,
            Level::Long => self.long_ms,
        }
    }
}

impl Room {
    #[must_use]
    pub fn quota(self, level: Level) -> u64 {
        let part = PARTS.iter().find(|(known, _)| *known == level).map_or(0, |(_, part)| *part);
        self.0 / 100 * part
    }
}

/// `files` are in the order in which they came. `unsealed` is what journals take, `free` what the disk has left.
#[must_use]
pub fn plan(files: &[Held], retention: &Retention, now: WallMs, (unsealed, free): (u64, u64)) -> Plan {
    let mut plan = Plan::default();
    let taken = files.iter().map(|file| file.bytes).sum::<u64>().saturating_add(unsealed);
    let (room, reserve) = (retention.room((taken, free)), retention.reserve((taken, free)));
    for level in Level::ALL {
        let of_level = || files.iter().enumerate().filter(move |(_, file)| file.level == level);
        let mut bytes: u64 = of_level().map(|(_, file)| file.bytes).sum();
        if level == Level::Full {
            bytes = bytes.saturating_add(unsealed);
        }
        let age_ms = i64::try_from(retention.age_ms(level)).unwrap_or(i64::MAX);
        let ages = ages(of_level().map(|(_, file)| file.ends), now);
        for ((at, file), age) in of_level().zip(ages).filter(|((_, file), _)| !file.is_pending) {
            let is_old = age > age_ms;
            if !is_old && bytes <= room.quota(level) {
                break;
            }
            bytes = bytes.saturating_sub(file.bytes);
            plan.drop.push(at);
        }
    }
    let dropped: u64 = plan.drop.iter().map(|&at| files[at].bytes).sum();
    let mut free = free.saturating_add(dropped);
    for level in Level::ALL {
        let mut left: Vec<_> = files.iter().enumerate().filter(|(_, file)| file.level == level).collect();
        left.retain(|(at, _)| !plan.drop.contains(at));
        // The newest of each stays: it is what people look at first.
        left.pop();
        // Stable: what an hour is still to be made of goes last.
        left.sort_by_key(|(_, file)| file.is_pending);
        for (at, file) in left {
            if free >= reserve {
                return plan;
            }
            free = free.saturating_add(file.bytes);
            plan.shed.push(at);
        }
    }
    plan
}

/// How old files are, which come in their order: from the newest back, a step at a time.
fn ages(ends: impl DoubleEndedIterator<Item = WallMs>, now: WallMs) -> Vec<i64> {
    let (mut age, mut after) = (0_i64, now);
    let mut ages: Vec<i64> = ends
        .rev()
        .map(|ends| {
            age = age.saturating_add(after.since(ends).clamp(0, GAP_MS_MAX));
            after = ends;
            age
        })
        .collect();
    ages.reverse();
    ages
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOUR_MS: i64 = 3_600_000;
    const MIB: u64 = 1 << 20;

    fn retention(bytes: u64) -> Retention {
        Retention { bytes: Some(bytes), full_ms: 48 * 3_600_000, mid_ms: 30 * 86_400_000, long_ms: 400 * 86_400_000 }
    }

    fn files(level: Level, count: i64, bytes: u64) -> Vec<Held> {
        (1..=count).map(|hour| Held { level, bytes, ends: WallMs(hour * HOUR_MS), is_pending: false }).collect()
    }

    #[test]
    fn what_is_too_old_goes_and_nothing_else() {
        let files = files(Level::Full, 60, MIB);
        let plan = plan(&files, &retention(10_000 * MIB), WallMs(60 * HOUR_MS), (0, u64::MAX / 2));
        assert_eq!(plan, Plan { drop: (0..11).collect(), shed: vec![] }, "what ended more than 48 hours ago");
    }

    #[test]
    fn a_level_that_takes_more_than_its_part_loses_its_oldest() {
        let mut all = files(Level::Full, 10, 10 * MIB);
        all.extend(files(Level::Mid, 10, MIB));
        let plan = plan(&all, &retention(100 * MIB), WallMs(10 * HOUR_MS), (15 * MIB, u64::MAX / 2));
        assert_eq!(plan.drop, [0, 1, 2, 3, 4, 5], "60 MiB hold four of 10 and 15 of the journals");
        assert!(plan.shed.is_empty());
    }

    #[test]
    fn a_clock_that_is_moved_by_years_takes_nothing_of_the_window() {
        let files = files(Level::Full, 40, MIB);
        for years in [-56, -1, 1, 74] {
            let now = WallMs(40 * HOUR_MS + years * 365 * 24 * HOUR_MS);
            assert_eq!(
                plan(&files, &retention(10_000 * MIB), now, (0, u64::MAX / 2)),
                Plan::default(),
                "{years} years"
            );
        }
        // And when files of that time have come.
        let mut later = files.clone();
        later.push(Held { ends: WallMs(640_000 * HOUR_MS), ..files[0] });
        let plan = plan(&later, &retention(10_000 * MIB), WallMs(640_000 * HOUR_MS), (0, u64::MAX / 2));
        assert_eq!(plan, Plan::default());
    }

    #[test]
    fn of_a_size_beyond_the_disk_a_tenth_of_the_disk_stays_free() {
        let retention = retention(1_000_000 * MIB);
        assert_eq!(retention.reserve((2_800 * MIB, 1_200 * MIB)), 400 * MIB);
        let full = [files(Level::Full, 20, 100 * MIB), files(Level::Mid, 8, 100 * MIB)].concat();
        let asked = |free| plan(&full, &retention, WallMs(20 * HOUR_MS), (0, free));
        assert_eq!(asked(1_200 * MIB), Plan::default(), "2,800 of 4,000 MiB are no reason to shed");
        assert_eq!(asked(300 * MIB).shed, [0]);
    }

    #[test]
    fn five_minutes_stay_until_their_hour_is_made_and_go_last_from_a_full_disk() {
        let mut all = files(Level::Mid, 6, 10 * MIB);
        all[1..4].iter_mut().for_each(|file| file.is_pending = true);
        let asked = |bytes, free| plan(&all, &retention(bytes), WallMs(6 * HOUR_MS), (0, free));
        assert_eq!(asked(161 * MIB, u64::MAX / 2).drop, [0, 4], "a quarter holds four");
        assert_eq!(asked(4 * MIB, u64::MAX / 2).drop, [0, 4, 5], "what is pending stays whatever it takes");
        assert_eq!(asked(4_000 * MIB, 0).shed, [0, 4, 1, 2], "until 32 MiB are free");
    }

    #[test]
    fn a_full_disk_costs_resolution_first_and_the_newest_last() {
        let mut all = files(Level::Full, 3, 10 * MIB);
        all.extend(files(Level::Mid, 3, 10 * MIB));
        all.extend(files(Level::Long, 2, MIB));
        let asked = |free| plan(&all, &retention(400 * MIB), WallMs(3 * HOUR_MS), (0, free)).shed;
        // 32 MiB are to stay free.
        assert_eq!(asked(32 * MIB), Vec::<usize>::new());
        assert_eq!(asked(31 * MIB), [0]);
        assert_eq!(asked(11 * MIB), [0, 1, 3], "the newest of the full resolution stays");
        assert_eq!(asked(0), [0, 1, 3, 4]);
        let all = [files(Level::Full, 1, MIB), files(Level::Mid, 1, MIB), files(Level::Long, 3, 10 * MIB)].concat();
        let asked = plan(&all, &retention(400 * MIB), WallMs(3 * HOUR_MS), (0, 0)).shed;
        assert_eq!(asked, [2, 3], "and of each level the newest stays, whatever is missing");
    }

    #[test]
    fn without_a_size_the_window_takes_half_of_what_there_is_and_20_gb_at_most() {
        let retention = Retention { bytes: None, ..retention(0) };
        assert_eq!(retention.room((10 * MIB, 30 * MIB)), Room(20 * MIB));
        assert_eq!(retention.room((1 << 40, 1 << 40)), Room(20_000_000_000));
    }

    proptest! {
        #[test]
        fn no_level_has_more_than_its_part_afterwards_and_none_loses_more_than_it_must(
            sizes in prop::collection::vec((0usize..3, 1u64..50), 0..60),
            bytes in 1u64..500,
        ) {
            let files: Vec<Held> = (0..).zip(&sizes)
                .map(|(hour, &(level, mib))| Held { level: Level::ALL[level], bytes: mib * MIB, ends: WallMs(hour * HOUR_MS), is_pending: false })
                .collect();
            let retention = retention(bytes * MIB);
            let plan = plan(&files, &retention, WallMs(0), (0, u64::MAX / 2));
            for level in Level::ALL {
                let left: Vec<_> = (0..files.len()).filter(|at| files[*at].level == level && !plan.drop.contains(at)).collect();
                let sum: u64 = left.iter().map(|&at| files[at].bytes).sum();
                let quota = Room(bytes * MIB).quota(level);
                prop_assert!(sum <= quota);
                let last = plan.drop.iter().copied().filter(|&at| files[at].level == level).max();
                if let Some(last) = last {
                    prop_assert!(left.iter().all(|&at| at > last), "the oldest go");
                    prop_assert!(sum + files[last].bytes > quota, "and no more than that");
                }
            }
        }
    }
}
