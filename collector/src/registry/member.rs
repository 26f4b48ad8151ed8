//! A node as the registry knows it, apart from what it sends.

use dunlin_shared::id::NodeId;
use dunlin_shared::limits::{LABEL_KEY_BYTES_MAX, LABEL_VALUE_BYTES_MAX, LABELS_MAX};
use dunlin_shared::time::WallMs;

use super::what::{Admission, KeyHash, Labels, Refused, TokenId};
/// The engine counts it down, and says when it is over.
pub use crate::engine::Maintenance;

/// Machines in quarantine that are remembered of one node; the oldest goes.
const QUARANTINED_MAX: usize = 8;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// `None` when only the log knows it.
    pub key: Option<KeyHash>,
    /// What it called itself last.
    pub name: String,
    pub admission: Admission,
    pub enrolled: WallMs,
    pub token: Option<TokenId>,
    pub token_labels: Labels,
    pub operator_labels: Labels,
    pub is_ephemeral: bool,
    /// In maintenance, until somebody ends it or until then.
    pub maintenance: Option<Maintenance>,
    pub quarantined: Vec<Machine>,
    /// Its key is free for another node, and nobody is shown this one.
    pub is_forgotten: bool,
}

/// One of several that say that they are the same node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    pub boot_id: [u8; 16],
    pub name: String,
    pub since: WallMs,
}

impl Member {
    /// One that bears nothing yet.
    #[must_use]
    pub(super) fn new(key: Option<KeyHash>, name: String, admission: Admission, enrolled: WallMs) -> Self {
        Self {
            key,
            name,
            admission,
            enrolled,
            token: None,
            token_labels: Labels::new(),
            operator_labels: Labels::new(),
            is_ephemeral: false,
            maintenance: None,
            quarantined: Vec::new(),
            is_forgotten: false,
        }
    }

    /// One that no agent stands behind, and none ever may: its series came from elsewhere.
    #[must_use]
    pub fn without_agent(name: String, enrolled: WallMs) -> Self {
        Self::new(None, name, Admission::Revoked, enrolled)
    }

    pub(super) fn quarantine(&mut self, machine: Machine) {
        self.quarantined.retain(|known| known.boot_id != machine.boot_id);
        if self.quarantined.len() == QUARANTINED_MAX {
            self.quarantined.remove(0);
        }
        self.quarantined.push(machine);
    }

    /// Operator's over token's: what policy may rest on.
    #[must_use]
    pub fn trusted_labels(&self) -> Labels {
        let mut labels = self.token_labels.clone();
        labels.extend(self.operator_labels.clone());
        labels
    }

    /// Those, over what the agent says of itself.
    #[must_use]
    pub fn labels(&self, agent: &Labels) -> Labels {
        let mut labels = agent.clone();
        labels.extend(self.trusted_labels());
        labels
    }
}

/// One set of labels, whoever gives it.
pub(super) fn check_labels(labels: &Labels) -> Result<(), Refused> {
    if labels.len() > LABELS_MAX {
        return Err(Refused::Invalid(format!("{} labels; at most {LABELS_MAX} are allowed", labels.len())));
    }
    labels.iter().try_for_each(|(key, value)| check_label(key, value))
}

pub(super) fn check_label(key: &str, value: &str) -> Result<(), Refused> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/');
    if key.is_empty() || key.len() > LABEL_KEY_BYTES_MAX || !key.chars().all(is_plain) {
        let rule = format!("1 to {LABEL_KEY_BYTES_MAX} of the characters A-Z a-z 0-9 _ - . /");
        return Err(Refused::Invalid(format!("{key:?} is no name of a label; it has {rule}")));
    }
    if value.len() > LABEL_VALUE_BYTES_MAX || value.chars().any(char::is_control) {
        let rule = format!("at most {LABEL_VALUE_BYTES_MAX} bytes and no control characters");
        return Err(Refused::Invalid(format!("the value of label {key} is not allowed; it has {rule}")));
    }
    Ok(())
}

pub(super) fn no_node(node: NodeId) -> Refused {
    Refused::NotFound(format!("node {node}"))
}
