//! Whether the collector can do its work at the moment, for `/-/ready` and `/metrics`.
//!
//! Written by the writer, the pipeline and the keeper of the window, read by the API.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use crate::record::Pos;

#[derive(Debug, Default)]
pub struct Health {
    serving: AtomicBool,
    storing: AtomicBool,
    /// Why nothing is stored, when it is not.
    trouble: Mutex<String>,
    applied: AtomicU64,
    sealed: AtomicU64,
    /// Bytes; 0 while nobody has said.
    journal_room: AtomicU64,
    short_of_room: AtomicBool,
}

impl Health {
    /// Agents can connect from now on.
    pub fn serve(&self) {
        self.serving.store(true, Relaxed);
    }

    pub fn drain(&self) {
        self.serving.store(false, Relaxed);
    }

    pub fn stored(&self) {
        if !self.storing.swap(true, Relaxed) {
            self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clear();
        }
    }

    pub fn not_stored(&self, why: &str) {
        why.clone_into(&mut self.trouble.lock().unwrap_or_else(PoisonError::into_inner));
        self.storing.store(false, Relaxed);
    }

    pub fn set_applied(&self, pos: Pos) {
        self.applied.store(pos.0, Relaxed);
    }

    /// The position up to which `control.db` holds what follows from the log.
    #[must_use]
    pub fn applied(&self) -> Pos {
        Pos(self.applied.load(Relaxed))
    }

    pub fn set_sealed(&self, pos: Pos) {
        self.sealed.store(pos.0, Relaxed);
    }

    /// The position up to which the window holds what the journal does.
    #[must_use]
    pub fn sealed(&self) -> Pos {
        Pos(self.sealed.load(Relaxed))
    }

    pub fn set_journal_room(&self, bytes: u64) {
        self.journal_room.store(bytes.max(1), Relaxed);
    }

    /// What journals may take of the disk.
    #[must_use]
    pub fn journal_room(&self) -> u64 {
        match self.journal_room.load(Relaxed) {
            0 => u64::MAX,
            bytes => bytes,
        }
    }

    pub fn set_short_of_room(&self, is_short: bool) {
        self.short_of_room.store(is_short, Relaxed);
    }

    /// Whether the disk has less left than is to stay free of it.
    #[must_use]
    pub fn is_short_of_room(&self) -> bool {
        self.short_of_room.load(Relaxed)
    }

    #[must_use]
    pub fn is_storing(&self) -> bool {
        self.storing.load(Relaxed)
    }

    /// Why the collector is not ready, if it is not.
    pub fn ready(&self) -> Result<(), String> {
        if !self.serving.load(Relaxed) {
            return Err("agents cannot connect: the collector starts or stops".to_owned());
        }
        if !self.is_storing() {
            let trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
            return Err(format!("nothing is stored at the moment: {trouble}"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_ready_while_it_serves_and_stores_and_says_why_not() {
        let health = Health::default();
        assert!(health.ready().is_err());
        health.serve();
        health.stored();
        assert_eq!(health.ready(), Ok(()));
        health.not_stored("disk full");
        assert!(health.ready().is_err_and(|why| why.contains("disk full")));
        health.stored();
        assert_eq!(health.ready(), Ok(()));
        health.drain();
        assert!(health.ready().is_err());
    }
}
