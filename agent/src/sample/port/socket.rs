//! A socket that listens, and the bounded table of those of one network.
//!
//! Sockets on one place, as with SO_REUSEPORT, are one entry. Of more places than the table holds the first are kept, by
//! protocol, port and address, so that what is left out is the same at each tick; the rest is counted.

use std::collections::BTreeMap;
use std::net::IpAddr;

use dunlin_shared::inventory::Protocol;

/// A listening TCP or bound UDP socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Socket {
    pub protocol: Protocol,
    pub address: IpAddr,
    pub port: u16,
    pub uid: u32,
    /// 0 where the kernel holds it for itself.
    pub inode: u64,
    /// Known to refuse IPv4; `/proc` does not tell it.
    pub is_v6_only: bool,
}

/// Where a socket listens, within its network.
pub(super) type Spot = (Protocol, u16, IpAddr);

#[derive(Debug, Default)]
pub(super) struct Table {
    sockets: BTreeMap<Spot, Socket>,
    max: usize,
    left_out: u32,
}

impl Socket {
    pub(super) const fn spot(&self) -> Spot {
        (self.protocol, self.port, self.address)
    }
}

impl Table {
    pub(super) const fn of(max: usize) -> Self {
        Self { sockets: BTreeMap::new(), max, left_out: 0 }
    }

    /// Of several on one spot the oldest stays: inodes are numbered upwards.
    pub(super) fn take(&mut self, socket: Socket) {
        let spot = socket.spot();
        if let Some(held) = self.sockets.get_mut(&spot) {
            if held.inode == 0 || (socket.inode != 0 && socket.inode < held.inode) {
                *held = socket;
            }
            return;
        }
        if self.sockets.len() < self.max {
            self.sockets.insert(spot, socket);
            return;
        }
        self.left_out = self.left_out.saturating_add(1);
        if self.sockets.last_key_value().is_some_and(|(last, _)| spot < *last) {
            self.sockets.pop_last();
            self.sockets.insert(spot, socket);
        }
    }

    /// So many more that are there and are not told.
    pub(super) const fn leave_out(&mut self, count: u32) {
        self.left_out = self.left_out.saturating_add(count);
    }

    pub(super) fn get(&self, spot: &Spot) -> Option<&Socket> {
        self.sockets.get(spot)
    }

    pub(super) fn sockets(&self) -> impl Iterator<Item = &Socket> {
        self.sockets.values()
    }

    pub(super) fn len(&self) -> usize {
        self.sockets.len()
    }

    pub(super) const fn left_out(&self) -> u32 {
        self.left_out
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn socket(port: u16, inode: u64) -> Socket {
        let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
        Socket { protocol: Protocol::Tcp, address, port, uid: 0, inode, is_v6_only: false }
    }

    #[test]
    fn sockets_on_one_spot_are_one_and_the_oldest_stands_for_them() {
        let mut table = Table::of(10);
        [7, 5, 9, 0].into_iter().for_each(|inode| table.take(socket(80, inode)));
        assert_eq!(table.sockets().collect::<Vec<_>>(), [&socket(80, 5)]);
        let mut kernel = Table::of(10);
        [0, 9].into_iter().for_each(|inode| kernel.take(socket(80, inode)));
        assert_eq!(kernel.get(&socket(80, 0).spot()), Some(&socket(80, 9)));
    }

    #[test]
    fn of_too_many_the_same_are_kept_in_whatever_order_they_come() {
        let (mut up, mut down) = (Table::of(3), Table::of(3));
        (1..=5).for_each(|port| up.take(socket(port, 1)));
        (1..=5).rev().for_each(|port| down.take(socket(port, 1)));
        assert_eq!(up.sockets().map(|socket| socket.port).collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(up.sockets, down.sockets);
        assert_eq!((up.left_out(), down.left_out()), (2, 2));
    }
}
