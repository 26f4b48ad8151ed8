//! What is said on a connection that enrols: one question on one stream, and its answer.
//!
//! The key proves itself by a signature over a secret that only the two ends of this very connection
//! know, so that nothing that was overheard or kept can be said again.

use serde::{Deserialize, Serialize};

use super::{WireError, exact, few, framed};
use crate::id::NodeId;
use crate::limits::{
    AUTHORITIES_MAX, CERTIFICATE_BYTES_MAX, CHAIN_MAX, HOST_NAME_BYTES_MAX, JOIN_TOKEN_SECRET_BYTES, PROOF_BYTES_MAX,
    PUBLIC_KEY_BYTES_MAX, VERSION_BYTES_MAX,
};

/// The label under which TLS derives what is signed (RFC 5705), without a context.
pub const PROOF_LABEL: &[u8] = b"EXPORTER-dunlin-join-1";
/// How much of it is signed, by ECDSA on P-256 with SHA-256, in ASN.1.
pub const PROOF_SECRET_BYTES: usize = 32;

/// The agent's question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum JoinRequest {
    Join(Join),
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Join {
    pub wire_min: u16,
    pub wire_max: u16,
    /// Only a key that the collector does not know needs one.
    pub token: Option<[u8; JOIN_TOKEN_SECRET_BYTES]>,
    /// The key of this agent, as SubjectPublicKeyInfo in DER.
    pub public_key: Vec<u8>,
    pub proof: Vec<u8>,
    pub name: String,
    pub agent_version: String,
}

/// The collector's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum JoinAnswer {
    Joined(Joined),
    Refused(JoinRefusal),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Joined {
    pub node: NodeId,
    /// The node's certificate, then whatever leads from it to an authority, in DER.
    pub chain: Vec<Vec<u8>>,
    /// Everything that the agent is to believe from now on.
    pub authorities: Vec<Vec<u8>>,
    /// Otherwise a person must approve the node first.
    pub is_approved: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinRefusal {
    pub reason: JoinReason,
    /// 0 when it is the agent's to choose.
    pub retry_after_ms: u32,
}

/// Why a join is refused. Grows at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum JoinReason {
    /// The key is unknown and there was no token.
    NoToken,
    UnknownToken,
    ExpiredToken,
    UsedUpToken,
    /// The token was taken back.
    RevokedToken,
    /// The node of this key was revoked.
    RevokedNode,
    /// The signature is not of this key or not of this connection.
    BadProof,
    /// No version that both know.
    Version,
    /// Too many tries from there, or too many nodes by this token within the hour.
    TooMany,
    /// The collector cannot store it at the moment.
    NotNow,
}

impl JoinReason {
    pub const ALL: [Self; 10] = [
        Self::NoToken,
        Self::UnknownToken,
        Self::ExpiredToken,
        Self::UsedUpToken,
        Self::RevokedToken,
        Self::RevokedNode,
        Self::BadProof,
        Self::Version,
        Self::TooMany,
        Self::NotNow,
    ];

    /// In `/metrics`, in the log of who did what, and in a log line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoToken => "no_token",
            Self::UnknownToken => "unknown_token",
            Self::ExpiredToken => "expired_token",
            Self::UsedUpToken => "used_up_token",
            Self::RevokedToken => "revoked_token",
            Self::RevokedNode => "revoked_node",
            Self::BadProof => "bad_proof",
            Self::Version => "version",
            Self::TooMany => "too_many",
            Self::NotNow => "not_now",
        }
    }
}

impl JoinRequest {
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        framed(self)
    }

    pub fn decode(body: &[u8]) -> Result<Self, WireError> {
        let request = exact(body, "a join")?;
        let Self::Join(join) = &request;
        few("bytes of a public key", join.public_key.len(), PUBLIC_KEY_BYTES_MAX)?;
        few("bytes of a proof", join.proof.len(), PROOF_BYTES_MAX)?;
        few("bytes of a name", join.name.len(), HOST_NAME_BYTES_MAX)?;
        few("bytes of a version", join.agent_version.len(), VERSION_BYTES_MAX)?;
        Ok(request)
    }
}

impl JoinAnswer {
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        framed(self)
    }

    pub fn decode(body: &[u8]) -> Result<Self, WireError> {
        let answer = exact(body, "the answer to a join")?;
        if let Self::Joined(joined) = &answer {
            check_chain(&joined.chain)?;
            few("authorities", joined.authorities.len(), AUTHORITIES_MAX)?;
            joined.authorities.iter().try_for_each(|der| few("bytes", der.len(), CERTIFICATE_BYTES_MAX))?;
        }
        Ok(answer)
    }
}

/// A certificate and those that lead to an authority.
pub(super) fn check_chain(chain: &[Vec<u8>]) -> Result<(), WireError> {
    if chain.is_empty() {
        return Err(WireError::Malformed("a chain without a certificate"));
    }
    few("certificates", chain.len(), CHAIN_MAX)?;
    chain.iter().try_for_each(|der| few("bytes of a certificate", der.len(), CERTIFICATE_BYTES_MAX))
}

/// A token is a secret: it is never printed.
impl std::fmt::Debug for Join {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { name, agent_version, token, .. } = self;
        f.debug_struct("Join")
            .field("name", name)
            .field("agent_version", agent_version)
            .field("has_token", &token.is_some())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::Deframer;

    fn join() -> Join {
        Join {
            wire_min: 1,
            wire_max: 1,
            token: Some([7; JOIN_TOKEN_SECRET_BYTES]),
            public_key: vec![1; 91],
            proof: vec![2; 71],
            name: String::from("web-1"),
            agent_version: String::from("0.1.0"),
        }
    }

    fn body(framed: &[u8]) -> Vec<u8> {
        let mut deframer = Deframer::default();
        deframer.push(framed);
        deframer.next_message().expect("it is short enough").expect("it is whole").to_vec()
    }

    #[test]
    fn a_join_and_its_answers_come_through_whole() {
        let request = JoinRequest::Join(join());
        assert_eq!(JoinRequest::decode(&body(&request.encode())), Ok(request));
        let joined = Joined {
            node: NodeId::from_bytes([7; 16]),
            chain: vec![vec![1; 500]],
            authorities: vec![vec![2; 500]],
            is_approved: true,
        };
        for answer in [
            JoinAnswer::Joined(joined),
            JoinAnswer::Refused(JoinRefusal { reason: JoinReason::TooMany, retry_after_ms: 60_000 }),
        ] {
            assert_eq!(JoinAnswer::decode(&body(&answer.encode())), Ok(answer));
        }
    }

    #[test]
    fn what_is_too_long_or_empty_is_refused() {
        let long = JoinRequest::Join(Join { public_key: vec![0; PUBLIC_KEY_BYTES_MAX + 1], ..join() });
        assert!(matches!(JoinRequest::decode(&body(&long.encode())), Err(WireError::TooMany { .. })));
        let joined =
            Joined { node: NodeId::from_bytes([7; 16]), chain: Vec::new(), authorities: Vec::new(), is_approved: true };
        assert!(JoinAnswer::decode(&body(&JoinAnswer::Joined(joined).encode())).is_err());
    }

    #[test]
    fn a_join_does_not_print_its_token() {
        assert!(!format!("{:?}", join()).contains("7, 7"));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            prop_assert!(JoinRequest::decode(&bytes).map(|request| request.encode()).is_ok_and(|again| body(&again) == bytes)
                || JoinRequest::decode(&bytes).is_err());
            prop_assert!(JoinAnswer::decode(&bytes).is_err() || !JoinAnswer::decode(&bytes).expect("it was good").encode().is_empty());
        }
    }
}
