//! The agent on its host: what it says of it, its commands, and what it may do: read, send, and write its state directory.

mod commands;
mod confined;
mod facts;
mod host;
mod hung;
mod ports;
mod processes;
mod sight;
mod stop;
mod wedged;

use std::path::PathBuf;
use std::time::Duration;

use dunlin_tests::site::QUIC_PORT;

/// Far above what any step takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

fn loopback() -> String {
    format!("127.0.0.1:{QUIC_PORT}")
}

/// The agent of this test's own build.
fn agent_binary() -> PathBuf {
    let own = std::env::current_exe().expect("a test has a path");
    let path = own.ancestors().nth(2).expect("cargo keeps tests in PROFILE/deps").join("dunlin-agent");
    assert!(path.is_file(), "{} is not built; run: cargo build -p dunlin-agent", path.display());
    path
}
