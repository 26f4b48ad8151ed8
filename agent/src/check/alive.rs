//! `dunlin-agent check --alive`: whether the service lives, for the health check of a container. It connects nowhere.
//!
//! A collector that is away makes no agent ill: whoever replaced it then would throw away what it keeps for that
//! collector. A loop that hangs ends its process (`watchdog`), so a process that is there is one that works.

use std::path::Path;

use crate::sight::{Kind, Sight, file};

/// Whether it lives, and one line that says how it is.
#[must_use]
pub fn alive(state_dir: &Path) -> (bool, String) {
    let sight = file::read(state_dir).ok().flatten();
    let Some(process) = file::holder(state_dir) else {
        return (false, format!("no agent runs on {}", state_dir.display()));
    };
    if name_of(&process.to_string()) != name_of("self") {
        return (false, format!("the agent of {} has ended; its number is another process' now", state_dir.display()));
    }
    // The report of an agent that ran before it in its place is not its own.
    let told = sight.filter(|sight| sight.own.process == process && sight.own.lives());
    (true, format!("alive as process {process}; {}", told.map_or_else(|| String::from("it has just started"), uplink)))
}

/// The service is the same program as this command.
fn name_of(process: &str) -> Option<String> {
    std::fs::read_to_string(Path::new("/proc").join(process).join("comm")).ok()
}

/// What the service said last of its way to a collector.
fn uplink(sight: Sight) -> String {
    let uplink = sight.sources.into_iter().find(|one| one.kind == Kind::Uplink);
    uplink.map_or_else(|| String::from("it has not reached a collector yet"), |one| one.says.to_string())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::state::StateLock;
    use crate::state::tests::Dir;

    #[test]
    fn only_an_agent_that_runs_is_alive() {
        let dir = Dir::new();
        assert!(!alive(&dir.0).0);
        let lock = StateLock::take(&dir.0).expect("nobody is there");
        let (lives, said) = alive(&dir.0);
        assert!(lives && said.contains("it has just started"), "{said}");
        drop(lock);
        // No process has a number so high.
        fs::write(dir.0.join("lock"), "4194999\n").expect("it is writable");
        assert_eq!(alive(&dir.0), (false, format!("no agent runs on {}", dir.0.display())));
        fs::write(dir.0.join("lock"), "1\n").expect("it is writable");
        assert!(!alive(&dir.0).0, "the first process is another program");
    }
}
