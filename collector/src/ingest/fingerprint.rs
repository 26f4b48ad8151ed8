//! A few bytes that tell two contents of one frame apart, however either was encoded.
//!
//! It stands in snapshots: what it gives for a content may only change with their version.

use std::num::NonZeroU32;

use dunlin_shared::frame::Frame;
use dunlin_shared::sample::Reading;

/// Chance makes two contents the same once in four billion times.
pub(super) type Fingerprint = NonZeroU32;

/// An odd number with its bits spread evenly: 2^64 by the golden ratio.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// The times and the values tell readings apart; the layout would not tell more.
pub(super) fn of_reading(reading: &Reading) -> Fingerprint {
    let times = [reading.mono.0, reading.wall.0.cast_unsigned(), reading.values.len() as u64];
    of(times.into_iter().chain(reading.values.iter().map(|value| value.cast_unsigned())))
}

/// Of a body that is never encoded anew.
pub(super) fn of_body(frame: &Frame) -> Fingerprint {
    let words = frame.body.chunks(8).map(|chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        u64::from_le_bytes(word)
    });
    of([frame.body.len() as u64].into_iter().chain(words))
}

fn of(words: impl Iterator<Item = u64>) -> Fingerprint {
    let sum = words.fold(SPREAD, |sum, word| (sum ^ word).wrapping_mul(SPREAD).rotate_left(29));
    let folded = u32::try_from((sum ^ sum >> 32) & u64::from(u32::MAX)).unwrap_or(1);
    NonZeroU32::new(folded).unwrap_or(NonZeroU32::MIN)
}

#[cfg(test)]
mod tests {
    use dunlin_shared::frame::BodyKind;
    use dunlin_shared::id::FrameId;
    use dunlin_shared::time::{MonoMs, WallMs};

    use super::*;

    fn reading(wall: i64, values: &[i64]) -> Reading {
        Reading { mono: MonoMs(7), wall: WallMs(wall), values: values.to_vec(), ..Reading::default() }
    }

    #[test]
    fn what_differs_in_a_time_or_a_value_has_another_fingerprint() {
        let one = of_reading(&reading(1, &[5, 6, 0]));
        assert_eq!(one.get(), 3_209_234_010, "snapshots hold it");
        for other in [reading(2, &[5, 6, 0]), reading(1, &[6, 5, 0]), reading(1, &[5, 6]), reading(1, &[5, 6, 0, 0])] {
            assert_ne!(of_reading(&other), one);
        }
        let body = |body: &[u8]| Frame { id: FrameId::new(1, 1), kind: BodyKind::Inventory, body: body.to_vec() };
        assert_ne!(of_body(&body(&[1])), of_body(&body(&[1, 0])));
    }
}
