//! A fleet of simulated agents in one process, and the oracle that knows what a collector must hold.
//!
//! The agents are the real session, spool, codec and uplink over real QUIC; only what they sample is
//! made up, as a pure function of seed, node, epoch and tick, so that every stored frame can be checked.

pub mod agent;
pub mod ask;
pub mod drill;
pub mod enrol;
pub mod history;
pub mod load;
pub mod numbering;
pub mod oracle;
pub mod prove;
pub mod record;
pub mod recording;
pub mod run;
mod stock;
pub mod unruly;
pub mod verify;
