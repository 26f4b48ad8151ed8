//! Prints `/openapi.json` as the code makes it, for `make docs`.

use std::io::Write;

fn main() -> std::io::Result<()> {
    std::io::stdout().write_all(dunlin_collector::api::openapi().as_bytes())
}
