//! Who the agent is to the kernel: its process, its user, and what it may do. Read from `/proc/self`.
//!
//! What cannot be read is zero or empty: that an agent may do little is the usual case.

use std::path::Path;

/// As far as the agent's own account matters for what it sees.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Own {
    pub version: Box<str>,
    pub process: u32,
    /// In ticks since the boot: with it, a number that another process has by now is not taken for the agent.
    pub started_ticks: u64,
    pub user: u32,
    pub groups: Vec<u32>,
    /// Bits of the effective ones.
    pub capabilities: u64,
}

/// As `linux/capability.h` numbers them.
pub(super) const DAC_READ_SEARCH: u64 = 1 << 2;
pub(super) const SYS_PTRACE: u64 = 1 << 19;
const NAMES: [(u64, &str); 8] = [
    (1, "CAP_CHOWN"),
    (1 << 1, "CAP_DAC_OVERRIDE"),
    (DAC_READ_SEARCH, "CAP_DAC_READ_SEARCH"),
    (1 << 12, "CAP_NET_ADMIN"),
    (1 << 13, "CAP_NET_RAW"),
    (SYS_PTRACE, "CAP_SYS_PTRACE"),
    (1 << 21, "CAP_SYS_ADMIN"),
    (1 << 34, "CAP_SYSLOG"),
];
/// More groups than these say nothing more.
pub(super) const GROUPS_MAX: usize = 32;
/// Linux 6 has 41.
const MANY: u32 = 30;

impl Own {
    /// This process.
    #[must_use]
    pub fn look() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        Self {
            version: env!("CARGO_PKG_VERSION").into(),
            process: std::process::id(),
            started_ticks: started_ticks(Path::new("/proc/self/stat")).unwrap_or_default(),
            ..Self::of_status(&status)
        }
    }

    fn of_status(status: &str) -> Self {
        let words = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
            line.unwrap_or_default().split_whitespace()
        };
        // Real, effective, saved, of the file system.
        let user = words("Uid").nth(1).and_then(|word| word.parse().ok()).unwrap_or_default();
        let group = words("Gid").nth(1).and_then(|word| word.parse().ok());
        let mut groups: Vec<u32> =
            group.into_iter().chain(words("Groups").filter_map(|word| word.parse().ok())).collect();
        groups.sort_unstable();
        groups.dedup();
        groups.truncate(GROUPS_MAX);
        let capabilities = words("CapEff").next().and_then(|word| u64::from_str_radix(word, 16).ok());
        Self { user, groups, capabilities: capabilities.unwrap_or_default(), ..Self::default() }
    }

    /// Whether it is the very process that runs under this number now.
    #[must_use]
    pub fn lives(&self) -> bool {
        let stat = format!("/proc/{}/stat", self.process);
        self.process > 0 && started_ticks(Path::new(&stat)) == Some(self.started_ticks)
    }

    /// Its capabilities in words.
    #[must_use]
    pub fn powers(&self) -> String {
        match self.capabilities {
            0 => String::from("without capabilities"),
            many if many.count_ones() > MANY => String::from("with all capabilities"),
            some => {
                let names = NAMES.iter().filter(|(bit, _)| some & bit != 0).map(|(_, name)| (*name).to_owned());
                let known = NAMES.iter().fold(0, |all, (bit, _)| all | bit);
                let others = (some & !known).count_ones();
                let others = (others > 0).then(|| format!("{others} more"));
                format!("with {}", names.chain(others).collect::<Vec<_>>().join(" "))
            }
        }
    }
}

/// The 22nd column of a stat line; the name in the second may hold anything, so what follows it is counted.
fn started_ticks(stat: &Path) -> Option<u64> {
    let text = std::fs::read(stat).ok()?;
    let text = String::from_utf8_lossy(&text);
    let (_, behind) = text.rsplit_once(") ")?;
    behind.split(' ').nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_says_of_a_process_is_read() {
        let status = "Name:\ta\nUid:\t0\t61234\t0\t0\nGid:\t7\t8\t7\t7\nGroups:\t998 8 4 \nCapEff:\t0000000000080004\n";
        let own = Own::of_status(status);
        assert_eq!(
            (own.user, &own.groups[..], own.capabilities),
            (61_234, &[4, 8, 998][..], SYS_PTRACE | DAC_READ_SEARCH)
        );
        assert_eq!(own.powers(), "with CAP_DAC_READ_SEARCH CAP_SYS_PTRACE");
        assert_eq!(Own::of_status("").powers(), "without capabilities");
        assert_eq!(Own { capabilities: (1 << 41) - 1, ..Own::default() }.powers(), "with all capabilities");
        assert_eq!(Own { capabilities: 1 << 30 | 1, ..Own::default() }.powers(), "with CAP_CHOWN 1 more");
    }

    #[test]
    fn a_number_that_another_process_has_is_not_the_agent() {
        let own = Own::look();
        assert!(own.lives() && own.started_ticks > 0, "{own:?}");
        assert!(!Own { started_ticks: own.started_ticks - 1, ..own.clone() }.lives());
        assert!(!Own { process: 0, ..own }.lives());
    }
}
