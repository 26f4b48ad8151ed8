//! What systemd is told of this process where it asks to be: that it has started, that its loop turns, and in one line how
//! it stands, for `systemctl status`.
//!
//! One datagram to the socket that NOTIFY_SOCKET names, sent without waiting: a systemd that does not read costs its own
//! word and never a turn. Nothing is read, and nothing listens.

use std::ffi::OsStr;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

const SOCKET: &str = "NOTIFY_SOCKET";
const WATCHDOG_US: &str = "WATCHDOG_USEC";
const WATCHDOG_PID: &str = "WATCHDOG_PID";

/// Whoever started this process and wants to hear of it.
#[derive(Debug)]
pub struct Systemd {
    socket: UnixDatagram,
    address: SocketAddr,
}

impl Systemd {
    /// `None` where nobody wants to hear.
    #[must_use]
    pub fn of_process() -> Option<Self> {
        Self::at(&std::env::var_os(SOCKET)?)
    }

    fn at(name: &OsStr) -> Option<Self> {
        let address = match name.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
            [b'/', ..] => SocketAddr::from_pathname(name),
            _ => return None,
        };
        let socket = UnixDatagram::unbound().ok()?;
        socket.set_nonblocking(true).ok()?;
        Some(Self { socket, address: address.ok()? })
    }

    pub fn is_ready(&self) {
        self.tell(b"READY=1");
    }

    pub fn is_alive(&self) {
        self.tell(b"WATCHDOG=1");
    }

    /// What `systemctl status` shows; a line's end would begin another word to systemd.
    pub fn status(&self, how: &str) {
        let line = how.split_whitespace().collect::<Vec<_>>().join(" ");
        self.tell(format!("STATUS={line}").as_bytes());
    }

    fn tell(&self, what: &[u8]) {
        // What is not heard is told again, or has no consequence but systemd's own.
        self.socket.send_to_addr(what, &self.address).ok();
    }
}

/// How this process stands, for whoever asks systemd.
pub fn stands(how: &str) {
    Systemd::of_process().iter().for_each(|systemd| systemd.status(how));
}

/// Within what time systemd wants to hear that this process is alive.
#[must_use]
pub fn patience_ms() -> Option<u64> {
    let number = |name| std::env::var(name).ok()?.parse::<u64>().ok();
    let is_meant = number(WATCHDOG_PID).is_none_or(|pid| pid == u64::from(std::process::id()));
    number(WATCHDOG_US).filter(|_| is_meant).map(|us| us / 1_000).filter(|&ms| ms > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::tests::Dir;

    fn heard(listener: &UnixDatagram) -> Vec<u8> {
        let mut bytes = [0; 64];
        let count = listener.recv(&mut bytes).expect("it was told");
        bytes[..count].to_vec()
    }

    #[test]
    fn a_socket_in_the_file_system_and_one_without_a_name_there_are_told() {
        let dir = Dir::new();
        let path = dir.0.join("notify");
        let listener = UnixDatagram::bind(&path).expect("it is writable");
        Systemd::at(path.as_os_str()).expect("it is a path").is_ready();
        assert_eq!(heard(&listener), b"READY=1");

        let name = format!("dunlin-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("it is short");
        let listener = UnixDatagram::bind_addr(&address).expect("nobody has it");
        Systemd::at(OsStr::new(&format!("@{name}"))).expect("it is a name").is_alive();
        assert_eq!(heard(&listener), b"WATCHDOG=1");
        Systemd::at(OsStr::new(&format!("@{name}"))).expect("it is a name").status("waits\nREADY=1");
        assert_eq!(heard(&listener), b"STATUS=waits READY=1");
    }

    #[test]
    fn a_socket_that_nobody_reads_holds_nothing_up() {
        let dir = Dir::new();
        let path = dir.0.join("notify");
        let listener = UnixDatagram::bind(&path).expect("it is writable");
        let systemd = Systemd::at(path.as_os_str()).expect("it is a path");
        // More than any queue holds: a call that waited would never come back.
        (0..100_000).for_each(|_| systemd.is_alive());
        drop(listener);
        systemd.is_alive();
        assert!(Systemd::at(OsStr::new("nowhere")).is_none(), "neither a path nor a name");
    }
}
