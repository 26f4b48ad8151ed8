//! The two networks that tests run in: an agent wired to a collector, and an agent behind a NAT router.
//!
//! Both can be cut in silence (packets vanish) or unplugged (senders see errors), and healed again.

use std::cell::Cell;
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;

use crate::firewall::{self, Loss, Way, Whose};
use crate::netns::{self, Counters, End, Namespace, NetnsError};

/// Where the agent's programs run, in both networks.
pub const AGENT: Ipv4Addr = Ipv4Addr::new(10, 97, 1, 2);
/// A second address there, whose programs can be cut off by themselves; see `Direct::add_island`.
pub const ISLAND: Ipv4Addr = Ipv4Addr::new(10, 97, 1, 3);
/// The collector on the agent's own wire.
pub const COLLECTOR: Ipv4Addr = Ipv4Addr::new(10, 97, 1, 1);
/// The collector beyond the router.
pub const FAR_COLLECTOR: Ipv4Addr = Ipv4Addr::new(10, 97, 2, 1);
/// What the collector beyond the router takes for the agent's address.
pub const ROUTER: Ipv4Addr = Ipv4Addr::new(10, 97, 2, 2);

const ROUTER_INSIDE: Ipv4Addr = Ipv4Addr::new(10, 97, 1, 1);

/// The device of agent and collector.
const WIRE: &str = "wire";

/// The router's ports of one binding; the next binding takes the next as many.
const PORTS_PER_BINDING: u16 = 1_000;
const FIRST_PORT: u16 = 20_000;
/// Beyond the last range the first comes again.
const BINDINGS: u16 = 40;

/// An agent and a collector on one wire.
#[derive(Debug)]
pub struct Direct {
    pub agent: Namespace,
    pub collector: Namespace,
}

/// An agent behind a router that translates addresses, and a collector that cannot reach the agent unasked.
#[derive(Debug)]
pub struct Natted {
    pub agent: Namespace,
    pub router: Namespace,
    pub collector: Namespace,
    binding: Cell<u16>,
}

impl Direct {
    pub fn new() -> Result<Self, NetnsError> {
        let direct = Self { agent: Namespace::new("agent")?, collector: Namespace::new("collector")? };
        let [agent, collector] = direct.ends();
        netns::connect(agent, collector)?;
        Ok(direct)
    }

    /// Packets vanish both ways; nobody is told.
    pub fn cut(&self) -> Result<(), NetnsError> {
        firewall::lose(&self.agent, Way::In, Loss::All)?;
        firewall::lose(&self.collector, Way::In, Loss::All)
    }

    /// Programs on the agent's side may be bound to `ISLAND` from now on.
    pub fn add_island(&self) -> Result<(), NetnsError> {
        let [agent, collector] = self.ends();
        netns::add_address(agent, ISLAND, collector)
    }

    /// Packets from and to the island vanish; nobody is told, and all others go on.
    pub fn cut_island(&self) -> Result<(), NetnsError> {
        firewall::lose_of(&self.agent, Way::In, Whose::To(ISLAND), Loss::All)?;
        firewall::lose_of(&self.collector, Way::In, Whose::From(ISLAND), Loss::All)
    }

    /// Each packet is lost with this probability, both ways.
    pub fn lose(&self, probability: f64) -> Result<(), NetnsError> {
        firewall::lose(&self.agent, Way::In, Loss::Random { probability })?;
        firewall::lose(&self.collector, Way::In, Loss::Random { probability })
    }

    /// How many packets were lost since then.
    pub fn lost(&self) -> Result<u64, NetnsError> {
        Ok(firewall::dropped(&self.agent, Way::In)? + firewall::dropped(&self.collector, Way::In)?)
    }

    /// The agent's link goes down: what it sends fails.
    pub fn unplug(&self) -> Result<(), NetnsError> {
        self.agent.link_down(WIRE)
    }

    /// Ends cut, unplug and loss.
    pub fn heal(&self) -> Result<(), NetnsError> {
        firewall::clear(&self.agent)?;
        firewall::clear(&self.collector)?;
        let [agent, collector] = self.ends();
        netns::link_up(agent, collector)
    }

    /// What crossed the wire, as the agent's end counted it. Loss comes after the count of the receiver.
    pub fn agent_counters(&self) -> Result<Counters, NetnsError> {
        self.agent.counters(WIRE)
    }

    fn ends(&self) -> [End<'_>; 2] {
        [
            End { namespace: &self.agent, device: WIRE, address: AGENT },
            End { namespace: &self.collector, device: WIRE, address: COLLECTOR },
        ]
    }
}

impl Natted {
    pub fn new() -> Result<Self, NetnsError> {
        let natted = Self {
            agent: Namespace::new("agent")?,
            router: Namespace::new("router")?,
            collector: Namespace::new("collector")?,
            binding: Cell::new(0),
        };
        let [agent, inside, outside, collector] = natted.ends();
        netns::connect(agent, inside)?;
        netns::connect(outside, collector)?;
        natted.route_agent()?;
        natted.router.sysctl("net/ipv4/ip_forward", "1")?;
        // A packet for a binding that is gone is for the router itself, which would answer that the port is
        // closed; the NAT of a provider says nothing.
        firewall::iptables(&natted.router, &["-t", "mangle", "-A", "INPUT", "-p", "udp", "-j", "DROP"])?;
        natted.bind()?;
        Ok(natted)
    }

    /// The router forgets every flow: the agent's next packet comes from another port, and what the
    /// collector sends to the old one is lost.
    pub fn rebind(&self) -> Result<(), NetnsError> {
        self.binding.set((self.binding.get() + 1) % BINDINGS);
        self.bind()
    }

    /// The ports that the agent's packets come from now.
    #[must_use]
    pub fn ports(&self) -> RangeInclusive<u16> {
        let first = FIRST_PORT + self.binding.get() * PORTS_PER_BINDING;
        first..=first + PORTS_PER_BINDING - 1
    }

    /// Packets vanish in the router, both ways.
    pub fn cut(&self) -> Result<(), NetnsError> {
        firewall::lose(&self.router, Way::Through, Loss::All)
    }

    /// The agent's link goes down: what it sends fails.
    pub fn unplug(&self) -> Result<(), NetnsError> {
        self.agent.link_down(WIRE)
    }

    /// Ends cut, unplug and loss; the binding stays.
    pub fn heal(&self) -> Result<(), NetnsError> {
        firewall::clear(&self.router)?;
        let [agent, inside, ..] = self.ends();
        netns::link_up(agent, inside)?;
        self.route_agent()
    }

    fn bind(&self) -> Result<(), NetnsError> {
        let ports = format!("{}-{}", self.ports().start(), self.ports().end());
        firewall::iptables(&self.router, &["-t", "nat", "-F", "POSTROUTING"])?;
        let masquerade = ["-p", "udp", "-o", "outside", "-j", "MASQUERADE", "--to-ports", &ports];
        firewall::iptables(&self.router, &[&["-t", "nat", "-A", "POSTROUTING"], masquerade.as_slice()].concat())?;
        self.router.exec("conntrack", &["-F"]).map(|_| ())
    }

    fn route_agent(&self) -> Result<(), NetnsError> {
        self.agent.ip(&["route", "replace", "default", "via", &ROUTER_INSIDE.to_string()]).map(|_| ())
    }

    fn ends(&self) -> [End<'_>; 4] {
        [
            End { namespace: &self.agent, device: WIRE, address: AGENT },
            End { namespace: &self.router, device: "inside", address: ROUTER_INSIDE },
            End { namespace: &self.router, device: "outside", address: ROUTER },
            End { namespace: &self.collector, device: WIRE, address: FAR_COLLECTOR },
        ]
    }
}
