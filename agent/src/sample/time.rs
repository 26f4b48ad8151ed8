//! Whether the clock is kept in step, as far as this can be seen from files.
//!
//! The kernel tells it through adjtimex alone, for which no maintained crate has a safe call. Debian's default keeps a
//! file that it touches whenever it has set the clock; with another time service there is no row, rather than a wrong one.

use dunlin_shared::sample::Sample;
use dunlin_shared::time::WallMs;

use super::failure::{Failures, SampleError};
use super::source::Source;
use super::{metric, put};

const TOUCHED: &str = "run/systemd/timesync/synchronized";
const WHY: &str = "without systemd-timesyncd it cannot be told whether the clock is kept in step";
/// systemd-timesyncd asks at least every 2,048 s; two questions may be lost.
const FRESH_MS: i64 = 3 * 2_048 * 1_000;

pub(super) fn sample(source: &Source, wall: WallMs, sample: &mut Sample, failures: &mut Failures) {
    let path = source.path(TOUCHED);
    let touched = std::fs::metadata(&path).and_then(|found| found.modified());
    let Ok(touched) = touched else { return failures.note(SampleError::Absent { path, why: WHY }) };
    let since = touched.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let touched = WallMs(i64::try_from(since.as_millis()).unwrap_or(i64::MAX));
    let is_synced = wall.since(touched) <= FRESH_MS;
    put(sample, const { metric("host_time_synced") }, f64::from(u8::from(is_synced)));
}

#[cfg(test)]
mod tests {
    use dunlin_shared::time::MonoMs;

    use super::*;
    use crate::clock::Clock;
    use crate::sample::tree::{Tree, Values};

    fn take(tree: &Tree, wall: WallMs) -> Option<f64> {
        let mut taken = Sample::new(MonoMs(0), wall);
        sample(&Source::new(tree.path()), wall, &mut taken, &mut Failures::default());
        Values::of(&taken).host("host_time_synced")
    }

    #[test]
    fn a_clock_that_was_set_lately_is_synced_and_without_a_witness_nothing_is_said() {
        let now = Clock::start().wall();
        let tree = Tree::new(&[]);
        assert_eq!(take(&tree, now), None);
        tree.set(TOUCHED, "");
        assert_eq!(take(&tree, now), Some(1.0));
        assert_eq!(take(&tree, WallMs(now.0 + 2 * FRESH_MS)), Some(0.0));
    }
}
