//! What the agent may do to its host: nothing but to read it, send, and write its state directory.

mod confined;
mod stop;

use std::time::Duration;

use dunlin_tests::site::QUIC_PORT;

/// Far above what any step takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

fn loopback() -> String {
    format!("127.0.0.1:{QUIC_PORT}")
}
