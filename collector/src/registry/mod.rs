//! Who belongs to the fleet and who may do what: nodes' keys and admission, tokens, labels, downtime.
//!
//! Pure: an order comes in with the time and randomness, and out come an answer and what is to be
//! stored. The pipeline owns it, and reads it anew from `control.db` when that could not be stored.

mod decide;
mod member;
mod revoked;
#[cfg(test)]
mod tests;
mod token;
mod what;

use std::collections::{BTreeMap, HashMap};

use dunlin_shared::id::NodeId;
use dunlin_shared::limits::JOIN_TOKEN_SECRET_BYTES;
use dunlin_shared::time::WallMs;
use dunlin_shared::wire::CloseCode;
pub use member::{Machine, Maintenance, Member};
pub use revoked::Revocation;
pub use token::Token;
pub use what::{
    Actor, Admission, Answer, JoinWish, KeyHash, Labels, Refused, Role, SecretHash, TokenId, TokenWish, What, bears_all,
};

#[derive(Debug, Default)]
pub struct Registry {
    members: BTreeMap<NodeId, Member>,
    /// Of members that are not forgotten.
    by_key: HashMap<KeyHash, NodeId>,
    tokens: BTreeMap<TokenId, Token>,
    by_secret: HashMap<SecretHash, TokenId>,
    /// The machine and the name of each node's latest session.
    live: HashMap<NodeId, ([u8; 16], String)>,
    /// `control.db` was lost or put back: a node that it does not know may be one of ours.
    holds_strangers: bool,
}

/// Random bytes for one order, of which nothing is used twice.
#[derive(Clone, Copy)]
pub struct Luck {
    pub node: [u8; 10],
    pub secret: [u8; JOIN_TOKEN_SECRET_BYTES],
    /// The SHA-256 of `secret`.
    pub secret_hash: SecretHash,
}

/// What an order comes to.
#[derive(Debug)]
pub struct Decision {
    pub answer: Result<Answer, Refused>,
    pub changes: Vec<Change>,
    pub events: Vec<Happened>,
    pub log: Option<Done>,
    /// Whose live session is to end, and why.
    pub evicted: Vec<(NodeId, CloseCode)>,
}

/// A row as it is from now on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    Member(NodeId, Member),
    Token(TokenId, Token),
}

/// For the feed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Happened {
    pub kind: &'static str,
    pub node: NodeId,
    pub detail: Vec<(&'static str, String)>,
}

/// For the log of who did what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    pub action: String,
    pub target: String,
    pub detail: String,
    /// Why it was not done.
    pub refused: Option<String>,
    /// How often, with this line.
    pub times: u64,
}

impl Done {
    pub(crate) fn new(action: &str, target: String, detail: String) -> Self {
        Self { action: action.to_owned(), target, detail, refused: None, times: 1 }
    }
}

impl Registry {
    /// As `control.db` has it.
    #[must_use]
    pub fn restore(
        members: impl IntoIterator<Item = (NodeId, Member)>,
        tokens: impl IntoIterator<Item = (TokenId, Token)>,
        holds_strangers: bool,
    ) -> Self {
        let mut registry = Self { holds_strangers, ..Self::default() };
        members.into_iter().for_each(|(id, member)| registry.put_member(id, member));
        tokens.into_iter().for_each(|(id, token)| registry.put_token(id, token));
        registry
    }

    #[must_use]
    pub fn token(&self, id: TokenId) -> Option<&Token> {
        self.tokens.get(&id)
    }

    #[must_use]
    pub fn member(&self, node: NodeId) -> Option<&Member> {
        self.members.get(&node)
    }

    /// By id; forgotten ones too.
    pub fn members(&self) -> impl Iterator<Item = (NodeId, &Member)> {
        self.members.iter().map(|(id, member)| (*id, member))
    }

    pub fn tokens(&self) -> impl Iterator<Item = (TokenId, &Token)> {
        self.tokens.iter().map(|(id, token)| (*id, token))
    }

    /// A session of the node began: which machine it is, and what it calls itself.
    pub fn seen(&mut self, node: NodeId, boot_id: [u8; 16], name: &str) {
        self.live.insert(node, (boot_id, name.to_owned()));
        self.named(node, name);
    }

    /// What a node calls itself now. It comes with every session, so nothing has to be stored for it.
    pub fn named(&mut self, node: NodeId, name: &str) {
        if let Some(member) = self.members.get_mut(&node).filter(|member| member.name != name) {
            name.clone_into(&mut member.name);
        }
    }

    /// Takes what is stored, and keeps what sessions said.
    pub fn read_anew(&mut self, stored: Self) {
        let live = std::mem::take(&mut self.live);
        *self = stored;
        live.into_iter().for_each(|(node, (boot_id, name))| self.seen(node, boot_id, &name));
    }

    /// A token was shown.
    pub fn used(&mut self, id: TokenId, at: WallMs) {
        if let Some(token) = self.tokens.get_mut(&id) {
            token.last_used = token.last_used.max(Some(at));
        }
    }

    fn put_member(&mut self, id: NodeId, member: Member) {
        if let Some(key) = member.key {
            if !member.is_forgotten {
                self.by_key.insert(key, id);
            } else if self.by_key.get(&key) == Some(&id) {
                self.by_key.remove(&key);
            }
        }
        self.members.insert(id, member);
    }

    fn put_token(&mut self, id: TokenId, token: Token) {
        self.by_secret.insert(token.secret, id);
        self.tokens.insert(id, token);
    }
}

/// Secrets are not printed.
impl std::fmt::Debug for Luck {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Luck")
    }
}
