//! Who may begin a handshake: so many in all, so many from one network, above a threshold only peers that proved their
//! address, and of a network whose handshakes come to nothing fewer and fewer. Pure; the driver asks.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dunlin_shared::limits::{
    FAILED_HANDSHAKES_BURST, FAILED_HANDSHAKES_PER_S, HANDSHAKES_BEFORE_RETRY, HANDSHAKES_MAX,
    HANDSHAKES_PER_PREFIX_MAX,
};
use dunlin_shared::session::pace::Bucket;
use dunlin_shared::time::MonoMs;

/// Networks whose failures are told apart; what comes from others beyond it is not held against them. 60 bytes each.
const FAILING_MAX: usize = 4_096;
/// An empty bucket is full again by then.
const FORGOTTEN_MS: u64 = 1_000 * (FAILED_HANDSHAKES_BURST / FAILED_HANDSHAKES_PER_S) as u64;

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
    Refuse(Refusal),
}

/// Why a network has to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// So many of its handshakes are under way.
    UnderWay,
    /// So many of them came to nothing.
    Failing,
    /// So many are under way in all.
    Full,
}

/// Handshakes under way, by network, and what has become of those before.
#[derive(Debug, Default)]
pub struct Admission {
    under_way: usize,
    by_prefix: HashMap<Prefix, usize>,
    failing: HashMap<Prefix, Failing>,
}

#[derive(Debug)]
struct Failing {
    left: Bucket,
    last: MonoMs,
}

impl Refusal {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UnderWay => "under_way",
            Self::Failing => "failing",
            Self::Full => "full",
        }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::V4([a, b, c]) => write!(f, "{}/24", Ipv4Addr::new(*a, *b, *c, 0)),
            Self::V6(bytes) => {
                let mut octets = [0; 16];
                octets[..7].copy_from_slice(bytes);
                write!(f, "{}/56", Ipv6Addr::from(octets))
            }
        }
    }
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
    pub fn judge(&mut self, now: MonoMs, address: IpAddr, proven: bool) -> Verdict {
        let prefix = Prefix::of(address);
        // An address that is not proven is asked for that first, so that nobody has another network refused.
        if !proven && (self.under_way >= HANDSHAKES_BEFORE_RETRY || self.is_failing(now, prefix)) {
            return Verdict::Retry;
        }
        if self.is_failing(now, prefix) {
            return Verdict::Refuse(Refusal::Failing);
        }
        let here = self.by_prefix.get(&prefix).copied().unwrap_or(0);
        if here >= HANDSHAKES_PER_PREFIX_MAX {
            return Verdict::Refuse(Refusal::UnderWay);
        }
        if self.under_way >= HANDSHAKES_MAX {
            return Verdict::Refuse(Refusal::Full);
        }
        self.by_prefix.insert(prefix, here + 1);
        self.under_way += 1;
        Verdict::Accept(prefix)
    }

    /// A handshake from there cost its work and came to nothing, or to a peer that was at once sent away. One that ends
    /// by its deadline is not meant: so many of those are under way at most.
    pub fn failed(&mut self, now: MonoMs, prefix: Prefix) {
        if !self.failing.contains_key(&prefix) && self.failing.len() >= FAILING_MAX {
            self.failing.retain(|_, failing| now < failing.last.plus(FORGOTTEN_MS));
            if self.failing.len() >= FAILING_MAX {
                return;
            }
        }
        let fresh = || Failing { left: Bucket::new(now, FAILED_HANDSHAKES_BURST, FAILED_HANDSHAKES_PER_S), last: now };
        let failing = self.failing.entry(prefix).or_insert_with(fresh);
        failing.left.take(now);
        failing.last = now;
    }

    /// Until it may fail once more: that one is tried.
    fn is_failing(&self, now: MonoMs, prefix: Prefix) -> bool {
        self.failing.get(&prefix).is_some_and(|failing| !failing.left.has_one(now))
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

    const NOW: MonoMs = MonoMs(0);

    fn host(n: u8) -> IpAddr {
        Ipv4Addr::new(192, 0, 2, n).into()
    }

    #[test]
    fn above_the_threshold_an_unproven_address_must_prove_itself() {
        let mut admission = Admission::default();
        for n in 0..HANDSHAKES_BEFORE_RETRY {
            let other = Ipv4Addr::new(10, 0, u8::try_from(n).expect("small"), 1).into();
            assert!(matches!(admission.judge(NOW, other, false), Verdict::Accept(_)));
        }
        assert_eq!(admission.judge(NOW, host(1), false), Verdict::Retry);
        assert!(matches!(admission.judge(NOW, host(1), true), Verdict::Accept(_)));
    }

    #[test]
    fn one_network_cannot_take_all_and_gets_its_share_back() {
        let mut admission = Admission::default();
        for _ in 0..HANDSHAKES_PER_PREFIX_MAX {
            assert!(matches!(admission.judge(NOW, host(7), true), Verdict::Accept(_)));
        }
        assert_eq!(admission.judge(NOW, host(8), true), Verdict::Refuse(Refusal::UnderWay));
        assert!(matches!(admission.judge(NOW, Ipv6Addr::LOCALHOST.into(), true), Verdict::Accept(_)));
        admission.done(Prefix::of(host(1)));
        assert!(matches!(admission.judge(NOW, host(8), true), Verdict::Accept(_)));
    }

    #[test]
    fn beyond_the_most_in_all_nobody_begins() {
        let mut admission = Admission::default();
        for n in 0..HANDSHAKES_MAX {
            let [high, low] = u16::try_from(n).expect("small").to_be_bytes();
            let other = Ipv4Addr::new(10, high, low, 1).into();
            assert!(matches!(admission.judge(NOW, other, true), Verdict::Accept(_)));
        }
        assert_eq!(admission.judge(NOW, host(1), true), Verdict::Refuse(Refusal::Full));
    }

    #[test]
    fn a_mapped_address_is_the_ipv4_address() {
        let mapped = Ipv4Addr::new(192, 0, 2, 9).to_ipv6_mapped().into();
        assert_eq!(Prefix::of(mapped), Prefix::of(host(1)));
    }

    #[test]
    fn a_network_whose_handshakes_come_to_nothing_is_refused_more_and_more_and_others_are_not() {
        let mut admission = Admission::default();
        let mut attempts = 0;
        for ms in 0..20_000 {
            if let Verdict::Accept(prefix) = admission.judge(MonoMs(ms), host(7), true) {
                attempts += 1;
                admission.failed(MonoMs(ms), prefix);
                admission.done(prefix);
            }
        }
        let most = FAILED_HANDSHAKES_BURST + 20 * (FAILED_HANDSHAKES_PER_S + 1);
        assert!((FAILED_HANDSHAKES_BURST..=most).contains(&attempts), "{attempts}");
        let now = MonoMs(20_000);
        while let Verdict::Accept(prefix) = admission.judge(now, host(7), true) {
            admission.failed(now, prefix);
            admission.done(prefix);
        }
        assert_eq!(admission.judge(now, host(8), true), Verdict::Refuse(Refusal::Failing));
        assert_eq!(admission.judge(now, host(8), false), Verdict::Retry, "it may be somebody else's address");
        assert!(matches!(admission.judge(now, Ipv4Addr::new(192, 0, 3, 1).into(), true), Verdict::Accept(_)));
        assert!(matches!(admission.judge(now.plus(FORGOTTEN_MS), host(8), true), Verdict::Accept(_)));
    }

    #[test]
    fn failures_of_many_networks_do_not_fill_the_memory() {
        let mut admission = Admission::default();
        for n in 0..10_000_u16 {
            let [high, low] = n.to_be_bytes();
            admission.failed(NOW, Prefix::of(Ipv4Addr::new(10, high, low, 1).into()));
        }
        assert_eq!(admission.failing.len(), FAILING_MAX);
    }

    #[test]
    fn networks_are_written_as_people_write_them() {
        assert_eq!(Prefix::of(host(9)).to_string(), "192.0.2.0/24");
        let address: IpAddr = "2001:db8:1:2ff:5::1".parse().expect("an address");
        assert_eq!(Prefix::of(address).to_string(), "2001:db8:1:200::/56");
    }
}
