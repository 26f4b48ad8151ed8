//! What the writer tells a connection: merged while nobody looks, so that it stays small however
//! slow the connection is.

use std::sync::{Mutex, PoisonError};

use dunlin_shared::range::FrameSet;
use dunlin_shared::wire::{CloseCode, FrameRange};
use tokio::sync::Notify;

#[derive(Debug, Default)]
pub struct Mailbox {
    letters: Mutex<Letters>,
    arrived: Notify,
}

/// Everything told since the last look.
#[derive(Debug, Default)]
pub struct Letters {
    /// Live frames on disk, and how many commits' worth of them count towards an acknowledgement.
    pub live: FrameSet,
    /// What is on disk and to be acknowledged at once.
    pub urgent: FrameSet,
    pub not_stored: FrameSet,
    pub retry_after_ms: u32,
    pub goodbye_committed: bool,
    pub close: Option<CloseCode>,
}

impl Mailbox {
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

    /// The first reason stands.
    pub fn close(&self, code: CloseCode) {
        self.tell(|letters| {
            letters.close.get_or_insert(code);
        });
    }

    /// Waits until there is something, and takes it.
    pub async fn next(&self) -> Letters {
        self.arrived.notified().await;
        std::mem::take(&mut *self.letters.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn tell(&self, what: impl FnOnce(&mut Letters)) {
        what(&mut self.letters.lock().unwrap_or_else(PoisonError::into_inner));
        self.arrived.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use dunlin_shared::id::{Epoch, Seq};
    use dunlin_shared::range::SeqRange;

    use super::*;

    #[tokio::test]
    async fn what_is_told_in_pieces_arrives_merged() {
        let mailbox = Mailbox::default();
        for seq in 0..1_000 {
            mailbox.committed(FrameRange { epoch: Epoch(1), range: SeqRange::one(Seq(seq)) }, false);
        }
        mailbox.close(CloseCode::Superseded);
        mailbox.close(CloseCode::Internal);
        let letters = mailbox.next().await;
        assert_eq!(letters.live.epoch(Epoch(1)).map(|set| set.ranges().len()), Some(1));
        assert_eq!(letters.close, Some(CloseCode::Superseded));
    }
}
