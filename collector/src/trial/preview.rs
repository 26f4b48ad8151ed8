//! What rules would have said of a node's past: its samples as the window has them, through the alerts of the engine.
//!
//! Pure. A frame is judged at the moment at which it was measured, whenever it came. A node of which there is nothing for
//! long counts as down: what was on its way begins anew when it is back. What the collector alone knows, such as the states
//! of nodes and containers, is not kept: rules that ask for it are not previewed.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use dunlin_shared::id::{FrameId, NodeId};
use dunlin_shared::metric::MetricRef;
use dunlin_shared::rule::{Known, Rule, Source, Term};
use dunlin_shared::sample::{Layout, Reading, Series, Subject};
use dunlin_shared::time::{MonoMs, WallMs};

use crate::block::{Measure, Stretch};
use crate::engine::NodeState;
use crate::engine::alert::{Alert, AlertChange, Alerts, Now};
use crate::record::NodeKey;

/// Nothing for so long, and a node is down; with a long tick, three of them.
const SILENT_MS: i64 = 30_000;
/// What is read before the time that is asked for, at most: the longest window there is.
const LEAD_MS_MAX: u64 = 86_400_000;
/// The only node of these alerts.
const NODE: NodeKey = NodeKey(0);

/// Whose past it is.
#[derive(Clone, Debug)]
pub struct Whose {
    pub id: NodeId,
    pub labels: Arc<BTreeMap<String, String>>,
    pub interval_ms: u32,
}

/// An alert that there would have been.
#[derive(Clone, Debug, PartialEq)]
pub struct Firing {
    pub rule: Arc<Rule>,
    pub subject: Arc<str>,
    pub began: WallMs,
    pub fired: WallMs,
    /// `None` when it would still fire.
    pub resolved: Option<WallMs>,
    /// When it fired.
    pub value: Option<f64>,
    pub threshold: Option<f64>,
}

/// Why the past says nothing of a rule.
#[must_use]
pub fn unfit(rule: &Rule) -> Option<String> {
    let known = |term: &Term| match &term.source {
        Source::Known(known) => Some(*known),
        Source::Catalogued(_) | Source::Open(_) => None,
    };
    let asked: Vec<&str> = rule.terms.iter().filter_map(known).map(Known::as_str).collect();
    match asked.as_slice() {
        [] => None,
        [one] => Some(format!("{one} is known to the collector alone, and its past is not kept")),
        many => Some(format!("{} are known to the collector alone, and their past is not kept", many.join(", "))),
    }
}

/// How much before the beginning is to be read: functions look back, and what has held for long fires at once.
#[must_use]
pub fn lead_ms(rules: &[Arc<Rule>]) -> i64 {
    let windows = |rule: &Rule| rule.terms.iter().filter_map(|term| term.over).map(|over| over.window_ms).max();
    let leads = rules.iter().map(|rule| windows(rule).unwrap_or(0).saturating_add(rule.for_ms));
    i64::try_from(leads.max().unwrap_or(0).min(LEAD_MS_MAX)).unwrap_or(0)
}

/// Whether any of the rules reads it.
#[must_use]
pub fn is_read(rules: &[Arc<Rule>], subject: &Subject, measure: &Measure) -> bool {
    let reads = |term: &Term| match (&term.source, measure) {
        (Source::Catalogued(id), Measure::Catalogued(measured)) => id == measured,
        (Source::Open(name), Measure::Open(own)) => **name == *own.name(),
        _ => false,
    };
    let is_about =
        |rule: &Rule| subject.kind.is_single() || rule.subjects.is_empty() || rule.is_about(&subject.to_string());
    rules.iter().any(|rule| rule.terms.iter().any(reads) && is_about(rule))
}

/// What fires within the time, in the order in which it does. `rules` are all fit.
#[must_use]
pub fn judge(rules: &[Arc<Rule>], whose: &Whose, stretches: &[Stretch], (from, to): (WallMs, WallMs)) -> Vec<Firing> {
    let begins = from.plus(-lead_ms(rules));
    let mut past = Past { alerts: Alerts::default(), begins, from, open: HashMap::new(), over: Vec::new() };
    let start = past.at(begins);
    drop(past.alerts.set_rules(start, rules.iter().cloned()));
    drop(past.alerts.introduce(start, NODE, whose.id, &whose.labels));
    drop(past.alerts.state(start, NODE, NodeState::Up));
    let silent_ms = SILENT_MS.max(3 * i64::from(whose.interval_ms));
    let mut heard = begins;
    let mut layouts = Layouts::default();
    for (stretch, row) in rows(stretches, (begins, to)) {
        let at = stretches[stretch].rows[row].time;
        if at.since(heard) > silent_ms {
            past.state(heard.plus(silent_ms), NodeState::Down);
            past.state(at, NodeState::Up);
        }
        heard = at;
        let (id, reading) = layouts.reading(stretches, stretch, row);
        past.frame(at, id, &reading);
    }
    if to.since(heard) > silent_ms {
        past.state(heard.plus(silent_ms), NodeState::Down);
    }
    past.finish()
}

/// Rows of all stretches by their times, each by its stretch and its place there.
fn rows(stretches: &[Stretch], (begins, to): (WallMs, WallMs)) -> Vec<(usize, usize)> {
    let mut rows = Vec::new();
    for (place, stretch) in stretches.iter().enumerate() {
        let within = stretch.rows.iter().enumerate().filter(|(_, row)| (begins..=to).contains(&row.time));
        rows.extend(within.map(|(at, _)| (place, at)));
    }
    let order = |&(stretch, at): &(usize, usize)| {
        let row = &stretches[stretch].rows[at];
        (row.time, row.epoch, row.seq)
    };
    // A stretch that came late lies within another.
    if !rows.is_sorted_by_key(order) {
        rows.sort_by_key(order);
    }
    rows
}

struct Past {
    alerts: Alerts,
    begins: WallMs,
    from: WallMs,
    open: HashMap<crate::engine::alert::AlertId, Firing>,
    over: Vec<Firing>,
}

impl Past {
    fn at(&self, wall: WallMs) -> Now {
        Now { wall, ran: MonoMs(wall.since(self.begins).max(0).unsigned_abs()) }
    }

    fn state(&mut self, at: WallMs, state: NodeState) {
        let now = self.at(at);
        let changes = self.alerts.state(now, NODE, state);
        self.follow(changes);
    }

    fn frame(&mut self, at: WallMs, id: FrameId, reading: &Arc<Reading>) {
        let now = self.at(at);
        let changes = self.alerts.frame(now, NODE, id, reading);
        self.follow(changes);
    }

    fn follow(&mut self, changes: Vec<AlertChange>) {
        for change in changes {
            match change {
                AlertChange::Fired(alert, _) => {
                    if let Some(firing) = firing(&alert) {
                        self.open.insert(alert.id, firing);
                    }
                }
                AlertChange::Resolved(alert) => {
                    let resolved = alert.resolved.map(|(at, _)| at);
                    let firing = self.open.remove(&alert.id).map(|firing| Firing { resolved, ..firing });
                    self.over.extend(firing.filter(|firing| firing.resolved >= Some(self.from)));
                }
                AlertChange::Pending(_)
                | AlertChange::Dropped(_)
                | AlertChange::Flaps(_)
                | AlertChange::Turned(_)
                | AlertChange::Reworded(_) => {}
            }
        }
    }

    fn finish(mut self) -> Vec<Firing> {
        self.over.extend(self.open.into_values());
        self.over.sort_by(|a, b| {
            (a.fired, &a.rule.name, &a.subject, a.resolved).cmp(&(b.fired, &b.rule.name, &b.subject, b.resolved))
        });
        self.over
    }
}

fn firing(alert: &Alert) -> Option<Firing> {
    Some(Firing {
        rule: Arc::clone(&alert.rule),
        subject: Arc::clone(&alert.subject),
        began: alert.began.wall,
        fired: alert.fired?.wall,
        resolved: None,
        value: alert.value,
        threshold: alert.threshold,
    })
}

/// Columns as layouts: of stretches with the same columns it is the same, so that alerts look for what they read once.
#[derive(Default)]
struct Layouts {
    latest: Option<Arc<Layout>>,
    /// By stretch, with the columns that are in it.
    of: HashMap<usize, (Arc<Layout>, Vec<usize>)>,
}

impl Layouts {
    fn reading(&mut self, stretches: &[Stretch], stretch: usize, row: usize) -> (FrameId, Arc<Reading>) {
        let latest = &mut self.latest;
        let (layout, columns) = self.of.entry(stretch).or_insert_with(|| {
            let (layout, columns) = layout(&stretches[stretch]);
            let layout =
                latest.as_ref().filter(|latest| ***latest == layout).map_or_else(|| Arc::new(layout), Arc::clone);
            *latest = Some(Arc::clone(&layout));
            (layout, columns)
        });
        let of = &stretches[stretch];
        let at = &of.rows[row];
        let values = columns.iter().map(|column| of.columns[*column].values[row]).collect();
        let reading = Reading { mono: at.mono, wall: at.time, layout: Arc::clone(layout), values };
        (FrameId { epoch: at.epoch, seq: at.seq }, Arc::new(reading))
    }
}

/// What has no room in a layout is left out; a node has no more than there is room for.
fn layout(stretch: &Stretch) -> (Layout, Vec<usize>) {
    let (mut layout, mut columns) = (Layout::default(), Vec::new());
    let mut subjects: HashMap<&Subject, u16> = HashMap::new();
    for (place, column) in stretch.columns.iter().enumerate() {
        let metric = match &column.measure {
            Measure::Catalogued(id) => MetricRef::catalogued(*id),
            Measure::Open(own) => {
                let known = layout.open.iter().position(|known| known == own).unwrap_or_else(|| {
                    layout.open.push(own.clone());
                    layout.open.len() - 1
                });
                let Ok(index) = u8::try_from(known) else { continue };
                MetricRef::open(index)
            }
        };
        let Ok(next) = u16::try_from(subjects.len()) else { continue };
        let subject = *subjects.entry(&column.subject).or_insert_with(|| {
            layout.subjects.push(column.subject.clone());
            next
        });
        layout.series.push(Series { subject, metric });
        columns.push(place);
    }
    (layout, columns)
}

#[cfg(test)]
mod tests;
