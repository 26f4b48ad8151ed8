//! Turns what a person wrote for a collector into addresses: literal, hosts file, DNS, in that order.
//! It never calls getaddrinfo: in a static binary that would load the host's NSS modules.
//! Files are read anew each time, so a change of the network's settings needs no restart.
//! Invariant: every call ends within `DEADLINE`, whatever servers do.

pub mod conf;
mod exchange;
pub mod hosts;
mod lookup;
pub mod message;
mod name;
mod target;

use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::path::PathBuf;
use std::time::Duration;

use conf::{Conf, Server};
pub use exchange::Failure;
use lookup::Lookup;

use crate::clock::deadline_in;
pub use name::{Name, NameError};
pub use target::{Target, TargetError};

/// Long enough for three servers at the default timeout of 5 s, short enough for the next collector to get its turn.
const DEADLINE: Duration = Duration::from_secs(15);
const DNS_PORT: u16 = 53;
/// Real ones have some hundred bytes.
const CONF_LEN_MAX: u64 = 64 * 1024;

/// 64 random bits, or none if the system cannot give any.
pub type Entropy = fn() -> Option<u64>;

/// The entropy source that TLS uses too.
pub fn system_entropy() -> Option<u64> {
    let mut bytes = [0; 8];
    let random = rustls::crypto::ring::default_provider().secure_random;
    random.fill(&mut bytes).ok()?;
    Some(u64::from_be_bytes(bytes))
}

#[derive(Debug, Clone)]
pub struct Resolver {
    root: PathBuf,
    entropy: Entropy,
    port: u16,
}

#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    #[error("{target:?} is no address of a collector; write host, host:port or [ipv6]:port")]
    Target {
        target: String,
        #[source]
        reason: TargetError,
    },
    #[error("cannot read {}; the agent needs permission to read it", .path.display())]
    File {
        path: PathBuf,
        #[source]
        reason: io::Error,
    },
    #[error(
        "no such name: {names} (NXDOMAIN; asked {}); check the spelling, the search domains in /etc/resolv.conf, or add it to /etc/hosts", join(.servers)
    )]
    NoSuchName { names: NameList, servers: Vec<SocketAddr> },
    #[error(
        "{names} has no address, neither IPv4 nor IPv6 (asked {}); add an A or AAAA record, or an entry in /etc/hosts", join(.servers)
    )]
    NoAddress { names: NameList, servers: Vec<SocketAddr> },
    #[error("{names} leads through too many aliases or in a circle (asked {}); correct its CNAME records", join(.servers))]
    AliasChain { names: NameList, servers: Vec<SocketAddr> },
    #[error(
        "no nameserver could resolve {names}: {tried}; check the nameservers in /etc/resolv.conf and the way to them"
    )]
    Unanswered { names: NameList, tried: TriedList },
    #[error("no nameserver in {} is usable: the interface of a link-local one is unknown", .path.display())]
    NoServer { path: PathBuf },
    #[error("the system gave no random numbers, so no question could be asked safely")]
    Entropy,
}

/// A server that was asked, and what it did last.
#[derive(Debug)]
pub struct Tried {
    pub server: SocketAddr,
    pub failure: Failure,
}

/// The names that were asked for, in their order.
#[derive(Debug)]
pub struct NameList(pub Vec<Name>);

#[derive(Debug)]
pub struct TriedList(pub Vec<Tried>);

impl Resolver {
    /// `root` is `/` except in tests.
    pub fn new(root: impl Into<PathBuf>, entropy: Entropy) -> Self {
        Self::with_port(root, entropy, DNS_PORT)
    }

    /// Asks nameservers on another port, as a test has to.
    pub fn with_port(root: impl Into<PathBuf>, entropy: Entropy, port: u16) -> Self {
        let root = root.into();
        Self { root, entropy, port }
    }

    /// At least one address, the ones to try first in front: IPv6 and IPv4 in turn,
    /// and behind them those to which this host has no route.
    pub async fn resolve(&self, target: &str, default_port: u16) -> Result<Vec<SocketAddr>, ResolveError> {
        match Target::parse(target, default_port) {
            Ok(Target::Address(address)) => Ok(vec![address]),
            Ok(Target::Name { name, rooted, port }) => {
                let ips = self.addresses(name, rooted).await?;
                Ok(in_order(ips, port, has_route))
            }
            Err(reason) => Err(ResolveError::Target { target: target.to_owned(), reason }),
        }
    }

    async fn addresses(&self, name: Name, rooted: bool) -> Result<Vec<IpAddr>, ResolveError> {
        if name.is_localhost() {
            return Ok(vec![Ipv6Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.into()]);
        }
        let listed = self
            .read("etc/hosts", |file| file.map_or(Ok(Vec::new()), |file| hosts::lookup(BufReader::new(file), &name)))?;
        if !listed.is_empty() {
            return Ok(listed);
        }
        let conf = self.read("etc/resolv.conf", |file| {
            let mut bytes = Vec::new();
            if let Some(file) = file {
                file.take(CONF_LEN_MAX).read_to_end(&mut bytes)?;
            }
            Ok(Conf::parse(&String::from_utf8_lossy(&bytes)))
        })?;
        let lookup = Lookup {
            servers: self.servers(&conf)?,
            attempts: conf.attempts,
            timeout: conf.timeout,
            deadline: deadline_in(DEADLINE),
            entropy: self.entropy,
        };
        lookup.run(candidates(name, rooted, &conf)).await
    }

    /// Gives none to `parse` when the file is missing or, like a link to /dev/null, no regular file.
    fn read<T>(&self, path: &str, parse: impl FnOnce(Option<File>) -> io::Result<T>) -> Result<T, ResolveError> {
        let path = self.root.join(path);
        let open = || match fs::metadata(&path) {
            Ok(metadata) if metadata.is_file() => File::open(&path).map(Some),
            Ok(_) => Ok(None),
            Err(error) => match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Ok(None),
                _ => Err(error),
            },
        };
        open().and_then(parse).map_err(|reason| ResolveError::File { path, reason })
    }

    fn servers(&self, conf: &Conf) -> Result<Vec<SocketAddr>, ResolveError> {
        let mut servers: Vec<_> = conf.servers.iter().filter_map(|server| self.server_address(server)).collect();
        if servers.is_empty() {
            let path = self.root.join("etc/resolv.conf");
            return Err(ResolveError::NoServer { path });
        }
        if conf.rotate {
            let drawn = (self.entropy)().ok_or(ResolveError::Entropy)?;
            let steps = usize::from(drawn.to_be_bytes()[7]) % servers.len();
            servers.rotate_left(steps);
        }
        Ok(servers)
    }

    fn server_address(&self, server: &Server) -> Option<SocketAddr> {
        let (IpAddr::V6(ip), Some(scope)) = (server.ip, &server.scope) else {
            return Some(SocketAddr::new(server.ip, self.port));
        };
        let index = scope.parse().ok().or_else(|| self.interface_index(scope))?;
        Some(SocketAddrV6::new(ip, self.port, 0, index).into())
    }

    fn interface_index(&self, interface: &str) -> Option<u32> {
        if interface.contains('/') || interface.starts_with('.') {
            return None;
        }
        let path = self.root.join("sys/class/net").join(interface);
        let index = fs::read_to_string(path.join("ifindex")).ok()?;
        index.trim().parse().ok()
    }
}

impl fmt::Display for NameList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&join(&self.0))
    }
}

impl fmt::Display for TriedList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&join(&self.0))
    }
}

impl fmt::Display for Tried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.server, self.failure)
    }
}

/// The full names to ask for, as resolv.conf(5) orders them.
fn candidates(name: Name, rooted: bool, conf: &Conf) -> Vec<Name> {
    if rooted {
        return vec![name];
    }
    let mut names: Vec<_> = conf.search.iter().filter_map(|domain| name.below(domain)).collect();
    let at = if name.dots() >= conf.ndots { 0 } else { names.len() };
    names.insert(at, name);
    names
}

fn in_order(ips: Vec<IpAddr>, port: u16, has_route: fn(SocketAddr) -> bool) -> Vec<SocketAddr> {
    let (v6, v4): (Vec<_>, Vec<_>) = ips.into_iter().map(|ip| SocketAddr::new(ip, port)).partition(SocketAddr::is_ipv6);
    let (mut v6, mut v4) = (v6.into_iter(), v4.into_iter());
    let mut ordered = Vec::new();
    loop {
        let before = ordered.len();
        ordered.extend(v6.next());
        ordered.extend(v4.next());
        if ordered.len() == before {
            break;
        }
    }
    // The sort is stable, so the turns stay.
    ordered.sort_by_cached_key(|address| !has_route(*address));
    ordered
}

/// Connecting a UDP socket sends nothing; the system only looks for a route.
fn has_route(address: SocketAddr) -> bool {
    let any: IpAddr = match address {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    UdpSocket::bind((any, 0)).is_ok_and(|socket| socket.connect(address).is_ok())
}

fn join<T: fmt::Display>(items: &[T]) -> String {
    let texts: Vec<_> = items.iter().map(ToString::to_string).collect();
    texts.join(", ")
}

#[cfg(test)]
mod tests;
