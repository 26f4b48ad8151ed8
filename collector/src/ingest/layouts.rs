//! Layouts shared between nodes: ten thousand hosts with the same series hold one copy of it.
//!
//! Only weak references are kept here, so a layout goes when the last reading that uses it goes.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Weak};

use dunlin_shared::sample::Layout;

/// Below this many there is nothing to gain by sweeping.
const SWEEP_MIN: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Layouts {
    known: HashMap<u64, Weak<Layout>>,
    hasher: RandomState,
    sweep_at: usize,
}

impl Layouts {
    /// The same layout, by the reference that others hold where there is one. Two layouts with one
    /// hash are told apart; the later one is then merely not shared.
    pub(super) fn intern(&mut self, mut layout: Arc<Layout>) -> Arc<Layout> {
        let hash = self.hasher.hash_one((&layout.subjects, &layout.series, &layout.open));
        if let Some(known) = self.known.get(&hash).and_then(Weak::upgrade) {
            return if *known == *layout { known } else { layout };
        }
        if let Some(own) = Arc::get_mut(&mut layout) {
            own.subjects.shrink_to_fit();
            own.series.shrink_to_fit();
            own.open.shrink_to_fit();
        }
        if self.known.len() >= self.sweep_at.max(SWEEP_MIN) {
            self.known.retain(|_, layout| layout.strong_count() > 0);
            self.sweep_at = self.known.len() * 2;
        }
        self.known.insert(hash, Arc::downgrade(&layout));
        layout
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.known.len()
    }
}
