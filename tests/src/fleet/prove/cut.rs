//! The whole fleet is cut off, and comes back with all that it measured meanwhile.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::{LOSS_TOLD, PART, Proof, promised};
use crate::table::Table;

pub(super) struct Cut {
    seconds: f64,
    told_s: Option<f64>,
    losses: usize,
    gone: usize,
    back_s: f64,
    /// While they came back, handshakes and all.
    returning: f64,
    /// Once all of them were there.
    inbound: f64,
}

impl Proof<'_> {
    pub(super) fn cut(&mut self) -> Result<Cut> {
        let least = if self.plan.is_full() { LOSS_TOLD * 5 / 3 } else { Duration::ZERO };
        let takes = self.plan.share(10).max(least);
        let (before, losses_before) = (self.told(), self.follower.heard().losses.len());
        self.network.cut()?;
        let told_s = self.wait_loss("cut off", takes, losses_before);
        let healed = Instant::now();
        self.network.heal()?;
        let sampled = self.watch.look(&self.rig, self.network)?;
        self.wait_connected()?;
        let back_s = healed.elapsed().as_secs_f64();
        let part = self.spell("backlog", self.plan.share(10))?;
        Ok(Cut {
            seconds: takes.as_secs_f64(),
            told_s,
            losses: self.follower.heard().losses.len() - losses_before,
            gone: self.gone_since(before),
            back_s,
            returning: sampled.inbound_mbit(&part.before),
            inbound: part.spell.inbound_mbit_max,
        })
    }
}

impl Cut {
    pub(super) fn tell(&self, table: &mut Table) {
        let whose = format!("all cut off for {:.0} s", self.seconds);
        if self.seconds >= LOSS_TOLD.as_secs_f64() {
            let told_s = self.told_s.unwrap_or(f64::INFINITY);
            table.promise(PART, &format!("{whose}: one loss is told after"), told_s, promised::LOSS_S, "s");
            table.never(PART, &format!("{whose}: losses told but one"), self.losses.abs_diff(1));
        }
        table.never(PART, &format!("{whose}: nodes told as down"), self.gone);
        table.promise(PART, &format!("{whose}: every agent back"), self.back_s, promised::BACK_S, "s");
        let returning = format!("{:.1} Mbit/s", self.returning);
        table.note(PART, format!("{whose}: inbound while they come back, handshakes and all"), returning);
        let what = format!("{whose}: inbound with backlog once they are back, ten seconds at most");
        table.promise(PART, &what, self.inbound, promised::INBOUND_MBIT, "Mbit/s");
    }
}
