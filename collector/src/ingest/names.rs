//! How many new names a node may bring: as many as a node can have at once, and so many in an hour after that.
//!
//! What is beyond it is left out of the frame, and the frame says how much that is. Everything else of it is kept, so that
//! a node whose names run wild is seen all the same. A frame that was cut is never what a delta is stored upon.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use dunlin_shared::limits::{NAMES_BURST, NAMES_PER_HOUR};
use dunlin_shared::metric::{Metric, MetricRef, by_name};
use dunlin_shared::sample::{ABSENT, Layout, Reading, Series, Subject};
use dunlin_shared::session::pace::Bucket;
use dunlin_shared::time::{MonoMs, WallMs};
use dunlin_shared::wire::Lane;

use crate::record::NodeKey;

/// By it a frame says how many of its values are not there.
const MARK: &str = "agent_values_refused";
const HOUR_MS: u32 = 3_600_000;

#[derive(Debug, Default)]
pub(super) struct Names {
    nodes: HashMap<NodeKey, Known>,
}

#[derive(Debug)]
struct Known {
    left: Bucket,
    /// What stands in the newest frame of each lane. It outlives a connection: whoever comes again brings nothing new.
    stored: [Option<Arc<Layout>>; 2],
}

/// A frame with values left out.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Cut {
    pub(super) reading: Arc<Reading>,
    pub(super) values: u64,
    /// One of the names.
    pub(super) example: String,
}

impl Names {
    /// What may be stored of a new frame in place of it, when not all of it may.
    pub(super) fn judge(&mut self, now: WallMs, node: NodeKey, lane: Lane, reading: &Reading) -> Option<Cut> {
        let now = MonoMs(u64::try_from(now.0).unwrap_or(0));
        let fresh = || Known { left: Bucket::per(now, NAMES_BURST, NAMES_PER_HOUR, HOUR_MS), stored: [None, None] };
        let known = self.nodes.entry(node).or_insert_with(fresh);
        let at = usize::from(lane == Lane::Backlog);
        if known.stored[at].as_ref().is_some_and(|stored| Arc::ptr_eq(stored, &reading.layout)) {
            return None;
        }
        let (subjects, metrics) = known.new_names(&reading.layout);
        let count = subjects.len() as u64 + metrics.len() as u64;
        let granted = known.left.take_up_to(now, count);
        if granted == count {
            known.stored[at] = Some(Arc::clone(&reading.layout));
            return None;
        }
        let granted = usize::try_from(granted).unwrap_or(usize::MAX);
        let refused_metrics: HashSet<usize> =
            metrics.into_iter().skip(granted.saturating_sub(subjects.len())).collect();
        let refused_subjects: HashSet<usize> = subjects.into_iter().skip(granted).collect();
        let cut = cut(reading, (&refused_subjects, &refused_metrics), known.stored[at].as_ref());
        known.stored[at] = Some(Arc::clone(&cut.reading.layout));
        Some(cut)
    }
}

impl Known {
    /// Where subjects and metrics of the node's own stand that neither lane has.
    fn new_names(&self, layout: &Layout) -> (Vec<usize>, Vec<usize>) {
        let stored = || self.stored.iter().flatten();
        let subjects: HashSet<&Subject> = stored().flat_map(|stored| &stored.subjects).collect();
        let metrics: HashSet<&str> = stored().flat_map(|stored| &stored.open).map(|own| own.name()).collect();
        let new_subjects = layout.subjects.iter().enumerate().filter(|(_, subject)| !subjects.contains(subject));
        let new_metrics = layout.open.iter().enumerate().filter(|(_, own)| !metrics.contains(own.name()));
        (new_subjects.map(|(at, _)| at).collect(), new_metrics.map(|(at, _)| at).collect())
    }
}

/// Whether it says that values of it are missing: then what is left tells nothing of what was sent.
pub(super) fn is_cut(reading: &Reading) -> bool {
    let mark = mark().map(|metric| MetricRef::catalogued(metric.id));
    reading.layout.series.iter().any(|series| Some(series.metric) == mark)
}

fn mark() -> Option<&'static Metric> {
    by_name(MARK)
}

fn cut(
    reading: &Reading,
    (subjects, metrics): (&HashSet<usize>, &HashSet<usize>),
    before: Option<&Arc<Layout>>,
) -> Cut {
    let whole = &reading.layout;
    let mut layout = Layout::default();
    let (mut subject_at, mut metric_at) = (HashMap::new(), HashMap::new());
    for (at, subject) in whole.subjects.iter().enumerate().filter(|(at, _)| !subjects.contains(at)) {
        subject_at.insert(at, layout.subjects.len());
        layout.subjects.push(subject.clone());
    }
    for (at, own) in whole.open.iter().enumerate().filter(|(at, _)| !metrics.contains(at)) {
        metric_at.insert(at, layout.open.len());
        layout.open.push(own.clone());
    }
    let (mut values, mut left_out) = (Vec::new(), 0);
    for (series, &value) in whole.series.iter().zip(&reading.values) {
        let subject = subject_at.get(&usize::from(series.subject)).and_then(|at| u16::try_from(*at).ok());
        let metric = match series.metric.open_index() {
            None => Some(series.metric),
            Some(index) => metric_at.get(&index).and_then(|at| u8::try_from(*at).ok()).map(MetricRef::open),
        };
        match (subject, metric) {
            (Some(subject), Some(metric)) => {
                layout.series.push(Series { subject, metric });
                values.push(value);
            }
            _ => left_out += u64::from(value != ABSENT),
        }
    }
    let example = whole.subjects.iter().enumerate().find(|(at, _)| subjects.contains(at)).map(|(_, it)| it.to_string());
    let metric = || whole.open.iter().enumerate().find(|(at, _)| metrics.contains(at));
    let example = example.or_else(|| metric().map(|(_, own)| own.name().to_owned())).unwrap_or_default();
    mark_with(&mut layout, &mut values, left_out);
    // What is as it was shares the layout, as all else does.
    let layout = before.filter(|before| ***before == layout).map_or_else(|| Arc::new(layout), Arc::clone);
    let reading = Reading { mono: reading.mono, wall: reading.wall, layout, values };
    Cut { reading: Arc::new(reading), values: left_out, example }
}

fn mark_with(layout: &mut Layout, values: &mut Vec<i64>, left_out: u64) {
    let agent = Subject::AGENT();
    let at = layout.subjects.iter().position(|subject| *subject == agent).unwrap_or_else(|| {
        // At least one subject was left out, or a metric was and the node has its agent.
        layout.subjects.push(agent);
        layout.subjects.len() - 1
    });
    if let (Some(metric), Ok(subject)) = (mark(), u16::try_from(at)) {
        layout.series.push(Series { subject, metric: MetricRef::catalogued(metric.id) });
        values.push(i64::try_from(left_out).unwrap_or(i64::MAX));
    }
}

#[cfg(test)]
mod tests {
    use dunlin_shared::codec::{decode_key, encode_key};
    use dunlin_shared::sample::SubjectKind;

    use super::*;

    const NODE: NodeKey = NodeKey(3);
    const T0: i64 = 1_800_000_000_000;

    /// A host and process groups of these numbers, each with one value.
    fn reading(groups: std::ops::Range<u32>) -> Reading {
        let count = MetricRef::catalogued(by_name("process_count").expect("it is there").id);
        let load = MetricRef::catalogued(by_name("host_load1").expect("it is there").id);
        let mut layout = Layout { subjects: vec![Subject::HOST()], ..Layout::default() };
        layout.series.push(Series { subject: 0, metric: load });
        for group in groups {
            let subject = u16::try_from(layout.subjects.len()).expect("few");
            layout.subjects.push(Subject::new(SubjectKind::Process, &format!("p{group}")).expect("a name"));
            layout.series.push(Series { subject, metric: count });
        }
        let values = vec![7; layout.series.len()];
        Reading { layout: Arc::new(layout), values, ..Reading::default() }
    }

    fn judge(names: &mut Names, at_ms: i64, lane: Lane, reading: &Reading) -> Option<Cut> {
        names.judge(WallMs(T0 + at_ms), NODE, lane, reading)
    }

    #[test]
    fn a_node_that_keeps_its_names_is_never_cut() {
        let mut names = Names::default();
        let (one, other) = (reading(0..1_900), reading(1_000..2_900));
        for tick in 0..10_000 {
            assert_eq!(judge(&mut names, tick * 10_000, Lane::Live, &one), None);
            assert_eq!(judge(&mut names, tick * 10_000, Lane::Backlog, &other), None);
        }
    }

    #[test]
    fn of_a_node_with_other_names_at_each_tick_the_host_stays_and_the_rest_is_left_out() {
        let mut names = Names::default();
        let (mut granted, mut cuts) = (0, 0);
        for tick in 0..360_u32 {
            let sent = reading(tick * 1_900..(tick + 1) * 1_900);
            let cut = judge(&mut names, i64::from(tick) * 10_000, Lane::Live, &sent);
            let kept = cut.as_ref().map_or(&sent, |cut| &cut.reading);
            assert_eq!(kept.value(&Subject::HOST(), "host_load1"), Some(0.07));
            assert_eq!(decode_key(&encode_key(kept)).as_ref(), Ok(kept), "it is a frame like any other");
            granted += kept.layout.subjects.len() - 1 - usize::from(cut.is_some());
            if let Some(cut) = cut {
                cuts += 1;
                assert!(is_cut(&cut.reading));
                let said = u32::try_from(cut.values).ok().map(f64::from);
                assert_eq!(cut.reading.value(&Subject::AGENT(), MARK), said);
                assert!(cut.example.starts_with("process:p"), "{}", cut.example);
            }
        }
        assert_eq!(cuts, 358, "two whole turns are granted");
        let most = (NAMES_BURST + NAMES_PER_HOUR) as usize;
        assert!((most - 20..=most).contains(&granted), "{granted} names within an hour");
    }

    #[test]
    fn what_was_left_out_comes_in_with_time() {
        let mut names = Names::default();
        for turn in 0..3_u32 {
            judge(&mut names, 0, Lane::Live, &reading(turn * 1_900..(turn + 1) * 1_900));
        }
        let sent = reading(3 * 1_900..4 * 1_900);
        let at = |names: &mut Names, ms| judge(names, ms, Lane::Live, &sent).map(|cut| cut.values);
        assert!(at(&mut names, 0) > Some(1_800));
        assert_eq!(at(&mut names, 600_000), Some(1_300), "one in a second");
        assert_eq!(at(&mut names, 1_900_000), None);
        assert!(!is_cut(&sent));
    }

    #[test]
    fn one_node_takes_nothing_from_another() {
        let mut names = Names::default();
        for turn in 0..10_u32 {
            judge(&mut names, 0, Lane::Live, &reading(turn * 1_900..(turn + 1) * 1_900));
        }
        assert_eq!(names.judge(WallMs(T0), NodeKey(4), Lane::Live, &reading(0..1_900)), None);
    }
}
