//! What people, programs and joining agents ask for, and what they are told. Plain data.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use dunlin_shared::id::NodeId;
use dunlin_shared::limits::JOIN_TOKEN_SECRET_BYTES;
use dunlin_shared::time::WallMs;
use dunlin_shared::wire::join::JoinReason;
use thiserror::Error;

/// The SHA-256 of a key's SubjectPublicKeyInfo, to which a node is pinned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyHash(pub [u8; 32]);

/// The SHA-256 of a token's secret: all that is kept of it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SecretHash(pub [u8; 32]);

/// What names a token without giving it away; never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenId(pub u64);

pub type Labels = BTreeMap<String, String>;

/// Whether all of `wanted` are among `labels`, each with its value: none are wanted of everybody.
#[must_use]
pub fn bears_all(labels: &Labels, wanted: &Labels) -> bool {
    wanted.iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// What the bearer of a token may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Enrols nodes, and nothing else.
    Join,
    /// Registers and beats its own services, and nothing else.
    Service,
    /// Reads.
    Viewer,
    /// Also acknowledges, silences, applies rules and expectations, and plans downtime.
    Operator,
    Admin,
}

/// Whether a node may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Admission {
    Approved,
    /// Its token asks for a person's approval.
    Pending,
    /// It has our certificate, and what we restored does not know it.
    Held,
    Revoked,
}

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    /// A token's name, `root` on the admin socket, `collector` for itself, a node's name.
    pub name: String,
    pub token: Option<TokenId>,
    pub from: Option<IpAddr>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    Join(JoinWish),
    /// A node with our certificate that nobody here knows said Hello.
    Stranger {
        node: NodeId,
        key: KeyHash,
        name: String,
    },
    /// Two machines say that they are this node: the later one may not.
    Quarantine {
        node: NodeId,
        boot_id: [u8; 16],
        name: String,
    },
    /// Somebody asked for what is not done, so often since the last line about it.
    NoteRefused {
        action: String,
        target: String,
        why: String,
        times: u64,
    },
    CreateToken(TokenWish),
    DeleteToken(TokenId),
    Revoke {
        node: NodeId,
        why: String,
    },
    Approve(NodeId),
    /// Those of them that still wait, and wait for this.
    ApproveAll {
        nodes: Vec<NodeId>,
        waits: Admission,
        /// How they were chosen, for the log.
        detail: String,
    },
    /// Lifts the quarantine of every machine that said to be this node; who is live now has to go.
    Adopt(NodeId),
    /// An operator's labels; `None` takes one away.
    Label {
        node: NodeId,
        labels: BTreeMap<String, Option<String>>,
    },
    Maintain {
        node: NodeId,
        until: Option<WallMs>,
        /// For the feed and the log.
        reason: String,
    },
    EndMaintenance(NodeId),
    /// Revokes and hides: it comes back as a new node, and only with a token.
    Forget(NodeId),
    /// Something was done outside of the registry, such as a turn of the authority.
    Note {
        action: String,
        target: String,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinWish {
    pub key: KeyHash,
    pub token: Option<SecretHash>,
    pub name: String,
    pub version: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenWish {
    pub role: Role,
    pub name: String,
    /// How many nodes may join by it; `None` is any number.
    pub uses: Option<u32>,
    pub expires: Option<WallMs>,
    /// What nodes that join by it will bear, or what the bearer is limited to.
    pub labels: Labels,
    /// Nodes that join by it wait for a person.
    pub needs_approval: bool,
    /// How many nodes may join by it within an hour.
    pub per_hour: Option<u32>,
    /// Nodes that join by it are forgotten soon after they are gone.
    pub is_ephemeral: bool,
}

#[derive(Clone, PartialEq, Eq)]
pub enum Answer {
    Done,
    /// So many.
    Approved(usize),
    Joined {
        node: NodeId,
        is_approved: bool,
    },
    /// The only time that the secret is known.
    Token {
        id: TokenId,
        secret: [u8; JOIN_TOKEN_SECRET_BYTES],
    },
}

/// Why an order is not carried out; the text is for whoever gave it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Refused {
    #[error("there is no {0}")]
    NotFound(String),
    #[error("{0}")]
    Conflict(String),
    #[error("{0}")]
    Invalid(String),
    #[error("the join is refused: {}", reason.as_str())]
    Join { reason: JoinReason, retry_after_ms: u32 },
    #[error("it cannot be stored at the moment: {0}")]
    NotNow(String),
    #[error("the collector is being stopped")]
    Stopping,
}

impl Role {
    pub const ALL: [Self; 5] = [Self::Join, Self::Service, Self::Viewer, Self::Operator, Self::Admin];

    /// In the API, on the command line and in `control.db`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Join => "join",
            Self::Service => "service",
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }

    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == text)
    }

    /// Whether it may do what the other may. Joining and serving are apart from all else.
    #[must_use]
    pub fn covers(self, needed: Self) -> bool {
        match needed {
            Self::Join | Self::Service => self == needed || self == Self::Admin,
            Self::Viewer | Self::Operator | Self::Admin => self >= needed,
        }
    }
}

impl Admission {
    pub const ALL: [Self; 4] = [Self::Approved, Self::Pending, Self::Held, Self::Revoked];

    /// In `control.db`; a node's state in the API, unless it is approved.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Approved => "approved",
            Self::Pending => "pending",
            Self::Held => "held",
            Self::Revoked => "revoked",
        }
    }

    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|admission| admission.as_str() == text)
    }
}

impl Actor {
    /// The collector itself.
    #[must_use]
    pub fn collector() -> Self {
        Self { name: String::from("collector"), token: None, from: None }
    }
}

/// A secret's hash helps nobody, and still it stands in no log.
impl fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretHash")
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done => f.write_str("Done"),
            Self::Approved(count) => write!(f, "Approved({count})"),
            Self::Joined { node, is_approved } => write!(f, "Joined({node}, {is_approved})"),
            Self::Token { id, .. } => write!(f, "Token({id:?})"),
        }
    }
}

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "t{}", self.0)
    }
}

impl std::str::FromStr for TokenId {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        let number = text.strip_prefix('t').and_then(|digits| digits.parse().ok());
        number.map(Self).ok_or_else(|| Refused::NotFound(format!("token {text:?}; one is named like t12")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_covers_itself_and_what_is_below_it() {
        for role in Role::ALL {
            assert!(role.covers(role) && Role::Admin.covers(role));
            assert_eq!(Role::parse(role.as_str()), Some(role));
        }
        assert!(Role::Operator.covers(Role::Viewer) && !Role::Viewer.covers(Role::Operator));
        for apart in [Role::Join, Role::Service] {
            assert!(!apart.covers(Role::Viewer) && !Role::Operator.covers(apart));
        }
    }

    #[test]
    fn every_wanted_label_must_be_borne_with_its_value() {
        let labels = |pairs: &[(&str, &str)]| -> Labels {
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        let own = labels(&[("env", "prod"), ("tenant", "a")]);
        assert!(bears_all(&own, &labels(&[])) && bears_all(&own, &labels(&[("tenant", "a")])) && bears_all(&own, &own));
        assert!(!bears_all(&own, &labels(&[("tenant", "b")])), "another value");
        assert!(!bears_all(&own, &labels(&[("env", "prod"), ("role", "db")])), "one that it has not");
    }

    #[test]
    fn an_answer_does_not_print_its_secret() {
        let answer = Answer::Token { id: TokenId(3), secret: [9; JOIN_TOKEN_SECRET_BYTES] };
        assert_eq!(format!("{answer:?}"), "Token(TokenId(3))");
    }
}
