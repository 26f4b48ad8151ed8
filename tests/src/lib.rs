//! The test rig: what a test needs around the real programs, and the fleet that plays their agents.
//!
//! Nothing here ever addresses a network but loopback and namespaces that the rig itself made.
//! What is missing on a machine is an error that names the package; nothing is skipped.

pub mod consumer;
pub mod deadline;
pub mod disk;
pub mod engines;
pub mod firewall;
pub mod fleet;
pub mod flood;
pub mod guest;
pub mod host;
pub mod http;
pub mod join;
pub mod machine;
pub mod netns;
pub mod package;
pub mod pki;
pub mod process;
pub mod proxy;
pub mod quota;
pub mod random;
pub mod rig;
pub mod scrape;
pub mod scratch;
pub mod site;
pub mod strace;
pub mod table;
pub mod tool;
pub mod topology;
pub mod weather;
pub mod window;
