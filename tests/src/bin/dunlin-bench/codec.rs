//! What a frame costs to lay out, encode and decode, without any I/O.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use dunlin_shared::codec::{Grouper, decode_delta, decode_key, encode_delta, encode_key};
use dunlin_shared::id::Epoch;
use dunlin_shared::sample::Reading;
use dunlin_shared::time::{MonoMs, WallMs};
use dunlin_tests::fleet::load::{Host, Load, Replay};
use rustix::time::{ClockId, clock_gettime};

use crate::wire::RECORDING;
use dunlin_tests::table::Table;

const PART: &str = "codec";
/// A hundred groups.
const FRAMES: u32 = 3_000;
/// Decoding is quick: so often, that a clock which moves with the scheduler's ticks is exact.
const DECODE_ROUNDS: u32 = 40;

#[derive(Default)]
struct Bodies {
    keys: Vec<Vec<u8>>,
    deltas: usize,
    delta_bytes: usize,
    /// Each with whether it is a keyframe.
    all: Vec<(bool, Vec<u8>)>,
}

pub(crate) fn measure(table: &mut Table) -> Result<()> {
    let replay = Replay::read(PathBuf::from(RECORDING))?;
    let recorded = Load { replay: Some(replay), ..Load::made_up(1, 150) };
    measure_host(table, "made-up host", &Load::made_up(1, 150).host(0, Epoch(1)))?;
    measure_host(table, "recorded host", &recorded.host(0, Epoch(1)))
}

#[expect(clippy::cast_precision_loss, reason = "a few seconds at most")]
pub(crate) const fn micros(ns: u64) -> f64 {
    ns as f64 / 1e3
}

/// Time that this thread ran, so that what else the machine does is not counted; to the microsecond, however short.
pub(crate) fn cpu_ns() -> Result<u64> {
    let ran = clock_gettime(ClockId::ThreadCPUTime);
    Ok(u64::try_from(ran.tv_sec)? * 1_000_000_000 + u64::try_from(ran.tv_nsec)?)
}

fn measure_host(table: &mut Table, name: &str, host: &Host) -> Result<()> {
    let tick = |n: u32| host.sample(u64::from(n), MonoMs(10_000 * u64::from(n)), WallMs(10_000 * i64::from(n)));
    let samples: Vec<_> = (0..FRAMES).map(tick).collect();
    let (mut grouper, mut last, mut bodies): (_, Option<Reading>, _) = (Grouper::default(), None, Bodies::default());
    let began = cpu_ns()?;
    for sample in &samples {
        let (reading, begins) = grouper.lay_out(sample);
        let delta = last.take().filter(|_| !begins).and_then(|base| encode_delta(&base, &reading));
        match delta {
            Some(body) => {
                bodies.deltas += 1;
                bodies.delta_bytes += body.len();
                bodies.all.push((false, body));
            }
            None => {
                let body = encode_key(&reading);
                bodies.keys.push(body.clone());
                bodies.all.push((true, body));
            }
        }
        last = Some(reading);
    }
    let encoding = (cpu_ns()? - began) / u64::from(FRAMES);
    let began = cpu_ns()?;
    let mut reading = None;
    for _ in 0..DECODE_ROUNDS {
        reading = decode(&bodies.all)?;
    }
    let decoding = (cpu_ns()? - began) / u64::from(FRAMES * DECODE_ROUNDS);
    let reading = reading.context("no frame was decoded")?;
    ensure!(Some(&reading) == last.as_ref(), "the last reading came back as another");
    let mean = |bytes: usize, count: usize| bytes / count.max(1);
    table.note(PART, format!("{name}: CPU to lay out and encode a frame"), format!("{:.1} us", micros(encoding)));
    table.note(PART, format!("{name}: CPU to decode a frame"), format!("{:.1} us", micros(decoding)));
    let key_bytes = bodies.keys.iter().map(Vec::len).sum();
    table.note(PART, format!("{name}: keyframe, mean"), format!("{} bytes", mean(key_bytes, bodies.keys.len())));
    table.note(PART, format!("{name}: delta, mean"), format!("{} bytes", mean(bodies.delta_bytes, bodies.deltas)));
    Ok(())
}

/// One after the other, as a collector does; the last one is given back.
fn decode(bodies: &[(bool, Vec<u8>)]) -> Result<Option<Reading>> {
    let mut reading = None;
    for (is_key, body) in bodies {
        let decoded = match (&reading, is_key) {
            (Some(base), false) => decode_delta(base, body)?,
            _ => decode_key(body)?,
        };
        reading = Some(decoded);
    }
    Ok(reading)
}
