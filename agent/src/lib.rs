//! The agent: samples its host, keeps every frame until a collector has it on disk, and streams.

pub mod epoch;
pub mod spool;
