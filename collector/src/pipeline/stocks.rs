//! What stands on nodes and is not on disk yet, and what is made of it there.
//!
//! A stock is read from `control.db` when something is told of it and written back with the position: between two
//! commits none is in memory. What waits for a disk that is full is bounded; what is beyond is asked for again.

use std::collections::HashMap;

use crate::engine::Engine;
use crate::record::NodeKey;
use crate::stock::{KeptStock, StockBody};
use crate::store::{Control, StockUpdate, StoreError};

/// Above this what waits is written before more is taken: a transaction of some tens of milliseconds.
const WRITE_AT_BYTES: usize = 4 * 1024 * 1024;
/// Above this nothing more waits for a disk that is full. The whole fleet at 4 KiB a node is 40 MB.
const WAITING_BYTES_MAX: usize = 64 * 1024 * 1024;

#[derive(Debug, Default)]
pub(super) struct Stocks {
    /// `None` where the items are as they were.
    waiting: HashMap<NodeKey, Option<StockBody>>,
    bytes: usize,
}

impl Stocks {
    /// What is kept of a node. Bytes that are none of ours are no stock.
    pub(super) fn load(&self, node: NodeKey, control: &Control) -> Result<Option<KeptStock>, StoreError> {
        if let Some(Some(body)) = self.waiting.get(&node) {
            return Ok(KeptStock::decode(&body.bytes));
        }
        Ok(control.stock_body(node)?.and_then(|body| KeptStock::decode(&body)))
    }

    /// Whether there was room for it.
    pub(super) fn put(&mut self, node: NodeKey, kept: &KeptStock) -> bool {
        let body = kept.body();
        let before = self.waiting.get(&node).and_then(Option::as_ref).map_or(0, |body| body.bytes.len());
        let bytes = self.bytes - before + body.bytes.len();
        let has_room = bytes <= WAITING_BYTES_MAX;
        if has_room {
            self.bytes = bytes;
            self.waiting.insert(node, Some(body));
        }
        has_room
    }

    /// What the engine knows of it is another.
    pub(super) fn note(&mut self, node: NodeKey) {
        self.waiting.entry(node).or_default();
    }

    pub(super) fn updates(&self, engine: &Engine) -> Vec<StockUpdate> {
        let update = |(&node, body): (&NodeKey, &Option<StockBody>)| {
            let (mark, noise) = engine.stock(node);
            StockUpdate { node, mark, noise, body: body.clone() }
        };
        self.waiting.iter().map(update).collect()
    }

    pub(super) fn stored(&mut self) {
        *self = Self::default();
    }

    pub(super) fn forget(&mut self, node: NodeKey) {
        if let Some(Some(body)) = self.waiting.remove(&node) {
            self.bytes -= body.bytes.len();
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether it is time to write, whatever else comes.
    pub(super) const fn is_large(&self) -> bool {
        self.bytes >= WRITE_AT_BYTES
    }
}
