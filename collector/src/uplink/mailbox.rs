//! What the writer tells a connection: merged while nobody looks, so that it stays small however
//! slow the connection is.
//!
//! A letter rings for its connection once, however many follow before the connection looks. Places
//! are used again by later connections; letters lie in the mailbox, so none reaches a stranger.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};

use dunlin_shared::range::FrameSet;
use dunlin_shared::wire::{CloseCode, FrameRange, Held};
use tokio::sync::Notify;

use crate::registry::{Answer, Refused};

/// Where a connection stands in the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place(pub usize);

/// Which connections have letters; at most one entry for each mailbox.
#[derive(Debug, Default)]
pub struct Bell {
    places: Mutex<Vec<Place>>,
    rung: Notify,
}

#[derive(Debug)]
pub struct Mailbox {
    place: Place,
    bell: Arc<Bell>,
    /// What the agent calls its host.
    name: Box<str>,
    has_rung: AtomicBool,
    letters: Mutex<Letters>,
}

/// The answer to the one question of a connection that enrols.
#[derive(Debug)]
pub struct Slip {
    place: Place,
    bell: Arc<Bell>,
    answer: Mutex<Option<Result<Answer, Refused>>>,
}

/// Everything told since the last look.
#[derive(Debug, Default)]
pub struct Letters {
    /// What is held of the epochs that the Hello listed.
    pub resumed: Option<Vec<Held>>,
    /// Live frames on disk, and how many commits' worth of them count towards an acknowledgement.
    pub live: FrameSet,
    /// What is on disk and to be acknowledged at once.
    pub urgent: FrameSet,
    pub not_stored: FrameSet,
    pub retry_after_ms: u32,
    pub goodbye_committed: bool,
    /// Another session says that it is this node.
    pub challenge: Option<u64>,
    /// It waited until it was clear who the node is: it may go on.
    pub entered: bool,
    /// It is to tell the whole of its inventory.
    pub asks_inventory: bool,
    pub close: Option<CloseCode>,
}

impl Bell {
    /// Resolves once after any number of rings.
    pub async fn rung(&self) {
        self.rung.notified().await;
    }

    /// Who has letters.
    #[must_use]
    pub fn take(&self) -> Vec<Place> {
        std::mem::take(&mut *self.places.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn ring(&self, place: Place) {
        self.places.lock().unwrap_or_else(PoisonError::into_inner).push(place);
        self.rung.notify_one();
    }
}

impl Mailbox {
    #[must_use]
    pub fn new(place: Place, bell: Arc<Bell>, name: &str) -> Self {
        Self { place, bell, name: name.into(), has_rung: AtomicBool::new(false), letters: Mutex::default() }
    }

    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The answer to a Hello.
    pub fn resumed(&self, held: Vec<Held>) {
        self.tell(|letters| letters.resumed = Some(held));
    }

    pub fn committed(&self, range: FrameRange, urgent: bool) {
        self.tell(|letters| if urgent { letters.urgent.insert_range(range) } else { letters.live.insert_range(range) });
    }

    pub fn not_stored(&self, range: FrameRange, retry_after_ms: u32) {
        self.tell(|letters| {
            letters.not_stored.insert_range(range);
            letters.retry_after_ms = letters.retry_after_ms.max(retry_after_ms);
        });
    }

    pub fn goodbye_committed(&self) {
        self.tell(|letters| letters.goodbye_committed = true);
    }

    pub fn challenge(&self, nonce: u64) {
        self.tell(|letters| letters.challenge = Some(nonce));
    }

    pub fn enter(&self) {
        self.tell(|letters| letters.entered = true);
    }

    pub fn ask_inventory(&self) {
        self.tell(|letters| letters.asks_inventory = true);
    }

    /// The first reason stands.
    pub fn close(&self, code: CloseCode) {
        self.tell(|letters| {
            letters.close.get_or_insert(code);
        });
    }

    /// Takes what is there, if anything was told since the last look.
    #[must_use]
    pub fn take(&self) -> Option<Letters> {
        // Before the letters: what is told from here on rings again.
        let has_letters = self.has_rung.swap(false, SeqCst);
        has_letters.then(|| std::mem::take(&mut *self.letters.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    fn tell(&self, what: impl FnOnce(&mut Letters)) {
        what(&mut self.letters.lock().unwrap_or_else(PoisonError::into_inner));
        if !self.has_rung.swap(true, SeqCst) {
            self.bell.ring(self.place);
        }
    }
}

impl Slip {
    #[must_use]
    pub fn new(place: Place, bell: Arc<Bell>) -> Self {
        Self { place, bell, answer: Mutex::default() }
    }

    pub fn fill(&self, answer: Result<Answer, Refused>) {
        *self.answer.lock().unwrap_or_else(PoisonError::into_inner) = Some(answer);
        self.bell.ring(self.place);
    }

    #[must_use]
    pub fn take(&self) -> Option<Result<Answer, Refused>> {
        self.answer.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

#[cfg(test)]
mod tests {
    use dunlin_shared::id::{Epoch, Seq};
    use dunlin_shared::range::SeqRange;

    use super::*;

    #[test]
    fn what_is_told_in_pieces_arrives_merged_and_rings_once() {
        let bell = Arc::<Bell>::default();
        let mailbox = Mailbox::new(Place(7), Arc::clone(&bell), "web-1");
        assert!(mailbox.take().is_none());
        for seq in 0..1_000 {
            mailbox.committed(FrameRange { epoch: Epoch(1), range: SeqRange::one(Seq(seq)) }, false);
        }
        mailbox.close(CloseCode::Superseded);
        mailbox.close(CloseCode::Internal);
        assert_eq!(bell.take(), [Place(7)]);
        let letters = mailbox.take().expect("it was told something");
        assert_eq!(letters.live.epoch(Epoch(1)).map(|set| set.ranges().len()), Some(1));
        assert_eq!(letters.close, Some(CloseCode::Superseded));
        mailbox.goodbye_committed();
        assert_eq!(bell.take(), [Place(7)]);
    }
}
