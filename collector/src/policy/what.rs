//! What people ask for about alerts, and what they are told. Plain data.

use dunlin_shared::time::WallMs;

use super::silence::{SilenceEdit, SilenceId, SilenceWish};
use crate::engine::alert::AlertId;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    Silence(SilenceWish),
    Edit {
        silence: SilenceId,
        edit: SilenceEdit,
    },
    /// Ends one before its time.
    Expire(SilenceId),
    Acknowledge {
        alert: AlertId,
        why: String,
    },
    /// Those of them that fire and that nobody acknowledged yet.
    AcknowledgeAll {
        alerts: Vec<AlertId>,
        why: String,
        /// How they were chosen, for the log.
        chosen: String,
    },
    /// Takes back what was acknowledged.
    Unacknowledge(AlertId),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Done,
    Silenced(SilenceId),
    /// So many.
    Acknowledged(usize),
}

/// Somebody knows of an alert and sees to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acknowledgement {
    pub by: String,
    pub at: WallMs,
    pub why: String,
}
