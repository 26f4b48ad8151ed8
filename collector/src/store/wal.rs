//! Whether a WAL has lost something in its middle. SQLite reads a WAL up to the first frame whose
//! checksum is wrong and takes the rest for the torn end of a power cut, without a word.
//!
//! A transaction is written only after the one before it was synced. So a sound frame that follows a
//! sound commit, both behind a broken frame, proves that what is broken had been on disk.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

const HEAD_BYTES: usize = 32;
const FRAME_HEAD_BYTES: usize = 24;
const PAGE_BYTES_MAX: usize = 65_536;

/// What the walk saw of a WAL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wal {
    /// Empty, whole, or torn at its end as a power cut leaves it.
    Sound,
    /// Synced frames can no longer be read.
    Lossy,
}

pub(super) fn walk(wal: &Path) -> io::Result<Wal> {
    let file = match File::open(wal) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Wal::Sound),
        file => file?,
    };
    let bytes = file.metadata()?.len();
    walk_from(&mut BufReader::new(file), bytes)
}

fn walk_from(file: &mut impl Read, bytes: u64) -> io::Result<Wal> {
    let mut head = [0; HEAD_BYTES];
    if bytes <= HEAD_BYTES as u64 {
        return Ok(Wal::Sound);
    }
    file.read_exact(&mut head)?;
    let big_endian = word(&head, 0) & 1 == 1;
    let page_bytes = usize::try_from(word(&head, 8)).unwrap_or(usize::MAX);
    let mut before = checksum(big_endian, (0, 0), &head[..24]);
    // The head is synced before the first frame is written, so with frames behind it it is whole.
    let known = word(&head, 0) & !1 == 0x377f_0682 && (512..=PAGE_BYTES_MAX).contains(&page_bytes);
    if !known || before != (word(&head, 24), word(&head, 28)) {
        return Ok(Wal::Lossy);
    }
    let mut frame = vec![0; FRAME_HEAD_BYTES + page_bytes];
    let (mut broken, mut committed_after) = (false, false);
    while read_whole(file, &mut frame)? {
        let stored = (word(&frame, 16), word(&frame, 20));
        let mut sum = checksum(big_endian, before, &frame[..8]);
        sum = checksum(big_endian, sum, &frame[FRAME_HEAD_BYTES..]);
        let sound = sum == stored && frame[8..16] == head[16..24];
        if !sound {
            broken = true;
        } else if broken {
            if committed_after {
                return Ok(Wal::Lossy);
            }
            committed_after = word(&frame, 4) != 0;
        }
        before = stored;
    }
    Ok(Wal::Sound)
}

/// Whether there was a whole frame left.
fn read_whole(file: &mut impl Read, frame: &mut [u8]) -> io::Result<bool> {
    match file.read_exact(frame) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    bytes[at..].first_chunk().map_or(0, |word| u32::from_be_bytes(*word))
}

/// The checksum of SQLite's file format, section 4.2; it goes on from the frame before.
fn checksum(big_endian: bool, mut sum: (u32, u32), bytes: &[u8]) -> (u32, u32) {
    for pair in bytes.as_chunks::<8>().0 {
        let [a, b, c, d, e, f, g, h] = *pair;
        let read = if big_endian { u32::from_be_bytes } else { u32::from_le_bytes };
        sum.0 = sum.0.wrapping_add(read([a, b, c, d])).wrapping_add(sum.1);
        sum.1 = sum.1.wrapping_add(read([e, f, g, h])).wrapping_add(sum.0);
    }
    sum
}
