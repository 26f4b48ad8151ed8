//! Round trips over changing layouts, frozen bytes, and damaged input.

use proptest::prelude::*;

use super::*;
use crate::metric::{Metric, by_name};
use crate::sample::Sample;

fn metric(name: &str) -> &'static Metric {
    by_name(name).expect("a catalogue metric")
}

fn sample(tick: u64, load: f64, mounts: &[&str]) -> Sample {
    let mut sample =
        Sample::new(MonoMs(1_000 + tick * 10_000), WallMs(1_700_000_000_000 + (tick * 10_000).cast_signed()));
    sample.push(&Subject::HOST(), metric("host_load1"), load);
    sample.push(&Subject::HOST(), metric("host_memory_available_bytes"), 1e9);
    for mount in mounts {
        let subject = Subject::new(SubjectKind::Fs, mount).expect("a mount point");
        sample.push(&subject, metric("fs_used_bytes"), 4096.0 * 77.0);
    }
    sample
}

/// A later version must read these bytes for ever: they are on disks.
#[test]
fn bytes_of_version_1_are_frozen() {
    let mut grouper = Grouper::default();
    let (key, begins) = grouper.lay_out(&sample(0, 1.25, &["/"]));
    let (next, begins_again) = grouper.lay_out(&sample(1, 1.5, &["/", "/var"]));
    assert!(begins && !begins_again);
    let key_bytes = encode_key(&key);
    let delta_bytes = encode_delta(&key, &next).expect("it builds on the keyframe");
    assert_eq!(key_bytes, FROZEN_KEY, "{key_bytes:?}");
    assert_eq!(delta_bytes, FROZEN_DELTA, "{delta_bytes:?}");
    assert_eq!(decode_key(FROZEN_KEY), Ok(key.clone()));
    assert_eq!(decode_delta(&key, FROZEN_DELTA), Ok(next));
}

const FROZEN_KEY: &[u8] = &[
    1, 1, 232, 7, 176, 144, 171, 254, 249, 98, 0, 2, 0, 0, 1, 1, 47, 2, 0, 2, 24, 8, 1, 1, 242, 1, 251, 1, 183, 238, 1,
    11,
];
const FROZEN_DELTA: &[u8] = &[1, 1, 144, 78, 0, 0, 1, 1, 4, 47, 118, 97, 114, 1, 2, 1, 242, 1, 0, 1, 1, 51, 11];

#[test]
fn a_host_at_rest_costs_its_head_alone() {
    let mut grouper = Grouper::default();
    let (first, _) = grouper.lay_out(&sample(0, 0.5, &["/", "/var", "/srv"]));
    let (second, _) = grouper.lay_out(&sample(1, 0.5, &["/", "/var", "/srv"]));
    let delta = encode_delta(&first, &second).expect("it builds on the first");
    assert!(delta.len() <= 7, "{} bytes", delta.len());
}

#[test]
fn a_series_that_vanished_is_absent_and_then_leaves_the_layout() {
    let mut grouper = Grouper::default();
    let mounts = ["/a", "/b", "/c", "/d", "/e", "/f"];
    let (first, _) = grouper.lay_out(&sample(0, 0.5, &mounts));
    let (second, begins) = grouper.lay_out(&sample(1, 0.5, &mounts[..5]));
    assert!(!begins);
    assert_eq!((second.layout.series.len(), second.values[7]), (first.layout.series.len(), ABSENT));
    let (third, begins) = grouper.lay_out(&sample(2, 0.5, &mounts[..1]));
    assert!(begins, "most of it is gone");
    assert_eq!(third.layout.series.len(), 3);
}

#[test]
fn a_group_ends_when_it_is_full_or_the_clock_goes_back() {
    let mut grouper = Grouper::default();
    let begins: Vec<bool> = (0..31).map(|tick| grouper.lay_out(&sample(tick, 0.5, &[])).1).collect();
    assert_eq!(begins.iter().filter(|&&b| b).count(), 2);
    assert!(begins[0] && begins[30]);
    assert!(grouper.lay_out(&sample(3, 0.5, &[])).1);
}

#[test]
fn what_exceeds_the_limits_is_left_out_and_counted() {
    let mut sample = Sample::new(MonoMs(0), WallMs(0));
    for n in 0..SUBJECTS_MAX + 5 {
        let subject = Subject::new(SubjectKind::Fs, &format!("/{n}")).expect("a mount point");
        sample.push(&subject, metric("fs_used_bytes"), 1.0);
    }
    let mut grouper = Grouper::default();
    let (reading, _) = grouper.lay_out(&sample);
    assert_eq!((reading.layout.subjects.len(), grouper.left_out()), (SUBJECTS_MAX, 5));
    assert_eq!(decode_key(&encode_key(&reading)), Ok(reading));
}

/// A later delta counts on every index that the agent gave away.
#[test]
fn subjects_and_metrics_without_a_series_survive() {
    let own = |name: &str| OpenMetric::new(name, Unit::Count, Kind::Gauge, Step::Each(1)).expect("a good name");
    let bare = Layout { subjects: vec![Subject::HOST()], open: vec![own("x_a")], series: Vec::new() };
    let bare = Reading { layout: Arc::new(bare), ..Reading::default() };
    assert_eq!(decode_key(&encode_key(&bare)).as_ref(), Ok(&bare));
    let mut layout = Layout::clone(&bare.layout);
    layout.open.push(own("x_b"));
    let grown = Reading { layout: Arc::new(layout), ..bare.clone() };
    let delta = encode_delta(&bare, &grown).expect("it only adds");
    assert_eq!(decode_delta(&bare, &delta), Ok(grown));
}

#[test]
fn limits_are_checked_before_room_is_made() {
    let mut bytes = vec![VERSION, FLAG_ADDITIONS, 0, 0, 0];
    varint::put(&mut bytes, 1 << 40);
    assert!(matches!(decode_key(&bytes), Err(CodecError::TooMany { what: "subjects", .. })));
    assert_eq!(decode_key(&[2, 0, 0, 0]), Err(CodecError::Version(2)));
    assert_eq!(decode_key(&[1, 0, 0, 0, 9]), Err(CodecError::Leftover(1)));
}

fn samples() -> impl Strategy<Value = Vec<Sample>> {
    let row = (0usize..30, prop_oneof![Just(f64::NAN), -1e18f64..1e18, 0f64..100.0]);
    let tick = (0u64..100_000, any::<i64>(), prop::collection::vec(row, 0..30), 0usize..4);
    prop::collection::vec(tick, 1..40).prop_map(|ticks| {
        let names = ["fs_used_bytes", "fs_total_bytes", "fs_inodes_used"];
        let mut mono = 0;
        let tick_sample = |(passed, wall, rows, open): (u64, i64, Vec<(usize, f64)>, usize)| {
            mono += passed;
            let mut sample = Sample::new(MonoMs(mono), WallMs(wall));
            for (n, value) in rows {
                let subject = Subject::new(SubjectKind::Fs, &format!("/{}", n / 3)).expect("a mount point");
                sample.push(&subject, metric(names[n % 3]), value);
            }
            for n in 0..open {
                let own =
                    OpenMetric::new(&format!("x_{n}"), Unit::Count, Kind::Counter, Step::Per(7)).expect("a good name");
                assert!(sample.push_open(&Subject::HOST(), &own, 3.0));
            }
            sample
        };
        ticks.into_iter().map(tick_sample).collect()
    })
}

proptest! {
    #[test]
    fn a_chain_of_deltas_gives_back_every_reading(samples in samples()) {
        let mut grouper = Grouper::default();
        let mut before: Option<(Reading, Reading)> = None;
        for sample in &samples {
            let (reading, begins) = grouper.lay_out(sample);
            let decoded = match before.take().filter(|_| !begins) {
                None => decode_key(&encode_key(&reading)),
                Some((sent, received)) => {
                    let delta = encode_delta(&sent, &reading).expect("a frame within a group builds on the one before");
                    decode_delta(&received, &delta)
                }
            };
            prop_assert_eq!(decoded.as_ref(), Ok(&reading));
            before = decoded.ok().map(|received| (reading, received));
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
        let mut versioned = vec![VERSION, FLAG_ADDITIONS];
        versioned.extend_from_slice(&bytes);
        for body in [&bytes, &versioned] {
            if let Ok(reading) = decode_key(body) {
                prop_assert_eq!(decode_key(&encode_key(&reading)), Ok(reading));
            }
        }
    }

    #[test]
    fn damaged_frames_never_panic(samples in samples(), at: prop::sample::Index, bit in 0u8..8, cut: prop::sample::Index) {
        let (reading, _) = Grouper::default().lay_out(&samples[0]);
        let mut bytes = encode_key(&reading);
        let place = at.index(bytes.len());
        bytes[place] ^= 1 << bit;
        if let Ok(other) = decode_key(&bytes) {
            prop_assert_eq!(other.values.len(), other.layout.series.len());
        }
        let shorter = cut.index(bytes.len());
        prop_assert!(decode_key(&encode_key(&reading)[..shorter]).is_err());
    }
}
