//! Follows a collector's feed as a program would, and writes down when it heard what, and of whom.
//!
//! It lives through restarts of the collector: what it has not heard then, it hears afterwards.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use dunlin_agent::clock::Clock;
use dunlin_collector::client::{Client, escaped};
use dunlin_collector::shape::{Event, Feed};
use dunlin_shared::time::WallMs;

use super::unruly;
use crate::fleet::drill;

/// How long an answer is waited for; also how long the end takes.
const WAIT: Duration = Duration::from_secs(2);
/// Before a collector that is away is asked again.
const AGAIN: Duration = Duration::from_millis(200);

#[derive(Debug)]
pub(super) struct Follower {
    heard: Arc<Mutex<Heard>>,
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<Result<()>>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Heard {
    /// By kind.
    pub(super) kinds: BTreeMap<String, u64>,
    /// By rule, what fired.
    pub(super) rules: BTreeMap<String, u64>,
    pub(super) drills: Vec<Drilled>,
    /// In the order in which it was heard.
    pub(super) told: Vec<Told>,
    /// The nodes of each mass loss, with those that it grew by.
    pub(super) losses: Vec<Vec<String>>,
}

/// What may be told of a node that is not well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum What {
    Down,
    /// The alert, which others are told of.
    DownAlert,
    Stopped,
    Quarantined,
    Skewed,
}

/// What was told of which node.
#[derive(Clone, Debug)]
pub(super) struct Told {
    pub(super) what: What,
    pub(super) node: String,
    pub(super) heard: WallMs,
}

/// A node that crossed the drill's rule.
#[derive(Clone, Copy, Debug)]
pub(super) struct Drilled {
    /// Milliseconds of the fleet's own clock.
    pub(super) sampled_ms: f64,
    pub(super) heard: WallMs,
}

impl Heard {
    pub(super) fn of(&self, kind: &str) -> u64 {
        self.kinds.get(kind).copied().unwrap_or(0)
    }

    /// Of each node how often that was told, from that many on.
    pub(super) fn told_since(&self, from: usize, what: What) -> BTreeMap<&str, usize> {
        let mut nodes = BTreeMap::new();
        for told in self.told.iter().skip(from).filter(|told| told.what == what) {
            *nodes.entry(&*told.node).or_default() += 1;
        }
        nodes
    }

    fn take(&mut self, event: &Event, heard: WallMs) {
        *self.kinds.entry(event.kind.clone()).or_default() += 1;
        self.note(event, heard);
        if event.kind != "alert.firing" {
            return;
        }
        let Some(alert) = event.more.get("alert") else { return };
        let rule = alert["rule"].as_str().unwrap_or_default();
        *self.rules.entry(rule.to_owned()).or_default() += 1;
        if let Some(sampled_ms) = alert["value"].as_f64().filter(|_| rule == drill::RULE) {
            self.drills.push(Drilled { sampled_ms, heard });
        }
    }

    fn note(&mut self, event: &Event, heard: WallMs) {
        let rule = event.more.get("alert").and_then(|alert| alert["rule"].as_str());
        let what = match (event.kind.as_str(), rule) {
            ("node.down", _) => What::Down,
            ("node.stopped", _) => What::Stopped,
            ("node.quarantined", _) => What::Quarantined,
            ("alert.firing", Some("node-down")) => What::DownAlert,
            ("alert.firing", Some(unruly::SKEW_RULE | "clock-skew")) => What::Skewed,
            ("mass.loss", _) => return self.losses.push(listed(event)),
            ("mass.grew", _) => {
                if let Some(loss) = self.losses.last_mut() {
                    loss.extend(listed(event));
                }
                return;
            }
            _ => return,
        };
        if let Some(node) = event.node.clone() {
            self.told.push(Told { what, node, heard });
        }
    }
}

fn listed(event: &Event) -> Vec<String> {
    let nodes = event.more.get("nodes").and_then(|nodes| nodes.as_array());
    nodes.into_iter().flatten().filter_map(|node| Some(node.as_str()?.to_owned())).collect()
}

impl Follower {
    pub(super) fn start(client: Client) -> Result<Self> {
        let (heard, is_over) = (Arc::default(), Arc::<AtomicBool>::default());
        let (own, over) = (Arc::clone(&heard), Arc::clone(&is_over));
        let thread =
            std::thread::Builder::new().name(String::from("feed")).spawn(move || follow(&client, &own, &over))?;
        Ok(Self { heard, is_over, thread })
    }

    /// So far.
    pub(super) fn heard(&self) -> Heard {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn finish(self) -> Result<Heard> {
        self.is_over.store(true, Relaxed);
        self.thread.join().map_err(|_| anyhow!("who follows the feed panicked"))?.context("following the feed")?;
        Ok(self.heard.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

fn follow(client: &Client, heard: &Mutex<Heard>, is_over: &AtomicBool) -> Result<()> {
    let clock = Clock::start();
    let mut after = None::<String>;
    while !is_over.load(Relaxed) {
        let cursor = after.as_deref().map_or_else(String::new, |after| format!("&after={}", escaped(after)));
        let path = format!("/api/v1/events?limit=1000&wait={}s{cursor}", WAIT.as_secs());
        // A collector that is killed in the middle is asked again; what is refused is an error of ours and stays one.
        let feed: Feed = match client.wait_for(&path, WAIT) {
            Ok(feed) => feed,
            Err(error) if error.is_refusal() => return Err(error.into()),
            Err(_) => {
                std::thread::sleep(AGAIN);
                continue;
            }
        };
        let now = clock.wall();
        let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
        for event in &feed.items {
            heard.take(event, now);
        }
        after = Some(feed.next);
    }
    Ok(())
}
