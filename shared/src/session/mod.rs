//! The session protocol, without I/O and without a clock: what each end says when.
//!
//! `handle` takes what happened and the time, `poll_transmit` gives what to send, `poll_timeout` the
//! next time to call with nothing but the time, `poll_notice` what the owner must do. A session
//! knows the numbers of frames, never their bytes.
//!
//! The invariant of both ends together: a frame leaves the agent's spool only after the collector
//! said that it is committed, and it is said only after the commit.

pub mod agent;
pub mod collector;
pub mod pace;
#[cfg(test)]
mod tests;

pub use agent::AgentSession;
pub use collector::CollectorSession;
