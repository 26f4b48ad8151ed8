//! First packets of QUIC connections, made by hand: sealed as RFC 9001 has it, with a real ClientHello inside, so that
//! nothing tells them from an agent's but what follows.
//!
//! Pure but for the keys that TLS draws.

use std::sync::Arc;

use anyhow::{Context, Result, anyhow};
use dunlin_shared::wire::{ALPN, COLLECTOR_NAME};
use rustls::pki_types::ServerName;
use rustls::quic::{ClientConnection, Suite, Version};
use rustls::{ClientConfig, RootCertStore, Side};

use crate::random::Random;

/// What a first datagram has at least.
pub(super) const DATAGRAM_BYTES: usize = 1_200;
const QUIC_1: [u8; 4] = [0, 0, 0, 1];
/// The transport parameter that names the sender's own connection id, and the length of ours.
const OWN_ID: [u8; 2] = [0x0f, 8];
const TAG_BYTES: usize = 16;
/// Where the sample for the header's protection begins, behind the packet number.
const SAMPLE_AT: usize = 4;
const SAMPLE_BYTES: usize = 16;

pub(super) type ConnectionId = [u8; 8];

/// Makes as many as one likes of one ClientHello.
pub(super) struct Forge {
    suite: Suite,
    hello: Vec<u8>,
    own_id_at: usize,
}

/// What a collector says to a first packet.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reply {
    /// Come back to this id, with this token.
    Retry { id: ConnectionId, token: Vec<u8> },
    /// It goes on with the handshake.
    Flight,
    /// It wants nothing of it.
    Close,
}

impl Forge {
    pub(super) fn new() -> Result<Self> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        config.alpn_protocols = vec![ALPN.to_vec()];
        let name = ServerName::try_from(COLLECTOR_NAME)?;
        let parameters = [&OWN_ID[..], &[0xa5; 8]].concat();
        let mut client = ClientConnection::new(Arc::new(config), Version::V1, name, parameters.clone())?;
        let mut hello = Vec::new();
        if client.write_hs(&mut hello).is_some() {
            return Err(anyhow!("a client has keys before it was answered"));
        }
        let own_id_at = hello.windows(parameters.len()).position(|window| window == parameters);
        let own_id_at = own_id_at.context("the ClientHello does not hold its parameters")? + OWN_ID.len();
        let suite = rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256;
        let suite = suite.tls13().and_then(|suite| suite.quic_suite()).context("ring has QUIC's cipher")?;
        Ok(Self { suite, hello, own_id_at })
    }

    /// A datagram that begins a connection to `to`, and names its sender `own`.
    pub(super) fn initial(&self, to: ConnectionId, own: ConnectionId, token: &[u8]) -> Result<Vec<u8>> {
        let mut head = vec![0xc0];
        head.extend(QUIC_1);
        head.push(8);
        head.extend(to);
        head.push(8);
        head.extend(own);
        head.extend(two_bytes(token.len()));
        head.extend(token);
        let number_at = head.len() + 2;
        let payload_len = DATAGRAM_BYTES - number_at - 1 - TAG_BYTES;
        head.extend(two_bytes(1 + payload_len + TAG_BYTES));
        head.push(0);
        let mut payload = vec![0x06, 0x00];
        payload.extend(two_bytes(self.hello.len()));
        let hello_at = payload.len();
        payload.extend(&self.hello);
        payload[hello_at + self.own_id_at..][..own.len()].copy_from_slice(&own);
        payload.resize(payload_len, 0);
        let keys = self.suite.keys(&to, Side::Client, Version::V1).local;
        let tag = keys.packet.encrypt_in_place(0, &head, &mut payload)?;
        let mut datagram = [head, payload, tag.as_ref().to_vec()].concat();
        let mut sample = [0; SAMPLE_BYTES];
        sample.copy_from_slice(&datagram[number_at + SAMPLE_AT..][..SAMPLE_BYTES]);
        let (first, rest) = datagram.split_first_mut().context("it is not empty")?;
        keys.header.encrypt_in_place(&sample, first, &mut rest[number_at - 1..number_at])?;
        Ok(datagram)
    }
}

/// What an answer to one of ours is, and to which of our ids it was sent; `None` for anything else.
pub(super) fn reply(datagram: &[u8]) -> Option<(ConnectionId, Reply)> {
    let (&first, rest) = datagram.split_first()?;
    let rest = rest.strip_prefix(&QUIC_1)?.strip_prefix(&[8])?;
    let (own, rest) = rest.split_first_chunk::<8>()?;
    let rest = rest.strip_prefix(&[8])?;
    let (id, rest) = rest.split_first_chunk::<8>()?;
    let said = match first >> 4 {
        0b1111 => Reply::Retry { id: *id, token: rest[..rest.len().checked_sub(TAG_BYTES)?].to_vec() },
        // The flight is as long as what asked for it; a refusal is a few words.
        0b1100 if datagram.len() >= DATAGRAM_BYTES => Reply::Flight,
        0b1100 => Reply::Close,
        _ => return None,
    };
    Some((*own, said))
}

pub(super) fn id(random: &mut Random) -> ConnectionId {
    random.next_u64().to_be_bytes()
}

/// A number below 16,384 as QUIC writes it in two bytes.
fn two_bytes(number: usize) -> [u8; 2] {
    debug_assert!(number < 1 << 14, "{number} needs more than two bytes");
    let [.., high, low] = number.to_be_bytes();
    [0x40 | high, low]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_packets_have_the_least_length_and_differ_by_their_ids_and_tokens() {
        let forge = Forge::new().expect("ring is there");
        let one = forge.initial([1; 8], [2; 8], &[]).expect("it fits");
        assert_eq!(one.len(), DATAGRAM_BYTES);
        assert_eq!(&one[1..14], [&[0, 0, 0, 1, 8][..], &[1; 8]].concat());
        let other = forge.initial([3; 8], [2; 8], &[7; 60]).expect("it fits");
        assert_eq!(other.len(), DATAGRAM_BYTES);
        assert_ne!(one[40..], other[40..]);
    }

    #[test]
    fn answers_are_told_apart() {
        let head = |first: u8| [&[first, 0, 0, 0, 1, 8][..], &[9; 8], &[8], &[7; 8]].concat();
        let retry = [head(0xf3), vec![5; 20], vec![0; 16]].concat();
        assert_eq!(reply(&retry), Some(([9; 8], Reply::Retry { id: [7; 8], token: vec![5; 20] })));
        assert_eq!(reply(&[head(0xc1), vec![0; 40]].concat()), Some(([9; 8], Reply::Close)));
        assert_eq!(reply(&[head(0xc1), vec![0; 1_180]].concat()), Some(([9; 8], Reply::Flight)));
        assert_eq!(reply(&[0x40; 60]), None, "a packet without a long head");
        assert_eq!(reply(&[]), None);
    }
}
