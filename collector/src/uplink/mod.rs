//! Where agents connect: the only module that names QUIC.
//!
//! It authenticates peers, drives one session for each connection, hands frames to the writer, and
//! tells agents what was committed. It stores nothing and decides nothing about content.

pub mod admission;
pub mod conn;
pub mod listener;
pub mod mailbox;
pub mod tls;
