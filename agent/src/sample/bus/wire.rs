//! Just enough of the D-Bus protocol to call a method of systemd and read its answer. Pure.
//!
//! A whole D-Bus crate costs more than the rest of this sampler. Everything read is bounded and checked: a broken or
//! hostile bus costs its answer and nothing else. Numbers are little-endian, as on every machine that the agent is for.

use thiserror::Error;

/// Of one message. The failed units of a host where all have failed take some 100 KiB.
pub const MESSAGE_BYTES_MAX: usize = 512 * 1024;
/// The fixed part of a header, with the length of the array of fields that follows.
pub const HEAD_BYTES: usize = 16;
const CALL: u8 = 1;
const RETURN: u8 = 2;
const ERROR: u8 = 3;
/// A method call that wants no service to be started for it.
const NO_AUTO_START: u8 = 2;

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BusError {
    #[error("the system bus sent a message that cannot be read")]
    Malformed,
    #[error("the system bus sent a message of {0} bytes")]
    TooLong(usize),
}

/// Whom to call, and what.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call<'a> {
    pub(super) destination: &'a str,
    pub(super) path: &'a str,
    pub(super) interface: &'a str,
    pub(super) member: &'a str,
    pub(super) argument: Argument<'a>,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Argument<'a> {
    None,
    /// Two strings.
    Strings(&'a str, &'a str),
    /// A list of one string.
    List(&'a str),
}

/// An answer to a call, or something else that the bus says.
#[derive(Debug, PartialEq, Eq)]
pub struct Message<'a> {
    pub kind: Kind,
    /// Of the call that it answers.
    pub answers: Option<u32>,
    /// The name of an error.
    pub error: Option<&'a str>,
    pub signature: &'a str,
    pub body: Reader<'a>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Return,
    Error,
    Other,
}

/// Reads values at their alignment, which counts from the start of what it was made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Call<'_> {
    /// As it goes onto the bus.
    pub(super) fn encode(&self, serial: u32) -> Vec<u8> {
        let mut body = Writer::default();
        let signature = match self.argument {
            Argument::None => "",
            Argument::Strings(first, second) => {
                body.string(first);
                body.string(second);
                "ss"
            }
            Argument::List(only) => {
                let mut list = Writer::default();
                list.string(only);
                body.u32(list.0.len());
                body.0.extend(list.0);
                "as"
            }
        };
        let mut message = Writer(vec![b'l', CALL, NO_AUTO_START, 1]);
        message.u32(body.0.len());
        message.0.extend(serial.to_le_bytes());
        let mut fields = Writer::default();
        for (code, kind, text) in [
            (1, b'o', self.path),
            (2, b's', self.interface),
            (3, b's', self.member),
            (6, b's', self.destination),
            (8, b'g', signature),
        ] {
            fields.align(8);
            fields.0.extend([code, 1, kind, 0]);
            if kind == b'g' { fields.signature(text) } else { fields.string(text) }
        }
        message.u32(fields.0.len());
        message.0.extend(fields.0);
        message.align(8);
        message.0.extend(body.0);
        message.0
    }
}

/// How long the message is that begins so.
pub fn message_bytes(head: &[u8; HEAD_BYTES]) -> Result<usize, BusError> {
    if head[0] != b'l' || head[3] != 1 {
        return Err(BusError::Malformed);
    }
    let number = |at: usize| Reader { bytes: head, at }.u32();
    let (body, fields) = (number(4)?, number(12)?);
    let bytes = HEAD_BYTES.saturating_add(fields).next_multiple_of(8).saturating_add(body);
    if bytes > MESSAGE_BYTES_MAX { Err(BusError::TooLong(bytes)) } else { Ok(bytes) }
}

/// A whole message.
pub fn decode(bytes: &[u8]) -> Result<Message<'_>, BusError> {
    let head = bytes.first_chunk::<HEAD_BYTES>().ok_or(BusError::Malformed)?;
    if message_bytes(head)? != bytes.len() {
        return Err(BusError::Malformed);
    }
    let kind = match head[1] {
        RETURN => Kind::Return,
        ERROR => Kind::Error,
        _ => Kind::Other,
    };
    let mut reader = Reader { bytes, at: 12 };
    let end = reader.u32()? + HEAD_BYTES;
    let (mut answers, mut error, mut signature) = (None, None, "");
    while reader.at < end {
        reader.align(8)?;
        let code = reader.byte()?;
        match (code, reader.signature()?) {
            (4, "s") => error = Some(reader.string()?),
            (5, "u") => answers = Some(u32::try_from(reader.u32()?).map_err(|_| BusError::Malformed)?),
            (8, "g") => signature = reader.signature()?,
            (_, "s" | "o") => {
                reader.string()?;
            }
            (_, "g") => {
                reader.signature()?;
            }
            (_, "u") => {
                reader.u32()?;
            }
            _ => return Err(BusError::Malformed),
        }
    }
    let body = bytes.get(end.next_multiple_of(8)..).ok_or(BusError::Malformed)?;
    Ok(Message { kind, answers, error, signature, body: Reader { bytes: body, at: 0 } })
}

impl<'a> Reader<'a> {
    pub(super) fn u32(&mut self) -> Result<usize, BusError> {
        self.align(4)?;
        let bytes = self.take(4)?.try_into().map_err(|_| BusError::Malformed)?;
        usize::try_from(u32::from_le_bytes(bytes)).map_err(|_| BusError::Malformed)
    }

    pub(super) fn u64(&mut self) -> Result<u64, BusError> {
        self.align(8)?;
        let bytes = self.take(8)?.try_into().map_err(|_| BusError::Malformed)?;
        Ok(u64::from_le_bytes(bytes))
    }

    pub(super) fn string(&mut self) -> Result<&'a str, BusError> {
        let len = self.u32()?;
        let text = self.take(len)?;
        self.ended(text)
    }

    pub(super) fn signature(&mut self) -> Result<&'a str, BusError> {
        let len = usize::from(self.byte()?);
        let text = self.take(len)?;
        self.ended(text)
    }

    /// Where a list of structures ends. It begins at the next eight bytes.
    pub(super) fn list(&mut self) -> Result<usize, BusError> {
        let len = self.u32()?;
        self.align(8)?;
        self.at.checked_add(len).filter(|&end| end <= self.bytes.len()).ok_or(BusError::Malformed)
    }

    pub(super) fn structure(&mut self) -> Result<(), BusError> {
        self.align(8)
    }

    pub(super) const fn is_before(&self, end: usize) -> bool {
        self.at < end
    }

    fn ended(&mut self, text: &'a [u8]) -> Result<&'a str, BusError> {
        if self.byte()? != 0 {
            return Err(BusError::Malformed);
        }
        std::str::from_utf8(text).map_err(|_| BusError::Malformed)
    }

    fn byte(&mut self) -> Result<u8, BusError> {
        Ok(self.take(1)?[0])
    }

    fn align(&mut self, to: usize) -> Result<(), BusError> {
        let at = self.at.next_multiple_of(to);
        self.take(at - self.at).map(|_| ())
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], BusError> {
        let end = self.at.checked_add(count).ok_or(BusError::Malformed)?;
        let taken = self.bytes.get(self.at..end).ok_or(BusError::Malformed)?;
        self.at = end;
        Ok(taken)
    }
}

#[derive(Debug, Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn align(&mut self, to: usize) {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
    }

    fn u32(&mut self, number: usize) {
        self.align(4);
        let number = u32::try_from(number).expect("what we say is short");
        self.0.extend(number.to_le_bytes());
    }

    fn string(&mut self, text: &str) {
        self.u32(text.len());
        self.0.extend(text.as_bytes());
        self.0.push(0);
    }

    fn signature(&mut self, text: &str) {
        self.0.push(u8::try_from(text.len()).expect("what we say is short"));
        self.0.extend(text.as_bytes());
        self.0.push(0);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PING: Call<'_> = Call {
        destination: "org.freedesktop.DBus",
        path: "/org/freedesktop/DBus",
        interface: "org.freedesktop.DBus",
        member: "Hello",
        argument: Argument::Strings("one", "two"),
    };

    #[test]
    fn what_is_encoded_has_the_length_that_it_says_and_is_read_back() {
        for argument in [Argument::None, Argument::Strings("a", "bb"), Argument::List("failed")] {
            let bytes = Call { argument, ..PING }.encode(7);
            let head = bytes.first_chunk().expect("it has a head");
            assert_eq!(message_bytes(head), Ok(bytes.len()));
            let mut message = decode(&bytes).expect("it is ours");
            assert_eq!((message.kind, message.answers, message.error), (Kind::Other, None, None));
            match argument {
                Argument::None => assert_eq!(message.signature, ""),
                Argument::Strings(..) => {
                    assert_eq!(message.signature, "ss");
                    assert_eq!((message.body.string(), message.body.string()), (Ok("a"), Ok("bb")));
                }
                Argument::List(_) => {
                    let end = message.body.u32().expect("a length") + 4;
                    assert_eq!(message.body.string(), Ok("failed"));
                    assert!(!message.body.is_before(end));
                }
            }
        }
    }

    #[test]
    fn a_message_that_is_too_long_is_not_waited_for() {
        let mut bytes = PING.encode(1);
        bytes[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(matches!(message_bytes(bytes.first_chunk().expect("a head")), Err(BusError::TooLong(_))));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>, cut in 0usize..200, at in 0usize..200, with: u8) {
            if let Ok(mut message) = decode(&bytes) {
                message.body.list().ok();
                message.body.string().ok();
            }
            let mut bytes = PING.encode(1);
            bytes.truncate(bytes.len() - cut.min(bytes.len()));
            if let Some(byte) = bytes.get_mut(at) {
                *byte = with;
            }
            if let Ok(mut message) = decode(&bytes) {
                message.body.string().ok();
                message.body.u64().ok();
            }
        }
    }
}
