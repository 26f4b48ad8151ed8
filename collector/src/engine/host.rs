//! What a node's host is, as far as a change of it is an event.
//!
//! What a host does not say, because a part of its inventory failed, is no change.

use dunlin_shared::inventory::Facts;

/// What changed of a host, before and after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Another boot id.
    Rebooted {
        from: [u8; 16],
        to: [u8; 16],
    },
    Renamed {
        from: String,
        to: String,
    },
    Kernel {
        from: String,
        to: String,
    },
    Resized {
        from: Size,
        to: Size,
    },
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    pub cpus: u16,
    pub memory_bytes: u64,
}

/// Memory that a kernel keeps for itself varies from boot to boot; one part in so many is no resize.
const MEMORY_JITTER_ONE_IN: u64 = 100;

#[derive(Clone, Debug, Default)]
pub(super) struct Host {
    /// By which it greets.
    name: Box<str>,
    boot_id: [u8; 16],
    host_name: Box<str>,
    kernel: Box<str>,
    size: Size,
}

impl Change {
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Rebooted { .. } => "node.rebooted",
            Self::Renamed { .. } => "node.renamed",
            Self::Kernel { .. } => "node.kernel_changed",
            Self::Resized { .. } => "node.resized",
        }
    }
}

impl Host {
    /// A session began.
    pub(super) fn greeted(&mut self, name: &str, boot_id: [u8; 16]) -> Vec<Change> {
        let mut changes = Vec::new();
        // What the facts told already is not told again.
        if let Some(from) = replaced(&mut self.name, name).filter(|_| *name != *self.host_name) {
            changes.push(Change::Renamed { from, to: name.to_owned() });
        }
        if boot_id != [0; 16] {
            let from = std::mem::replace(&mut self.boot_id, boot_id);
            if from != [0; 16] && from != boot_id {
                changes.push(Change::Rebooted { from, to: boot_id });
            }
        }
        changes
    }

    pub(super) fn described(&mut self, facts: &Facts) -> Vec<Change> {
        let mut changes = Vec::new();
        if let Some(from) = replaced(&mut self.host_name, &facts.host_name).filter(|_| facts.host_name != *self.name) {
            changes.push(Change::Renamed { from, to: facts.host_name.clone() });
        }
        if let Some(from) = replaced(&mut self.kernel, &facts.kernel) {
            changes.push(Change::Kernel { from, to: facts.kernel.clone() });
        }
        let from = self.size;
        let to = Size {
            cpus: if facts.cpus == 0 { from.cpus } else { facts.cpus },
            memory_bytes: if facts.memory_bytes == 0 { from.memory_bytes } else { facts.memory_bytes },
        };
        self.size = to;
        if is_resized(from, to) {
            changes.push(Change::Resized { from, to });
        }
        changes
    }
}

/// What stood there, when both say something and differ.
fn replaced(known: &mut Box<str>, said: &str) -> Option<String> {
    if said.is_empty() || **known == *said {
        return None;
    }
    let before = std::mem::replace(known, said.into());
    (!before.is_empty()).then(|| before.into_string())
}

const fn is_resized(from: Size, to: Size) -> bool {
    let cpus = from.cpus != 0 && from.cpus != to.cpus;
    let differs = from.memory_bytes.abs_diff(to.memory_bytes);
    cpus || (from.memory_bytes != 0 && differs >= from.memory_bytes.div_ceil(MEMORY_JITTER_ONE_IN))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(host_name: &str, kernel: &str, cpus: u16, memory_bytes: u64) -> Facts {
        Facts { host_name: host_name.into(), kernel: kernel.into(), cpus, memory_bytes, ..Facts::default() }
    }

    fn host() -> Host {
        let mut host = Host::default();
        assert_eq!(host.greeted("web", [1; 16]), []);
        assert_eq!(host.described(&facts("web", "6.1.0", 2, 2_000)), []);
        host
    }

    fn size(cpus: u16, memory_bytes: u64) -> Size {
        Size { cpus, memory_bytes }
    }

    #[test]
    fn another_boot_id_is_a_reboot_and_none_is_not() {
        let mut host = host();
        assert_eq!(host.greeted("web", [1; 16]), []);
        assert_eq!(host.greeted("web", [0; 16]), []);
        assert_eq!(host.greeted("web", [2; 16]), [Change::Rebooted { from: [1; 16], to: [2; 16] }]);
        assert_eq!(host.greeted("web", [2; 16]), []);
    }

    #[test]
    fn a_new_name_is_told_once_whether_the_session_or_the_facts_say_it_first() {
        let renamed = [Change::Renamed { from: "web".into(), to: "db".into() }];
        let mut restarted = host();
        assert_eq!(restarted.greeted("db", [1; 16]), renamed);
        assert_eq!(restarted.described(&facts("db", "6.1.0", 2, 2_000)), []);
        let mut running = host();
        assert_eq!(running.described(&facts("db", "6.1.0", 2, 2_000)), renamed);
        assert_eq!(running.greeted("web", [1; 16]), [], "a reconnection says the name of the start");
        assert_eq!(running.greeted("db", [1; 16]), []);
    }

    #[test]
    fn a_resize_is_another_number_of_cpus_or_a_hundredth_of_the_memory() {
        let resized = |cpus, memory| host().described(&facts("web", "6.1.0", cpus, memory));
        assert_eq!(resized(2, 2_019), []);
        assert_eq!(resized(2, 1_981), []);
        assert_eq!(resized(2, 2_020), [Change::Resized { from: size(2, 2_000), to: size(2, 2_020) }]);
        assert_eq!(resized(4, 2_000), [Change::Resized { from: size(2, 2_000), to: size(4, 2_000) }]);
        assert_eq!(resized(0, 0), [], "a part that failed");
    }

    #[test]
    fn a_new_kernel_is_told_with_the_one_before() {
        let changed = [Change::Kernel { from: "6.1.0".into(), to: "6.1.1".into() }];
        assert_eq!(host().described(&facts("", "6.1.1", 2, 2_000)), changed);
        assert_eq!(host().described(&facts("web", "", 2, 2_000)), []);
    }
}
