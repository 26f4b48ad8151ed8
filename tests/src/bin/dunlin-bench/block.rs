//! What a stretch of recorded readings takes as a block, and how long that is in the making, beside what
//! is simpler: differences as varints, and those through a general compressor.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use dunlin_collector::block::{Column, Effort, Measure, Row, Stretch, decode, decode_some, encode};
use dunlin_shared::id::{Epoch, Seq};
use dunlin_shared::metric::{MetricId, MetricRef};
use dunlin_shared::sample::{ABSENT, Subject};
use dunlin_shared::time::{MonoMs, WallMs};
use dunlin_shared::varint::{self, zigzag};
use dunlin_tests::fleet::recording::Recording;

use crate::codec::{cpu_ns, micros};
use dunlin_tests::table::Table;

const PART: &str = "block";
const RECORDINGS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/data");
/// Five minutes and an hour at a tick each 10 s.
const ROWS: [u32; 2] = [30, 360];
/// The clock moves with the scheduler's ticks of a few milliseconds.
const LEAST_NS: u64 = 100_000_000;
/// The level at which more time hardly makes it smaller.
const ZSTD_LEVEL: i32 = 9;
/// Of a hundred samples.
const BYTES_MAX: f64 = 50.0;

pub(crate) fn measure(table: &mut Table, short: bool) -> Result<()> {
    let mut files: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(RECORDINGS).context(RECORDINGS)? {
        files.push(entry?.path());
    }
    files.sort();
    for file in files.iter().filter(|file| file.extension().is_some_and(|end| end == "txt")) {
        let recording = Recording::read(file)?;
        let name = file.file_stem().unwrap_or_default().to_string_lossy();
        for rows in ROWS {
            measure_stretch(table, &name, &stretch(&recording, rows), short)?;
        }
    }
    Ok(())
}

/// The first readings of a recording, so many as there are.
fn stretch(recording: &Recording, rows: u32) -> Stretch {
    let rows = rows.min(u32::try_from(recording.ticks()).unwrap_or(u32::MAX));
    let mut columns: Vec<(Subject, MetricRef, Vec<i64>)> = Vec::new();
    let clock = |n: u32| (MonoMs(10_000 * u64::from(n)), WallMs(1_750_000_000_000 + 10_000 * i64::from(n)));
    for tick in 0..rows {
        let (mono, wall) = clock(tick);
        for (subject, metric, steps) in recording.sample(u64::from(tick), mono, wall).rows() {
            let known = columns.iter().position(|(about, which, _)| about == subject && which == metric);
            let at = known.unwrap_or_else(|| {
                columns.push((subject.clone(), *metric, vec![ABSENT; rows as usize]));
                columns.len() - 1
            });
            columns[at].2[tick as usize] = *steps;
        }
    }
    // By subject, as a node lays them out; the order within is the recording's.
    columns.sort_by(|(a, ..), (b, ..)| a.cmp(b));
    let rows = (0..rows).map(|n| {
        let (mono, time) = clock(n);
        Row { time, epoch: Epoch(1), seq: Seq(u64::from(n)), mono }
    });
    let column = |(subject, metric, values): (Subject, MetricRef, Vec<i64>)| Column {
        subject,
        measure: Measure::Catalogued(MetricId(metric.raw())),
        values,
    };
    Stretch { rows: rows.collect(), columns: columns.into_iter().map(column).collect() }
}

#[expect(clippy::cast_precision_loss, reason = "a few million at most")]
fn measure_stretch(table: &mut Table, name: &str, stretch: &Stretch, short: bool) -> Result<()> {
    let samples = stretch.rows.len() * stretch.columns.len();
    let name = format!("{name}, {} rows of {}", stretch.rows.len(), stretch.columns.len());
    let per_hundred = |bytes: usize| 100.0 * bytes as f64 / samples as f64;
    let plain = varints(stretch);
    let packed = zstd::bulk::compress(&plain, ZSTD_LEVEL)?;
    table.note(
        PART,
        format!("{name}: a hundred samples, varints of differences"),
        format!("{:.1} bytes", per_hundred(plain.len())),
    );
    table.note(
        PART,
        format!("{name}: a hundred samples, those through zstd"),
        format!("{:.1} bytes", per_hundred(packed.len())),
    );
    for effort in [Effort::Quick, Effort::Thorough] {
        let block = encode(stretch, effort);
        ensure!(decode(&block)? == *stretch, "a stretch came back as another");
        let what = format!("{name}: a hundred samples, {effort:?}");
        table.promise(PART, &what, per_hundred(block.len()), BYTES_MAX, "bytes");
        let encoding = each_ns(short, || Ok(encode(stretch, effort)))?;
        let decoding = each_ns(short, || Ok(decode(&block)?))?;
        let per_sample = |ns: u64| format!("{:.1} us, {:.1} ns a sample", micros(ns), ns as f64 / samples as f64);
        table.note(PART, format!("{name}: CPU to encode, {effort:?}"), per_sample(encoding));
        table.note(PART, format!("{name}: CPU to decode, {effort:?}"), per_sample(decoding));
        let mut turn = 0;
        let one = each_ns(short, || {
            turn = (turn + 7) % stretch.columns.len();
            let wanted = &stretch.columns[turn];
            let is_wanted = |subject: &Subject, of: &Measure| *subject == wanted.subject && *of == wanted.measure;
            Ok(decode_some(&block, is_wanted)?)
        })?;
        table.note(PART, format!("{name}: CPU to decode one column, {effort:?}"), format!("{:.1} us", micros(one)));
    }
    let unpacking = each_ns(short, || Ok(zstd::bulk::decompress(&packed, plain.len())?))?;
    let packing = each_ns(short, || Ok(zstd::bulk::compress(&varints(stretch), ZSTD_LEVEL)?))?;
    table.note(PART, format!("{name}: CPU to encode, zstd"), format!("{:.1} us", micros(packing)));
    table.note(PART, format!("{name}: CPU to decompress, zstd"), format!("{:.1} us", micros(unpacking)));
    Ok(())
}

/// The plain way: names, then each column as differences, 0 being absent.
fn varints(stretch: &Stretch) -> Vec<u8> {
    let mut out = Vec::new();
    for run in stretch.columns.chunk_by(|a, b| a.subject == b.subject) {
        out.extend(run[0].subject.to_string().bytes());
        varint::put(&mut out, run.len() as u64);
        for column in run {
            if let Measure::Catalogued(id) = &column.measure {
                varint::put(&mut out, u64::from(id.0));
            }
            let mut last = 0_i64;
            for &value in &column.values {
                let code = if value == ABSENT { 0 } else { 1 + zigzag(value - std::mem::replace(&mut last, value)) };
                varint::put(&mut out, code);
            }
        }
    }
    out
}

/// So often that the clock is exact, or once.
fn each_ns<T>(short: bool, mut act: impl FnMut() -> Result<T>) -> Result<u64> {
    let (began, mut rounds) = (cpu_ns()?, 0);
    loop {
        act()?;
        rounds += 1;
        // Reading the clock costs as much as a small block.
        if rounds % 16 == 0 || short {
            let passed = cpu_ns()? - began;
            if passed >= LEAST_NS || short {
                return Ok(passed / rounds);
            }
        }
    }
}
