//! Network namespaces of a test, and the virtual wires between them. Needs root and iproute2.
//!
//! All addresses are of 10.97.0.0/16 and exist inside these namespaces alone. IPv6 is off and neighbours are
//! fixed, so that the counters of a wire hold a test's own packets and nothing else.
//! A namespace goes with its value; one of a killed test is removed by the next that makes one.

use std::fs::{self, File};
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Command;
use std::sync::Once;
use std::time::Duration;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use thiserror::Error;

use crate::deadline::{TimedOut, until};
use crate::scratch::{is_leftover, unique};
use crate::tool::{self, ToolError};

/// Where iproute2 keeps the names.
const NAMES: &str = "/run/netns";

/// The kernel brings a wire up within a second even when it batches link events.
const LINK_LIMIT: Duration = Duration::from_secs(10);

#[derive(Debug, Error)]
pub enum NetnsError {
    #[error("namespace {namespace}")]
    Tool { namespace: String, source: ToolError },
    #[error("namespace {namespace}: {what}")]
    Io { namespace: String, what: String, source: io::Error },
    #[error("namespace {namespace} has no device {device} with counters")]
    NoDevice { namespace: String, device: String },
    #[error("namespace {namespace}: {device} stays without carrier")]
    NoCarrier { namespace: String, device: String, source: TimedOut },
}

#[derive(Debug)]
pub struct Namespace {
    name: String,
}

/// One end of a wire: a device with an address in a network of 256.
#[derive(Clone, Copy, Debug)]
pub struct End<'a> {
    pub namespace: &'a Namespace,
    pub device: &'a str,
    pub address: Ipv4Addr,
}

/// What the kernel counted on a device. Bytes include the Ethernet header, 14 a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    pub rx_bytes: u64,
    pub rx_packets: u64,
    pub tx_bytes: u64,
    pub tx_packets: u64,
}

impl Namespace {
    pub fn new(role: &str) -> Result<Self, NetnsError> {
        static LEFTOVERS: Once = Once::new();
        LEFTOVERS.call_once(remove_leftovers);
        let name = unique(role);
        let tool_error = |source| NetnsError::Tool { namespace: name.clone(), source };
        tool::require_root().map_err(tool_error)?;
        tool::run("ip", &["netns", "add", &name]).map_err(tool_error)?;
        let namespace = Self { name };
        namespace.sysctl("net/ipv6/conf/all/disable_ipv6", "1")?;
        namespace.sysctl("net/ipv6/conf/default/disable_ipv6", "1")?;
        namespace.ip(&["link", "set", "lo", "up"])?;
        Ok(namespace)
    }

    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `work` on a thread inside the namespace. Sockets that it makes stay there wherever they are used
    /// later; threads and processes that it starts are inside as well.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, NetnsError> {
        enter(&self.name, work)
    }

    /// Runs a tool inside to its end and returns what it printed.
    pub fn exec(&self, tool: &str, arguments: &[&str]) -> Result<String, NetnsError> {
        self.enter(|| tool::run(tool, arguments))?.map_err(|source| self.tool_error(source))
    }

    /// Runs any command inside to its end and returns what it printed.
    pub fn finish(&self, command: &mut Command) -> Result<String, NetnsError> {
        self.enter(|| tool::finish(command))?.map_err(|source| self.tool_error(source))
    }

    pub fn sysctl(&self, path: &str, value: &str) -> Result<(), NetnsError> {
        let file = Path::new("/proc/sys").join(path);
        self.enter(|| fs::write(&file, value))?.map_err(|source| self.io_error(path, source))
    }

    pub fn counters(&self, device: &str) -> Result<Counters, NetnsError> {
        // `/proc/net` would be that of the process; only `thread-self` follows the thread into the namespace.
        let table = self.enter(|| fs::read_to_string("/proc/thread-self/net/dev"))?;
        let table = table.map_err(|source| self.io_error("its counters", source))?;
        counters_of(&table, device)
            .ok_or_else(|| NetnsError::NoDevice { namespace: self.name.clone(), device: device.to_owned() })
    }

    /// Takes a device down: senders inside see errors, the other end loses its carrier, routes over it go.
    pub fn link_down(&self, device: &str) -> Result<(), NetnsError> {
        self.ip(&["link", "set", device, "down"]).map(|_| ())
    }

    /// `ip` inside. Its own option for that, `-n`, copies all mounts of the machine each time, and so keeps file
    /// systems busy that another test unmounts.
    pub fn ip(&self, arguments: &[&str]) -> Result<String, NetnsError> {
        self.exec("ip", arguments)
    }

    fn tool_error(&self, source: ToolError) -> NetnsError {
        NetnsError::Tool { namespace: self.name.clone(), source }
    }

    fn io_error(&self, what: &str, source: io::Error) -> NetnsError {
        NetnsError::Io { namespace: self.name.clone(), what: what.to_owned(), source }
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if let Err(error) = tool::run("ip", &["netns", "del", &self.name]) {
            tracing::warn!(namespace = self.name, %error, "a network namespace stays behind");
        }
    }
}

/// `Namespace::enter` for who knows the name only. A panic in `work` is passed on.
pub fn enter<T: Send>(namespace: &str, work: impl FnOnce() -> T + Send) -> Result<T, NetnsError> {
    let failed = |what: &str, source| NetnsError::Io { namespace: namespace.to_owned(), what: what.to_owned(), source };
    let file = File::open(Path::new(NAMES).join(namespace)).map_err(|source| failed("its name", source))?;
    let inside = || {
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
            .map_err(|error| failed("entering it", error.into()))?;
        Ok(work())
    };
    std::thread::scope(|scope| scope.spawn(inside).join()).unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Puts a wire between two namespaces and waits until both ends have a carrier.
pub fn connect(left: End<'_>, right: End<'_>) -> Result<(), NetnsError> {
    let (left_mac, right_mac) = (mac(left.address), mac(right.address));
    let (left_name, right_name) = (left.namespace.name(), right.namespace.name());
    let one = ["link", "add", left.device, "address", &left_mac, "netns", left_name, "type", "veth", "peer"];
    let other = ["name", right.device, "address", &right_mac, "netns", right_name];
    let added = tool::run("ip", &[one.as_slice(), other.as_slice()].concat());
    added.map_err(|source| left.namespace.tool_error(source))?;
    for end in [left, right] {
        // One packet on the wire is one packet in the counters: the kernel splits what a program sends in bulk.
        end.namespace.ip(&["link", "set", end.device, "gso_max_segs", "1"])?;
        end.namespace.ip(&["address", "add", &format!("{}/24", end.address), "dev", end.device])?;
    }
    link_up(left, right)
}

/// Gives an end of a wire that is up one more address.
pub fn add_address(end: End<'_>, more: Ipv4Addr, peer: End<'_>) -> Result<(), NetnsError> {
    end.namespace.ip(&["address", "add", &format!("{more}/24"), "dev", end.device])?;
    let (more, at) = (more.to_string(), mac(end.address));
    peer.namespace.ip(&["neigh", "replace", &more, "lladdr", &at, "nud", "permanent", "dev", peer.device]).map(|_| ())
}

/// Brings both ends of a wire up, also after `link_down`, and waits for the carrier.
pub fn link_up(left: End<'_>, right: End<'_>) -> Result<(), NetnsError> {
    for end in [left, right] {
        end.namespace.ip(&["link", "set", end.device, "up"])?;
    }
    for (end, peer) in [(left, right), (right, left)] {
        wait_for_carrier(end)?;
        let (to, at) = (peer.address.to_string(), mac(peer.address));
        end.namespace.ip(&["neigh", "replace", &to, "lladdr", &at, "nud", "permanent", "dev", end.device])?;
    }
    Ok(())
}

/// Without a carrier the kernel drops what is sent, in silence.
fn wait_for_carrier(end: End<'_>) -> Result<(), NetnsError> {
    let up = until("the carrier", LINK_LIMIT, || {
        let line = end.namespace.ip(&["-brief", "link", "show", end.device]).ok()?;
        (line.split_whitespace().nth(1) == Some("UP")).then_some(())
    });
    up.map_err(|source| NetnsError::NoCarrier {
        namespace: end.namespace.name.clone(),
        device: end.device.to_owned(),
        source,
    })
}

/// A locally administered address that is as unique as the IP address that it holds.
fn mac(address: Ipv4Addr) -> String {
    let [a, b, c, d] = address.octets();
    format!("02:00:{a:02x}:{b:02x}:{c:02x}:{d:02x}")
}

fn counters_of(table: &str, device: &str) -> Option<Counters> {
    let line = table.lines().find_map(|line| line.trim_start().strip_prefix(device)?.strip_prefix(':'))?;
    let numbers: Vec<u64> = line.split_whitespace().map(str::parse).collect::<Result<_, _>>().ok()?;
    let [rx_bytes, rx_packets, _, _, _, _, _, _, tx_bytes, tx_packets, ..] = *numbers else {
        return None;
    };
    Some(Counters { rx_bytes, rx_packets, tx_bytes, tx_packets })
}

fn remove_leftovers() {
    let Ok(names) = fs::read_dir(NAMES) else {
        return;
    };
    for name in names.flatten().filter_map(|entry| entry.file_name().into_string().ok()) {
        if is_leftover(&name)
            && let Err(error) = tool::run("ip", &["netns", "del", &name])
        {
            // Another test may have removed it first.
            tracing::debug!(name, %error, "a leftover namespace was not removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_read_from_the_kernels_table() {
        let table = "Inter-| Receive\n face |bytes\n wire2: 9 9 0 0 0 0 0 0 9 9 0 0 0 0 0 0\n  wire: 1 2 0 0 0 0 0 0 3 4 0 0 0 0 0 0\n";
        let expected = Counters { rx_bytes: 1, rx_packets: 2, tx_bytes: 3, tx_packets: 4 };
        assert_eq!(counters_of(table, "wire"), Some(expected));
        assert_eq!(counters_of(table, "wir"), None);
        assert_eq!(counters_of("wire: 1 2", "wire"), None);
    }
}
