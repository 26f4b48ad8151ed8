//! What agent and collector must agree on: names, ids, limits, encodings and the session protocol.
//!
//! This crate is pure. It never reads a clock, opens a file or a socket, or awaits; time and
//! randomness come in as arguments, so every decision here can be replayed.

pub mod backoff;
pub mod bundle;
pub mod codec;
pub mod config;
pub mod frame;
pub mod id;
pub mod inventory;
pub mod limits;
pub mod metric;
pub mod range;
pub mod repeat;
pub mod rule;
pub mod sample;
pub mod session;
pub mod time;
pub mod token;
pub mod varint;
pub mod wire;
