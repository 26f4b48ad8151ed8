//! The collector: takes frames from agents, journals them, and derives what is going on.
//!
//! Data flows one way: uplink, ingest, store, pipeline, engine. The one arrow back is the
//! acknowledgement, and it is sent only after the commit.

pub mod engine;
pub mod ingest;
pub mod record;
pub mod store;
