//! Whether what a collector stored of a tick is what the host measured.

use std::collections::HashMap;
use std::sync::Arc;

use dunlin_collector::block::{Measure, Stretch};
use dunlin_shared::metric::MetricRef;
use dunlin_shared::sample::{ABSENT, Layout, Reading, Series, Subject};
use dunlin_shared::time::WallMs;

use crate::fleet::load::Host;

/// A row of a stretch as the reading that it was.
pub(super) fn reading_at(stretch: &Stretch, at: usize) -> Reading {
    let mut layout = Layout::default();
    let mut values = Vec::new();
    for column in stretch.columns.iter().filter(|column| column.values[at] != ABSENT) {
        let metric = match &column.measure {
            Measure::Catalogued(id) => MetricRef::catalogued(*id),
            Measure::Open(own) => {
                layout.open.push(own.clone());
                // A simulated node has one metric of its own.
                MetricRef::open(u8::try_from(layout.open.len() - 1).unwrap_or(u8::MAX))
            }
        };
        if layout.subjects.last() != Some(&column.subject) {
            layout.subjects.push(column.subject.clone());
        }
        // A node has 2,000 subjects at most.
        let subject = u16::try_from(layout.subjects.len() - 1).unwrap_or(u16::MAX);
        layout.series.push(Series { subject, metric });
        values.push(column.values[at]);
    }
    Reading { mono: stretch.rows[at].mono, wall: WallMs(0), layout: Arc::new(layout), values }
}

/// How a stored reading differs from what the host measured.
pub(super) fn differs(host: &Host, tick: u64, reading: &Reading) -> Option<String> {
    let sample = host.sample(tick, reading.mono, reading.wall);
    let layout = &reading.layout;
    let mut places: Option<HashMap<(&Subject, MetricRef), i64>> = None;
    let subject = |index: usize| layout.subjects.get(usize::from(layout.series[index].subject));
    for (index, (wanted, metric, steps)) in sample.rows().iter().enumerate() {
        let here =
            layout.series.get(index).is_some_and(|series| series.metric == *metric) && subject(index) == Some(wanted);
        let found = if here {
            reading.values.get(index).copied()
        } else {
            // A layout only appends, so that what came and went before stands in the way of the plain order.
            let places = places.get_or_insert_with(|| {
                let all = layout.series.iter().zip(&reading.values).enumerate();
                all.filter_map(|(at, (series, &value))| Some(((subject(at)?, series.metric), value))).collect()
            });
            places.get(&(wanted, *metric)).copied()
        };
        if found != Some(*steps) {
            return Some(format!("{wanted} has {found:?} for metric {}, not {steps}", metric.raw()));
        }
    }
    let present = reading.values.iter().filter(|&&value| value != ABSENT).count();
    (present != sample.rows().len()).then(|| format!("{present} values where {} were sampled", sample.rows().len()))
}
