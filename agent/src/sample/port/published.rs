//! Ports that engines publish for their containers, beside the sockets of the host.
//!
//! Pure. A published port is served by a proxy that listens on the host, or by rules of the firewall without any socket.
//! The first gives that socket its container, the second is told as a port of its own.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

use dunlin_shared::inventory::Published;

use super::socket::{Spot, Table};

/// Containers that are served, by the spot on the host.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Served<'a> {
    /// By a socket.
    pub(super) proxied: BTreeMap<Spot, &'a str>,
    /// By no socket.
    pub(super) bare: BTreeMap<Spot, &'a str>,
}

/// Of two containers that publish the same port one is about to go; the first by name is told.
pub(super) fn served<'a>(host: &Table, published: impl Iterator<Item = (&'a str, &'a Published)>) -> Served<'a> {
    let mut served = Served::default();
    for (name, published) in published {
        let spot = (published.protocol, published.port, published.address);
        let (spots, spot) = match socket(host, spot) {
            Some(found) => (&mut served.proxied, found),
            None => (&mut served.bare, spot),
        };
        spots.entry(spot).and_modify(|held| *held = name.min(held)).or_insert(name);
    }
    served
}

/// The socket on the spot itself, or one that takes IPv4 on every address of IPv6.
fn socket(host: &Table, (protocol, port, address): Spot) -> Option<Spot> {
    if host.get(&(protocol, port, address)).is_some() {
        return Some((protocol, port, address));
    }
    let both = (protocol, port, IpAddr::V6(Ipv6Addr::UNSPECIFIED));
    let is_any = matches!(address, IpAddr::V4(v4) if v4.is_unspecified());
    host.get(&both).filter(|socket| is_any && !socket.is_v6_only).map(|_| both)
}

#[cfg(test)]
mod tests {
    use dunlin_shared::inventory::Protocol;

    use super::*;
    use crate::sample::port::socket::Socket;

    fn spot(protocol: Protocol, address: &str, port: u16) -> Spot {
        (protocol, port, address.parse().expect("an address"))
    }

    fn published(protocol: Protocol, address: &str, port: u16) -> Published {
        Published { protocol, address: address.parse().expect("an address"), port, inside: 80 }
    }

    fn host(sockets: &[(Protocol, &str, u16, bool)]) -> Table {
        let mut table = Table::of(10);
        for &(protocol, address, port, is_v6_only) in sockets {
            let address = address.parse().expect("an address");
            table.take(Socket { protocol, address, port, uid: 0, inode: 1, is_v6_only });
        }
        table
    }

    #[test]
    fn a_published_port_belongs_to_the_socket_that_serves_it_or_to_none() {
        use Protocol::{Tcp, Udp};
        let host = host(&[
            (Tcp, "0.0.0.0", 80, false),
            (Tcp, "::", 443, false),
            (Tcp, "::", 444, true),
            (Udp, "127.0.0.1", 53, false),
        ]);
        let published = [
            ("web", published(Tcp, "0.0.0.0", 80)),
            ("web", published(Tcp, "0.0.0.0", 443)),
            ("web", published(Tcp, "0.0.0.0", 444)),
            ("web", published(Tcp, "10.0.0.1", 443)),
            ("dns", published(Udp, "127.0.0.1", 53)),
            ("dns", published(Tcp, "127.0.0.1", 53)),
        ];
        let served = served(&host, published.iter().map(|(name, published)| (*name, published)));
        let proxied =
            [(spot(Tcp, "0.0.0.0", 80), "web"), (spot(Tcp, "::", 443), "web"), (spot(Udp, "127.0.0.1", 53), "dns")];
        let bare = [
            (spot(Tcp, "0.0.0.0", 444), "web"),
            (spot(Tcp, "10.0.0.1", 443), "web"),
            (spot(Tcp, "127.0.0.1", 53), "dns"),
        ];
        assert_eq!(served, Served { proxied: proxied.into(), bare: bare.into() });
    }

    #[test]
    fn of_two_that_publish_one_port_the_first_is_told_in_whatever_order() {
        let published = [published(Protocol::Tcp, "0.0.0.0", 80), published(Protocol::Tcp, "0.0.0.0", 80)];
        for names in [["a", "b"], ["b", "a"]] {
            let served = served(&host(&[]), names.into_iter().zip(&published));
            assert_eq!(served.bare.into_values().collect::<Vec<_>>(), ["a"]);
        }
    }
}
