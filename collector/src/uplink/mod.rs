//! Where agents connect: the only module that names QUIC.
//!
//! It authenticates peers, drives one session for each connection, hands frames to the writer, and
//! tells agents what was committed. It stores nothing and decides nothing about content.

pub mod admission;
pub mod driver;
mod lanes;
pub mod listener;
pub mod mailbox;
mod peer;
pub mod shared;
mod socket;
mod talk;
mod timers;
pub mod tls;
