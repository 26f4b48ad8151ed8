//! UDP sockets on ports that the kernel draws: clients' sockets come and go, so one is told once it stood for two ticks.
//!
//! What it remembers is bounded; sockets beyond that stay untold and are counted as left out.

use dunlin_shared::inventory::Protocol;
use dunlin_shared::time::MonoMs;

use super::socket::{Socket, Table};
use crate::sample::source::Source;

const RANGE: &str = "proc/sys/net/ipv4/ip_local_port_range";
/// The range hardly ever changes.
const RANGE_EVERY_MS: u64 = 60_000;
/// The kernel's own default, where it does not tell.
const RANGE_DEFAULT: (u16, u16) = (32_768, 60_999);
/// Twice as many ports as a node may have.
const KEPT_MAX: usize = 4_096;

#[derive(Debug, Default)]
pub(super) struct Young {
    range: Option<(MonoMs, (u16, u16))>,
    /// Inodes of the tick before, sorted.
    before: Vec<u64>,
    /// Of this one.
    seen: Vec<u64>,
}

impl Young {
    /// Once a tick, before its sockets.
    pub(super) fn begin(&mut self, source: &mut Source, now: MonoMs) {
        if self.range.is_none_or(|(at, _)| now.since(at) >= RANGE_EVERY_MS) {
            let line = source.line(RANGE).unwrap_or_default();
            let mut words = line.split_whitespace().map(|word| word.parse().ok());
            let read = words.next().flatten().zip(words.next().flatten());
            self.range = Some((now, read.unwrap_or(RANGE_DEFAULT)));
        }
    }

    /// The sockets of this tick are told anew.
    pub(super) fn restart(&mut self) {
        self.seen.clear();
    }

    /// Puts a socket into the table, unless it is to prove first that it stays.
    pub(super) fn sift(&mut self, socket: Socket, table: &mut Table) {
        if !self.is_drawn(&socket) {
            return table.take(socket);
        }
        if self.seen.len() >= KEPT_MAX {
            return table.leave_out(1);
        }
        self.seen.push(socket.inode);
        if self.before.binary_search(&socket.inode).is_ok() {
            table.take(socket);
        }
    }

    /// A socket that was told and is there still.
    pub(super) fn stand(&mut self, socket: &Socket) {
        if self.is_drawn(socket) && self.seen.len() < KEPT_MAX {
            self.seen.push(socket.inode);
        }
    }

    /// Once a tick, behind its sockets.
    pub(super) fn end(&mut self) {
        std::mem::swap(&mut self.before, &mut self.seen);
        self.before.sort_unstable();
        self.seen.clear();
    }

    fn is_drawn(&self, socket: &Socket) -> bool {
        let (_, (low, high)) = self.range.unwrap_or((MonoMs(0), RANGE_DEFAULT));
        socket.protocol == Protocol::Udp && (low..=high).contains(&socket.port) && socket.inode != 0
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;
    use crate::sample::tree::Tree;

    fn take(young: &mut Young, tree: &Tree, now: u64, sockets: &[(Protocol, u16, u64)]) -> (Vec<u16>, u32) {
        let mut table = Table::of(10);
        young.begin(&mut Source::new(tree.path()), MonoMs(now));
        for &(protocol, port, inode) in sockets {
            let address = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
            young.sift(Socket { protocol, address, port, uid: 0, inode, is_v6_only: false }, &mut table);
        }
        young.end();
        (table.sockets().map(|socket| socket.port).collect(), table.left_out())
    }

    #[test]
    fn a_drawn_udp_port_is_told_at_its_second_tick_and_all_else_at_once() {
        use Protocol::{Tcp, Udp};
        let (tree, mut young) = (Tree::new(&[(RANGE, "40000\t50000\n")]), Young::default());
        let sockets =
            [(Tcp, 45_000, 1), (Udp, 53, 2), (Udp, 39_999, 3), (Udp, 40_000, 4), (Udp, 50_000, 5), (Udp, 50_001, 6)];
        assert_eq!(take(&mut young, &tree, 0, &sockets).0, [45_000, 53, 39_999, 50_001]);
        assert_eq!(take(&mut young, &tree, 1, &sockets).0, [45_000, 53, 39_999, 40_000, 50_000, 50_001]);
        // The port is drawn again by another one.
        assert_eq!(take(&mut young, &tree, 2, &[(Udp, 40_000, 7), (Udp, 50_000, 5)]).0, [50_000]);
    }

    #[test]
    fn the_range_is_read_again_after_a_while_and_has_a_default() {
        let (tree, mut young) = (Tree::new(&[(RANGE, "nonsense")]), Young::default());
        assert!(take(&mut young, &tree, 0, &[(Protocol::Udp, 32_768, 1)]).0.is_empty());
        tree.set(RANGE, "60000 61000\n");
        let later = [(Protocol::Udp, 32_769, 2)];
        assert!(take(&mut young, &tree, RANGE_EVERY_MS - 1, &later).0.is_empty());
        assert_eq!(take(&mut young, &tree, RANGE_EVERY_MS, &[(Protocol::Udp, 32_770, 3)]).0, [32_770]);
    }

    #[test]
    fn what_is_remembered_is_bounded_and_the_rest_is_counted() {
        let (tree, mut young) = (Tree::new(&[]), Young::default());
        let many: Vec<_> = (0..5_000).map(|n| (Protocol::Udp, 40_000, n + 1)).collect();
        assert_eq!(take(&mut young, &tree, 0, &many), (vec![], 904));
        assert_eq!(take(&mut young, &tree, 1, &many), (vec![40_000], 904));
    }
}
