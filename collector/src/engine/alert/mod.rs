//! Which rules hold where: alerts, from the first frame on which one holds to whatever ends it.
//!
//! Deterministic, and without a clock: the same rules, frames and words lead to the same alerts under the same ids. It
//! remembers of each node what rules read and nothing else, and judges when something came: a frame, a change of its
//! inventory, another state of the node. Only what asks for a node's state is looked at when nothing comes.

mod bind;
mod book;
mod id;
mod judge;
mod life;
mod past;
mod resume;
mod rules;
#[cfg(test)]
mod tests;
mod top;
mod window;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use dunlin_shared::id::{FrameId, NodeId};
use dunlin_shared::rule::{Known, Over, Rule, Scope, Source};
use dunlin_shared::sample::Reading;
use dunlin_shared::time::MonoMs;

pub use id::AlertId;
pub use life::{Alert, AlertState, Now, Resolution};
pub use past::{Past, Reach, Slot};
pub use resume::RestoredNode;
pub use top::Top;
pub use window::REMEMBERED_MS;

use self::bind::{Bound, Here, KnownRow};
use self::book::{Book, end};
use self::judge::Looked;
use self::life::FLAPS_WITHIN_MS;
use self::rules::{Rules, is_of_inventory};
use self::window::Measured;
use super::state::NodeState;
use crate::record::NodeKey;

/// How often what fired long ago is forgotten.
const FORGET_EVERY_MS: u64 = 60_000;

/// What became of an alert.
#[derive(Clone, Debug, PartialEq)]
pub enum AlertChange {
    Pending(Alert),
    /// It did not hold for long enough, and nobody was told.
    Dropped(AlertId),
    Fired(Alert, Box<Top>),
    /// It comes and goes: from now on it stays open until it is quiet.
    Flaps(Alert),
    /// It fires, and holds no more or holds again. Nobody is told, but a restart has to know since when.
    Turned(Alert),
    Resolved(Alert),
    /// Its rule has another text.
    Reworded(Alert),
}

/// What an alert is on: a rule, a node and a subject.
type Named = (Box<str>, Option<NodeKey>, Arc<str>);

#[derive(Debug, Default)]
pub struct Alerts {
    rules: Rules,
    books: Vec<Option<Box<Book>>>,
    /// Of the fleet and of the collector.
    whole: Book,
    /// When what is about states is to be looked at again.
    due: BTreeSet<(MonoMs, Option<NodeKey>)>,
    /// When what is resolved fired of late.
    fired: HashMap<Named, Vec<MonoMs>>,
    forgot: MonoMs,
    /// Functions over long times, by what they are of, while what was before the start is on its way to them.
    awaited: Option<HashMap<Source, Vec<Over>>>,
}

impl AlertChange {
    /// The kind of event by which the feed tells it; `None` for what nobody is to hear of.
    #[must_use]
    pub const fn event(&self) -> Option<&'static str> {
        match self {
            Self::Fired(..) => Some("alert.firing"),
            Self::Flaps(_) => Some("alert.flapping"),
            Self::Resolved(_) => Some("alert.resolved"),
            Self::Pending(_) | Self::Dropped(_) | Self::Turned(_) | Self::Reworded(_) => None,
        }
    }
}

impl Alerts {
    /// Another set of rules. What it opened and does not open any more is closed.
    pub fn set_rules(&mut self, now: Now, rules: impl IntoIterator<Item = Arc<Rule>>) -> Vec<AlertChange> {
        let mut changes = Vec::new();
        let before = std::mem::replace(&mut self.rules, Rules::new(rules));
        let keys: Vec<_> = self.keys().collect();
        for of in keys {
            let Some(mut book) = self.take(of) else { continue };
            book.is_stale = true;
            // Items name rules by their places, which are others now.
            book.renumber(&before, &self.rules);
            let mut is_open = false;
            for mut alert in std::mem::take(&mut book.open) {
                match self.rules.by_name(&alert.rule.name) {
                    None => end(alert, now, Resolution::RuleRemoved, &mut changes),
                    Some((_, rule)) => {
                        let is_other = !rule.judges_like(&alert.rule);
                        if *rule != alert.rule {
                            alert.rule = Arc::clone(rule);
                            if !is_other {
                                changes.push(AlertChange::Reworded(alert.clone()));
                            }
                        }
                        is_open |= is_other;
                        book.open.push(alert);
                    }
                }
            }
            if is_open {
                book.close_strays(now, &mut changes);
                self.look(of, &mut book, now, Looked::All, &mut changes);
            } else {
                self.look(of, &mut book, now, Looked::State, &mut changes);
            }
            self.put(of, book);
        }
        changes
    }

    /// Whether any rule asks for it: what nobody asks for need not be told.
    #[must_use]
    pub fn reads(&self, known: Known) -> bool {
        self.rules.reads(known)
    }

    pub fn rules(&self) -> impl Iterator<Item = &Arc<Rule>> {
        self.rules.iter()
    }

    /// Who a node is, and what it is labelled with; said again it changes nothing.
    pub fn introduce(
        &mut self,
        now: Now,
        node: NodeKey,
        id: NodeId,
        labels: &Arc<BTreeMap<String, String>>,
    ) -> Vec<AlertChange> {
        let mut changes = Vec::new();
        let mut book = self.take(Some(node)).unwrap_or_default();
        book.id = Some(id);
        if *book.labels != **labels {
            book.labels = Arc::clone(labels);
            book.is_stale = true;
            book.close_strays(now, &mut changes);
            self.look(Some(node), &mut book, now, Looked::State, &mut changes);
        }
        self.put(Some(node), book);
        changes
    }

    /// Who a node is, before it is introduced.
    pub fn identify(&mut self, node: NodeKey, id: NodeId) {
        let mut book = self.take(Some(node)).unwrap_or_default();
        book.id = Some(id);
        self.put(Some(node), book);
    }

    /// A frame of values came on the live lane, newer than all before it.
    pub fn frame(&mut self, now: Now, node: NodeKey, id: FrameId, reading: &Arc<Reading>) -> Vec<AlertChange> {
        let mut changes = Vec::new();
        let Some(mut book) = self.take(Some(node)) else { return changes };
        book.newest = Some(id);
        let before = book.latest.replace((id, Arc::clone(reading)));
        self.bind(&mut book, now.ran, false);
        if let Some(bound) = &mut book.bound {
            let came = Measured { value: 0.0, epoch: id.epoch, mono: reading.mono, ran: now.ran };
            bound.push(Some(reading), &book.known, (came, false));
        }
        let before = before.filter(|(before, _)| before.epoch == id.epoch).map(|(_, reading)| reading);
        self.judge(Some(node), &mut book, now, (Looked::All, before.as_deref()), &mut changes);
        self.put(Some(node), book);
        changes
    }

    /// The node is shown in another state.
    pub fn state(&mut self, now: Now, node: NodeKey, state: NodeState) -> Vec<AlertChange> {
        let mut changes = Vec::new();
        let mut book = self.take(Some(node)).unwrap_or_default();
        let was_heard = std::mem::replace(&mut book.state, state).is_heard();
        book.is_retired &= !state.is_heard();
        if state.is_gone() {
            book.open.drain(..).for_each(|alert| end(alert, now, Resolution::NodeGone, &mut changes));
        }
        if !was_heard && state.is_heard() {
            book.open.iter_mut().for_each(|alert| alert.seen = now.ran);
        }
        if matches!(state, NodeState::Down | NodeState::Stopped) {
            book.drop_pending(&mut changes);
        }
        book.know_state();
        self.look(Some(node), &mut book, now, Looked::State, &mut changes);
        self.put(Some(node), book);
        changes
    }

    /// A session of the node began, and its clock is off by so much.
    pub fn skew(&mut self, now: Now, node: NodeKey, seconds: f64) -> Vec<AlertChange> {
        self.tell(now, Some(node), &[("host", Known::NodeSkewSeconds, seconds)])
    }

    /// What stands on a node, as far as rules read it; all of it. What is not among it is gone.
    pub fn inventory(&mut self, now: Now, node: NodeKey, rows: Vec<(Arc<str>, Known, f64)>) -> Vec<AlertChange> {
        let mut changes = Vec::new();
        let mut book = self.take(Some(node)).unwrap_or_default();
        let kept = book.known.iter().filter(|row| row.known.scope() == Scope::Node).cloned();
        let told = rows.into_iter().map(|(subject, known, value)| KnownRow { subject, known, value });
        let known: Vec<_> = kept.chain(told).collect();
        if known != book.known {
            book.known = known;
            book.is_stale = true;
            let has = |subject: &str| book.known.iter().any(|row| *row.subject == *subject);
            let is_gone = |alert: &Alert| is_of_inventory(&alert.rule) && !has(&alert.subject);
            let (gone, open): (Vec<_>, Vec<_>) = std::mem::take(&mut book.open).into_iter().partition(is_gone);
            book.open = open;
            gone.into_iter().for_each(|alert| end(alert, now, Resolution::Gone, &mut changes));
            self.look(Some(node), &mut book, now, Looked::All, &mut changes);
        }
        self.put(Some(node), book);
        changes
    }

    /// What is known of the fleet and of the collector itself.
    pub fn whole(&mut self, now: Now, rows: &[(&str, Known, f64)]) -> Vec<AlertChange> {
        self.tell(now, None, rows)
    }

    /// Time passed.
    pub fn tick(&mut self, now: Now) -> Vec<AlertChange> {
        let mut changes = Vec::new();
        while let Some((_, of)) = self.due.first().copied().filter(|(due, _)| *due <= now.ran) {
            self.due.pop_first();
            let Some(mut book) = self.take(of) else { continue };
            self.look(of, &mut book, now, Looked::State, &mut changes);
            self.put(of, book);
        }
        if now.ran.since(self.forgot) >= FORGET_EVERY_MS {
            self.forgot = now.ran;
            self.fired.retain(|_, fires| fires.last().is_some_and(|fired| now.ran.since(*fired) < FLAPS_WITHIN_MS));
        }
        changes
    }

    /// The node is taken for gone, and may come back all the same.
    pub fn retire(&mut self, now: Now, node: NodeKey) -> Vec<AlertChange> {
        let mut changes = Vec::new();
        if let Some(mut book) = self.take(Some(node)) {
            book.open.drain(..).for_each(|alert| end(alert, now, Resolution::NodeGone, &mut changes));
            book.is_retired = true;
            self.put(Some(node), book);
        }
        changes
    }

    /// The node leaves for good.
    pub fn forget(&mut self, now: Now, node: NodeKey) -> Vec<AlertChange> {
        let changes = self.retire(now, node);
        drop(self.take(Some(node)));
        changes
    }

    /// An alert that is open on this node, or on the fleet or the collector.
    #[must_use]
    pub fn one(&self, of: Option<NodeKey>, id: AlertId) -> Option<&Alert> {
        let book = match of {
            None => &self.whole,
            Some(node) => self.books.get(node.0 as usize)?.as_deref()?,
        };
        book.open.iter().find(|alert| alert.id == id)
    }

    /// Every alert that is open.
    pub fn open(&self) -> impl Iterator<Item = &Alert> {
        self.books.iter().flatten().map(|book| &**book).chain([&self.whole]).flat_map(|book| &book.open)
    }

    fn tell(&mut self, now: Now, of: Option<NodeKey>, rows: &[(&str, Known, f64)]) -> Vec<AlertChange> {
        let mut changes = Vec::new();
        let mut book = self.take(of).unwrap_or_default();
        for (subject, known, value) in rows {
            book.know(subject, *known, *value);
        }
        let looked = if of.is_none() { Looked::All } else { Looked::State };
        if of.is_none() {
            self.bind(&mut book, now.ran, true);
            let came = Measured { value: 0.0, epoch: FrameId::new(0, 0).epoch, mono: now.ran, ran: now.ran };
            if let Some(bound) = &mut book.bound {
                bound.push(None, &book.known, (came, false));
            }
        }
        self.look(of, &mut book, now, looked, &mut changes);
        self.put(of, book);
        changes
    }

    fn keys(&self) -> impl Iterator<Item = Option<NodeKey>> + use<> {
        let nodes: Vec<_> =
            (0..).map(NodeKey).zip(&self.books).filter(|(_, book)| book.is_some()).map(|(key, _)| Some(key)).collect();
        nodes.into_iter().chain([None])
    }

    /// A book is out of its place while it is written in.
    fn take(&mut self, of: Option<NodeKey>) -> Option<Box<Book>> {
        match of {
            None => Some(Box::new(std::mem::take(&mut self.whole))),
            Some(node) => self.books.get_mut(node.0 as usize)?.take(),
        }
    }

    fn put(&mut self, of: Option<NodeKey>, book: Box<Book>) {
        match of {
            None => self.whole = *book,
            Some(node) => {
                let place = node.0 as usize;
                if place >= self.books.len() {
                    self.books.resize_with(place + 1, || None);
                }
                self.books[place] = Some(book);
            }
        }
    }

    fn bind(&self, book: &mut Book, ran: MonoMs, is_whole: bool) {
        let layout = book.latest.as_ref().map(|(_, reading)| Arc::clone(&reading.layout));
        let layout = layout.unwrap_or_default();
        if !book.is_stale
            && let Some(bound) = &mut book.bound
            && (Arc::ptr_eq(&bound.layout, &layout) || bound.layout == layout)
        {
            // Frames of one group share it: the next is told by its place, and the one before is kept no longer.
            bound.layout = layout;
            return;
        }
        // Windows of a node that was silent wait for its first frame.
        let awaited = if book.latest.is_some() { std::mem::take(&mut book.awaited) } else { Vec::new() };
        let before = (book.bound.take(), awaited);
        let here = Here { rules: &self.rules, labels: &book.labels, known: &book.known, is_whole, now: ran };
        book.bound = Some(Bound::new(here, layout, before));
        book.is_stale = false;
    }
}
