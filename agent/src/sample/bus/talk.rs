//! One conversation with systemd over the system bus: which units failed, why, and since when.
//!
//! It connects, asks and hangs up. It may wait for as long as `ANSWER_MS` in each of its few steps, so it runs on a
//! thread of its own. It calls methods that only read, and starts no service.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use dunlin_shared::inventory::{Unit, UnitState};
use dunlin_shared::limits::{FACT_BYTES_MAX, SUBJECT_NAME_BYTES_MAX, UNITS_MAX};
use dunlin_shared::time::WallMs;

use super::wire::{Argument, BusError, Call, HEAD_BYTES, Kind, Message, decode, message_bytes};

/// A bus answers in a millisecond, and in some hundreds while a host boots.
const ANSWER_MS: u64 = 2_000;
/// Messages that are none of our answers, such as the name that the bus gives us.
const OTHERS_MAX: usize = 64;
/// Units that are asked why they failed. Where more have, there is one cause, and the first ones name it.
const ASKED_MAX: usize = 64;
const MANAGER: Call<'static> = Call {
    destination: "org.freedesktop.systemd1",
    path: "/org/freedesktop/systemd1",
    interface: "org.freedesktop.systemd1.Manager",
    member: "ListUnitsFiltered",
    argument: Argument::List("failed"),
};
const HELLO: Call<'static> = Call {
    destination: "org.freedesktop.DBus",
    path: "/org/freedesktop/DBus",
    interface: "org.freedesktop.DBus",
    member: "Hello",
    argument: Argument::None,
};

struct Talk {
    stream: UnixStream,
    serial: u32,
    buffer: Vec<u8>,
}

/// The units that failed, by name, and how many more there are.
pub(super) fn failed_units(socket: &Path) -> io::Result<(Vec<Unit>, usize)> {
    let mut talk = Talk::begin(socket)?;
    talk.call(&HELLO)?;
    let listed = names(talk.call(&MANAGER)?).map_err(broken)?;
    let left_out = listed.len().saturating_sub(UNITS_MAX as usize);
    let mut units = Vec::with_capacity(listed.len() - left_out);
    for (at, (name, path)) in listed.into_iter().take(UNITS_MAX as usize).enumerate() {
        let (mut result, mut since_us) = (None, None);
        if at < ASKED_MAX {
            let own = interface(&name).map(|interface| talk.property(&path, interface, "Result", text));
            result = own.transpose()?.flatten();
            since_us = talk.property(&path, "org.freedesktop.systemd1.Unit", "StateChangeTimestamp", number)?;
        }
        let result = result.unwrap_or_default();
        let since = since_us.and_then(|us| i64::try_from(us / 1_000).ok()).filter(|&ms| ms > 0).map(WallMs);
        units.push(Unit {
            name: name[..name.floor_char_boundary(SUBJECT_NAME_BYTES_MAX)].into(),
            state: UnitState::Failed,
            result: result[..result.floor_char_boundary(FACT_BYTES_MAX)].into(),
            since,
        });
    }
    units.sort_by(|a, b| a.name.cmp(&b.name));
    Ok((units, left_out))
}

impl Talk {
    fn begin(socket: &Path) -> io::Result<Self> {
        let mut stream = UnixStream::connect(socket)?;
        let limit = Some(Duration::from_millis(ANSWER_MS));
        stream.set_read_timeout(limit)?;
        stream.set_write_timeout(limit)?;
        // Who we are is what the kernel says of the socket; the number only has to agree with it.
        let uid = rustix::process::geteuid().as_raw().to_string();
        let hex: String = uid.bytes().map(|byte| format!("{byte:02x}")).collect();
        stream.write_all(format!("\0AUTH EXTERNAL {hex}\r\n").as_bytes())?;
        let mut said = Vec::new();
        while !said.ends_with(b"\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte)?;
            said.push(byte[0]);
            if said.len() > 256 {
                return Err(broken(BusError::Malformed));
            }
        }
        if !said.starts_with(b"OK ") {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "the system bus does not let the agent in"));
        }
        stream.write_all(b"BEGIN\r\n")?;
        Ok(Self { stream, serial: 0, buffer: Vec::new() })
    }

    fn call(&mut self, call: &Call<'_>) -> io::Result<Message<'_>> {
        self.serial += 1;
        self.stream.write_all(&call.encode(self.serial))?;
        for _ in 0..OTHERS_MAX {
            self.receive()?;
            // Decoded twice, so that the answer may borrow what the loop would hold on to.
            let message = decode(&self.buffer).map_err(broken)?;
            if message.answers != Some(self.serial) || message.kind == Kind::Other {
                continue;
            }
            if message.kind == Kind::Error {
                let name = message.error.unwrap_or("no reason");
                return Err(io::Error::other(format!("systemd refuses {} over the bus: {name}", call.member)));
            }
            return decode(&self.buffer).map_err(broken);
        }
        Err(broken(BusError::Malformed))
    }

    fn receive(&mut self) -> io::Result<()> {
        let mut head = [0; HEAD_BYTES];
        self.stream.read_exact(&mut head)?;
        let bytes = message_bytes(&head).map_err(broken)?;
        self.buffer.clear();
        self.buffer.extend(head);
        let rest = (bytes - HEAD_BYTES) as u64;
        (&self.stream).take(rest).read_to_end(&mut self.buffer)?;
        if self.buffer.len() == bytes { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    fn property<T>(
        &mut self,
        path: &str,
        interface: &str,
        name: &str,
        read: fn(Message<'_>) -> Result<Option<T>, BusError>,
    ) -> io::Result<Option<T>> {
        let answer = self.call(&Call {
            destination: MANAGER.destination,
            path,
            interface: "org.freedesktop.DBus.Properties",
            member: "Get",
            argument: Argument::Strings(interface, name),
        });
        match answer {
            Ok(answer) => read(answer).map_err(broken),
            // The unit is gone by now, or it has no such property.
            Err(error) if error.kind() == io::ErrorKind::Other => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Name and path of each unit in the answer, an array of `(ssssssouso)`.
pub fn names(mut answer: Message<'_>) -> Result<Vec<(String, String)>, BusError> {
    if answer.signature != "a(ssssssouso)" {
        return Err(BusError::Malformed);
    }
    let body = &mut answer.body;
    let end = body.list()?;
    let mut names = Vec::new();
    while body.is_before(end) {
        body.structure()?;
        let name = body.string()?.to_owned();
        for _ in 0..5 {
            body.string()?;
        }
        names.push((name, body.string()?.to_owned()));
        body.u32()?;
        body.string()?;
        body.string()?;
    }
    Ok(names)
}

/// The text in a variant; none in one that holds something else.
pub fn text(mut answer: Message<'_>) -> Result<Option<String>, BusError> {
    let body = &mut answer.body;
    if body.signature()? == "s" { body.string().map(|text| Some(text.to_owned())) } else { Ok(None) }
}

pub fn number(mut answer: Message<'_>) -> Result<Option<u64>, BusError> {
    let body = &mut answer.body;
    if body.signature()? == "t" { body.u64().map(Some) } else { Ok(None) }
}

/// Where a unit of its kind keeps why it failed; some kinds never say.
fn interface(name: &str) -> Option<&'static str> {
    Some(match name.rsplit_once('.')?.1 {
        "service" => "org.freedesktop.systemd1.Service",
        "socket" => "org.freedesktop.systemd1.Socket",
        "mount" => "org.freedesktop.systemd1.Mount",
        "automount" => "org.freedesktop.systemd1.Automount",
        "swap" => "org.freedesktop.systemd1.Swap",
        "timer" => "org.freedesktop.systemd1.Timer",
        "path" => "org.freedesktop.systemd1.Path",
        "scope" => "org.freedesktop.systemd1.Scope",
        _ => return None,
    })
}

fn broken(error: BusError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// An answer to the call of number 9, as the bus sends it.
    fn answer(signature: &str, body: &[u8]) -> Vec<u8> {
        let len = |of: usize| u32::try_from(of).expect("a test is short").to_le_bytes();
        let count = u8::try_from(signature.len()).expect("a test is short");
        let fields = [&[5, 1, b'u', 0, 9, 0, 0, 0, 8, 1, b'g', 0, count][..], signature.as_bytes(), &[0]].concat();
        let mut bytes = [&[b'l', 2, 0, 1][..], &len(body.len()), &len(1), &len(fields.len()), &fields].concat();
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        [bytes, body.to_vec()].concat()
    }

    fn string(bytes: &mut Vec<u8>, text: &str) {
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes.extend(u32::try_from(text.len()).expect("a test is short").to_le_bytes());
        bytes.extend(text.as_bytes());
        bytes.push(0);
    }

    /// As systemd lists units.
    fn list(units: &[(String, String)]) -> Vec<u8> {
        let mut structures = Vec::new();
        for (name, path) in units {
            structures.resize(structures.len().next_multiple_of(8), 0);
            for text in [name, "about", "loaded", "failed", "failed", "", path] {
                string(&mut structures, text);
            }
            structures.resize(structures.len().next_multiple_of(4), 0);
            structures.extend([0; 4]);
            string(&mut structures, "");
            string(&mut structures, "/");
        }
        let len = u32::try_from(structures.len()).expect("a test is short").to_le_bytes();
        [&len[..], &[0; 4], &structures].concat()
    }

    fn read<T>(bytes: &[u8], read: fn(Message<'_>) -> Result<T, BusError>) -> Result<T, BusError> {
        decode(bytes).and_then(read)
    }

    #[test]
    fn a_variant_that_holds_something_else_is_none_and_a_list_of_something_else_is_refused() {
        let since = [&[1, b't', 0, 0, 0, 0, 0, 0][..], &7_u64.to_le_bytes()].concat();
        let since = answer("v", &since);
        assert_eq!((read(&since, number), read(&since, text)), (Ok(Some(7)), Ok(None)));
        let result = answer("v", b"\x01s\0\0\x06\0\0\0signal\0");
        assert_eq!((read(&result, text), read(&result, number)), (Ok(Some("signal".into())), Ok(None)));
        assert_eq!(read(&answer("as", &list(&[])), names), Err(BusError::Malformed));
    }

    proptest! {
        #[test]
        fn every_unit_of_a_list_is_read(units: Vec<(String, String)>) {
            let bytes = answer("a(ssssssouso)", &list(&units));
            prop_assert_eq!(read(&bytes, names), Ok(units));
        }

        #[test]
        fn a_list_that_is_cut_or_changed_is_read_or_refused(
            units in prop::collection::vec(("[a-z.]{0,9}", "[a-z/]{0,9}"), 1..4),
            cut in 0_usize..300,
            at in 0_usize..300,
            byte: u8,
        ) {
            let mut body = list(&units);
            let at = at % body.len();
            body[at] = byte;
            body.truncate(body.len().saturating_sub(cut));
            if let Ok(found) = read(&answer("a(ssssssouso)", &body), names) {
                let bytes: usize = found.iter().map(|(name, path)| name.len() + path.len()).sum();
                prop_assert!(bytes <= body.len());
            }
        }

        #[test]
        fn any_answer_is_read_or_refused(signature in "[a-z(){}]{0,20}", body: Vec<u8>) {
            let bytes = answer(&signature, &body);
            prop_assert!(read(&bytes, names).is_err());
            prop_assert!(read(&bytes, text).ok().flatten().is_none_or(|text| text.len() + 9 <= body.len()));
            prop_assert!(read(&bytes, number).ok().flatten().is_none() || body.len() >= 16);
        }
    }
}
