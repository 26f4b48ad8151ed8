//! Frame bodies: a keyframe, then deltas on it, each behind two bytes of its length.
//! They are refused or decoded, in memory that the bytes paid for, and what is decoded survives being encoded again.
#![no_main]

use dunlin_fuzz::Input;
use dunlin_shared::codec::{decode_delta, decode_key, encode_delta, encode_key};
use dunlin_shared::limits::{OPEN_METRICS_MAX, SERIES_MAX, SUBJECTS_MAX};
use dunlin_shared::sample::Reading;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let mut base: Option<Reading> = None;
    while !input.is_empty() {
        let body = input.chunk();
        let empty = Reading::default();
        let from = base.as_ref().unwrap_or(&empty);
        let decoded = if base.is_none() { decode_key(body) } else { decode_delta(from, body) };
        if let Ok(reading) = decoded {
            judge(from, &reading, body);
            base = Some(reading);
        }
    }
});

fn judge(base: &Reading, reading: &Reading, body: &[u8]) {
    let (layout, before) = (&reading.layout, &base.layout);
    assert_eq!(reading.values.len(), layout.series.len(), "one value for each series");
    assert!(layout.extends(before) && reading.mono >= base.mono, "a delta only adds");
    for (len, before, max) in [
        (layout.series.len(), before.series.len(), SERIES_MAX),
        (layout.subjects.len(), before.subjects.len(), SUBJECTS_MAX),
        (layout.open.len(), before.open.len(), OPEN_METRICS_MAX),
    ] {
        assert!(len <= max && len - before <= body.len(), "{} bytes made {before} into {len}", body.len());
    }
    assert_eq!(decode_key(&encode_key(reading)).as_ref(), Ok(reading), "a keyframe holds all of it");
    let delta = encode_delta(base, reading).expect("it was decoded as a delta");
    assert_eq!(decode_delta(base, &delta).as_ref(), Ok(reading), "a delta holds all of it");
}
