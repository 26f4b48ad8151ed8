//! Placeholder.
pub mod resolve;
