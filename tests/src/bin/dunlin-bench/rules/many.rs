//! Ten thousand rules: how long they take to be loaded and to come into force, and what they add to a frame.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Result, anyhow, ensure};
use dunlin_shared::limits::RULES_MAX;
use dunlin_shared::rule::Rule;
use dunlin_shared::rule::set::RuleSet;

use super::judged::{Stream, Timed};
use super::{FLEET, Labels, PART};
use crate::window::float;
use dunlin_tests::table::Table;

const LOADED_S_MAX: f64 = 2.0;
/// Of those that are on every node: each of them has a place for every rule.
const FEW: usize = 50;

pub(super) fn measure(table: &mut Table, short: bool) -> Result<()> {
    let nodes = if short { 200 } else { FLEET };
    let began = Instant::now();
    let apart = load(true)?;
    let took = began.elapsed().as_secs_f64();
    table.promise(PART, &format!("{RULES_MAX} rules read and checked"), took, LOADED_S_MAX, "s");
    in_force(table, "of one node each", (nodes, nodes), apart)?;
    in_force(table, "of every node", (FEW, FEW), load(false)?)
}

/// What a frame costs with them, and what it cost before.
fn in_force(table: &mut Table, whose: &str, (nodes, racks): (usize, usize), rules: Vec<Arc<Rule>>) -> Result<()> {
    let mut stream = Stream::start(nodes)?;
    let (mut bare, mut ruled) = (Timed::default(), Timed::default());
    for timed in [&mut bare, &mut ruled] {
        stream.introduce(timed, |node| Labels::new([("rack".to_owned(), format!("r{}", node % racks))].into()));
        stream.play(&mut [timed])?;
    }
    let took = ruled.set_rules(rules)?;
    stream.play(&mut [&mut bare, &mut ruled])?;
    (bare.took_ns, ruled.took_ns) = (0, 0);
    // Long enough that layouts change.
    for _ in 0..5 {
        stream.play(&mut [&mut bare, &mut ruled])?;
    }
    let each = |timed: &Timed| float(timed.took_ns) / 1e3 / float(5 * nodes as u64);
    let what = format!("{RULES_MAX} rules {whose} come into force, {nodes} nodes");
    table.note(PART, what, format!("{:.2} s", took.as_secs_f64()));
    let what = format!("a frame with {RULES_MAX} rules {whose}, and without");
    table.note(PART, what, format!("{:.2} us, {:.2} us", each(&ruled), each(&bare)));
    Ok(())
}

/// Of all kinds, as an operator's files.
fn load(is_apart: bool) -> Result<Vec<Arc<Rule>>> {
    let mut text = String::new();
    for n in 0..RULES_MAX {
        let when = match n % 5 {
            0 => format!("host_memory_used_ratio > {}%", 90 + n % 10),
            1 => format!("rate(net_received_bytes, 5m) > {}MB/s", 1 + n % 90),
            2 => format!("fs_used_ratio > 90% and fs_available_bytes < {}GiB", 1 + n % 90),
            3 => String::from("node_state == down"),
            _ => String::from("container_memory_used_ratio > 95%"),
        };
        let on = if is_apart { format!("where = {{ rack = \"r{n}\" }}\n") } else { String::new() };
        let for_s = n % 600;
        write!(
            text,
            "[[rule]]\nname = \"rule-{n}\"\nwhen = '{when}'\nfor = \"{for_s}s\"\n{on}\
             summary = \"{{node}} is at {{value}}\"\n\n"
        )?;
    }
    let set = RuleSet::of(&[], &[(String::from("rules.toml"), text)]);
    let set = set.map_err(|errors| anyhow!("{}", errors.first().map(ToString::to_string).unwrap_or_default()))?;
    ensure!(set.rules().len() == RULES_MAX, "{} rules are read", set.rules().len());
    Ok(set.rules().iter().cloned().map(Arc::new).collect())
}
