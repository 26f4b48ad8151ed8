//! A metric by which simulated nodes cross a rule now and then, each for one tick: its value is the moment at which it
//! was measured, so that whoever hears of the alert knows how long it took.
//!
//! Pure: node, tick and the fleet's own clock say all of it.

use std::num::NonZeroU64;

use dunlin_shared::id::Epoch;
use dunlin_shared::metric::{Kind, OpenMetric, Step, Unit};
use dunlin_shared::sample::{Sample, Subject};

pub const METRIC: &str = "x_drill";
pub const RULE: &str = "fleet-drill";

/// Each node crosses at one tick of so many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drill {
    pub one_of: NonZeroU64,
}

/// The rule that the nodes cross.
#[must_use]
pub fn rule() -> String {
    format!(
        "[[rule]]\nname = \"{RULE}\"\nwhen = '{METRIC} > 0'\nsubject = \"host\"\nseverity = \"info\"\n\
         summary = \"{{node}} crossed at {{value}}\"\n"
    )
}

impl Drill {
    /// What crosses at this tick bears the fleet's milliseconds, which are never 0 by then.
    pub(super) fn push(self, sample: &mut Sample, (node, epoch): (usize, Epoch), tick: u64) {
        let crosses = (tick + node as u64 + u64::from(epoch.0)) % self.one_of == self.one_of.get() - 1;
        #[expect(clippy::cast_precision_loss, reason = "a fleet runs for hours, not for millennia")]
        let value = if crosses { sample.mono.0.max(1) as f64 } else { 0.0 };
        let metric = OpenMetric::new(METRIC, Unit::Count, Kind::Gauge, Step::Each(1));
        let metric = metric.expect("it is a name of the open space");
        // A simulated node has no other metrics of its own, so there is room.
        sample.push_open(&Subject::HOST(), &metric, value);
    }
}

#[cfg(test)]
mod tests {
    use dunlin_shared::rule::file::parse;
    use dunlin_shared::time::{MonoMs, WallMs};

    use super::*;

    #[test]
    fn every_node_crosses_once_in_its_turn_and_says_when() {
        let drill = Drill { one_of: NonZeroU64::new(10).expect("it is not 0") };
        for node in 0..25 {
            let values: Vec<i64> = (0..10)
                .map(|tick| {
                    let mut sample = Sample::new(MonoMs(tick * 1_000 + 7), WallMs(0));
                    drill.push(&mut sample, (node, Epoch(1)), tick);
                    sample.rows()[0].2
                })
                .collect();
            let crossed: Vec<_> = values.iter().enumerate().filter(|(_, value)| **value > 0).collect();
            assert_eq!(crossed.len(), 1, "{values:?}");
            assert_eq!(*crossed[0].1, i64::try_from(crossed[0].0).expect("small") * 1_000 + 7);
        }
    }

    #[test]
    fn the_rule_is_one_that_a_collector_takes() {
        assert_eq!(parse("drill.toml", &rule()).expect("it is right").len(), 1);
    }
}
