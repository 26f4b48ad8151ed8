//! What listens, from one of the tables `tcp`, `tcp6`, `udp` and `udp6` below a directory `net` of `/proc`.
//!
//! Parsing is pure. The kernel writes listening TCP sockets before all others, so reading ends where those end, and
//! connected ones are not paid for. Of UDP every socket is written; `LINES_MAX` bounds what is looked at.

use std::fs::File;
use std::io::{self, ErrorKind, Read as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use dunlin_shared::inventory::Protocol;

use super::socket::Socket;
use crate::sample::failure::SampleError;

/// A line has 128 bytes or 150, and the kernel writes 150 at most for one of `tcp6`; what is longer is none.
const LINE_BYTES_MAX: usize = 512;
/// The kernel hands out a page at a time.
const BUFFER_BYTES: usize = 4 * 1024;
/// Of one table: the agent is to be through with it in a few milliseconds.
const LINES_MAX: usize = 8_192;
/// States as `/proc` writes them.
const LISTEN: &[u8] = b"0A";
const CLOSE: &[u8] = b"07";
/// Connections that are being made; kernels before 4.4 wrote them among the listening sockets.
const SYN_RECEIVED: &[u8] = b"03";

/// What a line says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    Listens(Socket),
    /// Not of interest, and what is may still follow.
    Other,
    /// No listening socket follows.
    Past,
}

/// Passes on what listens by this table. Whether there was more than is looked at.
pub(super) fn read(path: &Path, protocol: Protocol, mut take: impl FnMut(Socket)) -> Result<bool, SampleError> {
    let unreadable = |source: io::Error| SampleError::Unreadable { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(unreadable)?;
    let mut buffer = [0; BUFFER_BYTES];
    let (mut held, mut lines) = (0, 0);
    loop {
        let read = match file.read(&mut buffer[held..]) {
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(unreadable(error)),
        };
        if read == 0 {
            return Ok(false);
        }
        held += read;
        let mut from = 0;
        while let Some(end) = buffer[from..held].iter().position(|&byte| byte == b'\n') {
            let line = &buffer[from..from + end];
            from += end + 1;
            lines += 1;
            if lines == 1 {
                continue;
            }
            match parse(line, protocol) {
                Some(Line::Listens(socket)) => take(socket),
                Some(Line::Other) => {}
                Some(Line::Past) => return Ok(false),
                None => return Err(SampleError::malformed(path, lines - 1, &String::from_utf8_lossy(line))),
            }
            if lines > LINES_MAX {
                return Ok(true);
            }
        }
        buffer.copy_within(from..held, 0);
        held -= from;
        if held > LINE_BYTES_MAX {
            let line = String::from_utf8_lossy(&buffer[..held]);
            return Err(SampleError::malformed(path, lines, &line));
        }
    }
}

/// Of a line behind the table's first, which names the columns.
#[must_use]
pub fn parse(line: &[u8], protocol: Protocol) -> Option<Line> {
    let mut words = line.split(|&byte| byte == b' ').filter(|word| !word.is_empty());
    let (local, state) = (words.nth(1)?, words.nth(1)?);
    match (protocol, state) {
        (Protocol::Tcp, LISTEN) | (Protocol::Udp, CLOSE) => {}
        (Protocol::Tcp, SYN_RECEIVED) | (Protocol::Udp, _) => return Some(Line::Other),
        (Protocol::Tcp, _) => return Some(Line::Past),
    }
    let colon = local.iter().position(|&byte| byte == b':')?;
    let (address, port) = (address(&local[..colon])?, u16::try_from(hex(&local[colon + 1..], 4)?).ok()?);
    let (uid, inode) = (number(words.nth(3)?)?, number(words.nth(1)?)?);
    let uid = u32::try_from(uid).ok()?;
    if port == 0 {
        return Some(Line::Other);
    }
    Some(Line::Listens(Socket { protocol, address, port, uid, inode, is_v6_only: false }))
}

/// Words of four bytes, each in this machine's order.
fn address(text: &[u8]) -> Option<IpAddr> {
    let word = |at: usize| hex(text.get(at..at + 8)?, 8).map(u32::to_ne_bytes);
    match text.len() {
        8 => Some(IpAddr::V4(Ipv4Addr::from(word(0)?))),
        32 => {
            let words = [word(0)?, word(8)?, word(16)?, word(24)?];
            let octets: [u8; 16] = words.concat().try_into().ok()?;
            Some(IpAddr::V6(Ipv6Addr::from(octets)))
        }
        _ => None,
    }
}

/// Exactly so many digits; a sign is none.
fn hex(text: &[u8], digits: usize) -> Option<u32> {
    let is_hex = text.len() == digits && text.iter().all(u8::is_ascii_hexdigit);
    u32::from_str_radix(std::str::from_utf8(text).ok().filter(|_| is_hex)?, 16).ok()
}

fn number(text: &[u8]) -> Option<u64> {
    let is_number = text.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(text).ok().filter(|_| is_number)?.parse().ok()
}

#[cfg(test)]
mod tests;
