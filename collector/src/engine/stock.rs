//! Whether what a node tells of its inventory builds on what is held of it, and how many events that makes.
//!
//! It knows frames and hashes and never items: those stand in `control.db`. What builds on another stock than the one
//! that is held makes that one lost, and the whole is asked for: once, until it comes or another session begins.

use dunlin_shared::id::FrameId;
use dunlin_shared::inventory::{Change, Happening, Inventory, Stock, StockHash, What, Whole};
use dunlin_shared::time::WallMs;

use super::{Effect, Engine};
use crate::record::{NodeKey, SessionStart};

/// Events of its inventory that a node may tell at once: all that a host of fifty containers tells as it boots.
const EVENTS_BURST: i64 = 200;
/// How long one more takes: 20 a minute.
const EVENT_EVERY_MS: i64 = 3_000;
/// What is beyond is counted for so long, and then told as one event.
const NOISE_MS: i64 = 60_000;

/// What is known of a node's stock, its items apart. 48 bytes, for each node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StockMark {
    pub state: StockState,
    /// The newest frame that told of it.
    pub id: Option<FrameId>,
    pub hash: StockHash,
    /// Comparing two stocks told what happened before that frame.
    pub is_compared: bool,
    /// When it may tell a whole burst of events again.
    pub full_at: WallMs,
    is_asked: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StockState {
    /// Nothing of it is held.
    #[default]
    None,
    Held,
    /// Something was missed: what is held is near what is so, and no change can build on it.
    Lost,
}

/// Events that were too many to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Noise {
    pub since: WallMs,
    pub count: u32,
}

/// A frame of inventory, as far as it places what it holds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Told {
    pub(super) at: WallMs,
    pub(super) id: FrameId,
    pub(super) is_late: bool,
}

impl StockMark {
    /// As `control.db` has it.
    #[must_use]
    pub const fn restored(
        state: StockState,
        id: Option<FrameId>,
        hash: StockHash,
        (is_compared, full_at): (bool, WallMs),
    ) -> Self {
        Self { state, id, hash, is_compared, full_at, is_asked: false }
    }

    /// Whether one more event may be told. A wall clock that is moved costs at most one burst, in either direction.
    fn spend(&mut self, at: WallMs) -> bool {
        let burst_ms = EVENTS_BURST * EVENT_EVERY_MS;
        self.full_at = self.full_at.clamp(at, at.plus(burst_ms));
        let has_left = self.full_at.since(at) <= burst_ms - EVENT_EVERY_MS;
        if has_left {
            self.full_at = self.full_at.plus(EVENT_EVERY_MS);
        }
        has_left
    }

    /// Whether the whole is to be asked for now.
    const fn ask(&mut self) -> bool {
        !std::mem::replace(&mut self.is_asked, true)
    }
}

impl Engine {
    /// For `control.db`, after `Effect::StockKept`.
    #[must_use]
    pub fn stock(&self, node: NodeKey) -> (StockMark, Option<Noise>) {
        let mark = self.known.get(node.0 as usize).map(|known| known.stock).unwrap_or_default();
        (mark, self.noise.get(&node).copied())
    }

    /// What comparing two stocks came to, after `Effect::StockTold` asked for that.
    pub fn happened(&mut self, at: WallMs, node: NodeKey, happened: Vec<Happening>, is_late: bool) -> Vec<Effect> {
        let mut effects = Vec::new();
        if self.roster.knows(node) && !happened.is_empty() {
            self.tell(node, (at, is_late), happened, &mut effects);
            effects.push(Effect::StockKept { node });
        }
        effects
    }

    /// What `control.db` holds did not become what the node said it would. `asks` when the whole is to be told at once.
    pub fn mistrust(&mut self, node: NodeKey, asks: bool) -> Vec<Effect> {
        let mut effects = Vec::new();
        if self.roster.knows(node) {
            let mark = &mut self.known(node).stock;
            if mark.state == StockState::Held {
                mark.state = StockState::Lost;
            }
            if asks && mark.ask() {
                effects.push(Effect::InventoryAsked { node });
            }
            effects.push(Effect::StockKept { node });
        }
        effects
    }

    pub(super) fn stock_told(&mut self, node: NodeKey, told: Told, inventory: Inventory, effects: &mut Vec<Effect>) {
        let mark = self.known(node).stock;
        let is_older = mark.id.is_some_and(|newest| told.id <= newest);
        match inventory {
            Inventory::Facts(_) => return,
            Inventory::Whole(Whole { happened, .. }) | Inventory::Change(Change { happened, .. }) if is_older => {
                let is_news = |happening: &Happening| !mark.is_compared || is_grave(&happening.what);
                let happened: Vec<_> = happened.into_iter().filter(is_news).collect();
                if happened.is_empty() {
                    return;
                }
                self.tell(node, (told.at, told.is_late), happened, effects);
            }
            Inventory::Whole(whole) => self.whole_told(node, told, whole, effects),
            Inventory::Change(change) => self.change_told(node, told, change, effects),
        }
        effects.push(Effect::StockKept { node });
    }

    /// A new run tells the whole by itself. Of a node that nobody knew, nothing was missed.
    pub(super) fn stock_greeted(
        &mut self,
        node: NodeKey,
        session: &SessionStart,
        was_known: bool,
        effects: &mut Vec<Effect>,
    ) {
        let mark = &mut self.known(node).stock;
        mark.is_asked = false;
        let misses = match mark.state {
            StockState::Held => false,
            StockState::Lost => true,
            StockState::None => was_known,
        };
        if misses && session.before.is_none() && mark.ask() {
            effects.push(Effect::InventoryAsked { node });
        }
    }

    /// Nobody is connected any more, and whoever was asked forgot it.
    pub(super) fn stocks_started(&mut self) {
        self.known.iter_mut().for_each(|known| known.stock.is_asked = false);
    }

    /// Tells of what was too much a minute ago.
    pub(super) fn tell_noise(&mut self, at: WallMs, effects: &mut Vec<Effect>) {
        let is_over = |noise: &Noise| !(0..NOISE_MS).contains(&at.since(noise.since));
        let over: Vec<_> = self.noise.iter().filter(|(_, noise)| is_over(noise)).map(|(node, _)| *node).collect();
        for node in over {
            let count = self.noise.remove(&node).map_or(0, |noise| noise.count);
            effects.push(Effect::Noisy { node, count });
            effects.push(Effect::StockKept { node });
        }
    }

    fn whole_told(&mut self, node: NodeKey, told: Told, whole: Whole, effects: &mut Vec<Effect>) {
        let stock = Stock::of(whole.items);
        let mark = &mut self.known(node).stock;
        // What a node tells of itself is more than two pictures of it show.
        let compares = mark.state != StockState::None && whole.happened.is_empty();
        *mark = StockMark {
            state: StockState::Held,
            id: Some(told.id),
            hash: stock.hash(),
            is_compared: compares,
            full_at: mark.full_at,
            is_asked: false,
        };
        effects.push(Effect::StockTold { node, stock: Box::new(stock), compares, is_late: told.is_late });
        self.tell(node, (told.at, told.is_late), whole.happened, effects);
    }

    fn change_told(&mut self, node: NodeKey, told: Told, mut change: Change, effects: &mut Vec<Effect>) {
        let happened = std::mem::take(&mut change.happened);
        let mark = &mut self.known(node).stock;
        mark.id = Some(told.id);
        let builds = mark.state == StockState::Held && mark.hash == change.before;
        if builds {
            mark.hash = change.after;
        } else if mark.state == StockState::Held {
            mark.state = StockState::Lost;
        }
        let (state, asks) = (mark.state, !builds && mark.ask());
        let is_empty = change.before == change.after && change.gone.is_empty() && change.items.is_empty();
        if state != StockState::None && !is_empty {
            effects.push(Effect::StockChanged { node, change: Box::new(change), builds });
        }
        self.tell(node, (told.at, told.is_late), happened, effects);
        if asks {
            effects.push(Effect::InventoryAsked { node });
        }
    }

    fn tell(
        &mut self,
        node: NodeKey,
        (at, is_late): (WallMs, bool),
        happened: Vec<Happening>,
        effects: &mut Vec<Effect>,
    ) {
        for happening in happened {
            if self.known(node).stock.spend(at) {
                effects.push(Effect::Happened { node, happening: Box::new(happening), is_late });
            } else {
                let noise = self.noise.entry(node).or_insert(Noise { since: at, count: 0 });
                noise.count = noise.count.saturating_add(1);
            }
        }
    }
}

/// What two pictures of a node may both miss: it happened, and then all was as before.
const fn is_grave(what: &What) -> bool {
    matches!(what, What::ContainerCrashed { .. } | What::ContainerOomKilled | What::HostOomKilled { .. })
}
