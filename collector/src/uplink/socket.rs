//! The UDP socket: datagrams in batches, one out at a time, never waiting.
//!
//! A datagram that the kernel has no room for is kept, and nothing else goes out before it. Errors of
//! single datagrams are the network's; QUIC sends again.

use std::io::{self, ErrorKind, IoSliceMut};
use std::net::{IpAddr, SocketAddr};

use bytes::BytesMut;
use quinn_proto::{EcnCodepoint, Transmit};
use quinn_udp::{RecvMeta, UdpSockRef, UdpSocketState};
use tokio::io::Interest;
use tokio::net::UdpSocket;

/// Messages taken by one system call. Each may be a train of datagrams of up to 64 KiB; only what
/// arrives touches the memory.
const BATCH: usize = 8;
const TRAIN_BYTES: usize = 64 * 1024;
/// What ten thousand agents send in the second after a start, each with a Hello and a keyframe. The kernel gives as much
/// of it as net.core.rmem_max and wmem_max let it; the packages raise those.
const KERNEL_BYTES: usize = 8 * 1024 * 1024;

#[derive(Debug)]
pub(super) struct Socket {
    socket: UdpSocket,
    state: UdpSocketState,
    buffer: Vec<u8>,
    /// Out next, when the kernel has room.
    kept: Option<(Transmit, Vec<u8>)>,
}

/// One datagram in the buffer that it was received in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrived<'a> {
    pub(super) remote: SocketAddr,
    local_ip: Option<IpAddr>,
    ecn: Option<EcnCodepoint>,
    pub(super) bytes: &'a [u8],
}

/// One datagram and where it came from.
#[derive(Debug)]
pub(super) struct Datagram {
    pub(super) remote: SocketAddr,
    pub(super) local_ip: Option<IpAddr>,
    pub(super) ecn: Option<EcnCodepoint>,
    pub(super) bytes: BytesMut,
}

impl Arrived<'_> {
    /// A copy that outlives the buffer.
    pub(super) fn keep(&self) -> Datagram {
        let Self { remote, local_ip, ecn, bytes } = *self;
        Datagram { remote, local_ip, ecn, bytes: bytes.into() }
    }
}

impl Socket {
    /// On any other address than `[::]` as the system lets it.
    pub(super) fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = std::net::UdpSocket::bind(address)?;
        // Less room costs packets that are sent again, and no start.
        rustix::net::sockopt::set_socket_recv_buffer_size(&socket, KERNEL_BYTES).ok();
        rustix::net::sockopt::set_socket_send_buffer_size(&socket, KERNEL_BYTES).ok();
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket: UdpSocket::from_std(socket)?, state, buffer: vec![0; BATCH * TRAIN_BYTES], kept: None })
    }

    pub(super) fn may_fragment(&self) -> bool {
        self.state.may_fragment()
    }

    /// Resolves when there may be something to receive.
    pub(super) async fn readable(&self) {
        // An error shows at the next receive.
        self.socket.readable().await.ok();
    }

    /// Resolves when what was kept may go out.
    pub(super) async fn writable(&self) {
        // An error shows at the next send.
        self.socket.writable().await.ok();
    }

    /// What one system call brings; nothing when nothing is there.
    pub(super) fn receive(&mut self, each: impl FnMut(Arrived<'_>)) -> io::Result<bool> {
        let Self { socket, state, buffer, .. } = self;
        let readable = Interest::READABLE;
        take(
            buffer,
            |slices, metas| socket.try_io(readable, || state.recv(UdpSockRef::from(&*socket), slices, metas)),
            each,
        )
    }

    /// The same without asking the runtime, which hears that something came only between two turns.
    pub(super) fn receive_early(&mut self, each: impl FnMut(Arrived<'_>)) -> io::Result<bool> {
        let Self { socket, state, buffer, .. } = self;
        take(buffer, |slices, metas| state.recv(UdpSockRef::from(&*socket), slices, metas), each)
    }

    /// Whether the kernel has no room, as far as is known.
    pub(super) fn is_full(&self) -> bool {
        self.kept.is_some()
    }

    /// Sends what was kept, if it can.
    pub(super) fn retry(&mut self) {
        if let Some((transmit, bytes)) = self.kept.take() {
            self.send(transmit, &bytes);
        }
    }

    /// Sends now or keeps; what comes while one is kept is lost, as on any full link.
    pub(super) fn send(&mut self, transmit: Transmit, bytes: &[u8]) {
        if self.kept.is_some() {
            return;
        }
        let bytes = &bytes[..transmit.size.min(bytes.len())];
        let datagram = quinn_udp::Transmit {
            destination: transmit.destination,
            ecn: transmit.ecn.and_then(|ecn| quinn_udp::EcnCodepoint::from_bits(ecn as u8)),
            contents: bytes,
            segment_size: transmit.segment_size,
            src_ip: transmit.src_ip,
        };
        let sent =
            self.socket.try_io(Interest::WRITABLE, || self.state.send(UdpSockRef::from(&self.socket), &datagram));
        // Every other error counts as a packet that the network lost.
        if sent.is_err_and(|error| error.kind() == ErrorKind::WouldBlock) {
            self.kept = Some((transmit, bytes.to_vec()));
        }
    }
}

/// One system call, and what it brought.
fn take(
    buffer: &mut [u8],
    receive: impl FnOnce(&mut [IoSliceMut<'_>], &mut [RecvMeta]) -> io::Result<usize>,
    mut each: impl FnMut(Arrived<'_>),
) -> io::Result<bool> {
    let mut metas = [RecvMeta::default(); BATCH];
    let mut chunks = buffer.chunks_mut(TRAIN_BYTES);
    let mut slices: [IoSliceMut<'_>; BATCH] =
        std::array::from_fn(|_| IoSliceMut::new(chunks.next().unwrap_or_default()));
    let count = match receive(&mut slices, &mut metas) {
        Ok(count) => count,
        Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
        // Anyone can send such an ICMP message; it means nothing to QUIC.
        Err(error) if is_passing(&error) => return Ok(true),
        Err(error) => return Err(error),
    };
    for (meta, slice) in metas.iter().zip(&slices).take(count) {
        let ecn = meta.ecn.and_then(|ecn| EcnCodepoint::from_bits(ecn as u8));
        for bytes in slice[..meta.len.min(slice.len())].chunks(meta.stride.max(1)) {
            each(Arrived { remote: meta.addr, local_ip: meta.dst_ip, ecn, bytes });
        }
    }
    Ok(true)
}

fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::ConnectionRefused | ErrorKind::Interrupted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn datagrams_arrive_one_by_one_with_their_sender() {
        let mut socket = Socket::bind(([127, 0, 0, 1], 0).into()).expect("loopback has room");
        let peer = std::net::UdpSocket::bind(("127.0.0.1", 0)).expect("loopback has room");
        let address = socket.socket.local_addr().expect("it is bound");
        for text in ["one", "two", "three"] {
            peer.send_to(text.as_bytes(), address).expect("loopback takes it");
        }
        let mut seen = Vec::new();
        while seen.len() < 3 {
            socket.readable().await;
            while socket.receive(|arrived| seen.push(arrived.keep())).expect("nothing is wrong") {}
        }
        let texts: Vec<_> = seen.iter().map(|datagram| &datagram.bytes[..]).collect();
        assert_eq!(texts, [&b"one"[..], b"two", b"three"]);
        assert_eq!(seen[0].remote, peer.local_addr().expect("it is bound"));
    }
}
