//! What the things on a node measure now: values of its latest reading, and rates of its last frames.
//!
//! No rate is kept in memory: it takes two readings, and those of ten thousand nodes are in the window anyway. The last
//! frames of the nodes of one page are read for it, each from its keyframe on.

use std::collections::HashMap;

use dunlin_shared::id::NodeId;
use dunlin_shared::limits::{GROUP_FRAMES_MAX, INTERVAL_MS_MAX};
use dunlin_shared::sample::{ABSENT, Reading, Subject, SubjectKind};
use dunlin_shared::time::WallMs;

use super::page::Found;
use crate::api::Api;
use crate::api::problem::Problem;
use crate::block::Measure;
use crate::points::{Wanted, lines};
use crate::record::NodeKey;
use crate::stretch::Taken;
use crate::window::{Asked, ReadError, Window};

/// When the agent has not said how often it ticks.
const INTERVAL_MS: u32 = 10_000;
/// A rate is good for so many intervals: one frame may be late, and one may be lost.
const FRESH_INTERVALS: u16 = 4;
/// Frames to read for it: a whole group stands between a frame and its keyframe at most.
const FRAMES: u16 = GROUP_FRAMES_MAX + FRESH_INTERVALS + 2;
/// All frames of a node that may be read for it: beside each there may be two of a backlog. An agent that ticks faster
/// than it says would have hours of frames read otherwise.
const FRAMES_MAX: usize = 3 * (FRAMES as usize);
/// Values that one node may have in that; far more than its groups and containers.
const VALUES_MAX: usize = 200_000;

/// Values of one kind of subject, by its name and the metric's.
#[derive(Debug)]
pub(super) struct Latest<'r>(HashMap<(&'r str, &'r str), f64>);

/// Cores used, by node and name.
#[derive(Debug, Default)]
pub(super) struct Cores(HashMap<(NodeId, Box<str>), f64>);

/// What is read of one node.
struct Frames {
    id: NodeId,
    key: NodeKey,
    interval_ms: u32,
    skew_ms: i64,
}

impl<'r> Latest<'r> {
    pub(super) fn of(reading: Option<&'r Reading>, kind: SubjectKind) -> Self {
        let Some(reading) = reading else { return Self(HashMap::new()) };
        let layout = &reading.layout;
        let value = |(series, &steps): (&dunlin_shared::sample::Series, &i64)| {
            let subject = layout.subjects.get(usize::from(series.subject))?;
            if subject.kind != kind || steps == ABSENT {
                return None;
            }
            let (metric, _, _, step) = layout.describe(series.metric)?;
            Some(((subject.name(), metric), step.value(steps)))
        };
        Self(layout.series.iter().zip(&reading.values).filter_map(value).collect())
    }

    /// What is counted: no fraction, and nothing below none.
    pub(super) fn whole(&self, name: &str, metric: &str) -> Option<u64> {
        let value = self.0.get(&(name, metric))?;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it saturates, and what is shown is a size"
        )]
        value.is_finite().then(|| value.max(0.0) as u64)
    }
}

impl Cores {
    /// Of everything on those nodes that has the counter `metric`.
    pub(super) async fn of(api: &Api, found: &[Found], metric: &'static str) -> Result<Self, Problem> {
        let now = api.published.clock.wall();
        let frames = |found: &Found| {
            let node = &found.node;
            node.latest.as_ref()?;
            let (interval_ms, skew_ms) = (node.interval_ms.unwrap_or(INTERVAL_MS).max(1), node.skew_ms);
            Some(Frames { id: node.id, key: node.key, interval_ms, skew_ms })
        };
        let nodes: Vec<Frames> = found.iter().filter_map(frames).collect();
        if nodes.is_empty() {
            return Ok(Self::default());
        }
        api.desk
            .window(move |window| {
                let mut cores = Self::default();
                for node in &nodes {
                    cores.read(window, node, metric, now)?;
                }
                Ok(cores)
            })
            .await
    }

    pub(super) fn get(&self, node: NodeId, name: &str) -> Option<f64> {
        self.0.get(&(node, name.into())).copied()
    }

    fn read(&mut self, window: &Window, node: &Frames, metric: &str, now: WallMs) -> Result<(), Problem> {
        // It may say anything.
        let interval_ms = i64::from(node.interval_ms).min(INTERVAL_MS_MAX.cast_signed());
        let wanted = |_: &Subject, measure: &Measure| measure.about().is_some_and(|about| about.name == metric);
        let taken = Taken { wanted: &wanted, skew_ms: node.skew_ms, values_max: VALUES_MAX };
        let from = now.plus(-i64::from(FRAMES) * interval_ms);
        let asked = Asked { node: node.key, from, to: WallMs(i64::MAX), taken, frames_max: FRAMES_MAX };
        let stretches = match window.stretches(&asked) {
            Ok(stretches) => stretches,
            // A node with more than any has is one whose rates are not known.
            Err(ReadError::TooMany(_)) => return Ok(()),
            Err(ReadError::Store(error)) => return Err(error.into()),
        };
        let from = now.plus(-i64::from(FRESH_INTERVALS) * interval_ms);
        for line in lines(&stretches, &Wanted { from, to: now, interval_ms: node.interval_ms, raw: false }) {
            if let Some(rate) = line.points.iter().rev().find_map(|(_, value)| *value) {
                self.0.insert((node.id, line.subject.name().into()), rate);
            }
        }
        Ok(())
    }
}
