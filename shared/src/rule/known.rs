//! What the collector itself knows and no agent measures: a node's state, what stands on it, the fleet, the collector.
//!
//! Rules read it like any metric. Names and words are a contract, to extend and never to break.

use super::Scope;
use crate::metric::{Kind, Unit};
use crate::sample::SubjectKind;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Known {
    NodeState,
    NodeSkewSeconds,
    ContainerState,
    ContainerHealth,
    ContainerExitCode,
    ContainerStopAsked,
    ContainerOomKilled,
    PortExposed,
    FleetNodesMissing,
    CollectorCommitSeconds,
    CollectorFramesRefused,
    CollectorPausedSeconds,
    CollectorDiskFreeRatio,
    CollectorBusyRatio,
}

/// The states of a node, as the API shows them.
const NODE_STATES: &[&str] =
    &["unknown", "up", "suspect", "down", "stopped", "maintenance", "pending", "held", "quarantined", "revoked"];
const CONTAINER_STATES: &[&str] = &["created", "running", "paused", "restarting", "exited", "dead"];
const HEALTHS: &[&str] = &["none", "starting", "healthy", "unhealthy"];

impl Known {
    pub const ALL: [Self; 14] = [
        Self::NodeState,
        Self::NodeSkewSeconds,
        Self::ContainerState,
        Self::ContainerHealth,
        Self::ContainerExitCode,
        Self::ContainerStopAsked,
        Self::ContainerOomKilled,
        Self::PortExposed,
        Self::FleetNodesMissing,
        Self::CollectorCommitSeconds,
        Self::CollectorFramesRefused,
        Self::CollectorPausedSeconds,
        Self::CollectorDiskFreeRatio,
        Self::CollectorBusyRatio,
    ];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NodeState => "node_state",
            Self::NodeSkewSeconds => "node_skew_seconds",
            Self::ContainerState => "container_state",
            Self::ContainerHealth => "container_health",
            Self::ContainerExitCode => "container_exit_code",
            Self::ContainerStopAsked => "container_stop_asked",
            Self::ContainerOomKilled => "container_oom_killed",
            Self::PortExposed => "port_exposed",
            Self::FleetNodesMissing => "fleet_nodes_missing",
            Self::CollectorCommitSeconds => "collector_commit_seconds",
            Self::CollectorFramesRefused => "collector_frames_refused",
            Self::CollectorPausedSeconds => "collector_paused_seconds",
            Self::CollectorDiskFreeRatio => "collector_disk_free_ratio",
            Self::CollectorBusyRatio => "collector_busy_ratio",
        }
    }

    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.as_str() == text)
    }

    #[must_use]
    pub const fn scope(self) -> Scope {
        match self {
            Self::NodeState | Self::NodeSkewSeconds => Scope::Node,
            Self::ContainerState
            | Self::ContainerHealth
            | Self::ContainerExitCode
            | Self::ContainerStopAsked
            | Self::ContainerOomKilled => Scope::Kind(SubjectKind::Container),
            Self::PortExposed => Scope::Port,
            Self::FleetNodesMissing => Scope::Fleet,
            Self::CollectorCommitSeconds
            | Self::CollectorFramesRefused
            | Self::CollectorPausedSeconds
            | Self::CollectorDiskFreeRatio
            | Self::CollectorBusyRatio => Scope::Collector,
        }
    }

    #[must_use]
    pub const fn unit(self) -> Unit {
        match self {
            Self::NodeSkewSeconds | Self::CollectorCommitSeconds | Self::CollectorPausedSeconds => Unit::Seconds,
            Self::CollectorDiskFreeRatio | Self::CollectorBusyRatio => Unit::Ratio,
            _ => Unit::Count,
        }
    }

    #[must_use]
    pub const fn kind(self) -> Kind {
        match self {
            Self::CollectorFramesRefused | Self::CollectorPausedSeconds => Kind::Counter,
            _ => Kind::Gauge,
        }
    }

    /// The words that it is one of: its value is the place of the word. Empty where it is a number.
    #[must_use]
    pub const fn words(self) -> &'static [&'static str] {
        match self {
            Self::NodeState => NODE_STATES,
            Self::ContainerState => CONTAINER_STATES,
            Self::ContainerHealth => HEALTHS,
            _ => &[],
        }
    }

    #[must_use]
    pub const fn help(self) -> &'static str {
        match self {
            Self::NodeState => "How the node is: up, suspect, down, stopped, unknown, maintenance and so on.",
            Self::NodeSkewSeconds => "The node's clock less the collector's, as its last session began.",
            Self::ContainerState => "What the engine says of the container: running, exited and so on.",
            Self::ContainerHealth => "What its health check says: none, starting, healthy, unhealthy.",
            Self::ContainerExitCode => "The code with which it ended; absent while it runs.",
            Self::ContainerStopAsked => "1 when somebody asked for its last stop, else 0.",
            Self::ContainerOomKilled => "1 when the kernel ended it for want of memory, else 0.",
            Self::PortExposed => "1 for a port that others than the host and its own networks may reach, else 0.",
            Self::FleetNodesMissing => "Nodes that fell silent together with many others, while that lasts.",
            Self::CollectorCommitSeconds => "The longest that a commit of the log took, of the last 10 seconds.",
            Self::CollectorFramesRefused => "Frames that were given back because they could not be stored.",
            Self::CollectorPausedSeconds => "Time in which the collector itself stood still.",
            Self::CollectorDiskFreeRatio => "What is free of the file system that the collector keeps its state on.",
            Self::CollectorBusyRatio => {
                "Of the last 10 seconds, the share in which agents' connections left the collector no rest."
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_no_metric_and_say_what_they_are_about() {
        for (place, known) in Known::ALL.into_iter().enumerate() {
            assert_eq!(known as usize, place);
            assert_eq!(Known::parse(known.as_str()), Some(known));
            assert!(crate::metric::by_name(known.as_str()).is_none(), "{}", known.as_str());
            assert!(known.help().ends_with('.'));
        }
    }
}
