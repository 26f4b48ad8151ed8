//! What happened to an item: what a person reads when they ask what changed.
//!
//! It follows from the item before and after. An agent whose engine tells each step takes the steps one by one, so that
//! what happened between two ticks is told as well; a collector that was told a whole stock compares it with its own.

use serde::{Deserialize, Serialize};

use super::{Container, ContainerState, Health, InventoryError, Item, Key, Scope, Stock, fits};
use crate::limits::{FACT_BYTES_MAX, SUBJECT_NAME_BYTES_MAX};
use crate::time::WallMs;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Happening {
    /// By the agent's clock.
    pub at: WallMs,
    /// None when it happened to the host.
    pub key: Option<Key>,
    pub what: What,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum What {
    ContainerCreated,
    ContainerStarted,
    /// It ended in order, or somebody asked for it.
    ContainerStopped {
        exit_code: Option<i32>,
    },
    /// It ended with a code that is not 0, and nobody had asked for it.
    ContainerCrashed {
        exit_code: Option<i32>,
    },
    ContainerOomKilled,
    /// It ran before and runs again, so many times by its engine's own doing.
    ContainerRestarted {
        restarts: u32,
    },
    ContainerRemoved,
    ContainerImageChanged {
        before: Box<str>,
        after: Box<str>,
    },
    ContainerPaused,
    ContainerUnpaused,
    ContainerHealthy,
    ContainerUnhealthy,
    ContainerRenamed {
        before: Box<str>,
    },
    PortOpened {
        scope: Scope,
        process: Option<Box<str>>,
    },
    PortClosed,
    UnitFailed {
        result: Box<str>,
    },
    UnitRecovered,
    HostOomKilled {
        count: u32,
    },
}

impl Happening {
    pub(super) fn check(&self) -> Result<(), InventoryError> {
        self.key.iter().try_for_each(Key::check)?;
        match &self.what {
            What::ContainerImageChanged { before, after } => {
                fits("an image", before, FACT_BYTES_MAX)?;
                fits("an image", after, FACT_BYTES_MAX)
            }
            What::ContainerRenamed { before } => fits("a name", before, SUBJECT_NAME_BYTES_MAX),
            What::PortOpened { process: Some(process), .. } => fits("a name", process, SUBJECT_NAME_BYTES_MAX),
            What::UnitFailed { result } => fits("a unit's result", result, FACT_BYTES_MAX),
            _ => Ok(()),
        }
    }
}

impl What {
    /// The event's kind in the feed.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::ContainerCreated => "container.created",
            Self::ContainerStarted => "container.started",
            Self::ContainerStopped { .. } => "container.stopped",
            Self::ContainerCrashed { .. } => "container.crashed",
            Self::ContainerOomKilled => "container.oom_killed",
            Self::ContainerRestarted { .. } => "container.restarted",
            Self::ContainerRemoved => "container.removed",
            Self::ContainerImageChanged { .. } => "container.image_changed",
            Self::ContainerPaused => "container.paused",
            Self::ContainerUnpaused => "container.unpaused",
            Self::ContainerHealthy => "container.healthy",
            Self::ContainerUnhealthy => "container.unhealthy",
            Self::ContainerRenamed { .. } => "container.renamed",
            Self::PortOpened { .. } => "port.opened",
            Self::PortClosed => "port.closed",
            Self::UnitFailed { .. } => "unit.failed",
            Self::UnitRecovered => "unit.recovered",
            Self::HostOomKilled { .. } => "host.oom_killed",
        }
    }
}

/// What happened to the one item that was `before` and is `after`, in the order in which it did.
#[must_use]
pub fn happenings(before: Option<&Item>, after: Option<&Item>, at: WallMs) -> Vec<Happening> {
    let key = after.or(before).map(Item::key);
    let whats = match (before, after) {
        (before, Some(Item::Container(after))) => {
            let before = match before {
                Some(Item::Container(before)) => Some(&**before),
                _ => None,
            };
            container(before, after)
        }
        (Some(Item::Container(_)), _) => vec![What::ContainerRemoved],
        (None, Some(Item::Port(port))) => {
            vec![What::PortOpened { scope: port.scope, process: port.process.clone() }]
        }
        (Some(Item::Port(_)), None) => vec![What::PortClosed],
        (None, Some(Item::Unit(unit))) => vec![What::UnitFailed { result: unit.result.clone() }],
        (Some(Item::Unit(_)), None) => vec![What::UnitRecovered],
        _ => Vec::new(),
    };
    whats.into_iter().map(|what| Happening { at, key: key.clone(), what }).collect()
}

impl Stock {
    /// What happened between two stocks, to the items that `is_wanted`. The first stock of all is no news.
    pub fn happened_since(&self, before: &Self, at: WallMs, is_wanted: impl Fn(&Key) -> bool) -> Vec<Happening> {
        let gone = before.keys().filter(|key| self.get(key).is_none());
        let keys = gone.chain(self.keys()).filter(|key| is_wanted(key));
        keys.filter(|key| before.get(key) != self.get(key))
            .flat_map(|key| happenings(before.get(key), self.get(key), at))
            .collect()
    }
}

fn container(before: Option<&Container>, after: &Container) -> Vec<What> {
    let Some(before) = before else {
        let mut whats = vec![What::ContainerCreated];
        whats.extend(after.is_up().then_some(What::ContainerStarted));
        return whats;
    };
    let mut whats = Vec::new();
    if before.image != after.image && !before.image.is_empty() && !after.image.is_empty() {
        whats.push(What::ContainerImageChanged { before: before.image.clone(), after: after.image.clone() });
    }
    let is_other_run = before.id != after.id || (before.started != after.started && before.started.is_some());
    match (before.is_up(), after.is_up()) {
        (true, false) => whats.extend(ended(after)),
        (false, true) if before.state == ContainerState::Created => whats.push(What::ContainerStarted),
        // Up again: by its engine when that counted it, else by somebody's hand.
        (false, true) if after.restarts > before.restarts => {
            whats.push(What::ContainerRestarted { restarts: after.restarts });
        }
        (false, true) => whats.push(What::ContainerStarted),
        (true, true) if is_other_run => whats.push(What::ContainerRestarted { restarts: after.restarts }),
        _ => {}
    }
    match (before.state == ContainerState::Paused, after.state) {
        (false, ContainerState::Paused) => whats.push(What::ContainerPaused),
        (true, ContainerState::Running) => whats.push(What::ContainerUnpaused),
        _ => {}
    }
    if before.health != after.health && after.is_up() {
        match after.health {
            Health::Healthy => whats.push(What::ContainerHealthy),
            Health::Unhealthy => whats.push(What::ContainerUnhealthy),
            Health::None | Health::Starting => {}
        }
    }
    whats
}

/// An engine says of both that they ended, and only its own notes say why.
fn ended(after: &Container) -> Vec<What> {
    let exit_code = after.exit_code;
    let mut whats = Vec::new();
    if after.is_oom_killed {
        whats.push(What::ContainerOomKilled);
    }
    whats.push(if after.is_stop_asked || (exit_code == Some(0) && !after.is_oom_killed) || !after.is_told {
        What::ContainerStopped { exit_code }
    } else {
        What::ContainerCrashed { exit_code }
    });
    whats
}

impl Container {
    /// Paused is up as well: its processes are there.
    #[must_use]
    pub const fn is_up(&self) -> bool {
        matches!(self.state, ContainerState::Running | ContainerState::Paused)
    }
}
