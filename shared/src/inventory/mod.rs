//! What stands on a node, sent on change and journalled like a frame.
//!
//! The facts of the host by themselves; all else is a stock of items, told whole once in an epoch and then by its
//! changes. An enum that grows at its end: an old collector keeps the bytes that it cannot read.

mod facts;
mod happening;
mod item;
mod stock;
#[cfg(test)]
mod tests;

use std::fmt;
use std::marker::PhantomData;

pub use facts::Facts;
pub use happening::{Happening, What, happenings};
pub use item::{
    Container, ContainerState, Engine, Group, Health, Item, Key, Place, Port, Protocol, Published, Scope, Source, Unit,
    UnitState,
};
use serde::de::{Deserializer, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
pub use stock::{Change, Mismatch, Stock, StockHash, Whole};
use thiserror::Error;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Inventory {
    Facts(Facts),
    Whole(Whole),
    Change(Change),
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum InventoryError {
    #[error("the inventory cannot be decoded")]
    Malformed,
    #[error("{field} has {bytes} bytes, {max} are allowed")]
    TooLong { field: &'static str, bytes: usize, max: usize },
    #[error("{count} {what}, {max} are allowed")]
    TooMany { what: &'static str, count: usize, max: usize },
}

impl Inventory {
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        postcard::to_stdvec(self).expect("plain data serialises into a growing buffer")
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, InventoryError> {
        let (inventory, rest) = postcard::take_from_bytes(bytes).map_err(|_| InventoryError::Malformed)?;
        if !rest.is_empty() {
            return Err(InventoryError::Malformed);
        }
        match &inventory {
            Self::Facts(facts) => facts.check()?,
            Self::Whole(whole) => whole.check()?,
            Self::Change(change) => change.check()?,
        }
        Ok(inventory)
    }
}

/// Refuses a text that is longer than its field may be.
fn fits(field: &'static str, text: &str, max: usize) -> Result<(), InventoryError> {
    if text.len() <= max { Ok(()) } else { Err(InventoryError::TooLong { field, bytes: text.len(), max }) }
}

/// Reads a list and keeps no more than one above what is allowed: enough for a check to refuse it.
fn bounded<'de, D: Deserializer<'de>, T: Deserialize<'de>, const MAX: usize>(from: D) -> Result<Vec<T>, D::Error> {
    struct Bounded<T, const MAX: usize>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for Bounded<T, MAX> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "a list of {MAX} at most")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<T>, A::Error> {
            let mut kept = Vec::new();
            while let Some(one) = list.next_element()? {
                if kept.len() <= MAX {
                    kept.push(one);
                }
            }
            Ok(kept)
        }
    }

    from.deserialize_seq(Bounded::<T, MAX>(PhantomData))
}

/// Refuses more of a thing than there may be.
const fn few(what: &'static str, count: usize, max: usize) -> Result<(), InventoryError> {
    if count <= max { Ok(()) } else { Err(InventoryError::TooMany { what, count, max }) }
}
