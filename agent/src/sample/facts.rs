//! What the host is: its name, kernel, size and boot. Sent when an epoch begins, and again when any of it changes.
//!
//! What cannot be read is left empty: facts explain, they decide nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use dunlin_shared::inventory::Facts;
use dunlin_shared::limits::{FACT_BYTES_MAX, HOST_NAME_BYTES_MAX};
use dunlin_shared::time::MonoMs;

use super::source::Source;

/// Six small files, below 0.1 ms.
const LOOK_EVERY_MS: u64 = 10_000;

/// Looks at the facts from time to time.
#[derive(Debug)]
pub struct Watch {
    root: PathBuf,
    looked: MonoMs,
}

impl Watch {
    /// They were looked at now.
    #[must_use]
    pub fn new(root: &Path, now: MonoMs) -> Self {
        Self { root: root.to_owned(), looked: now }
    }

    /// The facts as they are, without labels; `None` until it is time to look again.
    pub fn look(&mut self, now: MonoMs) -> Option<Facts> {
        if now.since(self.looked) < LOOK_EVERY_MS {
            return None;
        }
        self.looked = now;
        Some(facts(&self.root))
    }
}

#[must_use]
pub fn facts(root: &Path) -> Facts {
    let mut source = Source::new(root);
    let mut line = |name: &str, max: usize| cut(&source.line(name).unwrap_or_default(), max);
    let (host_name, kernel) =
        (line("proc/sys/kernel/hostname", HOST_NAME_BYTES_MAX), line("proc/sys/kernel/osrelease", FACT_BYTES_MAX));
    let boot = line("proc/sys/kernel/random/boot_id", FACT_BYTES_MAX);
    let memory = line("proc/meminfo", FACT_BYTES_MAX);
    let total_kib = memory.strip_prefix("MemTotal:").and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    Facts {
        host_name,
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        os: os(&mut source),
        kernel,
        architecture: std::env::consts::ARCH.to_owned(),
        cpus: cpus(&mut source),
        memory_bytes: total_kib.map_or(0, |kib: u64| kib.saturating_mul(1024)),
        boot_id: boot_id(&boot),
        labels: BTreeMap::new(),
    }
}

fn os(source: &mut Source) -> String {
    let Ok(text) = source.read("etc/os-release") else { return String::new() };
    let text = text.lossy();
    let name = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    cut(name.unwrap_or_default().trim_matches('"'), FACT_BYTES_MAX)
}

/// From a list such as `0-3,6`; `/proc/stat`, which costs far more to read, only where there is none.
fn cpus(source: &mut Source) -> u16 {
    let online = source.line("sys/devices/system/cpu/online").and_then(|list| listed(&list));
    online.unwrap_or_else(|| {
        let Ok(text) = source.read("proc/stat") else { return 0 };
        let text = text.lossy();
        let numbered =
            |line: &&str| line.strip_prefix("cpu").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
        u16::try_from(text.lines().filter(numbered).count()).unwrap_or(u16::MAX)
    })
}

fn listed(list: &str) -> Option<u16> {
    list.split(',').try_fold(0_u16, |sum, range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (u16, u16) = (first.parse().ok()?, last.parse().ok()?);
        sum.checked_add(last.checked_sub(first)?.checked_add(1)?)
    })
}

fn boot_id(text: &str) -> [u8; 16] {
    text.parse::<dunlin_shared::id::NodeId>().map_or([0; 16], |uuid| *uuid.bytes())
}

fn cut(text: &str, max: usize) -> String {
    text[..text.floor_char_boundary(max)].to_owned()
}

#[cfg(test)]
mod tests {
    use dunlin_shared::inventory::Inventory;

    use super::*;
    use crate::sample::tree::Tree;

    #[test]
    fn this_host_has_a_kernel_a_processor_and_memory() {
        let facts = facts(Path::new("/"));
        assert!(!facts.kernel.is_empty() && facts.cpus > 0 && facts.memory_bytes > 0, "{facts:?}");
        assert_ne!(facts.boot_id, [0; 16]);
        let inventory = Inventory::Facts(facts);
        assert_eq!(Inventory::decode(&inventory.encode()), Ok(inventory));
    }

    #[test]
    fn processors_are_counted_from_the_list_of_those_online() {
        for (list, count) in [("0", 1), ("0-255", 256), ("0-3,6,8-9", 7)] {
            let tree = Tree::new(&[("sys/devices/system/cpu/online", list), ("proc/stat", "cpu0 1\n")]);
            assert_eq!(facts(tree.path()).cpus, count, "{list}");
        }
        for list in ["", "3-1", "0-65535,1", "a-b"] {
            let tree = Tree::new(&[("sys/devices/system/cpu/online", list), ("proc/stat", "cpu 1\ncpu0 1\ncpu1 1\n")]);
            assert_eq!(facts(tree.path()).cpus, 2, "{list}");
        }
    }

    #[test]
    fn a_host_that_is_renamed_or_resized_is_seen_at_the_next_look() {
        let tree = Tree::new(&[("proc/sys/kernel/hostname", "old\n"), ("proc/meminfo", "MemTotal: 8 kB\n")]);
        let mut watch = Watch::new(tree.path(), MonoMs(0));
        tree.set("proc/sys/kernel/hostname", "new\n");
        tree.set("proc/meminfo", "MemTotal: 16 kB\n");
        assert_eq!(watch.look(MonoMs(LOOK_EVERY_MS - 1)), None, "it is not time to look");
        let seen = watch.look(MonoMs(LOOK_EVERY_MS)).expect("it is time");
        assert_eq!((seen.host_name.as_str(), seen.memory_bytes), ("new", 16_384));
        assert_eq!(watch.look(MonoMs(LOOK_EVERY_MS + 1)), None, "it was looked at");
    }

    #[test]
    fn a_root_without_anything_gives_empty_facts() {
        let facts = facts(Path::new("/nonexistent"));
        assert_eq!((facts.kernel.as_str(), facts.cpus, facts.boot_id), ("", 0, [0; 16]));
    }
}
