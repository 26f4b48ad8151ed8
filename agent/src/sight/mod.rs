//! What the service saw of its host, source by source: the facts that `dunlin-agent check` judges.
//!
//! Root sees more than the service does, so the service writes its own report (`keep.rs`, `file.rs`), and `check` reads
//! that one. Facts alone stand here: what is missing without a source, and what would mend it, is for `judge.rs` and
//! `mend.rs`, which are pure, so that a newer `check` judges an older service just as well.

pub mod file;
pub mod judge;
pub mod keep;
pub mod mend;
mod own;

use dunlin_shared::time::WallMs;

pub use self::own::Own;

/// What one look at all sources found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sight {
    pub at: WallMs,
    pub own: Own,
    pub sources: Vec<Seeing>,
}

/// One source of what the agent tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seeing {
    pub kind: Kind,
    pub state: State,
    /// Which one, where there are several: a part of the host, the socket of an engine.
    pub name: Box<str>,
    /// How many of how many, where that says something.
    pub seen: u32,
    pub of: u32,
    /// The operator asked for it by name: that it is not there, or shut, is worth a warning.
    pub is_asked: bool,
    /// The group that would open it.
    pub group: Box<str>,
    /// Which version it is, or what is wrong with it.
    pub says: Box<str>,
}

/// The names in `WORDS` are written to disk: they are added to and never changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// A part of the host's own numbers.
    #[default]
    Part,
    Mounts,
    Processes,
    OpenFiles,
    ProcessIo,
    Cgroups,
    Units,
    Engine,
    Containers,
    Networks,
    Ports,
    Owners,
    /// The way to the collector.
    Uplink,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    #[default]
    Works,
    /// Some of it is not seen.
    Partly,
    /// It is there, and the agent may not look.
    Refused,
    /// It is there, may be asked, and does not answer as it should.
    Failed,
    /// This host has none.
    Absent,
    /// Switched off by the configuration.
    Off,
}

impl Kind {
    pub const WORDS: [(Self, &str); 13] = [
        (Self::Part, "part"),
        (Self::Mounts, "mounts"),
        (Self::Processes, "processes"),
        (Self::OpenFiles, "open files"),
        (Self::ProcessIo, "process io"),
        (Self::Cgroups, "control groups"),
        (Self::Units, "systemd"),
        (Self::Engine, "engine"),
        (Self::Containers, "containers"),
        (Self::Networks, "networks"),
        (Self::Ports, "ports"),
        (Self::Owners, "owners of ports"),
        (Self::Uplink, "uplink"),
    ];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        Self::WORDS.iter().find(|(kind, _)| *kind == self).map_or("", |(_, word)| word)
    }

    #[must_use]
    pub fn named(word: &str) -> Option<Self> {
        Self::WORDS.iter().find(|(_, known)| *known == word).map(|(kind, _)| *kind)
    }
}

impl State {
    pub const WORDS: [(Self, &str); 6] = [
        (Self::Works, "works"),
        (Self::Partly, "partly"),
        (Self::Refused, "refused"),
        (Self::Failed, "failed"),
        (Self::Absent, "absent"),
        (Self::Off, "off"),
    ];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        Self::WORDS.iter().find(|(state, _)| *state == self).map_or("", |(_, word)| word)
    }

    #[must_use]
    pub fn named(word: &str) -> Option<Self> {
        Self::WORDS.iter().find(|(_, known)| *known == word).map(|(state, _)| *state)
    }
}

impl Seeing {
    #[must_use]
    pub fn new(kind: Kind, state: State) -> Self {
        Self { kind, state, ..Self::default() }
    }

    #[must_use]
    pub fn says(self, says: impl Into<Box<str>>) -> Self {
        Self { says: says.into(), ..self }
    }

    #[must_use]
    pub fn named(self, name: impl Into<Box<str>>) -> Self {
        Self { name: name.into(), ..self }
    }

    /// Whole when all of them are seen, else partly.
    #[must_use]
    pub fn counted(kind: Kind, seen: u32, of: u32) -> Self {
        let state = if seen < of { State::Partly } else { State::Works };
        Self { seen, of, ..Self::new(kind, state) }
    }

    /// What is the same as before is not written again. Numbers come and go with every process.
    #[must_use]
    pub fn is_like(&self, other: &Self) -> bool {
        let without = |seeing: &Self| Self { seen: 0, of: 0, ..seeing.clone() };
        without(self) == without(other)
    }
}
