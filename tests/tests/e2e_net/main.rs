//! The real programs over a network that fails: what is sampled arrives once, or is said to be lost.
//!
//! Each test has namespaces of its own and waits on states with deadlines.

mod blocked;
mod choice;
mod outage;
mod overflow;
mod path;
mod restart;

use std::time::Duration;

/// Far above what any step takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);
