//! A node whose process groups all have other names at each tick.

use anyhow::{Context, Result};
use dunlin_collector::shape::Event;
use dunlin_shared::limits::SUBJECTS_MAX;
use dunlin_shared::metric::by_name;
use dunlin_shared::sample::{Sample, Subject, SubjectKind};

use super::ground::Ground;
use super::rogue::{self, Conduct};
use super::worker::Worker;
use crate::random::Random;

const SEED: u64 = 2_000;
const ROGUE: usize = 1;
/// As many as one node may have.
const NAMES: usize = SUBJECTS_MAX;

pub(super) fn start(ground: &Ground<'_>) -> Result<Worker> {
    let node = ground.rogues.get(ROGUE).context("a node to flood with")?;
    let agreed_ms = u64::try_from(ground.plan.interval.as_millis())?;
    let metric = by_name("process_count").context("a metric of the catalogue")?;
    let mut random = Random::new(SEED);
    let measure = Box::new(move |mono, wall| {
        let mut sample = Sample::new(mono, wall);
        for _ in 0..NAMES {
            let subject = Subject::new(SubjectKind::Process, &format!("{:016x}", random.next_u64()));
            if let Some(subject) = subject {
                sample.push(&subject, metric, 1.0);
            }
        }
        sample
    });
    rogue::start(ground, node, Conduct { name: "names", agreed_ms, tick_ms: agreed_ms, measure })
}

/// The node, and that values of it are left out.
pub(super) fn names(event: &Event, ground: &Ground<'_>) -> bool {
    let is_it = ground.rogues.get(ROGUE).is_some_and(|rogue| event.node.as_ref() == Some(&rogue.id.to_string()));
    is_it && event.kind == "node.names_refused"
}
