//! What a fleet at rest costs its collector.

use anyhow::{Result, ensure};

use super::{Alerts, PART, Part, ProvePlan, promised};
use crate::table::Table;

pub(super) fn tell(table: &mut Table, plan: ProvePlan, part: &Part, alerts: &Alerts<'_>) -> Result<()> {
    let seconds = part.before.seconds_to(&part.after);
    let frames = part.after.grown(&part.before, "dunlin_frames_committed_total");
    ensure!(frames > 0.0, "no frame was committed");
    #[expect(clippy::cast_precision_loss, reason = "thousands of nodes")]
    let due = plan.nodes as f64 / plan.interval.as_secs_f64();
    table.promise_least(
        PART,
        &format!("{seconds:.0} s steady: frames committed"),
        frames / seconds,
        due * promised::SLACK,
        "a second",
    );
    table.promise(PART, "the same: RSS at its highest", part.spell.rss_max_mib, promised::RSS_MIB, "MiB");
    let cpu = part.after.cpu_since(&part.before);
    table.promise_to(PART, "the same: of a core", (cpu / seconds, promised::CORES), "", 3);
    table.note(PART, "the same: CPU a frame", format!("{:.0} us", cpu * 1e6 / frames));
    committed(table, part, "the same");
    let (count, times) = alerts.times(part);
    ensure!(count > 0, "no alert was heard");
    let what = format!("the same: from a sample to whoever follows the feed, {count} alerts: p99");
    table.promise(PART, &what, times.p99_ms, promised::ALERT_MS, "ms");
    table.note(PART, "the same: median, longest", format!("{:.0} ms, {:.0} ms", times.median_ms, times.longest_ms));
    let (inbound, outbound) = part.before.mbit_to(&part.after);
    table.promise(PART, "the same: inbound, by the kernel's count", inbound, promised::INBOUND_MBIT, "Mbit/s");
    table.note(PART, "the same: outbound", format!("{outbound:.2} Mbit/s"));
    let bytes = (inbound + outbound) * 1e6 / 8.0 * seconds / frames;
    table.note(PART, "the same: bytes a frame, both ways, with Ethernet's headers", format!("{bytes:.0}"));
    table.note(
        PART,
        "the same: written to disk",
        format!("{:.0} kB/s", part.after.written_since(&part.before) / 1e3 / seconds),
    );
    Ok(())
}

pub(super) fn committed(table: &mut Table, part: &Part, whose: &str) {
    let quantile =
        part.after.scrape.quantile_since(&part.before.scrape, "dunlin_received_to_committed_seconds", &[], 0.99);
    let ms = quantile.unwrap_or(f64::INFINITY) * 1e3;
    table.promise(PART, &format!("{whose}: received to committed, p99"), ms, promised::COMMITTED_MS, "ms");
}
