//! Peers that mean harm: each is closed with a code and counted, and an honest agent beside them notices nothing.
//!
//! Every scene ends with the same check: the honest agent's frames are there, its connection is the one it began
//! with, and the collector has grown by less than 64 MiB.

mod certificates;
mod floods;
mod impostor;
mod peer;
mod slow;
mod words;
