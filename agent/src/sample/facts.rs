//! What the host is: its name, kernel, size and boot. Sent when an epoch begins.
//!
//! What cannot be read is left empty: facts explain, they decide nothing.

use std::path::Path;

use dunlin_shared::inventory::Facts;
use dunlin_shared::limits::{FACT_BYTES_MAX, HOST_NAME_BYTES_MAX};

use super::read;

#[must_use]
pub fn facts(root: &Path) -> Facts {
    let line = |name: &str, max: usize| {
        let text = read(root, name).map(|(_, text)| text).unwrap_or_default();
        cut(text.lines().next().unwrap_or_default().trim(), max)
    };
    let memory = read(root, "proc/meminfo").map(|(_, text)| text).unwrap_or_default();
    let total_kib = memory.strip_prefix("MemTotal:").and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    Facts {
        host_name: line("proc/sys/kernel/hostname", HOST_NAME_BYTES_MAX),
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        os: os(root),
        kernel: line("proc/sys/kernel/osrelease", FACT_BYTES_MAX),
        architecture: std::env::consts::ARCH.to_owned(),
        cpus: cpus(root),
        memory_bytes: total_kib.map_or(0, |kib: u64| kib.saturating_mul(1024)),
        boot_id: boot_id(&line("proc/sys/kernel/random/boot_id", FACT_BYTES_MAX)),
        labels: std::collections::BTreeMap::new(),
    }
}

fn os(root: &Path) -> String {
    let text = read(root, "etc/os-release").map(|(_, text)| text).unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    cut(name.unwrap_or_default().trim_matches('"'), FACT_BYTES_MAX)
}

fn cpus(root: &Path) -> u16 {
    let text = read(root, "proc/stat").map(|(_, text)| text).unwrap_or_default();
    let numbered =
        |line: &&str| line.strip_prefix("cpu").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    u16::try_from(text.lines().filter(numbered).count()).unwrap_or(u16::MAX)
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

    #[test]
    fn this_host_has_a_kernel_a_processor_and_memory() {
        let facts = facts(Path::new("/"));
        assert!(!facts.kernel.is_empty() && facts.cpus > 0 && facts.memory_bytes > 0, "{facts:?}");
        assert_ne!(facts.boot_id, [0; 16]);
        let inventory = Inventory::Facts(facts);
        assert_eq!(Inventory::decode(&inventory.encode()), Ok(inventory));
    }

    #[test]
    fn a_root_without_anything_gives_empty_facts() {
        let facts = facts(Path::new("/nonexistent"));
        assert_eq!((facts.kernel.as_str(), facts.cpus, facts.boot_id), ("", 0, [0; 16]));
    }
}
