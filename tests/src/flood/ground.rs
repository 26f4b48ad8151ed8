//! Where floods are played: a collector, its fleet on one wire, and whoever floods on another.
//!
//! What the collector says to addresses that nobody has goes back to the flood's own wire, and is gone there.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;

use anyhow::{Context, Result};
use quinn::{Endpoint, EndpointConfig, TokioRuntime};

use super::FloodPlan;
use crate::netns::{self, End, Namespace};
use crate::pki::NodeIdentity;
use crate::site::QUIC_PORT;
use crate::topology::{COLLECTOR, Direct};

/// Whoever floods, where the address is its own.
pub(super) const FLOODER: Ipv4Addr = Ipv4Addr::new(10, 97, 3, 2);
/// The collector's end of that wire.
const COLLECTOR_AWAY: Ipv4Addr = Ipv4Addr::new(10, 97, 3, 1);

#[derive(Debug)]
pub(super) struct Wires {
    pub(super) fleet: Direct,
    pub(super) flooder: Namespace,
}

/// What a flood has to know.
#[derive(Debug)]
pub(super) struct Ground<'a> {
    pub(super) plan: FloodPlan,
    pub(super) target: SocketAddrV4,
    pub(super) attacker: &'a Namespace,
    /// Nodes that are known to the collector and behave as a flood wants.
    pub(super) rogues: Vec<NodeIdentity>,
    pub(super) authority: Vec<u8>,
}

impl Wires {
    pub(super) fn new() -> Result<Self> {
        let wires = Self { fleet: Direct::new()?, flooder: Namespace::new("flooder")? };
        let (here, there) = (&wires.flooder, &wires.fleet.collector);
        let ends = [
            End { namespace: here, device: "away", address: FLOODER },
            End { namespace: there, device: "away", address: COLLECTOR_AWAY },
        ];
        netns::connect(ends[0], ends[1])?;
        // Senders that are where no route leads are let in, as on any host at the edge of a network.
        for device in ["all", "default", "away", "wire"] {
            there.sysctl(&format!("net/ipv4/conf/{device}/rp_filter"), "0")?;
        }
        here.ip(&["route", "add", "default", "via", &COLLECTOR_AWAY.to_string()])?;
        there.ip(&["route", "add", "default", "via", &FLOODER.to_string()])?;
        Ok(wires)
    }
}

impl Ground<'_> {
    pub(super) const fn target() -> SocketAddrV4 {
        SocketAddrV4::new(COLLECTOR, QUIC_PORT)
    }

    /// An endpoint on an address of its own. Call it on a runtime.
    pub(super) fn socket(&self) -> Result<std::net::UdpSocket> {
        let bind = || std::net::UdpSocket::bind(SocketAddr::from((FLOODER, 0)));
        self.attacker.enter(bind)?.context("a socket in the namespace")
    }
}

/// Call it on a runtime.
pub(super) fn endpoint(socket: std::net::UdpSocket) -> Result<Endpoint> {
    Ok(Endpoint::new(EndpointConfig::default(), None, socket, Arc::new(TokioRuntime))?)
}
