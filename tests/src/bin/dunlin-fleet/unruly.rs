//! How much of a fleet behaves badly, on the command line.

use clap::Args;
use dunlin_tests::fleet::unruly::{Share, Unruly};

#[derive(Debug, Args)]
pub(crate) struct UnrulyArguments {
    /// So many nodes close their connection every few ticks and make another one
    #[arg(long, value_name = "SHARE", default_value = "0%")]
    reconnecting: Share,
    /// So many read what the collector says by a few bytes at a time
    #[arg(long, value_name = "SHARE", default_value = "0%")]
    reading_slowly: Share,
    /// So many have a wall clock that is off by seconds to an hour, or is moved by as much while they run
    #[arg(long, value_name = "SHARE", default_value = "0%")]
    wrong_clock: Share,
    /// So many have a clone: another machine that says to be the same node at the same time
    #[arg(long, value_name = "SHARE", default_value = "0%")]
    cloned: Share,
}

impl UnrulyArguments {
    pub(crate) const fn unruly(&self) -> Unruly {
        let &Self { reconnecting, reading_slowly, wrong_clock, cloned } = self;
        Unruly { reconnecting, reading_slowly, wrong_clock, cloned }
    }
}
