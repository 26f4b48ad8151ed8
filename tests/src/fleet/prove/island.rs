//! A fifth of the fleet is cut off, all else goes on: one loss that lists it, and nobody else is down.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::{LOSS_TOLD, PART, Proof, promised};
use crate::table::Table;

/// One agent of so many is on the island: the last of each.
pub(super) const ONE_OF: usize = 5;

pub(super) struct Island {
    nodes: usize,
    seconds: f64,
    told_s: Option<f64>,
    losses: usize,
    /// Listed and not of the island, or of the island and not listed.
    wrong: usize,
    gone: usize,
    back_s: f64,
}

impl Proof<'_> {
    pub(super) fn island(&mut self) -> Result<Island> {
        let (before, losses_before) = (self.told(), self.follower.heard().losses.len());
        let takes = self.plan.share(8).max(if self.plan.is_full() { LOSS_TOLD } else { Duration::ZERO });
        let began = Instant::now();
        self.network.cut_island()?;
        let told_s = self.wait_loss("a fifth cut off", takes, losses_before);
        let seconds = began.elapsed().as_secs_f64();
        let healed = Instant::now();
        self.network.heal()?;
        self.wait_connected()?;
        let back_s = healed.elapsed().as_secs_f64();
        self.spell("the island is back", self.plan.share(3))?;
        let heard = self.follower.heard();
        let losses = &heard.losses[losses_before..];
        let nodes: BTreeSet<&str> = self.islanders().collect();
        let listed: BTreeSet<&str> = losses.iter().flatten().map(String::as_str).collect();
        Ok(Island {
            nodes: nodes.len(),
            seconds,
            told_s,
            losses: losses.len(),
            wrong: listed.symmetric_difference(&nodes).count(),
            gone: self.gone_since(before),
            back_s,
        })
    }

    fn islanders(&self) -> impl Iterator<Item = &str> {
        self.ids[..self.mainland].iter().enumerate().filter(|(at, _)| at % ONE_OF == ONE_OF - 1).map(|(_, id)| &**id)
    }

    /// How long it took until the next loss was told, if it was; for so long at least.
    pub(super) fn wait_loss(&mut self, name: &str, takes: Duration, losses_before: usize) -> Option<f64> {
        let began = Instant::now();
        let mut told_s = None;
        while began.elapsed() < takes {
            self.watch.wait(name, Duration::from_millis(500).min(takes));
            if told_s.is_none() && self.follower.heard().losses.len() > losses_before {
                told_s = Some(began.elapsed().as_secs_f64());
            }
        }
        told_s
    }
}

impl Island {
    pub(super) fn tell(&self, table: &mut Table) {
        let whose = format!("{} nodes cut off for {:.0} s", self.nodes, self.seconds);
        if self.seconds >= LOSS_TOLD.as_secs_f64() {
            let told_s = self.told_s.unwrap_or(f64::INFINITY);
            table.promise(PART, &format!("{whose}: one loss is told after"), told_s, promised::LOSS_S, "s");
            table.never(PART, &format!("{whose}: losses told but one"), self.losses.abs_diff(1));
            table.never(PART, &format!("{whose}: listed wrongly or not at all"), self.wrong);
        }
        table.never(PART, &format!("{whose}: nodes told as down"), self.gone);
        table.promise(PART, &format!("{whose}: every agent back"), self.back_s, promised::BACK_S, "s");
    }
}
