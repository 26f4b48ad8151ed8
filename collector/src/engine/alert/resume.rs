//! What `control.db` and the log have of alerts, put back at a start.
//!
//! While it is put back nothing is judged: what it came to was told before the restart, and what was not told follows when
//! the log is replayed. Only when all of it is there, `resume` looks at it once, for rules may be others now.

use std::collections::BTreeMap;
use std::sync::Arc;

use dunlin_shared::id::{FrameId, NodeId};
use dunlin_shared::rule::Known;
use dunlin_shared::sample::Reading;
use dunlin_shared::time::MonoMs;

use super::judge::Looked;
use super::rules::is_of_state;
use super::window::Measured;
use super::{Alert, AlertChange, Alerts, Now};
use crate::engine::state::NodeState;
use crate::record::NodeKey;

/// A node as it was when the collector stopped.
#[derive(Clone, Debug)]
pub struct RestoredNode {
    pub id: NodeId,
    pub labels: Arc<BTreeMap<String, String>>,
    /// `None` when it was never heard.
    pub state: Option<NodeState>,
    pub is_retired: bool,
    /// Its newest frame of values, by which alerts are named that no frame began.
    pub newest: Option<FrameId>,
    pub skew_seconds: Option<f64>,
}

impl Alerts {
    pub fn restore_node(&mut self, node: NodeKey, restored: RestoredNode) {
        let mut book = self.take(Some(node)).unwrap_or_default();
        book.id = Some(restored.id);
        book.labels = restored.labels;
        book.is_retired = restored.is_retired;
        book.newest = restored.newest;
        book.is_stale = true;
        if let Some(state) = restored.state {
            book.state = state;
            book.know_state();
        }
        if let Some(seconds) = restored.skew_seconds {
            book.know("host", Known::NodeSkewSeconds, seconds);
        }
        self.put(Some(node), book);
    }

    /// An alert as it was. It may take its time to be seen again.
    pub fn restore(&mut self, now: MonoMs, mut alert: Alert) {
        let of = alert.node;
        alert.seen = now;
        let mut book = self.take(of).unwrap_or_default();
        if let Some(due) = alert.next_look().filter(|_| of.is_none() || is_of_state(&alert.rule)) {
            self.due.insert((due, of));
        }
        book.open.push(alert);
        self.put(of, book);
    }

    /// When one fired that was resolved then; of the same rule and subject the last word counts.
    pub fn restore_fires(&mut self, rule: &str, node: Option<NodeKey>, subject: &str, fires: Vec<MonoMs>) {
        let key = (rule.into(), node, subject.into());
        if fires.is_empty() {
            self.fired.remove(&key);
        } else {
            self.fired.insert(key, fires);
        }
    }

    /// A frame that was judged: what functions remember goes on. Of one that is rolled up long windows hear otherwise.
    pub fn remember(
        &mut self,
        ran: MonoMs,
        node: NodeKey,
        (id, is_rolled_up): (FrameId, bool),
        reading: &Arc<Reading>,
    ) {
        let Some(mut book) = self.take(Some(node)) else { return };
        book.newest = book.newest.max(Some(id));
        book.latest = Some((id, Arc::clone(reading)));
        self.bind(&mut book, ran, false);
        if let Some(bound) = &mut book.bound {
            let came = Measured { value: 0.0, epoch: id.epoch, mono: reading.mono, ran };
            bound.push(Some(reading), &book.known, (came, is_rolled_up));
        }
        self.put(Some(node), book);
    }

    /// Everything is as it was. What rules that are others since then make of it.
    pub fn resume(&mut self, now: Now) -> Vec<AlertChange> {
        let mut changes = Vec::new();
        let keys: Vec<_> = self.keys().collect();
        for of in keys {
            let Some(mut book) = self.take(of) else { continue };
            book.close_strays(now, &mut changes);
            self.look(of, &mut book, now, Looked::State, &mut changes);
            self.put(of, book);
        }
        changes
    }
}
