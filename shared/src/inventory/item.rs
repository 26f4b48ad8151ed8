//! One thing that stands on a node: a container, a listening port, a process group, a unit, and what each was seen by.
//!
//! Environment, command lines, entry points and arguments have no field here, so that they cannot leave the host.
//! What has shipped is never edited: a thing with more to say becomes a further variant of `Item`.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{InventoryError, bounded, few, fits};
use crate::limits::{
    CONTAINER_LABELS_MAX, FACT_BYTES_MAX, LABEL_KEY_BYTES_MAX, LABEL_VALUE_BYTES_MAX, NETWORKS_MAX, PUBLISHED_MAX,
    SUBJECT_NAME_BYTES_MAX,
};
use crate::time::WallMs;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Item {
    Container(Box<Container>),
    Port(Port),
    Group(Group),
    Unit(Unit),
    Source(Source),
}

/// What names an item within its node. The order is that of a stock.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Key {
    Container(Box<str>),
    Port(Place),
    Group(Box<str>),
    Unit(Box<str>),
    Source(Box<str>),
}

/// A container, as its engine tells it or as far as its control group does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    /// Its name; without an engine that tells it, the first twelve characters of its id.
    pub name: Box<str>,
    pub id: Box<str>,
    pub engine: Engine,
    /// Told by its engine; without, what only an engine knows is empty.
    pub is_told: bool,
    pub image: Box<str>,
    pub digest: Box<str>,
    pub state: ContainerState,
    pub health: Health,
    pub restart_policy: Box<str>,
    /// Times that the engine restarted it.
    pub restarts: u32,
    pub exit_code: Option<i32>,
    pub is_oom_killed: bool,
    /// Somebody asked for the last stop: it is no crash, whatever its exit code.
    pub is_stop_asked: bool,
    pub started: Option<WallMs>,
    pub finished: Option<WallMs>,
    #[serde(deserialize_with = "bounded::<_, _, PUBLISHED_MAX>")]
    pub published: Vec<Published>,
    #[serde(deserialize_with = "bounded::<_, _, NETWORKS_MAX>")]
    pub networks: Vec<Box<str>>,
    pub memory_limit_bytes: Option<u64>,
    /// In thousandths of a core.
    pub cpu_limit_millicores: Option<u32>,
    pub compose_project: Option<Box<str>>,
    pub compose_service: Option<Box<str>>,
    /// Those that the agent's configuration names.
    pub labels: BTreeMap<Box<str>, Box<str>>,
}

/// A port of a container that its engine makes reachable on the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    pub protocol: Protocol,
    pub address: IpAddr,
    pub port: u16,
    pub inside: u16,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Engine {
    #[default]
    Unknown,
    Docker,
    Podman,
    Containerd,
    Crio,
    Lxc,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ContainerState {
    Created,
    #[default]
    Running,
    Paused,
    Restarting,
    Exited,
    Dead,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Health {
    #[default]
    None,
    Starting,
    Healthy,
    Unhealthy,
}

/// Where something listens.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Place {
    /// The container whose own network it is; none is the host's.
    pub network: Option<Box<str>>,
    pub protocol: Protocol,
    pub address: IpAddr,
    pub port: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Protocol {
    Tcp,
    Udp,
}

/// From where an address can be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Scope {
    Loopback,
    Private,
    Public,
    Any,
}

/// A listening TCP or bound UDP socket, or a published port that no socket serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    pub place: Place,
    pub scope: Scope,
    /// The process group that holds the socket; none where the agent may not see it.
    pub process: Option<Box<str>>,
    /// The container that listens, or that is served by the proxy that does.
    pub container: Option<Box<str>>,
    pub user: Option<Box<str>>,
}

/// A process group that has series.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    pub name: Box<str>,
    /// Where all of its processes are in one.
    pub container: Option<Box<str>>,
    pub unit: Option<Box<str>>,
    pub user: Option<Box<str>>,
}

/// A systemd unit that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unit {
    pub name: Box<str>,
    pub state: UnitState,
    /// Why, in systemd's word: `exit-code`, `oom-kill`, `timeout`.
    pub result: Box<str>,
    pub since: Option<WallMs>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum UnitState {
    Failed,
}

/// What a part of the inventory was seen by, and what it could not see.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    pub name: Box<str>,
    pub is_working: bool,
    /// What is missing and what would mend it; empty when nothing is.
    pub says: Box<str>,
    /// Items beyond what a node may have.
    pub left_out: u32,
}

impl Item {
    #[must_use]
    pub fn key(&self) -> Key {
        match self {
            Self::Container(container) => Key::Container(container.name.clone()),
            Self::Port(port) => Key::Port(port.place.clone()),
            Self::Group(group) => Key::Group(group.name.clone()),
            Self::Unit(unit) => Key::Unit(unit.name.clone()),
            Self::Source(source) => Key::Source(source.name.clone()),
        }
    }

    pub(super) fn check(&self) -> Result<(), InventoryError> {
        self.key().check()?;
        match self {
            Self::Container(container) => container.check(),
            Self::Port(port) => names("a port", &[&port.process, &port.container, &port.user]),
            Self::Group(group) => names("a process group", &[&group.container, &group.unit, &group.user]),
            Self::Unit(unit) => fits("a unit's result", &unit.result, FACT_BYTES_MAX),
            Self::Source(source) => fits("what a source says", &source.says, FACT_BYTES_MAX),
        }
    }
}

impl Key {
    pub(super) fn check(&self) -> Result<(), InventoryError> {
        match self {
            Self::Container(name) | Self::Group(name) | Self::Unit(name) | Self::Source(name) => {
                fits("a name", name, SUBJECT_NAME_BYTES_MAX)
            }
            Self::Port(place) => names("a port", &[&place.network]),
        }
    }
}

impl Container {
    fn check(&self) -> Result<(), InventoryError> {
        for text in [&self.id, &self.image, &self.digest, &self.restart_policy] {
            fits("a container's text", text, FACT_BYTES_MAX)?;
        }
        names("a container", &[&self.compose_project, &self.compose_service])?;
        few("published ports", self.published.len(), PUBLISHED_MAX)?;
        few("networks", self.networks.len(), NETWORKS_MAX)?;
        self.networks.iter().try_for_each(|name| fits("a network", name, SUBJECT_NAME_BYTES_MAX))?;
        few("labels of a container", self.labels.len(), CONTAINER_LABELS_MAX)?;
        for (key, value) in &self.labels {
            fits("a label", key, LABEL_KEY_BYTES_MAX)?;
            fits("a label", value, LABEL_VALUE_BYTES_MAX)?;
        }
        Ok(())
    }
}

impl Scope {
    /// Of an address in a network that is the host's.
    #[must_use]
    pub const fn of(address: IpAddr) -> Self {
        let v4 = match address {
            IpAddr::V4(v4) => Some(v4),
            IpAddr::V6(v6) => v6.to_ipv4_mapped(),
        };
        match (v4, address) {
            (Some(v4), _) if v4.is_unspecified() => Self::Any,
            (Some(v4), _) if v4.is_loopback() => Self::Loopback,
            (Some(v4), _) if v4.is_private() || v4.is_link_local() || is_shared(v4.octets()) => Self::Private,
            // Routers forward a group's datagrams only where somebody set them up to.
            (Some(v4), _) if v4.is_multicast() || v4.is_broadcast() => Self::Private,
            (_, IpAddr::V6(v6)) if v6.is_unspecified() => Self::Any,
            (_, IpAddr::V6(v6)) if v6.is_loopback() => Self::Loopback,
            (_, IpAddr::V6(v6)) if v6.is_unique_local() || v6.is_unicast_link_local() || v6.is_multicast() => {
                Self::Private
            }
            _ => Self::Public,
        }
    }

    /// Whether others than the host and its own networks may reach it.
    #[must_use]
    pub const fn is_exposed(self) -> bool {
        matches!(self, Self::Public | Self::Any)
    }

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Loopback => "loopback",
            Self::Private => "private",
            Self::Public => "public",
            Self::Any => "any",
        }
    }
}

impl Protocol {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

impl ContainerState {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Restarting => "restarting",
            Self::Exited => "exited",
            Self::Dead => "dead",
        }
    }
}

impl Health {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
        }
    }
}

impl Engine {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Docker => "docker",
            Self::Podman => "podman",
            Self::Containerd => "containerd",
            Self::Crio => "cri-o",
            Self::Lxc => "lxc",
        }
    }
}

/// As `ss` writes it, with the network in front where it is not the host's.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(network) = &self.network {
            write!(f, "{network}/")?;
        }
        match self.address {
            IpAddr::V4(v4) => write!(f, "{}:{v4}:{}", self.protocol.as_str(), self.port),
            IpAddr::V6(v6) => write!(f, "{}:[{v6}]:{}", self.protocol.as_str(), self.port),
        }
    }
}

/// 100.64.0.0/10, which providers put their customers behind.
const fn is_shared([a, b, ..]: [u8; 4]) -> bool {
    a == 100 && b & 0xc0 == 64
}

fn names(field: &'static str, names: &[&Option<Box<str>>]) -> Result<(), InventoryError> {
    names.iter().filter_map(|name| name.as_deref()).try_for_each(|name| fits(field, name, SUBJECT_NAME_BYTES_MAX))
}
