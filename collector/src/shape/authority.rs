//! The authority of the fleet.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Authority {
    /// What join tokens say of it; null while nobody can enrol here.
    pub pin: Option<String>,
    pub turn: AuthorityTurn,
}

/// Where a turn from one authority to the next stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AuthorityTurn {
    None,
    /// Nodes are told of the next one.
    Prepared,
    /// The next one signs; the one before is still trusted.
    Activated,
}
