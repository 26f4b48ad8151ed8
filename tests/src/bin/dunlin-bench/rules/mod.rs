//! What rules cost.

mod preview;

use anyhow::{Context as _, Result};

use crate::table::Table;

const PART: &str = "rules";

pub(crate) fn measure(table: &mut Table, short: bool) -> Result<()> {
    preview::measure(table, short).context("a preview of a day")
}
