//! The facts of a host: what it is, as far as it says. Nothing here is trusted as identity.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{InventoryError, few, fits};
use crate::limits::{
    FACT_BYTES_MAX, HOST_NAME_BYTES_MAX, LABEL_KEY_BYTES_MAX, LABEL_VALUE_BYTES_MAX, LABELS_MAX, VERSION_BYTES_MAX,
};

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

impl Facts {
    pub(super) fn check(&self) -> Result<(), InventoryError> {
        fits("host_name", &self.host_name, HOST_NAME_BYTES_MAX)?;
        fits("agent_version", &self.agent_version, VERSION_BYTES_MAX)?;
        fits("os", &self.os, FACT_BYTES_MAX)?;
        fits("kernel", &self.kernel, FACT_BYTES_MAX)?;
        fits("architecture", &self.architecture, FACT_BYTES_MAX)?;
        few("labels", self.labels.len(), LABELS_MAX)?;
        for (key, value) in &self.labels {
            fits("a label", key, LABEL_KEY_BYTES_MAX)?;
            fits("a label", value, LABEL_VALUE_BYTES_MAX)?;
        }
        Ok(())
    }
}
