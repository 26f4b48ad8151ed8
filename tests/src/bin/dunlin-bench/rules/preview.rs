//! Rules over a day of a thousand nodes: how long a person waits for what they would have said.
//!
//! A day of so many nodes takes a quarter of an hour to make. A tenth of them is made, and each is asked for ten times:
//! every time it is found, decoded and judged anew.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Result, anyhow, ensure};
use dunlin_agent::clock::process_cpu;
use dunlin_collector::block::Measure;
use dunlin_collector::record::NodeKey;
use dunlin_collector::rules::preview::{Node, Question};
use dunlin_collector::stretch::Taken;
use dunlin_collector::trial::preview::Whose;
use dunlin_collector::window::{Asked, Window};
use dunlin_shared::rule::Rule;
use dunlin_shared::rule::file::parse;
use dunlin_shared::sample::Subject;
use dunlin_shared::time::WallMs;
use dunlin_tests::fleet::history::History;
use dunlin_tests::fleet::load::Load;
use dunlin_tests::pki::node_ids;
use dunlin_tests::scratch::Scratch;

use super::PART;
use crate::window::day::{HOUR_MS, fill};
use crate::window::{INTERVAL_MS, now};
use dunlin_tests::table::Table;

const PREVIEW_S: f64 = 5.0;
const SERIES: usize = 60;
const TIMES: usize = 10;
const RUNS: usize = 3;

pub(super) fn measure(table: &mut Table, short: bool) -> Result<()> {
    let (made, hours) = if short { (4, 2) } else { (100, 24) };
    let scratch = Scratch::new("preview")?;
    // Half an hour of it is not merged yet, and some minutes are not sealed.
    let until = WallMs(now().0.div_euclid(HOUR_MS) * HOUR_MS - HOUR_MS / 2);
    let ticks = u64::try_from(hours * HOUR_MS)? / INTERVAL_MS;
    let load = Load::made_up(1, SERIES);
    fill(scratch.path(), &History { nodes: made, ticks, interval_ms: INTERVAL_MS, until, load, ahead_ms: vec![] })?;
    let window = Window::new(scratch.join("window"), Arc::default());
    let nodes: Vec<Node> = node_ids(made, 1).into_iter().zip(0..).map(|(id, key)| node(id, key)).collect();
    let nodes: Vec<Node> = nodes.iter().cycle().take(made * TIMES).cloned().collect();
    let (from, to) = (until.plus(-hours * HOUR_MS), until);
    for node in &nodes[..made] {
        let rows = rows(&window, node, (from, to))?;
        ensure!(rows > ticks * 9 / 10, "{rows} frames of {ticks} ticks were found");
    }
    for (what, when, most) in [
        ("a threshold", "host_memory_used_ratio > 90%", Some(PREVIEW_S)),
        ("a mean of ten minutes", "avg(host_load1, 10m) > 4", None),
        ("each file system", "fs_used_ratio > 90%", None),
    ] {
        let rules = rule(when)?;
        let question = Question { rules: &rules, nodes: &nodes, from, to };
        let (mut times, before) = (Vec::new(), process_cpu());
        for _ in 0..RUNS {
            let began = Instant::now();
            let found = question.answer(&window, &|| false)?;
            times.push(began.elapsed().as_secs_f64());
            ensure!(found.counts.len() == 1, "one rule was asked for");
        }
        let cpu_s = (process_cpu() - before).as_secs_f64() / f64::from(u32::try_from(RUNS)?);
        times.sort_unstable_by(f64::total_cmp);
        let what = format!("preview, {} nodes, {hours} h, {what}: median", nodes.len());
        match most {
            Some(most) => table.promise(PART, &what, times[RUNS / 2], most, "s"),
            None => table.note(PART, what, format!("{:.1} s", times[RUNS / 2])),
        }
        table.note(PART, "of processors, of both threads", format!("{cpu_s:.1} s"));
    }
    Ok(())
}

fn rows(window: &Window, node: &Node, (from, to): (WallMs, WallMs)) -> Result<u64> {
    let none = |_: &Subject, _: &Measure| false;
    let taken = Taken { wanted: &none, skew_ms: 0, values_max: usize::MAX };
    let asked = Asked { node: node.key, from, to, taken, frames_max: usize::MAX };
    Ok(window.stretches(&asked)?.iter().map(|stretch| stretch.rows.len() as u64).sum())
}

fn node(id: dunlin_shared::id::NodeId, key: u32) -> Node {
    let whose = Whose { id, labels: Arc::default(), interval_ms: u32::try_from(INTERVAL_MS).unwrap_or(u32::MAX) };
    Node { key: NodeKey(key), skew_ms: 0, whose }
}

fn rule(when: &str) -> Result<Vec<Arc<Rule>>> {
    let text = format!("[[rule]]\nname = \"a\"\nwhen = '{when}'\nfor = \"5m\"\nsummary = \"s\"\n");
    let rules = parse("bench.toml", &text).map_err(|errors| anyhow!("{errors:?}"))?;
    Ok(rules.into_iter().map(Arc::new).collect())
}
