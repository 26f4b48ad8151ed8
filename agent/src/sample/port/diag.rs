//! What is asked of the kernel's sock_diag, and how its answers are read.
//!
//! Pure. A message is a head of 16 bytes (length, kind, flags, number, sender) and its content, padded to 4; a socket
//! has 72 bytes and attributes behind them. Numbers are in this machine's order, addresses and ports in the network's.
//! States are chosen by the kernel, so that connected sockets are never sent; what is sent nevertheless is passed over.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dunlin_shared::inventory::Protocol;
use thiserror::Error;

use super::socket::Socket;

pub const REQUEST_BYTES: usize = HEAD_BYTES + 56;

/// The four questions that give all that listens.
pub const QUESTIONS: [(Protocol, Family); 4] = [
    (Protocol::Tcp, Family::V4),
    (Protocol::Tcp, Family::V6),
    (Protocol::Udp, Family::V4),
    (Protocol::Udp, Family::V6),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

/// What a datagram of answers comes to, sockets apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// No more follows.
    pub is_done: bool,
    /// Sockets came or went meanwhile, so that some may be missing.
    pub is_interrupted: bool,
    /// The error that the kernel answers with, as a positive number.
    pub error: Option<i32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the kernel's answer about sockets is not as expected at byte {at}")]
pub struct Malformed {
    pub at: usize,
}

const HEAD_BYTES: usize = 16;
const SOCKET_BYTES: usize = 72;
/// Kinds of messages, flags and attributes, from linux/netlink.h, sock_diag.h and inet_diag.h.
const KIND_ERROR: u16 = 2;
const KIND_DONE: u16 = 3;
const KIND_OVERRUN: u16 = 4;
const KIND_BY_FAMILY: u16 = 20;
/// NLM_F_REQUEST and NLM_F_DUMP.
const FLAGS_DUMP: u16 = 0x301;
const FLAG_INTERRUPTED: u16 = 0x10;
const ATTRIBUTE_V6_ONLY: u16 = 11;
/// The upper two bits of an attribute's kind say how it is encoded.
const ATTRIBUTE_KIND: u16 = 0x3fff;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const IPPROTO_TCP: u8 = 6;
const IPPROTO_UDP: u8 = 17;
/// TCP_LISTEN; a UDP socket that is bound and not connected is in TCP_CLOSE.
const STATE_LISTEN: u8 = 10;
const STATE_CLOSE: u8 = 7;
/// ENOBUFS: answers were lost.
const ERROR_OVERRUN: i32 = 105;

/// A request for all sockets of a kind that listen. Its number comes back with the answers.
#[must_use]
pub fn request(protocol: Protocol, family: Family, number: u32) -> [u8; REQUEST_BYTES] {
    let mut bytes = [0; REQUEST_BYTES];
    let length = u32::try_from(REQUEST_BYTES).expect("it is 72");
    bytes[0..4].copy_from_slice(&length.to_ne_bytes());
    bytes[4..6].copy_from_slice(&KIND_BY_FAMILY.to_ne_bytes());
    bytes[6..8].copy_from_slice(&FLAGS_DUMP.to_ne_bytes());
    bytes[8..12].copy_from_slice(&number.to_ne_bytes());
    bytes[16] = if family == Family::V4 { AF_INET } else { AF_INET6 };
    bytes[17] = if protocol == Protocol::Tcp { IPPROTO_TCP } else { IPPROTO_UDP };
    bytes[20..24].copy_from_slice(&(1_u32 << state(protocol)).to_ne_bytes());
    bytes
}

/// Reads one datagram of answers to the request of this number, and passes on the sockets in it.
pub fn read(bytes: &[u8], protocol: Protocol, number: u32, mut take: impl FnMut(Socket)) -> Result<Answer, Malformed> {
    let mut answer = Answer::default();
    let mut at = 0;
    while at < bytes.len() && !answer.is_done {
        let malformed = Malformed { at };
        let rest = &bytes[at..];
        let length = usize::try_from(u32_at(rest, 0).ok_or(malformed)?).unwrap_or(usize::MAX);
        let message = rest.get(..length).filter(|_| length >= HEAD_BYTES).ok_or(malformed)?;
        let (kind, flags) = (u16_at(message, 4).ok_or(malformed)?, u16_at(message, 6).ok_or(malformed)?);
        let content = &message[HEAD_BYTES..];
        at += length.next_multiple_of(4);
        // An answer to an earlier request that was given up.
        if u32_at(message, 8) != Some(number) {
            continue;
        }
        answer.is_interrupted |= flags & FLAG_INTERRUPTED != 0;
        match kind {
            KIND_BY_FAMILY => {
                if let Some(socket) = socket(content, protocol).ok_or(malformed)? {
                    take(socket);
                }
            }
            KIND_DONE | KIND_ERROR => {
                answer.is_done = true;
                // A kernel before 4.19 says nothing at the end of a dump.
                let code = u32_at(content, 0).map_or(0, u32::cast_signed);
                answer.error = (code < 0).then(|| code.saturating_neg());
                if kind == KIND_ERROR && content.len() < 4 {
                    return Err(malformed);
                }
            }
            KIND_OVERRUN => (answer.is_done, answer.error) = (true, Some(ERROR_OVERRUN)),
            _ => {}
        }
    }
    Ok(answer)
}

const fn state(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => STATE_LISTEN,
        Protocol::Udp => STATE_CLOSE,
    }
}

/// None when it is cut; none within when it is not one that listens.
fn socket(content: &[u8], protocol: Protocol) -> Option<Option<Socket>> {
    let (head, attributes) = content.split_at_checked(SOCKET_BYTES)?;
    let (family, found_state) = (head[0], head[1]);
    let port = u16::from_be_bytes(bytes_at(head, 4)?);
    let address = match family {
        AF_INET => IpAddr::V4(Ipv4Addr::from(bytes_at::<4>(head, 8)?)),
        AF_INET6 => IpAddr::V6(Ipv6Addr::from(bytes_at::<16>(head, 8)?)),
        _ => return Some(None),
    };
    let (uid, inode) = (u32_at(head, 64)?, u64::from(u32_at(head, 68)?));
    let is_v6_only = is_v6_only(attributes)?;
    let listens = found_state == state(protocol) && port != 0;
    Some(listens.then_some(Socket { protocol, address, port, uid, inode, is_v6_only }))
}

/// None when an attribute is cut.
fn is_v6_only(mut attributes: &[u8]) -> Option<bool> {
    let mut found = false;
    while !attributes.is_empty() {
        let length = usize::from(u16_at(attributes, 0)?);
        let kind = u16_at(attributes, 2)? & ATTRIBUTE_KIND;
        let value = attributes.get(4..length)?;
        if kind == ATTRIBUTE_V6_ONLY {
            found = *value.first()? != 0;
        }
        attributes = attributes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Some(found)
}

fn bytes_at<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes_at(bytes, at).map(u16::from_ne_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes_at(bytes, at).map(u32::from_ne_bytes)
}

#[cfg(test)]
mod tests;
