//! The tables of one network below `/proc`, read only when they may have changed.
//!
//! To write a table of TCP the kernel walks the connections of the whole host: 5 ms where memory makes that table large.
//! So it counts first, from `sockstat`: a family without sockets has no listeners, and one with as many sockets as it has
//! listeners and connections has those that it had. Only one listener in the place of another between two looks hides
//! from that: what speaks for one is a doubt, with which a network is read whatever is counted; and each is read anew
//! from time to time. UDP is cheap, and read at each tick that has any.

use std::io::ErrorKind;
use std::path::Path;

use dunlin_shared::inventory::Protocol;

use super::listing;
use super::socket::{Socket, Table};
use super::young::Young;
use crate::sample::failure::SampleError;
use crate::sample::source::Source;

/// With so many connections the kernel's walk soon meets one, and ends there: reading is cheaper than to wonder.
const MANY: u64 = 16;
const TCP: [&str; 2] = ["tcp", "tcp6"];
const UDP: [&str; 2] = ["udp", "udp6"];

/// What a tick may still spend on tables of TCP.
#[derive(Debug)]
pub(super) struct Effort {
    pub(super) reads: u32,
    /// A table had to wait for another tick.
    pub(super) is_spent: bool,
    /// A table was not read to its end.
    pub(super) is_cut: bool,
}

/// Of IPv4 and of IPv6.
#[derive(Debug, Default)]
pub(super) struct Tables {
    /// Sockets of one table that are kept.
    max: usize,
    tcp: [Option<Listed>; 2],
    udp: [Table; 2],
    /// One listener may stand in the place of another; it stays so until all of TCP is read.
    is_doubted: bool,
    /// Some table of TCP was read at the last look.
    was_read: bool,
}

#[derive(Debug)]
struct Listed {
    table: Table,
    /// With those that share a place.
    sockets: u64,
}

/// Sockets of one network, by family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct InUse {
    tcp: [u64; 2],
    udp: [u64; 2],
}

impl Tables {
    pub(super) fn of(max: usize) -> Self {
        Self { max, ..Self::default() }
    }

    /// One listener may stand in the place of another, though as many are counted.
    pub(super) const fn doubt(&mut self) {
        self.is_doubted = true;
    }

    pub(super) const fn is_doubted(&self) -> bool {
        self.is_doubted
    }

    pub(super) const fn was_read(&self) -> bool {
        self.was_read
    }

    /// Sockets of TCP that are known to listen.
    pub(super) fn listeners(&self) -> impl Iterator<Item = &Socket> {
        self.tcp.iter().flatten().flat_map(|listed| listed.table.sockets())
    }

    /// Brings what is known of the network whose directory this is up to date.
    pub(super) fn look(
        &mut self,
        source: &mut Source,
        net: &Path,
        is_anew: bool,
        effort: &mut Effort,
        young: &mut Young,
    ) -> Result<(), SampleError> {
        let in_use = in_use(source, net);
        let is_anew = is_anew || self.is_doubted;
        self.was_read = false;
        let mut waits = false;
        let is_as_before = !is_anew && in_use.is_some_and(|in_use| self.is_as_before(source, net, in_use));
        for (family, name) in TCP.into_iter().enumerate() {
            let sockets = in_use.map(|in_use| in_use.tcp[family]);
            if sockets == Some(0) {
                self.tcp[family] = Some(Listed { table: Table::of(self.max), sockets: 0 });
                continue;
            }
            if self.tcp[family].is_some() && is_as_before && !self.has_many(family, sockets) {
                continue;
            }
            if effort.reads == 0 {
                (effort.is_spent, waits) = (true, true);
                continue;
            }
            effort.reads -= 1;
            self.was_read = true;
            self.tcp[family] = None;
            let mut listed = Listed { table: Table::of(self.max), sockets: 0 };
            effort.is_cut |= read(source, net, name, Protocol::Tcp, |socket| {
                listed.sockets += 1;
                listed.table.take(socket);
            })?;
            self.tcp[family] = Some(listed);
        }
        self.is_doubted = is_anew && waits;
        self.udp = <[Table; 2]>::default();
        for (family, name) in UDP.into_iter().enumerate() {
            let mut table = Table::of(self.max);
            if in_use.is_none_or(|in_use| in_use.udp[family] > 0) {
                let sift = |socket| young.sift(socket, &mut table);
                effort.is_cut |= read(source, net, name, Protocol::Udp, sift)?;
            }
            self.udp[family] = table;
        }
        Ok(())
    }

    /// Is as it was at the look before, without one.
    pub(super) fn stand(&self, young: &mut Young) {
        self.udp.iter().flat_map(Table::sockets).for_each(|socket| young.stand(socket));
    }

    /// All that listens, as far as there is room for it.
    pub(super) fn pour(&self, room: usize) -> Table {
        let mut all = Table::of(room);
        let tables = self.tcp.iter().flatten().map(|listed| &listed.table).chain(&self.udp);
        for table in tables {
            table.sockets().for_each(|socket| all.take(*socket));
            all.leave_out(table.left_out());
        }
        all
    }

    /// Whether all sockets are listeners that are known, and connections.
    fn is_as_before(&self, source: &mut Source, net: &Path, in_use: InUse) -> bool {
        let mut others = 0;
        for (listed, sockets) in self.tcp.iter().zip(in_use.tcp) {
            let Some(listed) = listed else { return false };
            let Some(more) = sockets.checked_sub(listed.sockets) else { return false };
            others += more;
        }
        others == 0 || connections(source, net) == Some(others)
    }

    fn has_many(&self, family: usize, sockets: Option<u64>) -> bool {
        let listed = self.tcp[family].as_ref().map_or(0, |listed| listed.sockets);
        sockets.is_some_and(|sockets| sockets >= listed + MANY)
    }
}

/// A kernel without IPv6, or one that was started without it, has no table for it.
fn read(
    source: &Source,
    net: &Path,
    name: &str,
    protocol: Protocol,
    take: impl FnMut(Socket),
) -> Result<bool, SampleError> {
    match listing::read(&source.path(net).join(name), protocol, take) {
        Err(SampleError::Unreadable { source, .. }) if name.ends_with('6') && source.kind() == ErrorKind::NotFound => {
            Ok(false)
        }
        outcome => outcome,
    }
}

/// None where the kernel does not count, or not as expected.
fn in_use(source: &mut Source, net: &Path) -> Option<InUse> {
    let text = source.read(net.join("sockstat")).ok()?;
    let [tcp, udp] = counts(&text.lossy(), ["TCP:", "UDP:"])?;
    let [tcp6, udp6] = match source.read_optional(net.join("sockstat6"), "no IPv6") {
        Ok(text) => counts(&text.lossy(), ["TCP6:", "UDP6:"])?,
        Err(error) if error.is_absence() => [0, 0],
        Err(_) => return None,
    };
    Some(InUse { tcp: [tcp, tcp6], udp: [udp, udp6] })
}

/// Of lines such as `TCP: inuse 2 orphan 0`.
pub fn counts(text: &str, heads: [&str; 2]) -> Option<[u64; 2]> {
    let count = |head: &str| {
        let rest = text.lines().find_map(|line| line.strip_prefix(head))?;
        rest.trim_start().strip_prefix("inuse ")?.split(' ').next()?.parse().ok()
    };
    Some([count(heads[0])?, count(heads[1])?])
}

/// Connections of both families that stand.
fn connections(source: &mut Source, net: &Path) -> Option<u64> {
    let text = source.read(net.join("snmp")).ok()?;
    established(&text.lossy())
}

/// Of two lines of one head: names, then values.
pub fn established(text: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Tcp: "));
    let (names, values) = (lines.next()?, lines.next()?);
    let column = names.split(' ').position(|name| name == "CurrEstab")?;
    values.split(' ').nth(column)?.parse().ok()
}

#[cfg(test)]
mod tests;
