//! Things with a name that are referred to by a number: a number is four bytes in each of thousands of processes.
//!
//! A number stands for one thing until that is removed, and for another one later.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

#[derive(Debug)]
pub(super) struct Slots<K: ?Sized, V> {
    numbers: HashMap<Arc<K>, u32>,
    slots: Vec<Option<(Arc<K>, V)>>,
    free: Vec<u32>,
}

impl<K: ?Sized + Hash + Eq, V> Default for Slots<K, V> {
    fn default() -> Self {
        Self { numbers: HashMap::new(), slots: Vec::new(), free: Vec::new() }
    }
}

impl<K: ?Sized + Hash + Eq, V: Default> Slots<K, V> {
    pub(super) fn len(&self) -> usize {
        self.numbers.len()
    }

    pub(super) fn number(&self, key: &K) -> Option<u32> {
        self.numbers.get(key).copied()
    }

    /// Its number, and whether it is new.
    pub(super) fn intern(&mut self, key: &K, share: impl FnOnce(&K) -> Arc<K>) -> (u32, bool) {
        if let Some(number) = self.number(key) {
            return (number, false);
        }
        let key = share(key);
        let slot = Some((Arc::clone(&key), V::default()));
        let number = if let Some(number) = self.free.pop() {
            self.slots[number as usize] = slot;
            number
        } else {
            self.slots.push(slot);
            u32::try_from(self.slots.len() - 1).expect("there are fewer of them than processes")
        };
        self.numbers.insert(key, number);
        (number, true)
    }

    pub(super) fn get(&self, number: u32) -> Option<(&K, &V)> {
        self.slots.get(number as usize)?.as_ref().map(|(key, value)| (&**key, value))
    }

    pub(super) fn value_mut(&mut self, number: u32) -> Option<&mut V> {
        self.slots.get_mut(number as usize)?.as_mut().map(|(_, value)| value)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &K, &V)> {
        let all = (0..).zip(&self.slots);
        all.filter_map(|(number, slot)| slot.as_ref().map(|(key, value)| (number, &**key, value)))
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (&K, &mut V)> {
        self.slots.iter_mut().flatten().map(|(key, value)| (&**key, value))
    }

    /// How many were removed.
    pub(super) fn retain(&mut self, is_kept: impl Fn(u32, &K, &V) -> bool) -> usize {
        let before = self.len();
        for (number, slot) in (0..).zip(&mut self.slots) {
            if slot.as_ref().is_some_and(|(key, value)| !is_kept(number, key, value)) {
                let (key, _) = slot.take().expect("it was there a moment ago");
                self.numbers.remove(&key);
                self.free.push(number);
            }
        }
        before - self.len()
    }
}
