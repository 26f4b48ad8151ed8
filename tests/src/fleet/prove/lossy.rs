//! One packet in ten is lost, both ways, for a while: a worse line than any that people keep.

use anyhow::Result;

use super::{PART, Part, Proof};
use crate::table::Table;

const PROBABILITY: f64 = 0.1;

pub(super) struct Lossy {
    part: Part,
    packets: u64,
    gone: usize,
}

impl Proof<'_> {
    pub(super) fn lossy(&mut self) -> Result<Lossy> {
        let before = self.told();
        self.network.lose(PROBABILITY)?;
        let part = self.spell("one in ten lost", self.plan.share(18))?;
        let packets = self.network.lost()?;
        self.network.heal()?;
        // What was thought lost by then would be told half a minute later; the parts that follow hear it.
        self.wait_connected()?;
        Ok(Lossy { part, packets, gone: self.gone_since(before) })
    }
}

impl Lossy {
    pub(super) fn tell(&self, table: &mut Table) {
        let Self { part, packets, gone } = self;
        let seconds = part.before.seconds_to(&part.after);
        table.never(PART, &format!("one packet in ten lost for {seconds:.0} s, both ways: nodes told as down"), *gone);
        let frames = part.after.grown(&part.before, "dunlin_frames_committed_total") / seconds;
        let connections = part.after.grown(&part.before, "dunlin_connections_accepted_total");
        let shown = format!("{packets} packets, {frames:.0} frames/s, {connections:.0} connections");
        table.note(PART, "the same: lost, committed, made anew", shown);
    }
}
