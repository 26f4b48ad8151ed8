//! What stands on nodes as the API shows it: containers, process groups and ports.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Moment;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Container {
    /// The node's id.
    pub node: String,
    pub node_name: String,
    pub name: String,
    pub id: String,
    /// The name that it was started by.
    pub image: String,
    /// What the registry calls that image, such as `sha256:0123...`; for one that came from no registry, or whose
    /// engine does not tell it, the id that it has on its node.
    pub digest: String,
    /// `docker`, `podman`, `containerd`, `cri-o`, `lxc` or `unknown`.
    pub engine: String,
    #[schema(value_type = ContainerState)]
    pub state: String,
    #[schema(value_type = ContainerHealth)]
    pub health: String,
    pub restart_policy: String,
    /// Times that its engine restarted it.
    pub restarts: u32,
    /// Of its last end.
    pub exit_code: Option<i32>,
    pub oom_killed: bool,
    /// Somebody asked for its last end: it was no crash.
    pub stop_asked: bool,
    /// Since when it is known to be in this state.
    pub since: Moment,
    /// By the node's clock.
    pub started: Option<Moment>,
    pub finished: Option<Moment>,
    /// Used since the reading before; null where that is not known.
    pub cpu_cores: Option<f64>,
    pub cpu_limit_cores: Option<f64>,
    pub memory_bytes: Option<u64>,
    /// null without a limit.
    pub memory_limit_bytes: Option<u64>,
    pub published: Vec<PublishedPort>,
    pub networks: Vec<String>,
    pub compose_project: Option<String>,
    pub compose_service: Option<String>,
    /// Those that the agent's configuration names.
    pub labels: BTreeMap<String, String>,
    /// False where it is seen by its control group alone, and what only an engine knows is empty.
    pub told_by_engine: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ContainerState {
    Created,
    Running,
    Paused,
    Restarting,
    Exited,
    Dead,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ContainerHealth {
    None,
    Starting,
    Healthy,
    Unhealthy,
}

/// A port of a container that is reachable on its host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PublishedPort {
    #[schema(value_type = Protocol)]
    pub protocol: String,
    pub address: String,
    pub port: u16,
    /// In the container.
    pub inside: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    Tcp,
    Udp,
}

/// All processes of one name on a node; an interpreter's by its container, its unit or its script.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Process {
    /// The node's id.
    pub node: String,
    pub node_name: String,
    pub name: String,
    /// Where all of them are in one; so `unit` and `user`.
    pub container: Option<String>,
    pub unit: Option<String>,
    pub user: Option<String>,
    pub count: Option<u64>,
    /// Used since the reading before; null where that is not known.
    pub cpu_cores: Option<f64>,
    pub memory_bytes: Option<u64>,
    pub threads: Option<u64>,
    pub files_open: Option<u64>,
    /// Of the oldest, by the node's clock.
    pub started: Option<Moment>,
    /// Since when it is known to be there.
    pub since: Moment,
}

/// A listening TCP or bound UDP socket, or a published port that no socket serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Port {
    /// The node's id.
    pub node: String,
    pub node_name: String,
    #[schema(value_type = Protocol)]
    pub protocol: String,
    pub address: String,
    #[schema(value_type = Scope)]
    pub scope: String,
    pub port: u16,
    /// The process group; null where the agent may not see it.
    pub process: Option<String>,
    /// The container that listens, or that is served by the proxy that does.
    pub container: Option<String>,
    pub user: Option<String>,
    /// The container whose own network it is in; null is the host's.
    pub network: Option<String>,
    /// Since when it is known to be open.
    pub since: Moment,
}

/// From where an address can be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    Loopback,
    Private,
    Public,
    Any,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ContainerPage {
    /// May be fewer than asked for, or none, with more to come.
    pub items: Vec<Container>,
    /// What to give as `after` for the rest; null at the end.
    pub next: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ProcessPage {
    /// May be fewer than asked for, or none, with more to come.
    pub items: Vec<Process>,
    /// What to give as `after` for the rest; null at the end.
    pub next: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PortPage {
    /// May be fewer than asked for, or none, with more to come.
    pub items: Vec<Port>,
    /// What to give as `after` for the rest; null at the end.
    pub next: Option<String>,
}

/// How much stands on a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Counts {
    pub containers: u32,
    /// Running or paused.
    pub containers_up: u32,
    pub processes: u32,
    pub ports: u32,
    /// Reachable from other networks than the host's own.
    pub ports_exposed: u32,
    pub units_failed: u32,
}
