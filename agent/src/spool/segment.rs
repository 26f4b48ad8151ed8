//! The disk format of the spool, as pure functions over bytes: no file is opened here.
//!
//! ```text
//! file    = "DNLSPL" version:u8=1 "\n" record*           8 bytes, then records of one epoch, seq rising
//! record  = 0  u8   mark 0xd5
//!           1  u8   kind: 0 keyframe, 1 delta, 2 inventory; bit 7: the record begins a group
//!           2  u16  back: of a delta, how far before it its base is; else 0
//!           4  u32  length of the body, at most BODY_BYTES_MAX
//!           8  u32  CRC-32 (IEEE) of bytes 0..8 and of bytes 12 to the end of the body
//!          12  u32  epoch
//!          16  u64  seq
//!          24  i64  wall clock, ms
//!          32       body
//! ```
//!
//! All numbers are little-endian. Scanning never panics and keeps at most 4 bytes for each it is given.

use std::ops::Range;

use dunlin_shared::frame::BodyKind;
use dunlin_shared::id::{Epoch, FrameId, Seq};
use dunlin_shared::limits::{PIECE_BYTES_MAX, PIECES_MAX};
use dunlin_shared::range::{SeqRange, SeqSet};
use dunlin_shared::time::WallMs;

pub const FILE_HEAD: [u8; 8] = *b"DNLSPL\x01\n";
pub const HEAD_BYTES: usize = 32;
/// What can be sent in pieces; a longer body never comes from a frame.
pub const BODY_BYTES_MAX: usize = PIECES_MAX as usize * PIECE_BYTES_MAX;

const MARK: u8 = 0xd5;
const BEGINS: u8 = 0x80;

/// A record whose checksum holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub id: FrameId,
    pub kind: BodyKind,
    pub begins: bool,
    pub wall: WallMs,
    /// Where its body is in the bytes that were scanned.
    pub body: Range<usize>,
    /// Bytes before it could not be read.
    pub after_damage: bool,
    /// Its whole chain is there.
    pub usable: bool,
}

/// What follows the last good record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tail {
    #[default]
    Clean,
    /// An incomplete record, or nothing but zeros: what a crash leaves.
    Torn,
    /// More than that; the highest number that can still be made out.
    Damaged(Option<Seq>),
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scan {
    /// All of one epoch, in rising order.
    pub records: Vec<Record>,
    /// Where the last good record ends.
    pub good_bytes: usize,
    pub tail: Tail,
}

/// Frames that the file had and that cannot be read any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost {
    pub range: SeqRange,
    /// When the good frames around them were taken; `None` when there is none.
    pub from: Option<WallMs>,
    pub to: Option<WallMs>,
}

enum Parsed {
    Whole(Record, usize),
    Short,
    Bad,
}

pub fn encode(out: &mut Vec<u8>, id: FrameId, kind: BodyKind, begins: bool, wall: WallMs, body: &[u8]) {
    let (raw, back) = match kind {
        BodyKind::Key => (0, 0),
        BodyKind::Delta { back } => (1, back),
        BodyKind::Inventory => (2, 0),
    };
    let start = out.len();
    let length = u32::try_from(body.len()).expect("the spool turns longer bodies away");
    out.extend([MARK, if begins { raw | BEGINS } else { raw }]);
    out.extend(back.to_le_bytes());
    out.extend(length.to_le_bytes());
    out.extend([0; 4]);
    out.extend(id.epoch.0.to_le_bytes());
    out.extend(id.seq.0.to_le_bytes());
    out.extend(wall.0.to_le_bytes());
    out.extend_from_slice(body);
    let crc = record_crc(&out[start..]);
    out[start + 8..start + 12].copy_from_slice(&crc.to_le_bytes());
}

/// Finds every record that is whole, also behind damage.
#[must_use]
pub fn scan(bytes: &[u8]) -> Scan {
    let mut scan = Scan::default();
    let mut chain: Vec<Seq> = Vec::new();
    let mut after_damage = !bytes.starts_with(&FILE_HEAD);
    let mut at = if after_damage { 0 } else { FILE_HEAD.len() };
    scan.good_bytes = at;
    // Crafted bytes could make every place look like a long record: so much is checksummed in vain.
    let mut budget = bytes.len().saturating_mul(4);
    while at < bytes.len() {
        let parsed = parse(bytes, at, scan.records.last());
        let (mut record, end) = match parsed {
            Parsed::Whole(record, end) => (record, end),
            Parsed::Short | Parsed::Bad => {
                let Some(found) = resync(bytes, at + 1, scan.records.last(), &mut budget) else {
                    scan.tail = tail(&bytes[at..], scan.records.last(), matches!(parsed, Parsed::Short));
                    break;
                };
                after_damage = true;
                found
            }
        };
        if record.begins {
            chain.clear();
        }
        record.after_damage = std::mem::take(&mut after_damage);
        record.usable = match record.kind {
            BodyKind::Key | BodyKind::Inventory => true,
            BodyKind::Delta { back } => record.id.back(back).is_some_and(|base| chain.binary_search(&base.seq).is_ok()),
        };
        if record.usable && record.kind != BodyKind::Inventory {
            chain.push(record.id.seq);
        }
        at = end;
        scan.good_bytes = end;
        scan.records.push(record);
    }
    scan
}

impl Scan {
    #[must_use]
    pub fn epoch(&self) -> Option<Epoch> {
        self.records.first().map(|record| record.id.epoch)
    }

    #[must_use]
    pub fn usable(&self) -> SeqSet {
        let mut set = SeqSet::new();
        for record in self.records.iter().filter(|record| record.usable) {
            set.insert(record.id.seq);
        }
        set
    }

    /// What is lost of a file that began with `first`. `until` is where the next file of the epoch
    /// begins; `crashed` forgives a torn tail, because that frame was never promised.
    #[must_use]
    pub fn lost(&self, first: Seq, until: Option<Seq>, crashed: bool) -> Vec<Lost> {
        let mut lost: Vec<Lost> = Vec::new();
        let mut next = first;
        let mut before = None;
        for record in &self.records {
            let seq = record.id.seq;
            if record.after_damage && seq > next {
                let range = SeqRange { first: next, last: Seq(seq.0 - 1) };
                lost.push(Lost { range, from: before.or(Some(record.wall)), to: Some(record.wall) });
            }
            if !record.usable {
                let range = SeqRange::one(seq);
                lost.push(Lost { range, from: Some(record.wall), to: Some(record.wall) });
            }
            before = Some(record.wall);
            next = seq.next();
        }
        let seen = match self.tail {
            Tail::Clean => return lost,
            Tail::Torn if crashed => return lost,
            Tail::Torn => None,
            Tail::Damaged(seen) => seen,
        };
        let last = match until {
            Some(until) => until.0.checked_sub(1).map(Seq),
            None => Some(seen.unwrap_or(next)),
        };
        if let Some(range) = last.and_then(|last| SeqRange::checked(next, last)) {
            lost.push(Lost { range, from: before, to: before });
        }
        lost
    }
}

/// CRC-32 as in IEEE 802.3, over parts as if they were one.
#[must_use]
pub fn crc32(parts: &[&[u8]]) -> u32 {
    let mut crc = !0u32;
    for &byte in parts.iter().copied().flatten() {
        crc = CRC_TABLE[((crc ^ u32::from(byte)) & 0xff) as usize] ^ (crc >> 8);
    }
    !crc
}

static CRC_TABLE: [u32; 256] = crc_table();

const fn crc_table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut i = 0u32;
    while i < 256 {
        let mut crc = i;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { 0xedb8_8320 ^ (crc >> 1) } else { crc >> 1 };
            bit += 1;
        }
        table[i as usize] = crc;
        i += 1;
    }
    table
}

fn record_crc(record: &[u8]) -> u32 {
    crc32(&[&record[..8], &record[12..]])
}

/// The record at `at`, which must follow `before`.
fn parse(bytes: &[u8], at: usize, before: Option<&Record>) -> Parsed {
    let rest = &bytes[at..];
    let Some((head, rest)) = rest.split_first_chunk::<HEAD_BYTES>() else { return Parsed::Short };
    let Some((id, kind)) = parse_head(head, before) else { return Parsed::Bad };
    let length = u32_at(head, 4) as usize;
    if length > BODY_BYTES_MAX {
        return Parsed::Bad;
    }
    if rest.len() < length {
        return Parsed::Short;
    }
    let end = at + HEAD_BYTES + length;
    if record_crc(&bytes[at..end]) != u32_at(head, 8) {
        return Parsed::Bad;
    }
    let wall = WallMs(u64_at(head, 24).cast_signed());
    let (begins, body) = (head[1] & BEGINS != 0, at + HEAD_BYTES..end);
    Parsed::Whole(Record { id, kind, begins, wall, body, after_damage: false, usable: false }, end)
}

/// `None` when these bytes cannot begin a record behind `before`.
fn parse_head(head: &[u8; HEAD_BYTES], before: Option<&Record>) -> Option<(FrameId, BodyKind)> {
    let back = u16::from_le_bytes([head[2], head[3]]);
    let kind = match (head[0], head[1] & !BEGINS, back) {
        (MARK, 0, 0) => BodyKind::Key,
        (MARK, 1, 1..) => BodyKind::Delta { back },
        (MARK, 2, 0) => BodyKind::Inventory,
        _ => return None,
    };
    let id = FrameId::new(u32_at(head, 12), u64_at(head, 16));
    let follows = before.is_none_or(|before| before.id.epoch == id.epoch && before.id.seq < id.seq);
    follows.then_some((id, kind))
}

fn resync(bytes: &[u8], from: usize, before: Option<&Record>, budget: &mut usize) -> Option<(Record, usize)> {
    for at in from..bytes.len().saturating_sub(HEAD_BYTES - 1) {
        if bytes[at] != MARK {
            continue;
        }
        let length = u32_at(&bytes[at..], 4) as usize;
        *budget = budget.checked_sub(if length <= bytes.len() - at { length + HEAD_BYTES } else { 1 })?;
        if let Parsed::Whole(record, end) = parse(bytes, at, before) {
            return Some((record, end));
        }
    }
    None
}

fn tail(rest: &[u8], before: Option<&Record>, short: bool) -> Tail {
    if short || rest.iter().all(|&byte| byte == 0) {
        return Tail::Torn;
    }
    // A head that can be made out says which frames there were. No more than would have fitted.
    let most = rest.len() as u64 / HEAD_BYTES as u64;
    let seen = rest.windows(HEAD_BYTES).filter_map(|head| {
        let (id, _) = parse_head(head.first_chunk()?, before)?;
        before.is_some_and(|before| id.seq.0 - before.id.seq.0 <= most).then_some(id.seq)
    });
    Tail::Damaged(seen.max())
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes[at..].first_chunk().map_or(0, |raw| u32::from_le_bytes(*raw))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes[at..].first_chunk().map_or(0, |raw| u64::from_le_bytes(*raw))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KINDS: [BodyKind; 3] = [BodyKind::Key, BodyKind::Delta { back: 1 }, BodyKind::Inventory];

    /// Groups of three: a keyframe and two deltas.
    fn file(first: u64, bodies: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = FILE_HEAD.to_vec();
        for (n, body) in (0u64..).zip(bodies) {
            let begins = n % 3 == 0;
            let kind = KINDS[usize::from(!begins)];
            encode(&mut bytes, FrameId::new(7, first + n), kind, begins, WallMs(1_000 + n.cast_signed()), body);
        }
        bytes
    }

    fn lost(scan: &Scan, first: u64, until: Option<u64>, crashed: bool) -> Vec<(u64, u64)> {
        let lost = scan.lost(Seq(first), until.map(Seq), crashed);
        lost.iter().map(|lost| (lost.range.first.0, lost.range.last.0)).collect()
    }

    /// A later version must read these bytes for ever: they are on disks.
    #[test]
    fn bytes_of_version_1_are_frozen() {
        let mut bytes = FILE_HEAD.to_vec();
        let (id, wall) = (FrameId::new(3, 0x0102), WallMs(-2));
        encode(&mut bytes, id, BodyKind::Delta { back: 5 }, true, wall, b"ab");
        #[rustfmt::skip]
        let frozen = [
            b'D', b'N', b'L', b'S', b'P', b'L', 1, b'\n',
            0xd5, 0x81, 5, 0, 2, 0, 0, 0, 49, 100, 222, 209, 3, 0, 0, 0,
            2, 1, 0, 0, 0, 0, 0, 0, 0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, b'a', b'b',
        ];
        assert_eq!(bytes, frozen, "{bytes:?}");
        let record = &scan(&frozen).records[0];
        assert_eq!((record.id, record.wall, &frozen[record.body.clone()]), (id, wall, &b"ab"[..]));
        assert!(record.begins && !record.usable);
        assert_eq!(crc32(&[b"1234", b"56789"]), 0xcbf4_3926, "the check value of the published algorithm");
    }

    #[test]
    fn a_lost_keyframe_costs_its_group_and_no_other() {
        let mut bytes = file(10, &vec![vec![1; 40]; 9]);
        let third = FILE_HEAD.len() + 3 * (HEAD_BYTES + 40);
        bytes[third + HEAD_BYTES] ^= 1;
        let found = scan(&bytes);
        assert_eq!(lost(&found, 10, None, true), [(13, 13), (14, 14), (15, 15)]);
        assert_eq!(found.usable().count(), 6);
    }

    #[test]
    fn an_incomplete_last_record_is_forgiven_only_where_a_crash_can_have_left_it() {
        let bytes = file(10, &vec![vec![1; 40]; 4]);
        for cut in 1..HEAD_BYTES + 40 {
            let found = scan(&bytes[..bytes.len() - cut]);
            assert_eq!((found.tail, found.usable().count()), (Tail::Torn, 3), "{cut} bytes less");
            assert_eq!(found.good_bytes, bytes.len() - HEAD_BYTES - 40);
            assert_eq!(lost(&found, 10, None, true), []);
            assert_eq!(lost(&found, 10, None, false), [(13, 13)]);
            assert_eq!(lost(&found, 10, Some(20), false), [(13, 19)]);
        }
        let zeros = [&bytes[..], &[0; 500]].concat();
        assert_eq!((scan(&zeros).tail, scan(&zeros).good_bytes), (Tail::Torn, bytes.len()));
    }

    #[test]
    fn damage_at_the_end_is_counted_by_the_heads_that_can_still_be_read() {
        let mut bytes = file(10, &vec![vec![1; 40]; 6]);
        for record in [4, 5] {
            bytes[FILE_HEAD.len() + record * (HEAD_BYTES + 40) + HEAD_BYTES] ^= 1;
        }
        let found = scan(&bytes);
        assert_eq!(found.tail, Tail::Damaged(Some(Seq(15))));
        assert_eq!(lost(&found, 10, None, true), [(14, 15)]);
    }

    #[test]
    fn numbers_that_do_not_rise_and_other_epochs_are_damage() {
        let mut bytes = file(10, &vec![vec![1; 4]; 3]);
        encode(&mut bytes, FrameId::new(7, 12), BodyKind::Key, true, WallMs(0), b"again");
        encode(&mut bytes, FrameId::new(8, 13), BodyKind::Key, true, WallMs(0), b"another epoch");
        encode(&mut bytes, FrameId::new(7, 13), BodyKind::Key, true, WallMs(0), b"good");
        let found = scan(&bytes);
        assert_eq!(found.usable().ranges(), [SeqRange { first: Seq(10), last: Seq(13) }]);
    }

    proptest! {
        #[test]
        fn what_was_written_is_found(bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 0..40),
                                     first in 0u64..u64::MAX / 2) {
            let bytes = file(first, &bodies);
            let found = scan(&bytes);
            prop_assert_eq!((found.tail, found.good_bytes), (Tail::Clean, bytes.len()));
            prop_assert!(found.records.iter().all(|record| record.usable && !record.after_damage));
            let read: Vec<_> = found.records.iter().map(|record| bytes[record.body.clone()].to_vec()).collect();
            prop_assert_eq!(read, bodies);
        }

        #[test]
        fn one_flipped_bit_costs_one_record_at_most_and_it_is_said(
            bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 1..40),
            at: prop::sample::Index, bit in 0u8..8,
        ) {
            let mut bytes = file(100, &bodies);
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            let found = scan(&bytes);
            prop_assert!(found.records.len() + 1 >= bodies.len());
            let mut all = found.usable();
            let until = 100 + bodies.len() as u64;
            for lost in found.lost(Seq(100), Some(Seq(until)), false) {
                prop_assert_eq!(all.ranges().iter().map(SeqRange::count).sum::<u64>(), all.count());
                all.insert_range(lost.range);
            }
            prop_assert_eq!(all.ranges(), [SeqRange { first: Seq(100), last: Seq(until - 1) }]);
        }

        #[test]
        fn arbitrary_bytes_never_panic(noise: Vec<u8>, bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 0..5),
                                       cut: prop::sample::Index, first: u64, until: Option<u64>, crashed: bool) {
            let mut bytes = file(u64::MAX - 20, &bodies);
            bytes.splice(cut.index(bytes.len())..cut.index(bytes.len()), noise.iter().copied());
            for bytes in [&bytes, &noise] {
                let found = scan(bytes);
                prop_assert!(found.records.len() * HEAD_BYTES <= bytes.len() && found.good_bytes <= bytes.len());
                for lost in found.lost(Seq(first), until.map(Seq), crashed) {
                    prop_assert!(lost.range.first <= lost.range.last);
                }
            }
        }
    }

    /// A file in which each place claims to begin a record as long as the rest of the file.
    #[test]
    fn crafted_bytes_cost_no_more_than_a_few_passes() {
        let mut bytes = FILE_HEAD.to_vec();
        while bytes.len() < 256 * 1024 {
            let start = bytes.len();
            encode(&mut bytes, FrameId::new(7, start as u64), BodyKind::Key, true, WallMs(0), b"");
            bytes[start + 4..start + 8].copy_from_slice(&(100 * 1024u32).to_le_bytes());
        }
        let mut budget = bytes.len() * 4;
        assert_eq!(resync(&bytes, 9, None, &mut budget), None);
        assert!(budget < bytes.len(), "it was used up");
        assert!(scan(&bytes).records.is_empty());
    }
}
