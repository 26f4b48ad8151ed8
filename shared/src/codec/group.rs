//! Lays samples out into groups: which series a reading has, and where a new keyframe is due.
//!
//! Within a group a layout only grows, so that a delta can always be taken. A group ends when it is
//! full, when the clock went back, or when a quarter of its series are gone for good.

use std::collections::HashMap;
use std::sync::Arc;

use crate::limits::{GROUP_FRAMES_MAX, SERIES_MAX, SUBJECTS_MAX};
use crate::metric::MetricRef;
use crate::sample::{ABSENT, Layout, Reading, Sample, Series, Subject};

/// Owns the layout of the group under way.
#[derive(Debug, Default)]
pub struct Grouper {
    last: Option<Reading>,
    frames: u16,
    places: HashMap<(Subject, MetricRef), usize>,
    left_out: u64,
}

impl Grouper {
    /// The sample as a reading, and whether it begins a group.
    pub fn lay_out(&mut self, sample: &Sample) -> (Reading, bool) {
        let extended = self.extend(sample);
        let begins = extended.is_none();
        let reading = extended.unwrap_or_else(|| self.begin(sample));
        self.frames = if begins { 1 } else { self.frames + 1 };
        self.last = Some(reading.clone());
        (reading, begins)
    }

    /// Ends the group: the next reading begins one.
    pub fn end_group(&mut self) {
        self.last = None;
    }

    /// Values that found no room under the limits, since the start.
    #[must_use]
    pub const fn left_out(&self) -> u64 {
        self.left_out
    }

    fn extend(&mut self, sample: &Sample) -> Option<Reading> {
        let last = self.last.take()?;
        if self.frames >= GROUP_FRAMES_MAX || sample.mono < last.mono || !sample.open().starts_with(&last.layout.open) {
            return None;
        }
        let mut layout = Arc::clone(&last.layout);
        if sample.open().len() > layout.open.len() {
            Arc::make_mut(&mut layout).open = sample.open().to_vec();
        }
        let values = self.place(sample, &mut layout);
        let absent = values.iter().filter(|&&value| value == ABSENT).count();
        (absent * 4 <= values.len()).then_some(Reading { mono: sample.mono, wall: sample.wall, layout, values })
    }

    fn begin(&mut self, sample: &Sample) -> Reading {
        self.places.clear();
        let mut layout = Arc::new(Layout { open: sample.open().to_vec(), ..Layout::default() });
        let values = self.place(sample, &mut layout);
        Reading { mono: sample.mono, wall: sample.wall, layout, values }
    }

    /// Samplers mostly report in the order of the tick before: the place after the last one is
    /// tried first, and the map is asked only when it is not that.
    fn place(&mut self, sample: &Sample, layout: &mut Arc<Layout>) -> Vec<i64> {
        let mut values = vec![ABSENT; layout.series.len()];
        let mut guess = 0;
        for (subject, metric, steps) in sample.rows() {
            let expected = layout.series.get(guess).is_some_and(|series| {
                series.metric == *metric && layout.subjects[usize::from(series.subject)] == *subject
            });
            let place = if expected {
                Some(guess)
            } else {
                let key = (subject.clone(), *metric);
                self.places.get(&key).copied().or_else(|| {
                    let place = append(Arc::make_mut(layout), subject, *metric)?;
                    self.places.insert(key, place);
                    values.push(ABSENT);
                    Some(place)
                })
            };
            match place {
                Some(place) => {
                    values[place] = *steps;
                    guess = place + 1;
                }
                None => self.left_out += 1,
            }
        }
        values
    }
}

fn append(layout: &mut Layout, subject: &Subject, metric: MetricRef) -> Option<usize> {
    if layout.series.len() >= SERIES_MAX {
        return None;
    }
    let newest = layout.subjects.len().checked_sub(1).filter(|&last| layout.subjects[last] == *subject);
    let index = newest.or_else(|| layout.subjects.iter().position(|known| known == subject)).or_else(|| {
        let room = layout.subjects.len() < SUBJECTS_MAX;
        room.then(|| {
            layout.subjects.push(subject.clone());
            layout.subjects.len() - 1
        })
    })?;
    let subject = u16::try_from(index).ok()?;
    layout.series.push(Series { subject, metric });
    Some(layout.series.len() - 1)
}
