//! How often a network may show tokens that are none, and what of it is worth a line in the log.
//!
//! Pure. It never stands in the way of a token that is good: a neighbour behind the same address must not
//! be able to lock anybody out, and 160 bits are not guessed at any rate. What it bounds is the log.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dunlin_shared::time::MonoMs;

/// Wrong tokens that a network may show at once: a fleet of scripts whose token has just expired.
const BURST: u64 = 10;
/// And then one in so long.
const EACH_MS: u64 = 6_000;
/// Networks that are counted one by one, 64 bytes each; the others share one account.
const NETWORKS_MAX: usize = 4_096;
/// Lines in the log that all networks together may cause at once, and then one in so long.
const LINES_BURST: u64 = 20;
const LINE_EACH_MS: u64 = 1_000;

/// A /24 or a /56: what one party usually holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Network {
    V4(Ipv4Addr),
    V6(Ipv6Addr),
    Others,
}

#[derive(Debug, Default)]
pub(super) struct Guesses {
    networks: HashMap<Network, Account>,
    lines: Account,
}

#[derive(Debug, Default)]
struct Account {
    /// When all that was spent is earned back.
    even_at: MonoMs,
    /// In a row.
    times: u64,
}

/// What becomes of a wrong token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Guessed {
    /// How long to stay away; 0 is not at all.
    pub(super) wait_ms: u64,
    /// So many in a row, when that is worth a line.
    pub(super) line: Option<u64>,
}

impl Network {
    pub(super) fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(Ipv4Addr::from_bits(address.to_bits() & !0xff)),
            IpAddr::V6(address) => Self::V6(Ipv6Addr::from_bits(address.to_bits() & !(u128::MAX >> 56))),
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::V4(address) => write!(f, "{address}/24"),
            Self::V6(address) => write!(f, "{address}/56"),
            Self::Others => f.write_str("many networks"),
        }
    }
}

impl Guesses {
    /// A token was shown that is none.
    pub(super) fn wrong(&mut self, network: Network, now: MonoMs) -> (Network, Guessed) {
        if self.networks.len() >= NETWORKS_MAX && !self.networks.contains_key(&network) {
            self.networks.retain(|_, account| account.even_at > now);
        }
        let network = if self.networks.len() >= NETWORKS_MAX && !self.networks.contains_key(&network) {
            Network::Others
        } else {
            network
        };
        let account = self.networks.entry(network).or_default();
        if account.even_at <= now {
            account.times = 0;
        }
        account.times += 1;
        let times = account.times;
        let wait_ms = account.spend(now, BURST, EACH_MS);
        let line = times.is_power_of_two() && self.lines.spend(now, LINES_BURST, LINE_EACH_MS) == 0;
        (network, Guessed { wait_ms, line: line.then_some(times) })
    }
}

impl Account {
    /// 0 when there was something left to spend, else how long until there is.
    fn spend(&mut self, now: MonoMs, burst: u64, each_ms: u64) -> u64 {
        let even_at = self.even_at.max(now);
        let over_ms = even_at.since(now).saturating_sub((burst - 1) * each_ms);
        if over_ms == 0 {
            self.even_at = even_at.plus(each_ms);
        }
        over_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> Network {
        Network::of(text.parse().expect("an address"))
    }

    #[test]
    fn ten_at_once_are_let_be_and_then_one_in_six_seconds() {
        let (mut guesses, here) = (Guesses::default(), network("198.51.100.7"));
        let mut waits = |at: u64, count: usize| -> Vec<u64> {
            (0..count).map(|_| guesses.wrong(here, MonoMs(at)).1.wait_ms).collect()
        };
        assert_eq!(waits(1_000, 10), [0; 10]);
        assert_eq!(waits(1_000, 2), [6_000, 6_000]);
        assert_eq!(waits(7_000, 2), [0, 6_000]);
        assert_eq!(waits(1_000_000, 10), [0; 10]);
    }

    #[test]
    fn neighbours_share_an_account_and_others_do_not() {
        let mut guesses = Guesses::default();
        for _ in 0..10 {
            guesses.wrong(network("198.51.100.7"), MonoMs(0));
        }
        assert!(guesses.wrong(network("198.51.100.200"), MonoMs(0)).1.wait_ms > 0);
        assert!(guesses.wrong(network("::ffff:198.51.100.9"), MonoMs(0)).1.wait_ms > 0);
        assert_eq!(guesses.wrong(network("198.51.101.7"), MonoMs(0)).1.wait_ms, 0);
        assert_eq!(network("2001:db8:1:2ff::1").to_string(), "2001:db8:1:200::/56");
    }

    #[test]
    fn lines_come_at_powers_of_two_and_never_in_a_flood() {
        let mut guesses = Guesses::default();
        let here = network("198.51.100.7");
        let lines: Vec<u64> = (0..1_000).filter_map(|n| guesses.wrong(here, MonoMs(n)).1.line).collect();
        assert_eq!(lines, [1, 2, 4, 8, 16, 32, 64, 128, 256, 512]);
        let flood = (0..20_000u32).filter(|n| {
            let address = IpAddr::V4(Ipv4Addr::from_bits(n << 8));
            guesses.wrong(Network::of(address), MonoMs(1_000)).1.line.is_some()
        });
        assert!(flood.count() <= 20);
        assert!(guesses.networks.len() <= NETWORKS_MAX + 1);
    }
}
