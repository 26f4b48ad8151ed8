//! What becomes of UDP on the way to a collector, for a person who has to mend that way.
//!
//! A packet of a version of QUIC that nobody speaks is answered by every QUIC server with the versions that it does:
//! nothing is begun by it, no secret is needed for it, and it is as long as the first one of a handshake. The socket is
//! connected, so that the kernel tells what routers and hosts have against it.

use std::fmt;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

/// How long one packet is waited for, and how many are sent: one may be lost.
const ANSWER_TIME: Duration = Duration::from_millis(700);
const TRIES: u8 = 3;
/// How long a host has to answer TCP.
const TCP_TIME: Duration = Duration::from_secs(2);
/// The shortest first packet that servers answer (RFC 9000, 14.1).
const PACKET_BYTES: usize = 1_200;
/// Versions of this pattern are kept free for the asking (RFC 9000, 15).
const NO_VERSION: [u8; 4] = [0x1a, 0x2a, 0x3a, 0x4a];
/// A long header, with the bit that has to be set.
const LONG_HEADER: u8 = 0xc0;
const ID_BYTES: u8 = 8;

#[derive(Debug)]
pub(super) enum Path {
    /// A QUIC server answers.
    Open,
    /// The host, or a firewall in its name, says that nothing listens there.
    Refused,
    /// It does not leave this host, or somebody on the way says that it does not get there.
    Unreachable(io::Error),
    /// Nothing comes back over UDP.
    Silent { answers_tcp: bool },
}

/// Takes four seconds when nobody answers, and next to nothing else.
pub(super) async fn look(address: SocketAddr) -> Path {
    match ask(address).await {
        Ok(true) => Path::Open,
        Ok(false) => Path::Silent { answers_tcp: answers_tcp(address).await },
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => Path::Refused,
        Err(error) => Path::Unreachable(error),
    }
}

impl Path {
    /// Who is silent to a packet without meaning may still answer a handshake.
    pub(super) const fn may_be_open(&self) -> bool {
        matches!(self, Self::Open | Self::Silent { .. })
    }
}

/// What it means and what to do, behind the address.
impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open => f.write_str(
                "UDP passes and a collector answers it, but not the handshake: is it overloaded, or are long packets \
                 lost on the way (MTU)?",
            ),
            Self::Refused => f.write_str(
                "UDP is refused: nothing listens on this port. Is the collector running there, is this its quic_listen, \
                 and does no firewall reject UDP in its name?",
            ),
            Self::Unreachable(error) => write!(
                f,
                "UDP cannot be sent there: {error}. A route is missing, or a firewall says no: let UDP out to this port"
            ),
            Self::Silent { answers_tcp: true } => f.write_str(
                "UDP is blocked: the host answers TCP, and nothing comes back over UDP. Let UDP pass to this port and \
                 back: in this host's firewall, in the network's or the cloud's, and in the collector's",
            ),
            Self::Silent { answers_tcp: false } => f.write_str(
                "neither UDP nor TCP gets an answer: the host is down, the address is not the collector's, or a firewall \
                 drops everything. Let UDP pass to this port and back",
            ),
        }
    }
}

async fn ask(address: SocketAddr) -> io::Result<bool> {
    let local: SocketAddr = match address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(local).await?;
    socket.connect(address).await?;
    let (packet, mut answer) = (packet(), [0; PACKET_BYTES]);
    for _ in 0..TRIES {
        socket.send(&packet).await?;
        if let Ok(received) = timeout(ANSWER_TIME, socket.recv(&mut answer)).await {
            return received.map(|_| true);
        }
    }
    Ok(false)
}

/// A port that is shut is an answer of the host as well.
async fn answers_tcp(address: SocketAddr) -> bool {
    match timeout(TCP_TIME, TcpStream::connect(address)).await {
        Ok(Ok(_)) => true,
        Ok(Err(error)) => matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset),
        Err(_) => false,
    }
}

/// Header, version, and two ids with their lengths; zeros for the rest.
fn packet() -> Vec<u8> {
    let mut packet = vec![LONG_HEADER];
    packet.extend(NO_VERSION);
    for id in [0x0d, 0x15] {
        packet.push(ID_BYTES);
        packet.extend([id; ID_BYTES as usize]);
    }
    packet.resize(PACKET_BYTES, 0);
    packet
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_server_that_answers_and_a_port_that_is_shut_are_told_apart() {
        let server = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port is free");
        let address = server.local_addr().expect("it is bound");
        let answering = tokio::spawn(async move {
            let mut question = [0; 2 * PACKET_BYTES];
            let (len, from) = server.recv_from(&mut question).await.expect("it is asked");
            server.send_to(&[LONG_HEADER, 0, 0, 0, 0], from).await.expect("it answers");
            len
        });
        assert!(matches!(look(address).await, Path::Open));
        assert_eq!(answering.await.expect("it ends"), PACKET_BYTES);
        // The server has gone, and its port with it.
        let path = look(address).await;
        assert!(matches!(path, Path::Refused), "{path}");
    }
}
