//! `dunlin-fleet`: a fleet of simulated agents, and what must hold of the collector that serves it.

use std::path::Path;

fn main() -> anyhow::Result<()> {
    let fleet = dunlin_tests::pki::Fleet::generate(2, 1)?;
    fleet.write_collector(Path::new("/tmp/smoke/c"))?;
    fleet.write_agent(0, Path::new("/tmp/smoke/a"))?;
    Ok(())
}
