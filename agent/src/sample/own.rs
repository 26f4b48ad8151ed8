//! What the agent costs, and what it could not deliver. These numbers are of the real process, whatever the root is.

use std::sync::Arc;

use dunlin_shared::metric::Metric;
use dunlin_shared::sample::{Sample, Subject};

use super::failure::{Failures, SampleError};
use super::source::Source;
use super::{float, metric};
use crate::clock::process_cpu;
use crate::stats::Stats;

pub(super) fn sample(
    source: &mut Source,
    stats: &Arc<Stats>,
    failed: u64,
    left_out: Option<u64>,
    sample: &mut Sample,
    failures: &mut Failures,
) {
    let mut put = |metric: &'static Metric, value: f64| sample.push(&Subject::AGENT(), metric, value);
    put(const { metric("agent_cpu_seconds") }, process_cpu().as_secs_f64());
    if let Some(pages) = failures.keep(resident_pages(source)) {
        put(const { metric("agent_memory_bytes") }, float(pages) * float(rustix::param::page_size() as u64));
    }
    put(const { metric("agent_sample_failures") }, float(failed));
    if let Some(left_out) = left_out {
        put(const { metric("agent_items_left_out") }, float(left_out));
    }
    let Some(line) = stats.line() else { return };
    for (metric, value) in [
        (const { metric("agent_spool_frames") }, line.spool_frames),
        (const { metric("agent_spool_bytes") }, line.spool_bytes),
        (const { metric("agent_frames_dropped") }, line.frames_dropped),
        (const { metric("agent_reconnects") }, line.reconnects),
        (const { metric("agent_values_left_out") }, line.values_left_out),
    ] {
        put(metric, float(value));
    }
}

/// An absolute path leaves the root.
fn resident_pages(source: &mut Source) -> Result<u64, SampleError> {
    let text = source.read("/proc/self/statm")?;
    let lossy = text.lossy();
    let pages = lossy.split(' ').nth(1).and_then(|word| word.parse().ok());
    pages.ok_or_else(|| text.malformed(0, &lossy))
}
