//! What systemd is told of this process where it asks to be: that it is ready, that its log turns, and in one line how it is.
//!
//! One datagram to the socket that NOTIFY_SOCKET names, sent without waiting: a systemd that does not read costs its own
//! word and never a turn.

use std::ffi::OsStr;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

const SOCKET: &str = "NOTIFY_SOCKET";

/// Whoever started this process and wants to hear of it; nobody where nobody does.
#[derive(Debug, Default)]
pub struct Systemd(Option<(UnixDatagram, SocketAddr)>);

impl Systemd {
    #[must_use]
    pub fn of_process() -> Self {
        Self(std::env::var_os(SOCKET).and_then(|name| at(&name)))
    }

    /// From now on a silence longer than its patience is taken for a process that hangs.
    pub fn is_ready(&self, how: &str) {
        self.tell(&format!("READY=1\nSTATUS={}", in_one_line(how)));
    }

    pub fn is_alive(&self) {
        self.tell("WATCHDOG=1");
    }

    /// What `systemctl status` shows.
    pub fn status(&self, how: &str) {
        self.tell(&format!("STATUS={}", in_one_line(how)));
    }

    fn tell(&self, what: &str) {
        // What is not heard is told again, or has no consequence but systemd's own.
        self.0.iter().for_each(|(socket, address)| drop(socket.send_to_addr(what.as_bytes(), address)));
    }
}

/// A line's end would begin another word to systemd.
fn in_one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn at(name: &OsStr) -> Option<(UnixDatagram, SocketAddr)> {
    let address = match name.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        [b'/', ..] => SocketAddr::from_pathname(name),
        _ => return None,
    };
    let socket = UnixDatagram::unbound().ok()?;
    socket.set_nonblocking(true).ok()?;
    Some((socket, address.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn systemd_hears_one_line_and_whoever_does_not_read_holds_nothing_up() {
        let name = format!("dunlin-collector-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("it is short");
        let listener = UnixDatagram::bind_addr(&address).expect("nobody has it");
        let systemd = Systemd(at(OsStr::new(&format!("@{name}"))));
        systemd.is_ready("serves\nREADY=0");
        let mut bytes = [0; 64];
        let count = listener.recv(&mut bytes).expect("it was told");
        assert_eq!(&bytes[..count], b"READY=1\nSTATUS=serves READY=0");
        // More than any queue holds: a call that waited would never come back.
        (0..100_000).for_each(|_| systemd.is_alive());
        Systemd::default().status("nobody hears");
        assert!(at(OsStr::new("nowhere")).is_none(), "neither a path nor a name");
    }
}
