//! Which rules are in force: those that ship with the collector, those of its directory, and the sets that came by the API.
//!
//! They are taken whole or not at all: one mistake anywhere, and the rules that run go on. A rule of the same name as one
//! that ships takes its place; any other name that stands twice is a mistake.

mod book;
mod difference;
mod files;
mod in_force;
pub mod preview;
#[cfg(test)]
mod tests;

pub use book::{NamedSet, Origin, RuleBook, Sets, is_set_name};
pub(crate) use difference::duration;
pub use difference::{Changed, Difference, FieldChange};
pub use files::load;
pub use in_force::{NotTaken, Order, RulesInForce};

/// Beside the code, so that the collector and its documents ship the same.
pub const SHIPPED: (&str, &str) = ("standard.toml", include_str!("../../../packaging/rules/standard.toml"));
