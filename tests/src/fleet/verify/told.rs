//! Whether what was told of the hosts' inventory stands as it was told: frame by frame, and in `control.db` at the end.

use std::path::Path;

use anyhow::Result;
use dunlin_collector::engine::StockState;
use dunlin_collector::record::{NodeKey, Pos};
use dunlin_collector::stock::KeptStock;
use dunlin_collector::store::ControlReader;
use dunlin_shared::id::{Epoch, FrameId, Seq};
use dunlin_shared::inventory::{Change, Happening, Inventory, Key, Whole};
use dunlin_shared::range::SeqRange;
use dunlin_shared::time::WallMs;

use super::Verifier;
use crate::fleet::load::Host;
use crate::fleet::numbering::Content;

/// The newest frame of a node that told what stands on it, and where it is in the log.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Newest(Option<(FrameId, Pos, u64)>);

impl Newest {
    pub(super) fn note(&mut self, pos: Pos, id: FrameId, content: Content) {
        if let Content::Told(tick) = content
            && self.0.is_none_or(|(newest, ..)| newest < id)
        {
            self.0 = Some((id, pos, tick));
        }
    }
}

/// How a stored inventory differs from what stood on the host.
pub(super) fn differs(host: &Host, facts: &Inventory, content: Content, body: &[u8]) -> Option<String> {
    let Ok(told) = Inventory::decode(body) else { return Some("is an inventory that cannot be read".to_owned()) };
    let tick = match content {
        Content::Facts => return (told != *facts).then(|| "is not the inventory that was sent".to_owned()),
        Content::Sampled(_) => return Some("its number is a sample's".to_owned()),
        Content::Told(tick) => tick,
    };
    let stock = host.stock(tick);
    let before = tick.checked_sub(1).map(|before| host.stock(before));
    let (happened, is_so) = match told {
        Inventory::Facts(_) => return Some("tells facts where a stock was told".to_owned()),
        // A collector may ask for the whole whenever it likes.
        Inventory::Whole(Whole { items, happened }) => (happened, items.iter().eq(stock.items())),
        Inventory::Change(Change { happened, before: from, after, gone, items }) => {
            let change = before.as_ref().and_then(|before| stock.change_from(before));
            let told = Change { happened: Vec::new(), before: from, after, gone, items };
            (happened, change.is_some_and(|change| change == told))
        }
    };
    if !is_so {
        return Some(format!("does not tell what stood at tick {tick}"));
    }
    let mut expected = host.happened(tick, WallMs(0));
    if let Some(before) = &before {
        expected.extend(stock.happened_since(before, WallMs(0), |key| !matches!(key, Key::Container(_))));
    }
    let is_same = |(one, other): (&Happening, &Happening)| (&one.key, &one.what) == (&other.key, &other.what);
    let is_all = expected.len() == happened.len() && expected.iter().zip(&happened).all(is_same);
    (!is_all).then(|| format!("tells {happened:?} where {expected:?} happened"))
}

impl Verifier {
    /// Sealed, of an inventory only its number is left: what it said stands in `control.db`.
    pub(super) fn take_inventories(&mut self, pos: Pos, key: NodeKey, epoch: Epoch, range: SeqRange) {
        let Some((node, expected)) = self.known(pos, key, epoch) else { return };
        self.report.inventories += range.count();
        let expected = &self.expected[&expected];
        let stored = self.stored.entry((node, epoch)).or_default();
        let before = stored.frames.count();
        stored.frames.insert_range(range);
        if stored.frames.count() != before + range.count() {
            self.report.violate(|| format!("inventory {} of node {node} is there twice", range.first.0));
        }
        let host = stored.host.get_or_insert_with(|| expected.load.host(expected.index, epoch));
        for seq in range.first.0..=range.last.0 {
            let content = expected.numbering.content(seq, expected.sampled, host);
            if let Content::Sampled(tick) = content {
                self.report.violate(|| format!("inventory {seq} of node {node} has the number of tick {tick}"));
            }
            self.newest.entry(key).or_default().note(pos, FrameId { epoch, seq: Seq(seq) }, content);
        }
    }

    /// What is said to stand on each node now, as far as the pipeline came before it ended.
    pub(super) fn compare_stocks(&mut self, control: &Path) -> Result<()> {
        let control = ControlReader::open(control)?;
        let applied = control.applied_pos()?;
        for row in control.stocks()? {
            let newest = self.newest.get(&row.node).and_then(|newest| newest.0);
            let Some((id, _, tick)) = newest.filter(|(_, pos, _)| *pos <= applied) else { continue };
            let Some(&node) = self.nodes.get(&row.node) else { continue };
            if row.mark.state != StockState::Held {
                self.report.stocks_lost += 1;
                continue;
            }
            let Some(stored) = self.stored.get(&(node, id.epoch)) else { continue };
            let Some(host) = &stored.host else { continue };
            let (wanted, body) = (host.stock(tick), control.stock_body(row.node)?);
            let kept = body.and_then(|body| KeptStock::decode(&body));
            if kept.is_none_or(|kept| *kept.stock() != wanted) {
                self.report.violate(|| format!("what is kept to stand on node {node} is not what frame {id} told"));
            } else {
                self.report.stocks += 1;
            }
        }
        Ok(())
    }
}
