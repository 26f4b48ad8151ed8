//! Who may begin a handshake: so many in all, so many from one network, and above a threshold only
//! peers that proved their address. Pure; the driver asks.

use std::collections::HashMap;
use std::net::IpAddr;

use dunlin_shared::limits::{HANDSHAKES_BEFORE_RETRY, HANDSHAKES_MAX, HANDSHAKES_PER_PREFIX_MAX};

/// A network that shares a budget: an IPv4 /24 or an IPv6 /56.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Prefix {
    V4([u8; 3]),
    V6([u8; 7]),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Accept(Prefix),
    /// Come back with a token.
    Retry,
    Refuse,
}

/// Handshakes under way, by network.
#[derive(Debug, Default)]
pub struct Admission {
    under_way: usize,
    by_prefix: HashMap<Prefix, usize>,
}

impl Prefix {
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(v4) => {
                let [a, b, c, _] = v4.octets();
                Self::V4([a, b, c])
            }
            IpAddr::V6(v6) => {
                let mut prefix = [0; 7];
                prefix.copy_from_slice(&v6.octets()[..7]);
                Self::V6(prefix)
            }
        }
    }
}

impl Admission {
    /// An accepted handshake counts until `done`. A forged address spends another network's budget, but
    /// unproven ones are only accepted below the threshold, which is half of what a network may have.
    pub fn judge(&mut self, address: IpAddr, proven: bool) -> Verdict {
        if !proven && self.under_way >= HANDSHAKES_BEFORE_RETRY {
            return Verdict::Retry;
        }
        let prefix = Prefix::of(address);
        let here = self.by_prefix.get(&prefix).copied().unwrap_or(0);
        if here >= HANDSHAKES_PER_PREFIX_MAX || self.under_way >= HANDSHAKES_MAX {
            return Verdict::Refuse;
        }
        self.by_prefix.insert(prefix, here + 1);
        self.under_way += 1;
        Verdict::Accept(prefix)
    }

    pub fn done(&mut self, prefix: Prefix) {
        self.under_way = self.under_way.saturating_sub(1);
        if let Some(here) = self.by_prefix.get_mut(&prefix) {
            *here -= 1;
            if *here == 0 {
                self.by_prefix.remove(&prefix);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    fn host(n: u8) -> IpAddr {
        Ipv4Addr::new(192, 0, 2, n).into()
    }

    #[test]
    fn above_the_threshold_an_unproven_address_must_prove_itself() {
        let mut admission = Admission::default();
        for n in 0..HANDSHAKES_BEFORE_RETRY {
            let other = Ipv4Addr::new(10, 0, u8::try_from(n).expect("small"), 1).into();
            assert!(matches!(admission.judge(other, false), Verdict::Accept(_)));
        }
        assert_eq!(admission.judge(host(1), false), Verdict::Retry);
        assert!(matches!(admission.judge(host(1), true), Verdict::Accept(_)));
    }

    #[test]
    fn one_network_cannot_take_all_and_gets_its_share_back() {
        let mut admission = Admission::default();
        for _ in 0..HANDSHAKES_PER_PREFIX_MAX {
            assert!(matches!(admission.judge(host(7), true), Verdict::Accept(_)));
        }
        assert_eq!(admission.judge(host(8), true), Verdict::Refuse);
        assert!(matches!(admission.judge(Ipv6Addr::LOCALHOST.into(), true), Verdict::Accept(_)));
        admission.done(Prefix::of(host(1)));
        assert!(matches!(admission.judge(host(8), true), Verdict::Accept(_)));
    }

    #[test]
    fn beyond_the_most_in_all_nobody_begins() {
        let mut admission = Admission::default();
        for n in 0..HANDSHAKES_MAX {
            let [high, low] = u16::try_from(n).expect("small").to_be_bytes();
            let other = Ipv4Addr::new(10, high, low, 1).into();
            assert!(matches!(admission.judge(other, true), Verdict::Accept(_)));
        }
        assert_eq!(admission.judge(host(1), true), Verdict::Refuse);
    }

    #[test]
    fn a_mapped_address_is_the_ipv4_address() {
        let mapped = Ipv4Addr::new(192, 0, 2, 9).to_ipv6_mapped().into();
        assert_eq!(Prefix::of(mapped), Prefix::of(host(1)));
    }
}
