//! Goodbyes that no collector has confirmed, kept in `STATE_DIR/goodbyes` from one run to the next.
//!
//! An agent that stops while its collector is away has lost nothing; without its word the collector
//! would have to take the end for a crash. Losing the file costs that word and nothing else.
//!
//! The file is `count` entries of 13 bytes, little-endian: epoch:u32 next_seq:u64 reason:u8.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use dunlin_shared::id::{Epoch, Seq};
use dunlin_shared::limits::EPOCHS_MAX;
use dunlin_shared::wire::{Goodbye, StopReason};

use crate::state;

pub(crate) const NAME: &str = "goodbyes";
const ENTRY_BYTES: usize = 13;

/// What earlier runs left; nothing when the file is missing or cannot be read.
#[must_use]
pub fn load(state_dir: &Path) -> Vec<Goodbye> {
    let mut bytes = Vec::new();
    let limit = (EPOCHS_MAX * ENTRY_BYTES) as u64;
    let read = File::open(state_dir.join(NAME)).and_then(|file| file.take(limit).read_to_end(&mut bytes));
    if read.is_err() {
        return Vec::new();
    }
    bytes.chunks_exact(ENTRY_BYTES).filter_map(parse).collect()
}

/// Replaces what is there by the newest that a Hello can name.
pub fn save(state_dir: &Path, goodbyes: &[Goodbye]) -> io::Result<()> {
    let path = state_dir.join(NAME);
    if goodbyes.is_empty() {
        return match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        };
    }
    let newest = &goodbyes[goodbyes.len().saturating_sub(EPOCHS_MAX)..];
    let bytes: Vec<u8> = newest.iter().flat_map(write).collect();
    state::replace(&path, &bytes)
}

fn write(goodbye: &Goodbye) -> [u8; ENTRY_BYTES] {
    let mut entry = [0; ENTRY_BYTES];
    entry[..4].copy_from_slice(&goodbye.epoch.0.to_le_bytes());
    entry[4..12].copy_from_slice(&goodbye.next_seq.0.to_le_bytes());
    entry[12] = u8::from(goodbye.reason == StopReason::Restarting);
    entry
}

fn parse(entry: &[u8]) -> Option<Goodbye> {
    let (epoch, rest) = entry.split_first_chunk()?;
    let (next_seq, rest) = rest.split_first_chunk()?;
    let reason = match rest {
        [0] => StopReason::Stopped,
        [1] => StopReason::Restarting,
        _ => return None,
    };
    Some(Goodbye { epoch: Epoch(u32::from_le_bytes(*epoch)), next_seq: Seq(u64::from_le_bytes(*next_seq)), reason })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn goodbye(epoch: u32) -> Goodbye {
        Goodbye { epoch: Epoch(epoch), next_seq: Seq(u64::from(epoch) * 7), reason: StopReason::Restarting }
    }

    #[test]
    fn what_was_saved_is_there_at_the_next_start_and_an_empty_list_leaves_no_file() {
        let dir = std::env::temp_dir().join(format!("dunlin-goodbyes-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("it can be made");
        assert_eq!(load(&dir), []);
        let many: Vec<Goodbye> = (0..70).map(goodbye).collect();
        save(&dir, &many).expect("it can be written");
        assert_eq!(load(&dir), many[6..]);
        std::fs::write(dir.join(NAME), b"garbage, and more of it than one entry").expect("it can be written");
        assert!(load(&dir).len() < 3);
        save(&dir, &[]).expect("it can be removed");
        assert!(!dir.join(NAME).exists());
        std::fs::remove_dir_all(&dir).expect("it can be removed");
    }
}
