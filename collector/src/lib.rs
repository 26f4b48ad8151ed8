//! The collector: takes frames from agents, journals them, and derives what is going on.
//!
//! Data flows one way: uplink, ingest, store, pipeline, engine. The one arrow back is the
//! acknowledgement, and it is sent only after the commit.

pub mod access;
pub mod api;
pub mod app;
pub mod authority;
pub mod backup;
pub mod block;
pub mod board;
pub mod bundle;
pub mod check;
pub mod client;
pub mod clock;
pub mod config;
pub mod engine;
pub mod export;
pub mod gate;
pub mod health;
pub mod import;
pub mod ingest;
pub mod lately;
pub mod notify;
mod offences;
pub mod orders;
pub mod pipeline;
pub mod points;
pub mod policy;
pub mod record;
pub mod recover;
pub mod registry;
pub mod rollup;
pub mod rules;
pub mod shape;
pub mod stats;
pub mod stock;
pub mod store;
pub mod stretch;
pub mod trial;
pub mod tuning;
pub mod uplink;
pub mod view;
pub mod web;
pub mod window;
pub mod writer;
