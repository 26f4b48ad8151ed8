//! The agent: samples a host, keeps what it sampled until a collector has it on disk, and sends it.
//!
//! Data flows one way: sample, encode, spool, uplink. The agent executes nothing, listens nowhere,
//! and writes nothing outside its state directory.

pub mod app;
pub mod chain;
pub mod check;
pub mod clock;
pub mod config;
pub mod enrol;
pub mod epoch;
pub mod goodbyes;
pub mod identity;
mod json;
pub mod line;
pub mod notify;
pub mod once;
pub mod reload;
pub mod resolve;
pub mod sample;
pub mod seal;
pub mod sight;
pub mod spool;
pub mod state;
pub mod stats;
pub mod told;
pub mod uplink;
pub mod watchdog;
