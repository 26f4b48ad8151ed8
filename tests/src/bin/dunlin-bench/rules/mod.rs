//! What rules cost: judged on the frames of a whole fleet, told while many fire at once, and loaded by the thousand.

mod judged;
mod many;
mod peer;
mod preview;
mod told;

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context as _, Result, anyhow, ensure};
use dunlin_collector::rules::SHIPPED;
use dunlin_shared::rule::Rule;
use dunlin_shared::rule::file::parse;

use dunlin_tests::table::Table;

const PART: &str = "rules";
const SERIES: usize = 150;
/// The promises are on so many, of all kinds.
const RULES: usize = 20;
const FLEET: usize = 10_000;

type Labels = Arc<BTreeMap<String, String>>;

pub(crate) fn measure(table: &mut Table, short: bool) -> Result<()> {
    let judged = judged::measure(table, short)?;
    many::measure(table, short)?;
    told::measure(table, short)?;
    preview::measure(table, short).context("a preview of a day")?;
    peer::measure(table, judged, short)
}

/// The first of those that ship: ratios, rates, sums over time, absence, states, file systems and interfaces.
fn standard() -> Result<Vec<Arc<Rule>>> {
    let (file, text) = SHIPPED;
    let rules = parse(file, text).map_err(|errors| anyhow!("{errors:?}"))?;
    let first: Vec<Arc<Rule>> = rules.into_iter().take(RULES).map(Arc::new).collect();
    ensure!(first.len() == RULES, "{} rules ship", first.len());
    Ok(first)
}
