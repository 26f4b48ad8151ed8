//! Readings to bytes and back: a keyframe is the delta from nothing, so there is one encoding.
//!
//! ```text
//! body      = version:u8 flags:u8 mono wall [additions] changes
//! mono      = varint: ms since the base's (since 0 in a keyframe)
//! wall      = zigzag: ms by which the wall clock moved differently from the monotonic clock
//! additions = if flags & 1: open-count open* subject-count subject* run-count run*
//! open      = len name unit:u8 kind:u8 step-kind:u8 step
//! subject   = kind:u8 len name
//! run       = subject-index series-count (zigzag metric - metric before it in the run)*
//! changes   = bitmap of the base's series, run-length coded, then a change for each set bit,
//!             then a change for each added series
//! bitmap    = (zero-bytes literal-bytes literal*)* until ceil(series / 8) bytes are covered
//! change    = 0: now absent; else 1 + zigzag(new - old), old being 0 when it was absent
//! ```
//!
//! Numbers without another note are varints. Decoding allocates in proportion to the bytes it is
//! given, checks every limit first, and requires that nothing is left over.

mod group;
#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use group::Grouper;
use thiserror::Error;

use crate::limits::{METRIC_NAME_BYTES_MAX, OPEN_METRICS_MAX, SERIES_MAX, SUBJECT_NAME_BYTES_MAX, SUBJECTS_MAX};
use crate::metric::{Kind, MetricRef, OpenMetric, QUANTISED_MAX, Step, Unit};
use crate::sample::{ABSENT, Layout, Reading, Series, Subject, SubjectKind};
use crate::time::{MonoMs, WallMs};
use crate::varint::{self, VarintError, unzigzag, zigzag};

const VERSION: u8 = 1;
const FLAG_ADDITIONS: u8 = 1;

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CodecError {
    #[error("the body is of version {0}, this program reads version {VERSION}")]
    Version(u8),
    #[error("the body ends early")]
    Truncated,
    #[error("the body has {0} bytes too many")]
    Leftover(usize),
    #[error("{what}: {count}, {max} are allowed")]
    TooMany { what: &'static str, count: u64, max: usize },
    #[error("{0} is malformed")]
    Malformed(&'static str),
}

impl From<VarintError> for CodecError {
    fn from(error: VarintError) -> Self {
        match error {
            VarintError::Truncated => Self::Truncated,
            VarintError::Overlong => Self::Malformed("a number"),
        }
    }
}

#[must_use]
pub fn encode_key(reading: &Reading) -> Vec<u8> {
    encode(&Reading::default(), reading)
}

/// `None` when `next` does not build on `base`: its layout is another, or its clock went back.
#[must_use]
pub fn encode_delta(base: &Reading, next: &Reading) -> Option<Vec<u8>> {
    let builds = Arc::ptr_eq(&base.layout, &next.layout) || next.layout.extends(&base.layout);
    (builds && next.mono >= base.mono).then(|| encode(base, next))
}

pub fn decode_key(bytes: &[u8]) -> Result<Reading, CodecError> {
    decode_delta(&Reading::default(), bytes)
}

pub fn decode_delta(base: &Reading, mut bytes: &[u8]) -> Result<Reading, CodecError> {
    let version = byte(&mut bytes)?;
    if version != VERSION {
        return Err(CodecError::Version(version));
    }
    let flags = byte(&mut bytes)?;
    if flags & !FLAG_ADDITIONS != 0 {
        return Err(CodecError::Malformed("the flags"));
    }
    let passed_ms = varint::take(&mut bytes)?;
    let drift_ms = unzigzag(varint::take(&mut bytes)?);
    let mono = MonoMs(base.mono.0.checked_add(passed_ms).ok_or(CodecError::Malformed("the time"))?);
    let wall = WallMs(base.wall.0.wrapping_add(passed_ms.cast_signed()).wrapping_add(drift_ms));
    let layout = if flags & FLAG_ADDITIONS == 0 {
        Arc::clone(&base.layout)
    } else {
        let mut layout = Layout::clone(&base.layout);
        take_additions(&mut layout, &mut bytes)?;
        Arc::new(layout)
    };
    let values = take_changes(&base.values, layout.series.len(), &mut bytes)?;
    if !bytes.is_empty() {
        return Err(CodecError::Leftover(bytes.len()));
    }
    Ok(Reading { mono, wall, layout, values })
}

fn encode(base: &Reading, next: &Reading) -> Vec<u8> {
    debug_assert_eq!(next.values.len(), next.layout.series.len(), "one value for each series");
    // A declared metric or a subject may have found no room for its series; what follows counts on it all the same.
    let grows = next.layout.series.len() > base.layout.series.len()
        || next.layout.subjects.len() > base.layout.subjects.len()
        || next.layout.open.len() > base.layout.open.len();
    let mut out = vec![VERSION, if grows { FLAG_ADDITIONS } else { 0 }];
    let passed_ms = next.mono.since(base.mono);
    varint::put(&mut out, passed_ms);
    let drift_ms = next.wall.0.wrapping_sub(base.wall.0).wrapping_sub(passed_ms.cast_signed());
    varint::put(&mut out, zigzag(drift_ms));
    if grows {
        put_additions(&mut out, &base.layout, &next.layout);
    }
    put_changes(&mut out, &base.values, &next.values);
    out
}

fn put_additions(out: &mut Vec<u8>, base: &Layout, next: &Layout) {
    let open = &next.open[base.open.len()..];
    varint::put(out, open.len() as u64);
    for metric in open {
        put_text(out, metric.name());
        let (per, size) = match metric.step {
            Step::Each(size) => (0, size),
            Step::Per(size) => (1, size),
        };
        out.extend([unit_raw(metric.unit), u8::from(metric.kind == Kind::Counter), per]);
        varint::put(out, u64::from(size));
    }
    let subjects = &next.subjects[base.subjects.len()..];
    varint::put(out, subjects.len() as u64);
    for subject in subjects {
        out.push(subject.kind as u8);
        put_text(out, subject.name());
    }
    let runs: Vec<_> = next.series[base.series.len()..].chunk_by(|a, b| a.subject == b.subject).collect();
    varint::put(out, runs.len() as u64);
    for run in runs {
        varint::put(out, u64::from(run[0].subject));
        varint::put(out, run.len() as u64);
        let mut before = 0;
        for series in run {
            let metric = i64::from(series.metric.raw());
            varint::put(out, zigzag(metric - before));
            before = metric;
        }
    }
}

fn take_additions(layout: &mut Layout, bytes: &mut &[u8]) -> Result<(), CodecError> {
    for _ in 0..take_count(bytes, "declared metrics", OPEN_METRICS_MAX - layout.open.len())? {
        let name = take_text(bytes, METRIC_NAME_BYTES_MAX)?;
        let unit = unit_from_raw(byte(bytes)?).ok_or(CodecError::Malformed("a unit"))?;
        let kind = match byte(bytes)? {
            0 => Kind::Gauge,
            1 => Kind::Counter,
            _ => return Err(CodecError::Malformed("a metric's kind")),
        };
        let per = byte(bytes)?;
        let size = u32::try_from(varint::take(bytes)?).map_err(|_| CodecError::Malformed("a precision"))?;
        let step = match per {
            0 => Step::Each(size),
            1 => Step::Per(size),
            _ => return Err(CodecError::Malformed("a precision")),
        };
        layout
            .open
            .push(OpenMetric::new(name, unit, kind, step).map_err(|_| CodecError::Malformed("a declared metric"))?);
    }
    for _ in 0..take_count(bytes, "subjects", SUBJECTS_MAX - layout.subjects.len())? {
        let kind = SubjectKind::from_raw(byte(bytes)?).ok_or(CodecError::Malformed("a subject's kind"))?;
        let name = take_text(bytes, SUBJECT_NAME_BYTES_MAX)?;
        layout.subjects.push(Subject::new(kind, name).ok_or(CodecError::Malformed("a subject"))?);
    }
    for _ in 0..take_count(bytes, "runs of series", SERIES_MAX)? {
        let subject = varint::take(bytes)?;
        let subject = u16::try_from(subject)
            .ok()
            .filter(|&index| usize::from(index) < layout.subjects.len())
            .ok_or(CodecError::Malformed("a series' subject"))?;
        let mut before = 0i64;
        for _ in 0..take_count(bytes, "series", SERIES_MAX - layout.series.len())? {
            before = before.wrapping_add(unzigzag(varint::take(bytes)?));
            let raw = u16::try_from(before).map_err(|_| CodecError::Malformed("a series' metric"))?;
            let metric = MetricRef::from_raw(raw);
            if metric.open_index().is_some_and(|index| index >= layout.open.len()) {
                return Err(CodecError::Malformed("a series' metric"));
            }
            layout.series.push(Series { subject, metric });
        }
    }
    Ok(())
}

fn put_changes(out: &mut Vec<u8>, base: &[i64], next: &[i64]) {
    let mut bitmap = vec![0u8; base.len().div_ceil(8)];
    for (i, (old, new)) in base.iter().zip(next).enumerate() {
        if old != new {
            bitmap[i / 8] |= 1 << (i % 8);
        }
    }
    put_bitmap(out, &bitmap);
    for (old, new) in base.iter().zip(next).filter(|(old, new)| old != new) {
        put_change(out, *old, *new);
    }
    for &new in &next[base.len()..] {
        put_change(out, ABSENT, new);
    }
}

fn put_change(out: &mut Vec<u8>, old: i64, new: i64) {
    if new == ABSENT {
        out.push(0);
    } else {
        debug_assert!(new.abs() <= QUANTISED_MAX, "quantised values are bounded");
        varint::put(out, 1 + zigzag(new - if old == ABSENT { 0 } else { old }));
    }
}

fn take_changes(base: &[i64], series: usize, bytes: &mut &[u8]) -> Result<Vec<i64>, CodecError> {
    let bitmap = take_bitmap(base.len().div_ceil(8), bytes)?;
    // Each added series has a byte at least: refuse before making room for what cannot be there.
    if series - base.len() > bytes.len() {
        return Err(CodecError::Truncated);
    }
    let mut values = Vec::with_capacity(series);
    values.extend_from_slice(base);
    for (i, &eight) in bitmap.iter().enumerate() {
        let mut left = eight;
        while left != 0 {
            let bit = left.trailing_zeros() as usize;
            left &= left - 1;
            let value = values.get_mut(i * 8 + bit).ok_or(CodecError::Malformed("the bitmap"))?;
            *value = take_change(*value, bytes)?;
        }
    }
    for _ in base.len()..series {
        values.push(take_change(ABSENT, bytes)?);
    }
    Ok(values)
}

fn take_change(old: i64, bytes: &mut &[u8]) -> Result<i64, CodecError> {
    let Some(code) = varint::take(bytes)?.checked_sub(1) else {
        return Ok(ABSENT);
    };
    let old = if old == ABSENT { 0 } else { old };
    old.checked_add(unzigzag(code))
        .filter(|new| (-QUANTISED_MAX..=QUANTISED_MAX).contains(new))
        .ok_or(CodecError::Malformed("a value"))
}

/// Literals run on over a single zero byte: ending and starting a run costs two.
fn put_bitmap(out: &mut Vec<u8>, bitmap: &[u8]) {
    let mut at = 0;
    while at < bitmap.len() {
        let zeros = bitmap[at..].iter().take_while(|&&b| b == 0).count();
        let start = at + zeros;
        let mut end = start;
        while end < bitmap.len() && !bitmap[end..].iter().take(3).all(|&b| b == 0) {
            end += 1;
        }
        varint::put(out, zeros as u64);
        varint::put(out, (end - start) as u64);
        out.extend_from_slice(&bitmap[start..end]);
        at = end;
    }
}

fn take_bitmap(len: usize, bytes: &mut &[u8]) -> Result<Vec<u8>, CodecError> {
    let mut bitmap = Vec::with_capacity(len);
    while bitmap.len() < len {
        let zeros = take_count(bytes, "bitmap bytes", len - bitmap.len())?;
        bitmap.resize(bitmap.len() + zeros, 0);
        let literal = take_count(bytes, "bitmap bytes", len - bitmap.len())?;
        if zeros + literal == 0 {
            return Err(CodecError::Malformed("the bitmap"));
        }
        bitmap.extend_from_slice(take_slice(bytes, literal)?);
    }
    Ok(bitmap)
}

fn byte(bytes: &mut &[u8]) -> Result<u8, CodecError> {
    let (&first, rest) = bytes.split_first().ok_or(CodecError::Truncated)?;
    *bytes = rest;
    Ok(first)
}

fn take_slice<'a>(bytes: &mut &'a [u8], len: usize) -> Result<&'a [u8], CodecError> {
    let (slice, rest) = bytes.split_at_checked(len).ok_or(CodecError::Truncated)?;
    *bytes = rest;
    Ok(slice)
}

fn take_count(bytes: &mut &[u8], what: &'static str, max: usize) -> Result<usize, CodecError> {
    let count = varint::take(bytes)?;
    usize::try_from(count).ok().filter(|&count| count <= max).ok_or(CodecError::TooMany { what, count, max })
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    varint::put(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

fn take_text<'a>(bytes: &mut &'a [u8], max: usize) -> Result<&'a str, CodecError> {
    let len = take_count(bytes, "bytes of a name", max)?;
    std::str::from_utf8(take_slice(bytes, len)?).map_err(|_| CodecError::Malformed("a name"))
}

const UNITS: [Unit; 7] =
    [Unit::Count, Unit::Ratio, Unit::Bytes, Unit::Seconds, Unit::Celsius, Unit::Hertz, Unit::Cores];

fn unit_raw(unit: Unit) -> u8 {
    unit as u8
}

fn unit_from_raw(raw: u8) -> Option<Unit> {
    UNITS.get(usize::from(raw)).copied()
}
