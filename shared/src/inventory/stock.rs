//! All items of a node, and how one stock becomes another.
//!
//! A stock has a hash of its content that any order of changes leads to. A change names the hash that it builds on
//! and the one that it leads to, so that an end that missed something notices at once and asks for the whole.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{Happening, InventoryError, Item, Key, bounded, few};
use crate::limits::{
    CONTAINERS_MAX, GROUPS_MAX, HAPPENINGS_MAX, ITEMS_MAX, PORTS_MAX, SOURCES_MAX, STOCK_BYTES_MAX, UNITS_MAX,
};

/// Of a stock's content. It finds what was missed, not what was forged: an agent lies about its own node alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct StockHash(pub u64);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stock {
    items: BTreeMap<Key, Item>,
    bytes_max: usize,
    /// Of all items together, encoded.
    bytes: usize,
    hash: StockHash,
    counts: Counts,
    left_out: Counts,
}

/// A whole stock.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Whole {
    #[serde(deserialize_with = "bounded::<_, _, ITEMS_MAX>")]
    pub items: Vec<Item>,
    /// What happened since what was told last.
    #[serde(deserialize_with = "bounded::<_, _, HAPPENINGS_MAX>")]
    pub happened: Vec<Happening>,
}

/// What makes one stock of another.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    pub before: StockHash,
    pub after: StockHash,
    #[serde(deserialize_with = "bounded::<_, _, ITEMS_MAX>")]
    pub gone: Vec<Key>,
    /// New, or otherwise than before.
    #[serde(deserialize_with = "bounded::<_, _, ITEMS_MAX>")]
    pub items: Vec<Item>,
    #[serde(deserialize_with = "bounded::<_, _, HAPPENINGS_MAX>")]
    pub happened: Vec<Happening>,
}

/// The change builds on another stock, or leads elsewhere: something was missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the change of the inventory builds on another state")]
pub struct Mismatch;

/// By kind of item, in the order of `Key`.
type Counts = [u32; 5];

const MAX: Counts = [CONTAINERS_MAX, PORTS_MAX, GROUPS_MAX, UNITS_MAX, SOURCES_MAX];

impl Default for Stock {
    fn default() -> Self {
        Self::within(STOCK_BYTES_MAX)
    }
}

impl Stock {
    /// An empty one that takes no more than so many bytes, for who has little room to keep what he tells.
    #[must_use]
    pub fn within(bytes_max: usize) -> Self {
        let (items, bytes_max) = (BTreeMap::new(), bytes_max.min(STOCK_BYTES_MAX));
        let (counts, left_out) = (Counts::default(), Counts::default());
        Self { items, bytes_max, bytes: 0, hash: StockHash::default(), counts, left_out }
    }

    /// Adds an item, or puts it in the place of one with the same key. Whether there was room; what found none is counted.
    pub fn put(&mut self, item: Item) -> bool {
        let (key, (bytes, hash)) = (item.key(), measure(&item));
        self.remove(&key);
        let kind = kind(&key);
        if self.counts[kind] >= MAX[kind] || self.bytes + bytes > self.bytes_max {
            self.left_out[kind] += 1;
            return false;
        }
        self.bytes += bytes;
        self.counts[kind] += 1;
        self.hash.0 = self.hash.0.wrapping_add(hash);
        self.items.insert(key, item);
        true
    }

    pub fn remove(&mut self, key: &Key) -> Option<Item> {
        let item = self.items.remove(key)?;
        let (bytes, hash) = measure(&item);
        self.bytes -= bytes;
        self.counts[kind(key)] -= 1;
        self.hash.0 = self.hash.0.wrapping_sub(hash);
        Some(item)
    }

    #[must_use]
    pub fn get(&self, key: &Key) -> Option<&Item> {
        self.items.get(key)
    }

    /// Sorted by key.
    pub fn items(&self) -> impl Iterator<Item = &Item> {
        self.items.values()
    }

    pub fn keys(&self) -> impl Iterator<Item = &Key> {
        self.items.keys()
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.items.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    #[must_use]
    pub const fn hash(&self) -> StockHash {
        self.hash
    }

    /// Containers, ports, groups, units and sources that found no room.
    #[must_use]
    pub const fn left_out(&self) -> [u32; 5] {
        self.left_out
    }

    #[must_use]
    pub fn to_whole(&self, happened: Vec<Happening>) -> Whole {
        Whole { items: self.items().cloned().collect(), happened }
    }

    /// Of what arrived. A key that stands twice counts once.
    #[must_use]
    pub fn of(items: impl IntoIterator<Item = Item>) -> Self {
        let mut stock = Self::default();
        for item in items {
            stock.put(item);
        }
        stock
    }

    /// What makes `self` of `before`, happenings apart; none when they are the same.
    #[must_use]
    pub fn change_from(&self, before: &Self) -> Option<Change> {
        if self.items == before.items {
            return None;
        }
        let gone = before.items.keys().filter(|key| !self.items.contains_key(*key)).cloned().collect();
        let is_news = |(key, item): &(&Key, &Item)| before.items.get(*key) != Some(*item);
        let items = self.items.iter().filter(is_news).map(|(_, item)| item.clone()).collect();
        Some(Change { before: before.hash, after: self.hash, gone, items, happened: Vec::new() })
    }

    /// Refused, it may have been applied in part: the stock is worth nothing then.
    pub fn apply(&mut self, change: Change) -> Result<(), Mismatch> {
        if change.before != self.hash {
            return Err(Mismatch);
        }
        for key in &change.gone {
            self.remove(key);
        }
        for item in change.items {
            self.put(item);
        }
        if self.hash == change.after { Ok(()) } else { Err(Mismatch) }
    }
}

impl Whole {
    pub(super) fn check(&self) -> Result<(), InventoryError> {
        check_items(&self.items)?;
        check_happened(&self.happened)
    }
}

impl Change {
    pub(super) fn check(&self) -> Result<(), InventoryError> {
        few("items that are gone", self.gone.len(), ITEMS_MAX)?;
        self.gone.iter().try_for_each(Key::check)?;
        check_items(&self.items)?;
        check_happened(&self.happened)
    }
}

fn check_items(items: &[Item]) -> Result<(), InventoryError> {
    few("items", items.len(), ITEMS_MAX)?;
    items.iter().try_for_each(Item::check)
}

fn check_happened(happened: &[Happening]) -> Result<(), InventoryError> {
    few("happenings", happened.len(), HAPPENINGS_MAX)?;
    happened.iter().try_for_each(Happening::check)
}

const fn kind(key: &Key) -> usize {
    match key {
        Key::Container(_) => 0,
        Key::Port(_) => 1,
        Key::Group(_) => 2,
        Key::Unit(_) => 3,
        Key::Source(_) => 4,
    }
}

/// An item's encoded size and its part of the hash: FNV-1a, mixed so that parts may be added and taken away.
fn measure(item: &Item) -> (usize, u64) {
    let bytes = postcard::to_stdvec(item).expect("plain data serialises into a growing buffer");
    let fnv = bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325u64, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    let mixed = (fnv ^ (fnv >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (bytes.len(), mixed ^ (mixed >> 31))
}
