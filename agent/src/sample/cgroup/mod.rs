//! Control groups: whose a process is, and what a group uses.

mod owner;

pub(super) use owner::{Owner, owner_of};
