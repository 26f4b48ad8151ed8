//! Asks the kernel over netlink for all that listens in the agent's own network.
//!
//! It needs no privilege. The kernel chooses by state, so connected sockets cost nothing. Invariant: nothing waits
//! longer than `RECEIVE_MS`, and no more than `RECEIVES_MAX` datagrams are taken, whatever the kernel answers.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::net::netlink::{SOCK_DIAG, SocketAddrNetlink};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recvfrom, sendto, socket_with};

use super::diag::{self, QUESTIONS};
use super::socket::Socket;

/// The kernel answers before a call returns; who waits for it waits for nothing.
const RECEIVE_MS: u64 = 100;
/// All four dumps together: some 250,000 sockets in datagrams of 8 KiB at least.
const RECEIVES_MAX: usize = 4_096;
/// Twice what a datagram of a dump has when nobody asks for more.
const BUFFER_BYTES: usize = 16 * 1024;
/// The kernel's.
const KERNEL: SocketAddrNetlink = SocketAddrNetlink::new(0, 0);

#[derive(Debug)]
pub(super) enum Trouble {
    /// The agent may not ask, or this kernel cannot answer; it will not change.
    Refused,
    /// This once.
    Failed(io::Error),
}

/// Passes on everything that listens. Whether a dump was interrupted, so that something may be missing.
pub(super) fn listeners(mut take: impl FnMut(Socket)) -> Result<bool, Trouble> {
    let socket = open()?;
    let mut buffer = vec![0; BUFFER_BYTES];
    let (mut receives, mut is_interrupted) = (0, false);
    for (number, (protocol, family)) in (1..).zip(QUESTIONS) {
        sendto(&socket, &diag::request(protocol, family, number), SendFlags::empty(), &KERNEL).map_err(trouble)?;
        loop {
            if receives == RECEIVES_MAX {
                return Err(failed("the kernel tells more sockets than are taken"));
            }
            receives += 1;
            let datagram = receive(&socket, &mut buffer)?;
            let answer = diag::read(datagram, protocol, number, &mut take);
            let answer = answer.map_err(|error| Trouble::Failed(io::Error::new(io::ErrorKind::InvalidData, error)))?;
            is_interrupted |= answer.is_interrupted;
            if let Some(code) = answer.error {
                return Err(trouble(rustix::io::Errno::from_raw_os_error(code)));
            }
            if answer.is_done {
                break;
            }
        }
    }
    Ok(is_interrupted)
}

fn open() -> Result<OwnedFd, Trouble> {
    let socket = socket_with(AddressFamily::NETLINK, SocketType::DGRAM, SocketFlags::CLOEXEC, Some(SOCK_DIAG));
    let socket = socket.map_err(trouble)?;
    let patience = Some(Duration::from_millis(RECEIVE_MS));
    set_socket_timeout(&socket, Timeout::Recv, patience).map_err(trouble)?;
    Ok(socket)
}

/// The next datagram of the kernel: anybody on the host may try to send one.
fn receive<'a>(socket: &OwnedFd, buffer: &'a mut [u8]) -> Result<&'a [u8], Trouble> {
    for _ in 0..RECEIVES_MAX {
        let received = recvfrom(socket, &mut *buffer, RecvFlags::TRUNC);
        let (_, length, from) = match received {
            Err(rustix::io::Errno::INTR) => continue,
            other => other.map_err(trouble)?,
        };
        let from = from.and_then(|from| SocketAddrNetlink::try_from(from).ok());
        if from.is_none_or(|from| from.pid() != 0) {
            continue;
        }
        return buffer.get(..length).ok_or_else(|| failed("a datagram of the kernel was cut"));
    }
    Err(failed("others than the kernel answer"))
}

fn failed(what: &'static str) -> Trouble {
    Trouble::Failed(io::Error::new(io::ErrorKind::InvalidData, what))
}

/// A sandbox says the first four, a kernel without the module the others.
fn trouble(error: rustix::io::Errno) -> Trouble {
    use rustix::io::Errno;
    match error {
        Errno::PERM | Errno::ACCESS | Errno::AFNOSUPPORT | Errno::NOSYS => Trouble::Refused,
        Errno::PROTONOSUPPORT | Errno::NOENT | Errno::OPNOTSUPP | Errno::INVAL => Trouble::Refused,
        other => Trouble::Failed(other.into()),
    }
}
