//! How the collector is while it is measured, and a line that says how far it is.
//!
//! It looks once a second. Of a process that is killed, what was highest is kept.

use std::collections::VecDeque;
use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use anyhow::Result;

use super::ProvePlan;
use crate::netns::Counters;
use crate::rig::Rig;
use crate::scrape::Scrape;
use crate::topology::Direct;

const EVERY: Duration = Duration::from_secs(1);
/// What is told of inbound traffic at its highest is a mean over so much.
const BURST: Duration = Duration::from_secs(10);
/// Without a terminal a line is printed so often.
const LINE_EVERY: Duration = Duration::from_secs(30);
const BAR: usize = 24;

#[derive(Debug)]
pub(super) struct Watch {
    plan: ProvePlan,
    began: Instant,
    printed: Option<Instant>,
    rss_peak_kib: u64,
    files_max: usize,
    threads_max: u64,
}

/// The collector and the wire at one moment.
#[derive(Debug)]
pub(super) struct Moment {
    at: Instant,
    pub(super) rss_mib: f64,
    cpu: Duration,
    written_bytes: u64,
    wire: Counters,
    pub(super) scrape: Scrape,
}

/// What was highest while nothing was done but looking.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Spell {
    pub(super) rss_max_mib: f64,
    pub(super) inbound_mbit_max: f64,
}

impl Watch {
    pub(super) fn new(plan: ProvePlan) -> Self {
        Self { plan, began: Instant::now(), printed: None, rss_peak_kib: 0, files_max: 0, threads_max: 0 }
    }

    pub(super) fn look(&mut self, rig: &Rig<'_>, network: &Direct) -> Result<Moment> {
        let look = rig.look()?;
        self.rss_peak_kib = self.rss_peak_kib.max(look.usage.rss_peak_kib);
        self.files_max = self.files_max.max(look.usage.open_files);
        self.threads_max = self.threads_max.max(look.usage.threads);
        Ok(Moment {
            at: Instant::now(),
            rss_mib: mib(look.usage.rss_kib),
            cpu: look.usage.cpu,
            written_bytes: look.written_bytes,
            wire: network.agent_counters()?,
            scrape: look.scrape,
        })
    }

    pub(super) fn through(&mut self, name: &str, takes: Duration, rig: &Rig<'_>, network: &Direct) -> Result<Spell> {
        let began = Instant::now();
        let mut spell = Spell::default();
        let mut recent: VecDeque<Moment> = VecDeque::new();
        loop {
            let now = self.look(rig, network)?;
            spell.rss_max_mib = spell.rss_max_mib.max(now.rss_mib);
            while recent.front().is_some_and(|first| now.at - first.at > BURST) {
                if let Some(first) = recent.pop_front() {
                    spell.inbound_mbit_max = spell.inbound_mbit_max.max(first.mbit_to(&now).0);
                }
            }
            self.show(name, Some(&now));
            recent.push_back(now);
            let left = takes.saturating_sub(began.elapsed());
            if left.is_zero() {
                return Ok(spell);
            }
            std::thread::sleep(left.min(EVERY));
        }
    }

    /// While the collector cannot be asked.
    pub(super) fn wait(&mut self, name: &str, takes: Duration) {
        let began = Instant::now();
        while let Some(left) = takes.checked_sub(began.elapsed()).filter(|left| !left.is_zero()) {
            self.show(name, None);
            std::thread::sleep(left.min(EVERY));
        }
    }

    pub(super) fn say(&self, what: &str) {
        print_line(&format!("{:6.0} s  {what}", self.began.elapsed().as_secs_f64()), true);
    }

    pub(super) fn rss_peak_mib(&self) -> f64 {
        mib(self.rss_peak_kib)
    }

    pub(super) fn most(&self) -> String {
        format!("{}, {}", self.files_max, self.threads_max)
    }

    pub(super) fn show(&mut self, name: &str, now: Option<&Moment>) {
        let is_terminal = std::io::stderr().is_terminal();
        if !is_terminal && self.printed.is_some_and(|printed| printed.elapsed() < LINE_EVERY) {
            return;
        }
        self.printed = Some(Instant::now());
        let (passed, all) = (self.began.elapsed(), self.plan.takes * 14 / 10);
        let full = usize::try_from(passed.as_millis() * BAR as u128 / all.as_millis().max(1)).unwrap_or(BAR).min(BAR);
        let bar: String = (0..BAR).map(|at| if at < full { '#' } else { '.' }).collect();
        let state = now.map_or_else(String::new, |now| {
            format!(
                "connected {}, {:.0} MiB, {} frames",
                now.scrape.sum("dunlin_connections", &[]),
                now.rss_mib,
                now.scrape.sum("dunlin_frames_committed_total", &[])
            )
        });
        print_line(&format!("{:6.0} s  [{bar}] {name:<16} {state}", passed.as_secs_f64()), !is_terminal);
    }
}

impl Moment {
    pub(super) fn seconds_to(&self, later: &Self) -> f64 {
        (later.at - self.at).as_secs_f64()
    }

    pub(super) fn grown(&self, before: &Self, counter: &str) -> f64 {
        self.scrape.sum(counter, &[]) - before.scrape.sum(counter, &[])
    }

    pub(super) fn cpu_since(&self, before: &Self) -> f64 {
        self.cpu.saturating_sub(before.cpu).as_secs_f64()
    }

    #[expect(clippy::cast_precision_loss, reason = "far below 2^53 bytes")]
    pub(super) fn written_since(&self, before: &Self) -> f64 {
        self.written_bytes.saturating_sub(before.written_bytes) as f64
    }

    /// To the collector, and from it: what the fleet's end of the wire counted.
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53 bytes")]
    pub(super) fn mbit_to(&self, later: &Self) -> (f64, f64) {
        let mbit = |bytes: u64| bytes as f64 * 8.0 / 1e6 / self.seconds_to(later).max(1e-3);
        let (now, then) = (&later.wire, &self.wire);
        (mbit(now.tx_bytes.saturating_sub(then.tx_bytes)), mbit(now.rx_bytes.saturating_sub(then.rx_bytes)))
    }

    /// Between these two moments, whichever is earlier.
    pub(super) fn inbound_mbit(&self, later: &Self) -> f64 {
        if self.seconds_to(later) < 1.0 { 0.0 } else { self.mbit_to(later).0 }
    }
}

#[expect(clippy::print_stderr, reason = "the progress of a tool that a person watches")]
fn print_line(line: &str, is_last: bool) {
    if is_last {
        eprintln!("{line}");
    } else {
        eprint!("\r{line:<100}");
        std::io::stderr().flush().ok();
    }
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^53 KiB")]
fn mib(kib: u64) -> f64 {
    kib as f64 / 1_024.0
}
