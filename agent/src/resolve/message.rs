//! DNS messages: writes one question, reads one answer. Pure: no I/O, no clock, no randomness.
//! Every byte of an answer is hostile: reading never panics, never loops, and keeps nothing but what was asked for.
//! Invariant: nothing from an answer is believed before its id and its question are ours.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::name::{LABEL_LEN_MAX, Name};

const HEADER_LEN: usize = 12;
const CLASS_IN: u16 = 1;
const TYPE_CNAME: u16 = 5;
/// Recursion desired; everything else in a question's flags is zero.
const FLAGS_QUERY: u16 = 0x0100;
const FLAG_RESPONSE: u16 = 0x8000;
const FLAG_TRUNCATED: u16 = 0x0200;
const MASK_OPCODE: u16 = 0x7800;
const MASK_RCODE: u16 = 0x000F;
const RCODE_NXDOMAIN: u16 = 3;
/// Longer chains of aliases within one answer are refused; real ones have two or three.
const ALIASES_MAX: usize = 16;
/// More addresses of one family than an uplink will ever try; the rest is passed over.
const ADDRESSES_MAX: usize = 32;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

/// One question. With `exact_case` the answer has to repeat the case of the name's letters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    pub id: u16,
    pub name: Name,
    pub family: Family,
    pub exact_case: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// At least one address, reached over aliases or not.
    Addresses(Vec<IpAddr>),
    /// The name is an alias of this one, for which the answer has no address.
    Alias(Name),
    /// The name exists and has no address of this family.
    NoData,
    NoSuchName,
    /// The server could not or would not answer.
    Failed(Rcode),
    /// Too long for UDP: ask again over TCP.
    Truncated,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rcode(pub u16);

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    #[error("the message is no answer to this question")]
    Foreign,
    #[error("the answer changed the case of the name")]
    CaseChanged,
    #[error("the answer ends in the middle of a record")]
    Short,
    #[error("the answer holds a name that breaks the limits of DNS")]
    BadName,
    #[error("the answer holds an address of the wrong length")]
    BadAddress,
    #[error("the answer holds too long a chain of aliases, or a circle")]
    AliasChain,
}

impl Question {
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_LEN + self.name.wire().len() + 4);
        for field in [self.id, FLAGS_QUERY, 1, 0, 0, 0] {
            bytes.extend_from_slice(&field.to_be_bytes());
        }
        bytes.extend_from_slice(self.name.wire());
        bytes.extend_from_slice(&self.family.record_type().to_be_bytes());
        bytes.extend_from_slice(&CLASS_IN.to_be_bytes());
        bytes
    }
}

/// Reads what a server sent. `Foreign` is to be ignored: it may be forged, and the true answer may still come.
pub fn parse_answer(bytes: &[u8], question: &Question) -> Result<Answer, MessageError> {
    let (flags, answer_count, records) = check_question(bytes, question).map_err(|error| match error {
        MessageError::CaseChanged => error,
        _ => MessageError::Foreign,
    })?;
    if flags & FLAG_TRUNCATED != 0 {
        return Ok(Answer::Truncated);
    }
    match flags & MASK_RCODE {
        0 => follow(records, answer_count, question),
        RCODE_NXDOMAIN => Ok(Answer::NoSuchName),
        code => Ok(Answer::Failed(Rcode(code))),
    }
}

impl Family {
    fn record_type(self) -> u16 {
        match self {
            Self::V4 => 1,
            Self::V6 => 28,
        }
    }
}

impl fmt::Display for Rcode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            1 => f.write_str("FORMERR"),
            2 => f.write_str("SERVFAIL"),
            4 => f.write_str("NOTIMP"),
            5 => f.write_str("REFUSED"),
            code => write!(f, "error code {code}"),
        }
    }
}

/// Flags, number of answer records, and a reader that stands at the first of them.
fn check_question<'a>(bytes: &'a [u8], question: &Question) -> Result<(u16, u16, Reader<'a>), MessageError> {
    let mut reader = Reader { bytes, at: 0 };
    let id = reader.u16()?;
    let flags = reader.u16()?;
    let question_count = reader.u16()?;
    let answer_count = reader.u16()?;
    reader.take(4)?;
    let is_answer = flags & FLAG_RESPONSE != 0 && flags & MASK_OPCODE == 0;
    if id != question.id || !is_answer || question_count != 1 {
        return Err(MessageError::Foreign);
    }
    let name = reader.name()?;
    let ours = name == question.name && reader.u16()? == question.family.record_type() && reader.u16()? == CLASS_IN;
    if !ours {
        return Err(MessageError::Foreign);
    }
    if question.exact_case && !name.same_case(&question.name) {
        return Err(MessageError::CaseChanged);
    }
    Ok((flags, answer_count, reader))
}

/// Walks from the name that was asked along its aliases. The records are read again for each alias
/// instead of being kept, so an answer costs no memory and their order does not matter.
fn follow(records: Reader<'_>, count: u16, question: &Question) -> Result<Answer, MessageError> {
    let mut owner = question.name.clone();
    for hops in 0..=ALIASES_MAX {
        let (addresses, alias) = records_of(&owner, records.clone(), count, question.family)?;
        if !addresses.is_empty() {
            return Ok(Answer::Addresses(addresses));
        }
        match alias {
            Some(alias) => owner = alias,
            None if hops == 0 => return Ok(Answer::NoData),
            None => return Ok(Answer::Alias(owner)),
        }
    }
    Err(MessageError::AliasChain)
}

fn records_of(
    owner: &Name,
    mut reader: Reader<'_>,
    count: u16,
    family: Family,
) -> Result<(Vec<IpAddr>, Option<Name>), MessageError> {
    let mut addresses = Vec::new();
    let mut alias = None;
    for _ in 0..count {
        let name = reader.name()?;
        let record_type = reader.u16()?;
        let class = reader.u16()?;
        reader.take(4)?;
        let data_len = usize::from(reader.u16()?);
        let data_at = reader.at;
        let data = reader.take(data_len)?;
        if class != CLASS_IN || name != *owner {
            continue;
        }
        if record_type == family.record_type() {
            let address = parse_address(data, family)?;
            if addresses.len() < ADDRESSES_MAX && !addresses.contains(&address) {
                addresses.push(address);
            }
        } else if record_type == TYPE_CNAME && alias.is_none() {
            let mut target = Reader { bytes: reader.bytes, at: data_at };
            alias = Some(target.name()?);
            if target.at != reader.at {
                return Err(MessageError::BadName);
            }
        }
    }
    Ok((addresses, alias))
}

fn parse_address(data: &[u8], family: Family) -> Result<IpAddr, MessageError> {
    let address = match family {
        Family::V4 => <[u8; 4]>::try_from(data).map(|octets| Ipv4Addr::from(octets).into()),
        Family::V6 => <[u8; 16]>::try_from(data).map(|octets| Ipv6Addr::from(octets).into()),
    };
    address.map_err(|_| MessageError::BadAddress)
}

#[derive(Clone)]
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], MessageError> {
        let end = self.at.checked_add(len).ok_or(MessageError::Short)?;
        let taken = self.bytes.get(self.at..end).ok_or(MessageError::Short)?;
        self.at = end;
        Ok(taken)
    }

    fn u8(&mut self) -> Result<u8, MessageError> {
        self.take(1).map(|taken| taken[0])
    }

    fn u16(&mut self) -> Result<u16, MessageError> {
        self.take(2).map(|taken| u16::from_be_bytes([taken[0], taken[1]]))
    }

    /// Reads a name and stands behind it. A pointer has to lead to before the piece that it ends,
    /// so each one goes further back and the walk ends.
    fn name(&mut self) -> Result<Name, MessageError> {
        let mut name = Name::root();
        let mut piece = self.clone();
        let mut piece_start = self.at;
        let mut behind = None;
        loop {
            let len = usize::from(piece.u8()?);
            if len == 0 {
                self.at = behind.unwrap_or(piece.at);
                return Ok(name);
            }
            if len <= LABEL_LEN_MAX {
                if !name.push(piece.take(len)?) {
                    return Err(MessageError::BadName);
                }
                continue;
            }
            // The two high bits are set in a pointer; 01 and 10 were never given a meaning.
            if len < 0xC0 {
                return Err(MessageError::BadName);
            }
            let target = (len & 0x3F) << 8 | usize::from(piece.u8()?);
            if target >= piece_start {
                return Err(MessageError::BadName);
            }
            behind = behind.or(Some(piece.at));
            piece.at = target;
            piece_start = target;
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
