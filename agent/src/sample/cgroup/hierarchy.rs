//! Where the hierarchies of control groups are mounted, and what each of them controls, from a mountinfo file.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use crate::sample::mount::unescaped;
use crate::sample::source::Source;

/// Bits of what a hierarchy of version 1 controls.
pub(super) const CPU: u8 = 1;
pub(super) const CPU_ACCOUNT: u8 = 2;
pub(super) const MEMORY: u8 = 4;
pub(super) const IO: u8 = 8;
pub(super) const TASKS: u8 = 16;
/// It controls nothing: systemd's own names of what it started.
pub(super) const NAMES: u8 = 32;

const KNOWN: [(&[u8], u8); 6] = [
    (b"cpu", CPU),
    (b"cpuacct", CPU_ACCOUNT),
    (b"memory", MEMORY),
    (b"blkio", IO),
    (b"pids", TASKS),
    (b"name=systemd", NAMES),
];
/// Engines of containers write lines of a kilobyte; this is two thousand of them and more.
const MOUNTINFO_BYTES_MAX: usize = 4 * 1024 * 1024;
/// One for each controller, and that of version 2.
const HIERARCHIES_MAX: usize = KNOWN.len() + 1;
/// Where mounts cannot be read: the places that every distribution uses.
const USUAL: [&str; 2] = ["sys/fs/cgroup", "sys/fs/cgroup/unified"];

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    /// Below the root that is read.
    pub point: PathBuf,
    /// Version 2: one for all controllers.
    pub is_unified: bool,
    /// Bits; none for version 2, where each group says by its files what it has.
    pub controllers: u8,
}

/// Those of the host's first process, or of our own where that one's are hidden.
pub(super) fn mounted(source: &mut Source) -> Vec<Hierarchy> {
    for file in ["proc/1/mountinfo", "proc/self/mountinfo"] {
        if let Ok(text) = source.read_up_to(file, MOUNTINFO_BYTES_MAX) {
            let found = parse(text.bytes);
            if !found.is_empty() {
                return found;
            }
        }
    }
    let usual = USUAL.iter().find(|point| source.path(point).join("cgroup.controllers").exists());
    let unified = |point: &&str| Hierarchy { point: PathBuf::from(point), is_unified: true, controllers: 0 };
    usual.map(unified).into_iter().collect()
}

/// Each controller once. Engines mount hierarchies again for their containers: those of `/sys/fs/cgroup` go first.
#[must_use]
pub fn parse(mountinfo: &[u8]) -> Vec<Hierarchy> {
    let mut all: Vec<Hierarchy> = mountinfo.split(|&byte| byte == b'\n').filter_map(line).collect();
    all.sort_by_key(|one| !one.point.starts_with(USUAL[0]));
    let (mut found, mut has, mut has_unified): (Vec<Hierarchy>, u8, bool) = (Vec::new(), 0, false);
    for one in all {
        let is_new = if one.is_unified { !has_unified } else { one.controllers & !has != 0 };
        if is_new && found.len() < HIERARCHIES_MAX {
            has |= one.controllers;
            has_unified |= one.is_unified;
            found.push(one);
        }
    }
    found
}

/// `ID PARENT MAJOR:MINOR ROOT POINT OPTIONS [TAG...] - TYPE SOURCE SUPER-OPTIONS`
fn line(line: &[u8]) -> Option<Hierarchy> {
    let mut words = line.split(|&byte| byte == b' ');
    let point = unescaped(words.nth(4)?);
    let mut words = words.skip_while(|word| *word != b"-").skip(1);
    let (kind, _, options) = (words.next()?, words.next()?, words.next()?);
    let is_unified = kind == b"cgroup2";
    if !is_unified && kind != b"cgroup" {
        return None;
    }
    let point = PathBuf::from(OsString::from_vec(point));
    let point = point.strip_prefix(Path::new("/")).ok()?.to_owned();
    let bit = |option: &[u8]| KNOWN.iter().find(|(name, _)| *name == option).map_or(0, |(_, bit)| *bit);
    let controllers = options.split(|&byte| byte == b',').map(bit).fold(0, |all, bit| all | bit);
    let controllers = if is_unified { 0 } else { controllers };
    (is_unified || controllers != 0).then_some(Hierarchy { point, is_unified, controllers })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HYBRID: &str = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
        32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct\n\
        33 31 0:31 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n\
        34 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
        35 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n\
        36 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate\n";

    fn shown(text: &str) -> Vec<(String, bool, u8)> {
        let found = parse(text.as_bytes());
        found.into_iter().map(|one| (one.point.display().to_string(), one.is_unified, one.controllers)).collect()
    }

    #[test]
    fn each_version_is_found_with_what_it_controls() {
        let v2 = "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n";
        assert_eq!(shown(v2), [("sys/fs/cgroup".to_owned(), true, 0)]);
        let found = shown(HYBRID);
        let expected = [
            ("sys/fs/cgroup/cpu,cpuacct", false, CPU | CPU_ACCOUNT),
            ("sys/fs/cgroup/memory", false, MEMORY),
            ("sys/fs/cgroup/systemd", false, NAMES),
            ("sys/fs/cgroup/unified", true, 0),
        ];
        assert_eq!(found, expected.map(|(point, unified, controllers)| (point.to_owned(), unified, controllers)));
    }

    #[test]
    fn what_an_engine_mounts_for_its_containers_is_not_taken_for_the_hosts() {
        let text = format!("9 1 0:32 / /var/lib/engine/x/memory rw - cgroup cgroup rw,memory\n{HYBRID}");
        assert_eq!(shown(&text), shown(HYBRID));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(text: Vec<u8>) {
            prop_assert!(parse(&text).len() <= HIERARCHIES_MAX);
        }
    }
}
