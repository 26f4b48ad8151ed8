//! What is promised, in the units of the table.

pub(super) const RSS_MIB: f64 = 520.0;
pub(super) const RSS_PEAK_MIB: f64 = 700.0;
pub(super) const CORES: f64 = 0.5;
pub(super) const COMMITTED_MS: f64 = 200.0;
pub(super) const ALERT_MS: f64 = 1_000.0;
pub(super) const INBOUND_MBIT: f64 = 5.0;
pub(super) const READY_S: f64 = 10.0;
pub(super) const BACK_S: f64 = 60.0;
pub(super) const REQUESTS: f64 = 10_000.0;
pub(super) const ASKED_P95_MS: f64 = 100.0;
pub(super) const LOSS_S: f64 = 60.0;
/// From the death of an agent to the alert that it is down.
pub(super) const DOWN_S: (f64, f64) = (15.0, 35.0);
/// What the ends of a measurement may cut off.
pub(super) const SLACK: f64 = 0.99;
