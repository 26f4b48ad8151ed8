//! What stands on a node, sent on change and journalled like a frame.
//!
//! For now the facts of the host. An enum that grows at its end: containers, ports, process groups
//! and units take further variants, and an old collector keeps the bytes that it cannot read.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::limits::{
    FACT_BYTES_MAX, HOST_NAME_BYTES_MAX, LABEL_KEY_BYTES_MAX, LABEL_VALUE_BYTES_MAX, LABELS_MAX, VERSION_BYTES_MAX,
};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Inventory {
    Facts(Facts),
}

/// What a host is. Nothing here is trusted as identity.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    pub host_name: String,
    pub agent_version: String,
    pub os: String,
    pub kernel: String,
    pub architecture: String,
    pub cpus: u16,
    pub memory_bytes: u64,
    pub boot_id: [u8; 16],
    /// What the agent's own configuration says of the node, by key.
    pub labels: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum InventoryError {
    #[error("the inventory cannot be decoded")]
    Malformed,
    #[error("{field} has {bytes} bytes, {max} are allowed")]
    TooLong { field: &'static str, bytes: usize, max: usize },
    #[error("{0} labels, {LABELS_MAX} are allowed")]
    TooManyLabels(usize),
}

impl Inventory {
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        postcard::to_stdvec(self).expect("plain data serialises into a growing buffer")
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, InventoryError> {
        let (inventory, rest) = postcard::take_from_bytes(bytes).map_err(|_| InventoryError::Malformed)?;
        if !rest.is_empty() {
            return Err(InventoryError::Malformed);
        }
        let Self::Facts(facts) = &inventory;
        facts.check()?;
        Ok(inventory)
    }
}

impl Facts {
    fn check(&self) -> Result<(), InventoryError> {
        let fields = [
            ("host_name", &self.host_name, HOST_NAME_BYTES_MAX),
            ("agent_version", &self.agent_version, VERSION_BYTES_MAX),
            ("os", &self.os, FACT_BYTES_MAX),
            ("kernel", &self.kernel, FACT_BYTES_MAX),
            ("architecture", &self.architecture, FACT_BYTES_MAX),
        ];
        for (field, text, max) in fields {
            if text.len() > max {
                return Err(InventoryError::TooLong { field, bytes: text.len(), max });
            }
        }
        if self.labels.len() > LABELS_MAX {
            return Err(InventoryError::TooManyLabels(self.labels.len()));
        }
        for (key, value) in &self.labels {
            for (field, text, max) in [("a label", key, LABEL_KEY_BYTES_MAX), ("a label", value, LABEL_VALUE_BYTES_MAX)]
            {
                if text.len() > max {
                    return Err(InventoryError::TooLong { field, bytes: text.len(), max });
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_field_above_its_limit_is_refused_by_name() {
        let facts = Facts { kernel: "k".repeat(300), ..Facts::default() };
        let error = Inventory::decode(&Inventory::Facts(facts).encode()).expect_err("too long");
        assert_eq!(error, InventoryError::TooLong { field: "kernel", bytes: 300, max: FACT_BYTES_MAX });
    }

    #[test]
    fn bytes_after_the_end_are_refused() {
        let mut bytes = Inventory::Facts(Facts::default()).encode();
        bytes.push(0);
        assert_eq!(Inventory::decode(&bytes), Err(InventoryError::Malformed));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            if let Ok(inventory) = Inventory::decode(&bytes) {
                prop_assert_eq!(Inventory::decode(&inventory.encode()), Ok(inventory));
            }
        }
    }
}
