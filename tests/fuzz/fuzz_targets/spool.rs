//! The spool's files: any bytes, and well-formed files with a few bytes changed, are scanned without trusting a length.
//! What was written and is undamaged comes back as it was.
#![no_main]

use dunlin_agent::spool::segment::{BODY_BYTES_MAX, FILE_HEAD, HEAD_BYTES, Scan, Tail, encode, scan};
use dunlin_fuzz::Input;
use dunlin_shared::frame::BodyKind;
use dunlin_shared::id::{FrameId, Seq};
use dunlin_shared::time::WallMs;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    if input.bool() {
        let bytes = input.rest();
        judge(&scan(bytes), bytes);
        return;
    }
    let (file, written) = write(&mut input);
    let whole = scan(&file);
    assert_eq!((whole.tail, whole.good_bytes), (Tail::Clean, file.len()));
    let found: Vec<_> = whole.records.iter().map(|record| (record.id, record.kind, record.wall)).collect();
    assert_eq!(found, written, "what was written is found");
    judge(&whole, &file);
    let mut damaged = file;
    while !input.is_empty() {
        let at = usize::from(u16::from_le_bytes([input.byte(), input.byte()])) % damaged.len().max(1);
        match input.byte() {
            0 => damaged.truncate(at),
            changed => damaged.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= changed),
        }
    }
    let left = scan(&damaged);
    judge(&left, &damaged);
    for record in &left.records {
        // 32 bits of checksum cannot be met by chance in a run of ours, but the fuzzer may find a way: only what
        // would be taken for a frame of another place is a finding.
        assert!(record.id.epoch == whole.epoch().unwrap_or(record.id.epoch), "a record of another epoch");
    }
});

type Written = Vec<(FrameId, BodyKind, WallMs)>;

/// A file as the spool writes it, of up to 16 records.
fn write(input: &mut Input<'_>) -> (Vec<u8>, Written) {
    let (mut file, mut written) = (FILE_HEAD.to_vec(), Vec::new());
    let mut seq = input.number() >> 1;
    for place in 0..input.below(17) {
        let id = FrameId::new(7, seq);
        let kind = match input.below(4) {
            _ if place == 0 => BodyKind::Key,
            0 => BodyKind::Key,
            1 => BodyKind::Inventory,
            _ => BodyKind::Delta { back: 1 + u16::from(input.byte() % 3) },
        };
        let wall = WallMs(input.number().cast_signed());
        let len = input.below(40);
        encode(&mut file, id, kind, kind == BodyKind::Key, wall, input.take(len));
        written.push((id, kind, wall));
        seq += 1 + u64::from(input.byte() % 3);
    }
    (file, written)
}

fn judge(scan: &Scan, bytes: &[u8]) {
    assert!(scan.good_bytes <= bytes.len() && scan.records.len() * HEAD_BYTES <= bytes.len());
    let mut end = 0;
    let mut before = None;
    for record in &scan.records {
        assert!(
            record.body.start >= end + HEAD_BYTES && record.body.end <= bytes.len(),
            "records lie behind each other"
        );
        assert!(record.body.len() <= BODY_BYTES_MAX);
        assert!(before.is_none_or(|before: FrameId| before < record.id && before.epoch == record.id.epoch));
        (end, before) = (record.body.end, Some(record.id));
    }
    let usable = scan.usable();
    assert_eq!(usable.count(), scan.records.iter().filter(|record| record.usable).count() as u64);
    let first = scan.records.first().map_or(Seq(0), |record| record.id.seq);
    for crashed in [false, true] {
        for until in [None, Some(Seq(first.0.saturating_add(3))), Some(Seq(u64::MAX))] {
            for lost in scan.lost(first, until, crashed) {
                assert!(lost.range.first <= lost.range.last, "a range has its ends in order");
            }
        }
    }
}
