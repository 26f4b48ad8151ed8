//! The words for how a node is: what its silence says of it, what the registry says of it, and the
//! one that is shown.
//!
//! The words of `NodeState` are a contract of the API; those of `Liveness` stand in `control.db`. Both
//! grow at their end and never change.

use dunlin_shared::time::WallMs;

/// The one state that is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NodeState {
    /// Nobody can say: never heard, not heard since the collector started, or silent together with many.
    #[default]
    Unknown,
    Up,
    Suspect,
    Down,
    /// It said goodbye.
    Stopped,
    /// Planned downtime: its silence says nothing.
    Maintenance,
    /// Enrolled with a token that wants each node approved.
    Pending,
    /// Enrolled, but unknown to the backup that was restored.
    Held,
    /// It is there, and another machine says that it is the same node.
    Quarantined,
    Revoked,
}

/// What silence and messages say of a node, whatever the registry says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Liveness {
    #[default]
    Unknown,
    Up,
    Suspect,
    Down,
    Stopped,
    /// It was up when the collector stopped, and is not back yet.
    Awaited,
    /// It went silent together with many others, and is not taken for down yet.
    Missing,
}

/// Whether the registry lets a node in. Of one that is quarantined one machine is in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Admission {
    #[default]
    Admitted,
    Pending,
    Held,
    Quarantined,
    Revoked,
}

/// Planned downtime. Past `until`, by the receive time of the log's ticks, it is over by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Maintenance {
    pub until: Option<WallMs>,
}

/// What the registry says of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Standing {
    pub admission: Admission,
    pub maintenance: Option<Maintenance>,
    /// Forgotten sooner when it is unseen.
    pub is_ephemeral: bool,
}

/// Why a node's state changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// It said something.
    Heard,
    /// It said something for the first time since the collector started, and was up before that.
    Resumed,
    Silence,
    Goodbye,
    /// The collector started: nobody is connected.
    Started,
    /// It is one of many.
    Mass,
    /// The registry spoke, or maintenance ran out.
    Standing,
}

impl NodeState {
    pub const ALL: [Self; 10] = [
        Self::Unknown,
        Self::Up,
        Self::Suspect,
        Self::Down,
        Self::Stopped,
        Self::Maintenance,
        Self::Pending,
        Self::Held,
        Self::Quarantined,
        Self::Revoked,
    ];

    /// In the API, in `/metrics` and on the command line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Up => "up",
            Self::Suspect => "suspect",
            Self::Down => "down",
            Self::Stopped => "stopped",
            Self::Maintenance => "maintenance",
            Self::Pending => "pending",
            Self::Held => "held",
            Self::Quarantined => "quarantined",
            Self::Revoked => "revoked",
        }
    }

    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }

    /// Whether it sends, so that what was measured last is so now.
    #[must_use]
    pub const fn is_heard(self) -> bool {
        matches!(self, Self::Up | Self::Suspect | Self::Quarantined | Self::Maintenance)
    }

    /// Whether nobody waits for it any more.
    #[must_use]
    pub const fn is_gone(self) -> bool {
        matches!(self, Self::Revoked)
    }

    /// What keeps a node out wins: whoever may not connect has no liveness to show. Planned downtime
    /// wins over liveness, since a node that is drained comes and goes. A node whose clone is in
    /// quarantine shows that while it is there; that it is gone matters more.
    #[must_use]
    pub const fn shown(admission: Admission, in_maintenance: bool, life: Liveness) -> Self {
        match (admission, life) {
            (Admission::Revoked, _) => Self::Revoked,
            (Admission::Held, _) => Self::Held,
            (Admission::Pending, _) => Self::Pending,
            _ if in_maintenance => Self::Maintenance,
            (Admission::Quarantined, Liveness::Up | Liveness::Suspect) => Self::Quarantined,
            (_, Liveness::Unknown | Liveness::Awaited | Liveness::Missing) => Self::Unknown,
            (_, Liveness::Up) => Self::Up,
            (_, Liveness::Suspect) => Self::Suspect,
            (_, Liveness::Down) => Self::Down,
            (_, Liveness::Stopped) => Self::Stopped,
        }
    }
}

impl Liveness {
    pub const ALL: [Self; 7] =
        [Self::Unknown, Self::Up, Self::Suspect, Self::Down, Self::Stopped, Self::Awaited, Self::Missing];

    /// In `control.db`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Up => "up",
            Self::Suspect => "suspect",
            Self::Down => "down",
            Self::Stopped => "stopped",
            Self::Awaited => "awaited",
            Self::Missing => "missing",
        }
    }

    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|life| life.as_str() == text)
    }
}

impl Admission {
    pub const ALL: [Self; 5] = [Self::Admitted, Self::Pending, Self::Held, Self::Quarantined, Self::Revoked];

    /// Whether its silence says something, unless downtime is planned.
    pub(super) const fn lets_in(self) -> bool {
        matches!(self, Self::Admitted | Self::Quarantined)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_state_is_shown_for_every_pair_of_admission_and_liveness() {
        for life in Liveness::ALL {
            for in_maintenance in [false, true] {
                let shown = |admission| NodeState::shown(admission, in_maintenance, life);
                assert_eq!(shown(Admission::Pending), NodeState::Pending);
                assert_eq!(shown(Admission::Held), NodeState::Held);
                assert_eq!(shown(Admission::Revoked), NodeState::Revoked);
            }
            assert_eq!(NodeState::shown(Admission::Admitted, true, life), NodeState::Maintenance);
            assert_eq!(NodeState::shown(Admission::Quarantined, true, life), NodeState::Maintenance);
        }
        let words = |admission| Liveness::ALL.map(|life| NodeState::shown(admission, false, life).as_str());
        let admitted = ["unknown", "up", "suspect", "down", "stopped", "unknown", "unknown"];
        assert_eq!(words(Admission::Admitted), admitted);
        let quarantined = ["unknown", "quarantined", "quarantined", "down", "stopped", "unknown", "unknown"];
        assert_eq!(words(Admission::Quarantined), quarantined);
    }

    #[test]
    fn words_read_back() {
        assert!(NodeState::ALL.into_iter().all(|state| NodeState::parse(state.as_str()) == Some(state)));
        assert!(Liveness::ALL.into_iter().all(|life| Liveness::parse(life.as_str()) == Some(life)));
        let kept = Liveness::ALL.map(Liveness::as_str);
        assert_eq!(kept, ["unknown", "up", "suspect", "down", "stopped", "awaited", "missing"], "as in control.db");
        assert_eq!((NodeState::parse("missing"), Liveness::parse("revoked")), (None, None));
        assert!(NodeState::ALL.into_iter().zip(0..).all(|(state, place)| state as usize == place));
    }
}
