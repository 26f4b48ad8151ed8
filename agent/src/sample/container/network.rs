//! The network of a container, from `/proc/PID/net/dev` of one of its processes: control groups count none.
//!
//! Only a network of its own is told. Which one a process has is seen without privilege: the files below
//! `/proc/PID/net` have an inode for each network, whoever looks at them.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use crate::sample::source::Source;

/// Two lines of titles.
const HEAD_LINES: usize = 2;
const RECEIVED: usize = 0;
const SENT: usize = 8;

/// The network that the agent is in, by its inode; not known where it cannot be seen.
#[derive(Clone, Copy, Debug)]
pub(super) struct Host(Option<u64>);

impl Host {
    pub(super) fn of(source: &Source) -> Self {
        Self(inode(source, "self"))
    }
}

/// Bytes received and sent, over all interfaces but loopback; none in the host's own network.
pub(super) fn traffic(source: &mut Source, host: Host, pid: u32) -> Option<(u64, u64)> {
    let pid = pid.to_string();
    if inode(source, &pid)? == host.0? {
        return None;
    }
    let text = source.read(format!("proc/{pid}/net/dev")).ok()?;
    Some(sums(&text.lossy()))
}

/// What a `net/dev` says of its interfaces. A line that makes no sense costs itself alone.
pub fn sums(text: &str) -> (u64, u64) {
    let mut sums = (0u64, 0u64);
    for line in text.lines().skip(HEAD_LINES) {
        let Some((name, rest)) = line.split_once(':') else { continue };
        if name.trim() == "lo" {
            continue;
        }
        let column = |at: usize| rest.split_ascii_whitespace().nth(at)?.parse::<u64>().ok();
        let (Some(received), Some(sent)) = (column(RECEIVED), column(SENT)) else { continue };
        sums = (sums.0.saturating_add(received), sums.1.saturating_add(sent));
    }
    sums
}

fn inode(source: &Source, pid: &str) -> Option<u64> {
    let file = source.path(format!("proc/{pid}/net/tcp"));
    fs::metadata(file).ok().map(|metadata| metadata.ino())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sample::tree::Tree;

    const DEV: &str = "Inter-|   Receive                                                |  Transmit\n \
        face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets\n    \
        lo:     100       1    0    0    0     0          0         0      100       1    0    0    0     0       0          0\n  \
        eth0: 18446744073709551615       1    0    0    0     0          0         0      30       1    0    0    0     0       0          0\n\
        broken\n  eth1:7 1 0 0 0 0 0 0 12 1 0 0 0 0 0 0\n";

    #[test]
    fn the_interfaces_of_an_own_network_are_summed_and_the_hosts_are_not_told() {
        let tree = Tree::new(&[("proc/self/net/tcp", ""), ("proc/7/net/tcp", ""), ("proc/7/net/dev", DEV)]);
        let mut source = Source::new(tree.path());
        let host = Host::of(&source);
        assert_eq!(traffic(&mut source, host, 7), Some((u64::MAX, 42)));
        tree.remove("proc/7/net/tcp");
        fs::hard_link(tree.path().join("proc/self/net/tcp"), tree.path().join("proc/7/net/tcp")).expect("a link");
        assert_eq!(traffic(&mut source, host, 7), None);
        assert_eq!(traffic(&mut source, host, 8), None, "it ended");
    }

    proptest! {
        #[test]
        fn any_file_is_summed_as_far_as_its_lines_make_sense(
            before in "[ -~\\n]{0,80}",
            received: u64,
            sent: u64,
            name in "[a-z][a-z0-9.@-]{3,14}",
        ) {
            let line = format!("  {name}: {received} 1 0 0 0 0 0 0 {sent} 1 0\n");
            prop_assert_eq!(sums(&format!("one\ntwo\n{line}")), (received, sent));
            sums(&before);
            let (all, _) = sums(&format!("one\ntwo\n{before}\n{line}"));
            prop_assert!(all >= received, "a line that makes no sense costs itself alone");
        }
    }
}
