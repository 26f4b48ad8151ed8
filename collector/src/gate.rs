//! Who may send: what the uplink asks at every handshake and Hello, who is to be sent away now, and who is to tell anew.
//!
//! The pipeline writes it after its commit; the uplink reads it without waiting. A lock is held for a
//! look-up alone.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError, RwLock};

use dunlin_shared::id::NodeId;
use dunlin_shared::wire::CloseCode;
use tokio::sync::Notify;

use crate::registry::{Admission, KeyHash};

#[derive(Debug, Default)]
pub struct Gate {
    entries: RwLock<HashMap<NodeId, Entry>>,
    evicted: Mutex<Vec<(NodeId, CloseCode)>>,
    /// Each once, until it is taken.
    asked: Mutex<BTreeSet<NodeId>>,
    rung: Notify,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// `None` while nobody knows its key: it is held then.
    pub key: Option<KeyHash>,
    pub admission: Admission,
    /// Machines that said to be this node while another one was.
    pub quarantined: Box<[[u8; 16]]>,
}

/// What becomes of a Hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Enter,
    Close(CloseCode),
    /// Nobody here knows it: the registry has to hear of it, and it is closed.
    Stranger,
}

impl Gate {
    /// `key` is that of the certificate which TLS has verified.
    #[must_use]
    pub fn judge(&self, node: NodeId, key: &KeyHash, boot_id: &[u8; 16]) -> Verdict {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        let Some(entry) = entries.get(&node) else { return Verdict::Stranger };
        match entry.bars(key) {
            Some(code) => Verdict::Close(code),
            None if entry.quarantined.contains(boot_id) => Verdict::Close(CloseCode::Quarantined),
            None => Verdict::Enter,
        }
    }

    /// What speaks against a node whatever it may say. Nothing does against a stranger: its Hello is wanted.
    #[must_use]
    pub fn bars(&self, node: NodeId, key: &KeyHash) -> Option<CloseCode> {
        self.entries.read().unwrap_or_else(PoisonError::into_inner).get(&node)?.bars(key)
    }

    /// What is now so of these nodes; `None` when a node is not known any more.
    pub fn set(&self, entries: impl IntoIterator<Item = (NodeId, Option<Entry>)>) {
        let mut known = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        for (node, entry) in entries {
            match entry {
                Some(entry) => known.insert(node, entry),
                None => known.remove(&node),
            };
        }
    }

    /// Its live session, if it has one, is to be closed.
    pub fn evict(&self, node: NodeId, code: CloseCode) {
        self.evicted.lock().unwrap_or_else(PoisonError::into_inner).push((node, code));
        self.rung.notify_one();
    }

    /// Its live session, if it has one, is to tell the whole of its inventory.
    pub fn ask_inventory(&self, node: NodeId) {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).insert(node);
        self.rung.notify_one();
    }

    /// Resolves once after any number of evictions and questions.
    pub async fn rung(&self) {
        self.rung.notified().await;
    }

    #[must_use]
    pub fn take_evicted(&self) -> Vec<(NodeId, CloseCode)> {
        std::mem::take(&mut *self.evicted.lock().unwrap_or_else(PoisonError::into_inner))
    }

    #[must_use]
    pub fn take_asked(&self) -> BTreeSet<NodeId> {
        std::mem::take(&mut *self.asked.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Entry {
    fn bars(&self, key: &KeyHash) -> Option<CloseCode> {
        match (self.key, self.admission) {
            (_, Admission::Revoked) => Some(CloseCode::Revoked),
            (Some(known), _) if known != *key => Some(CloseCode::NotEnrolled),
            (None, _) | (_, Admission::Pending | Admission::Held) => Some(CloseCode::NotApproved),
            (Some(_), Admission::Approved) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: NodeId = NodeId::from_bytes([7; 16]);
    const KEY: KeyHash = KeyHash([1; 32]);

    fn judged(admission: Admission, key: Option<KeyHash>, quarantined: &[[u8; 16]]) -> Verdict {
        let gate = Gate::default();
        gate.set([(NODE, Some(Entry { key, admission, quarantined: quarantined.into() }))]);
        gate.judge(NODE, &KEY, &[9; 16])
    }

    #[test]
    fn only_an_approved_node_with_its_own_key_enters() {
        let close = Verdict::Close;
        assert_eq!(judged(Admission::Approved, Some(KEY), &[]), Verdict::Enter);
        assert_eq!(judged(Admission::Approved, Some(KEY), &[[8; 16]]), Verdict::Enter);
        assert_eq!(judged(Admission::Approved, Some(KEY), &[[9; 16]]), close(CloseCode::Quarantined));
        assert_eq!(judged(Admission::Approved, Some(KeyHash([2; 32])), &[]), close(CloseCode::NotEnrolled));
        assert_eq!(judged(Admission::Revoked, Some(KEY), &[]), close(CloseCode::Revoked));
        assert_eq!(judged(Admission::Pending, Some(KEY), &[]), close(CloseCode::NotApproved));
        assert_eq!(judged(Admission::Held, None, &[]), close(CloseCode::NotApproved));
        assert_eq!(Gate::default().judge(NODE, &KEY, &[9; 16]), Verdict::Stranger);
    }

    #[test]
    fn what_its_certificate_alone_speaks_against_is_told_before_its_hello() {
        let gate = Gate::default();
        assert_eq!(gate.bars(NODE, &KEY), None, "a stranger is heard");
        for (admission, quarantined, barred) in [
            (Admission::Approved, &[[9; 16]][..], None),
            (Admission::Revoked, &[], Some(CloseCode::Revoked)),
            (Admission::Pending, &[], Some(CloseCode::NotApproved)),
        ] {
            gate.set([(NODE, Some(Entry { key: Some(KEY), admission, quarantined: quarantined.into() }))]);
            assert_eq!(gate.bars(NODE, &KEY), barred);
        }
    }

    #[test]
    fn a_node_that_is_forgotten_is_a_stranger() {
        let gate = Gate::default();
        let entry = Entry { key: Some(KEY), admission: Admission::Approved, quarantined: Box::default() };
        gate.set([(NODE, Some(entry))]);
        gate.set([(NODE, None)]);
        assert_eq!(gate.judge(NODE, &KEY, &[9; 16]), Verdict::Stranger);
    }
}
