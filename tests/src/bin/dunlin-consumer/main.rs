//! `dunlin-consumer`: follows the feed of a collector until somebody kills it.
//!
//! Only the command line: what it does is `dunlin_tests::consumer`.

use std::path::PathBuf;

use anyhow::Result;
use clap::Parser;
use dunlin_collector::api::socket_path;
use dunlin_collector::client::{Client, Target, Trust};
use dunlin_tests::consumer::{Consumer, Way};

#[derive(Debug, Parser)]
#[command(about = "Follows the feed of a collector on this host, and writes down what it used")]
struct Arguments {
    /// The collector's state directory
    #[arg(long)]
    state: PathBuf,
    /// Takes the cursor of each event
    #[arg(long)]
    used: PathBuf,
    /// Takes how far it is
    #[arg(long)]
    cursor: PathBuf,
    /// As server-sent events in place of long polls
    #[arg(long)]
    stream: bool,
}

fn main() -> Result<()> {
    let Arguments { state, used, cursor, stream } = Arguments::parse();
    let client = Client::new(Target::Unix(socket_path(&state)), None, &Trust::default())?;
    let way = if stream { Way::Stream } else { Way::LongPoll };
    Consumer { used, cursor }.follow(&client, way)
}
