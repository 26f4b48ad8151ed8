//! Where agents connect: the only module that names QUIC.
//!
//! It authenticates peers, drives one session for each connection, hands frames to the writer, and
//! tells agents what was committed. Who enrols is heard, and answered as the registry says. It stores
//! nothing and decides nothing about content.

pub mod admission;
mod claims;
mod desk;
mod doorstep;
pub mod driver;
mod guesses;
mod inbox;
mod join;
pub mod keys;
mod lanes;
pub mod listener;
pub mod mailbox;
mod peer;
mod renewal;
#[cfg(test)]
mod scene;
pub mod shared;
mod socket;
mod strain;
mod talk;
mod timers;
pub mod tls;
