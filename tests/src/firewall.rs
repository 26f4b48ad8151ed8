//! Loss and silence on the way into or through a namespace, by iptables.
//!
//! Packets are dropped where they arrive, never where they are sent: a sender must not be told.
//! The nft front end is taken where the kernel has what it needs, else the legacy one.

use std::net::Ipv4Addr;
use std::sync::OnceLock;

use crate::netns::{Namespace, NetnsError};

/// Both come with Debian's iptables; which one works is a matter of the kernel's configuration.
const FRONT_ENDS: [&str; 2] = ["iptables-nft", "iptables-legacy"];

/// Where packets are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Those for a program in this namespace.
    In,
    /// Those that this namespace routes.
    Through,
}

/// Which packets are lost.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Loss {
    /// Each with this probability, by the kernel's own dice.
    Random {
        probability: f64,
    },
    /// Every n-th, the first of each n.
    Every {
        n: u32,
    },
    All,
}

/// Whose packets are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    Everybodys,
    From(Ipv4Addr),
    To(Ipv4Addr),
}

/// Drops UDP. Rules add up until `clear`.
pub fn lose(namespace: &Namespace, way: Way, loss: Loss) -> Result<(), NetnsError> {
    lose_of(namespace, way, Whose::Everybodys, loss)
}

/// The same of one address alone.
pub fn lose_of(namespace: &Namespace, way: Way, whose: Whose, loss: Loss) -> Result<(), NetnsError> {
    let address = match whose {
        Whose::Everybodys => String::new(),
        Whose::From(address) | Whose::To(address) => address.to_string(),
    };
    let which: &[&str] = match whose {
        Whose::Everybodys => &[],
        Whose::From(_) => &["-s", &address],
        Whose::To(_) => &["-d", &address],
    };
    let number = match loss {
        Loss::Random { probability } => format!("{probability:.6}"),
        Loss::Every { n } => n.to_string(),
        Loss::All => String::new(),
    };
    let statistic: &[&str] = match loss {
        Loss::Random { .. } => &["-m", "statistic", "--mode", "random", "--probability", &number],
        Loss::Every { .. } => &["-m", "statistic", "--mode", "nth", "--packet", "0", "--every", &number],
        Loss::All => &[],
    };
    let rule = [&["-A", way.chain(), "-p", "udp"], which, statistic, &["-j", "DROP"]].concat();
    iptables(namespace, &rule).map(|_| ())
}

/// Drops whatever is for this namespace, of any protocol, until `clear`.
pub fn drop_all(namespace: &Namespace) -> Result<(), NetnsError> {
    iptables(namespace, &["-A", Way::In.chain(), "-j", "DROP"]).map(|_| ())
}

/// Ends all loss of this namespace, and forgets what was counted.
pub fn clear(namespace: &Namespace) -> Result<(), NetnsError> {
    for way in [Way::In, Way::Through] {
        iptables(namespace, &["-F", way.chain()])?;
    }
    Ok(())
}

/// How many packets the rules dropped since they were made.
pub fn dropped(namespace: &Namespace, way: Way) -> Result<u64, NetnsError> {
    let listing = iptables(namespace, &["-nvxL", way.chain()])?;
    Ok(listing.lines().filter_map(dropped_by).sum())
}

/// Runs iptables inside, waiting for its lock.
pub(crate) fn iptables(namespace: &Namespace, arguments: &[&str]) -> Result<String, NetnsError> {
    let front_end = front_end(namespace)?;
    namespace.exec(front_end, &[&["-w", "30"], arguments].concat())
}

/// Found by trying what the rig needs, once a process.
fn front_end(namespace: &Namespace) -> Result<&'static str, NetnsError> {
    static FOUND: OnceLock<&str> = OnceLock::new();
    if let Some(found) = FOUND.get() {
        return Ok(found);
    }
    let [first, second] = FRONT_ENDS;
    let found = match probe(namespace, first) {
        Ok(()) => first,
        Err(_) => probe(namespace, second).map(|()| second)?,
    };
    Ok(FOUND.get_or_init(|| found))
}

fn probe(namespace: &Namespace, front_end: &str) -> Result<(), NetnsError> {
    let statistic = ["INPUT", "-p", "udp", "-m", "statistic", "--mode", "random", "--probability", "0.5", "-j", "DROP"];
    let masquerade = ["POSTROUTING", "-t", "nat", "-p", "udp", "-j", "MASQUERADE", "--to-ports", "20000-20001"];
    for rule in [statistic.as_slice(), &masquerade] {
        for verb in ["-A", "-D"] {
            namespace.exec(front_end, &[&["-w", "30", verb], rule].concat())?;
        }
    }
    Ok(())
}

/// A line of the listing begins with packets, bytes and the target.
fn dropped_by(line: &str) -> Option<u64> {
    let mut words = line.split_whitespace();
    let packets = words.next()?.parse().ok()?;
    (words.nth(1)? == "DROP").then_some(packets)
}

impl Way {
    const fn chain(self) -> &'static str {
        match self {
            Self::In => "INPUT",
            Self::Through => "FORWARD",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_drop_rules_are_counted() {
        let listing = "Chain INPUT (policy ACCEPT 3 packets, 90 bytes)\n    pkts      bytes target     prot opt in\n      12      360 DROP       17   --  *\n       5      360 ACCEPT     17   --  *\n";
        assert_eq!(listing.lines().filter_map(dropped_by).sum::<u64>(), 12);
    }
}
