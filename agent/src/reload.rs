//! A configuration that was read again: what of it is taken over while the agent runs, and what waits for a start.
//!
//! It is taken whole or not at all; what cannot change now keeps its value and is named.

use crate::config::{Collect, Config};

/// What is in force from now on, and the keys that wait for the next start.
#[derive(Debug, PartialEq, Eq)]
pub struct TakenOver {
    pub config: Config,
    pub waiting: Vec<&'static str>,
}

/// The directory is locked and its spool open; the rest is asked for anew whenever it is needed.
#[must_use]
pub fn take_over(running: &Config, read: Config) -> TakenOver {
    let mut waiting = Vec::new();
    let mut keep = |key, is_same: bool| {
        if !is_same {
            waiting.push(key);
        }
    };
    keep("state_dir", running.state_dir == read.state_dir);
    keep("spool.ram", running.spool_ram_bytes == read.spool_ram_bytes);
    keep("spool.disk", running.spool_disk_bytes == read.spool_disk_bytes);
    keep("watch", running.collect.watch == read.collect.watch);
    keep("collect", Collect { watch: running.collect.watch.clone(), ..read.collect.clone() } == running.collect);
    let config = Config {
        state_dir: running.state_dir.clone(),
        spool_ram_bytes: running.spool_ram_bytes,
        spool_disk_bytes: running.spool_disk_bytes,
        collect: running.collect.clone(),
        ..read
    };
    TakenOver { config, waiting }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        Config::load(Some(("agent.toml", text.as_bytes())), &[], &[]).expect("it is whole")
    }

    #[test]
    fn what_can_change_does_and_what_cannot_is_named_and_kept() {
        let running = config("collectors = ['a']");
        let read = config(
            "collectors = ['b']\nname = 'n'\ninterval = '5s'\nlabels = { env = 'x' }\njoin_token_file = '/t'\n\
             state_dir = '/elsewhere'\nwatch = ['sshd']\n[spool]\nram = '1MiB'\ndisk = '1GiB'\n[collect]\nports = false\n",
        );
        let TakenOver { config, waiting } = take_over(&running, read.clone());
        assert_eq!(waiting, ["state_dir", "spool.ram", "spool.disk", "watch", "collect"]);
        let kept = Config {
            state_dir: running.state_dir.clone(),
            spool_ram_bytes: running.spool_ram_bytes,
            spool_disk_bytes: running.spool_disk_bytes,
            collect: running.collect.clone(),
            ..read
        };
        assert_eq!(config, kept);
        assert_eq!(take_over(&config, config.clone()), TakenOver { config: config.clone(), waiting: Vec::new() });
    }
}
