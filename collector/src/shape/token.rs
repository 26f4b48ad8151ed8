//! Tokens as the API shows them: never their secret, but once.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Moment;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Token {
    /// Such as `t12`.
    pub id: String,
    #[schema(value_type = Role)]
    pub role: String,
    pub name: String,
    pub created: Moment,
    pub created_by: String,
    /// null: never.
    pub expires: Option<Moment>,
    /// How many nodes may still join by it; null: any number, or it is no join token.
    pub uses_left: Option<u32>,
    pub used: u32,
    /// When a node joined by it, or its bearer showed it; null: never.
    pub last_used: Option<Moment>,
    /// What nodes that join by it bear, or what its bearer is limited to.
    pub labels: BTreeMap<String, String>,
    /// Nodes that join by it wait for a person.
    pub needs_approval: bool,
    /// How many nodes may join by it within an hour.
    pub per_hour: Option<u32>,
    /// Nodes that join by it are forgotten soon after they are gone.
    pub ephemeral: bool,
}

/// What the bearer of a token may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    Join,
    Service,
    Viewer,
    Operator,
    Admin,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TokenPage {
    pub items: Vec<Token>,
    pub next: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenRequest {
    #[schema(value_type = Role)]
    pub role: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// How many nodes may join by it; null is any number. Join tokens alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uses: Option<u32>,
    /// How long it is good, such as `24h`; at most one of `ttl` and `expires`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Moment>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    #[serde(default)]
    pub needs_approval: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_hour: Option<u32>,
    #[serde(default)]
    pub ephemeral: bool,
}

/// The only answer that holds a secret.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TokenCreated {
    pub id: String,
    /// What its bearer shows. It is not kept and cannot be asked for again.
    pub token: String,
    #[schema(value_type = Role)]
    pub role: String,
    pub expires: Option<Moment>,
}

impl std::fmt::Debug for TokenCreated {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenCreated").field("id", &self.id).finish_non_exhaustive()
    }
}
