//! A node as `control.db` knows it: all that a restart must bring back for the same decisions.

use dunlin_shared::id::FrameId;
use dunlin_shared::inventory::Inventory;
use dunlin_shared::time::{MonoMs, WallMs};
use dunlin_shared::wire::Goodbye;

use super::Known;
use super::roster::Life;
use super::state::{Admission, Liveness, Standing};
use super::stock::{Noise, StockMark};
use crate::record::NodeKey;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    pub node: NodeKey,
    pub life: Liveness,
    /// Of the state that was shown.
    pub since: WallMs,
    pub last_seen: WallMs,
    /// Of its latest run, when it said one.
    pub goodbye: Option<Goodbye>,
    /// The newest live frame of values.
    pub newest: Option<FrameId>,
    /// The frame that its facts came with, and the facts as they were sent.
    pub facts: Option<(FrameId, Vec<u8>)>,
    /// Of its latest session; empty and zeroes for none.
    pub name: String,
    pub boot_id: [u8; 16],
    /// From the registry.
    pub standing: Standing,
    /// `Retired` was told, and it was not heard since.
    pub is_retired: bool,
    /// Of its inventory, when it told any.
    pub stock: Option<(StockMark, Option<Noise>)>,
}

impl Restored {
    /// An admitted node of which nothing is known.
    #[must_use]
    pub const fn of(node: NodeKey, at: WallMs) -> Self {
        Self {
            node,
            life: Liveness::Unknown,
            since: at,
            last_seen: at,
            goodbye: None,
            newest: None,
            facts: None,
            name: String::new(),
            boot_id: [0; 16],
            standing: Standing { admission: Admission::Admitted, maintenance: None, is_ephemeral: false },
            is_retired: false,
            stock: None,
        }
    }

    pub(super) fn to_life(&self) -> Life {
        let mut life = Life::new(self.life, MonoMs(0), self.last_seen, self.since).with_standing(self.standing);
        life.is_retired = self.is_retired;
        life
    }

    pub(super) fn into_known(self) -> Known {
        let mut known = Known {
            goodbye: self.goodbye.map(|goodbye| (goodbye.epoch, goodbye.next_seq)),
            newest: self.newest,
            facts: self.facts.as_ref().map(|(id, _)| *id),
            stock: self.stock.map(|(mark, _)| mark).unwrap_or_default(),
            ..Known::default()
        };
        // What it was before is no change.
        if !self.name.is_empty() || self.boot_id != [0; 16] {
            known.host().greeted(&self.name, self.boot_id);
        }
        if let Some((_, bytes)) = self.facts
            && let Ok(Inventory::Facts(facts)) = Inventory::decode(&bytes)
        {
            known.host().described(&facts);
        }
        known
    }
}
