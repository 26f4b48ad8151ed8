//! Which file systems are mounted, from a mountinfo file: each once, and only those that can fill up.
//!
//! Left out are the kernel's own file systems, read-only images that are always full, what container engines mount for
//! their containers, further mounts of a file system that is listed already, and what another mount covers.

use std::collections::HashMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;

use super::name::shown;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// As it is after the escapes are resolved; any bytes.
    pub path: PathBuf,
    /// As subjects and messages name it.
    pub name: String,
    pub device: (u32, u32),
    /// As the host mounted it; in the agent's own sandbox it may be read-only all the same.
    pub is_read_only: bool,
    /// Behind a network or a process: it may hang.
    pub is_remote: bool,
}

#[derive(Clone, Debug)]
struct Line {
    path: Vec<u8>,
    device: (u32, u32),
    is_whole: bool,
    is_read_only: bool,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Pseudo,
    /// Its subvolumes are mounted by their paths, and yet share its space.
    WithSubvolumes,
    /// Lies over others, which have the space. Only a container has one for its root.
    Stacked,
    Remote,
    Local,
}

const PSEUDO: &[&[u8]] = &[
    b"autofs",
    b"binder",
    b"binfmt_misc",
    b"bpf",
    b"cgroup",
    b"cgroup2",
    b"configfs",
    b"debugfs",
    b"devpts",
    b"devtmpfs",
    b"efivarfs",
    b"fuse.gvfsd-fuse",
    b"fuse.lxcfs",
    b"fuse.portal",
    b"fuse.snapfuse",
    b"fusectl",
    b"hugetlbfs",
    b"mqueue",
    b"nfsd",
    b"none",
    b"nsfs",
    b"proc",
    b"pstore",
    b"ramfs",
    b"resctrl",
    b"rpc_pipefs",
    b"securityfs",
    b"selinuxfs",
    b"smackfs",
    b"sysfs",
    b"tracefs",
];
/// Full from the day they were made.
const IMAGES: &[&[u8]] = &[b"cramfs", b"erofs", b"iso9660", b"romfs", b"squashfs", b"udf"];
const REMOTE: &[&[u8]] = &[
    b"9p",
    b"afs",
    b"beegfs",
    b"ceph",
    b"cifs",
    b"coda",
    b"fuse",
    b"gfs",
    b"gfs2",
    b"glusterfs",
    b"gpfs",
    b"lustre",
    b"ncpfs",
    b"nfs",
    b"nfs4",
    b"ocfs2",
    b"orangefs",
    b"panfs",
    b"smb3",
    b"smbfs",
    b"virtiofs",
];
/// Below these stand what engines and logins mount, under names that come and go.
const TRANSIENT: &[&[u8]] = &[
    b"/dev/",
    b"/proc/",
    b"/run/containerd/",
    b"/run/containers/",
    b"/run/credentials/",
    b"/run/docker/",
    b"/run/k3s/",
    b"/run/netns/",
    b"/run/snapd/",
    b"/run/user/",
    b"/snap/",
    b"/sys/",
    b"/var/lib/containerd/",
    b"/var/lib/containers/",
    b"/var/lib/docker/",
    b"/var/lib/kubelet/",
    b"/var/lib/lxcfs/",
    b"/var/snap/",
];
/// Engines mount so wherever their data is.
const TRANSIENT_ENDS: &[&[u8]] = &[b"/mounts/shm", b"/userdata/shm"];
/// The one place below `/dev` that people fill.
const SHARED_MEMORY: &[u8] = b"/dev/shm";

/// The file systems of a mountinfo, local ones first, then by their mount points. A line that makes no sense is
/// returned by its number: it costs itself alone.
pub fn mounts(text: &[u8]) -> (Vec<Mount>, Option<usize>) {
    let (mut by_path, mut odd): (HashMap<Vec<u8>, Line>, _) = (HashMap::new(), None);
    for (number, line) in text.split(|&byte| byte == b'\n').enumerate().filter(|(_, line)| !line.is_empty()) {
        match Line::parse(line) {
            // A later mount covers an earlier one at the same place, a kernel's own one too.
            Some(line) => {
                by_path.insert(line.path.clone(), line);
            }
            None => odd = odd.or(Some(number)),
        }
    }
    let mut lines: Vec<Line> = by_path.into_values().filter(Line::is_wanted).collect();
    // The shortest mount point of a file system names it, as in df.
    lines.sort_by(|a, b| (a.device, a.path.len(), &a.path).cmp(&(b.device, b.path.len(), &b.path)));
    lines.dedup_by_key(|line| line.device);
    lines.sort_by(|a, b| (a.kind == Kind::Remote, &a.path).cmp(&(b.kind == Kind::Remote, &b.path)));
    (lines.into_iter().map(Mount::from).collect(), odd)
}

/// Which device is on top at each mount point: what a path leads to for whoever sees this list.
pub fn devices(text: &[u8]) -> HashMap<PathBuf, (u32, u32)> {
    let lines = text.split(|&byte| byte == b'\n').filter_map(Line::parse);
    lines.map(|line| (PathBuf::from(OsString::from_vec(line.path)), line.device)).collect()
}

impl From<Line> for Mount {
    fn from(line: Line) -> Self {
        let name = shown(&line.path);
        let is_remote = line.kind == Kind::Remote;
        let path = PathBuf::from(OsString::from_vec(line.path));
        Self { path, name, device: line.device, is_read_only: line.is_read_only, is_remote }
    }
}

impl Line {
    /// `ID PARENT MAJOR:MINOR ROOT PATH OPTIONS [TAG...] - TYPE SOURCE SUPER-OPTIONS`
    fn parse(line: &[u8]) -> Option<Self> {
        let mut words = line.split(|&byte| byte == b' ');
        let device = std::str::from_utf8(words.nth(2)?).ok()?;
        let (major, minor) = device.split_once(':')?;
        let device = (major.parse().ok()?, minor.parse().ok()?);
        let (root, path, options) = (words.next()?, unescaped(words.next()?), words.next()?);
        let mut words = words.skip_while(|word| *word != b"-").skip(1);
        let (kind, _, super_options) = (Kind::of(words.next()?), words.next()?, words.next()?);
        if !path.starts_with(b"/") {
            return None;
        }
        let is_read_only = [options, super_options].iter().any(|list| list.split(|&b| b == b',').any(|o| o == b"ro"));
        Some(Self { is_whole: root == b"/" || path == b"/", path, device, is_read_only, kind })
    }

    fn is_wanted(&self) -> bool {
        let transient = TRANSIENT.iter().any(|below| self.path.starts_with(below)) && self.path != SHARED_MEMORY
            || TRANSIENT_ENDS.iter().any(|end| self.path.ends_with(end))
            || self.kind == Kind::Stacked && self.path != b"/";
        // A part of a file system that is mounted elsewhere is a bind mount.
        let part = !self.is_whole && self.kind != Kind::WithSubvolumes;
        self.kind != Kind::Pseudo && !transient && !part
    }
}

impl Kind {
    fn of(name: &[u8]) -> Self {
        let base = name.split(|&byte| byte == b'.').next().unwrap_or(name);
        match name {
            name if PSEUDO.contains(&name) || IMAGES.contains(&name) => Self::Pseudo,
            b"overlay" | b"aufs" | b"fuse.fuse-overlayfs" => Self::Stacked,
            name if REMOTE.contains(&name) || base == b"fuse" => Self::Remote,
            b"btrfs" | b"bcachefs" => Self::WithSubvolumes,
            _ => Self::Local,
        }
    }
}

/// The kernel writes space, tab, line feed, backslash and number sign as three octal digits.
pub(super) fn unescaped(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, after)) = rest.split_first() {
        let digits = after.get(..3).filter(|digits| first == b'\\' && digits.iter().all(|b| (b'0'..=b'7').contains(b)));
        let value = digits.map(|digits| digits.iter().fold(0_u16, |sum, digit| sum * 8 + u16::from(digit - b'0')));
        match value.and_then(|value| u8::try_from(value).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[3..];
            }
            None => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names(text: &str) -> Vec<String> {
        let (mounts, odd) = mounts(text.as_bytes());
        assert_eq!(odd, None);
        mounts.into_iter().map(|mount| mount.name).collect()
    }

    #[test]
    fn of_a_usual_host_what_can_fill_up_is_left() {
        let text = "22 27 0:21 / /proc rw,relatime - proc proc rw\n\
            24 27 0:6 / /dev rw - devtmpfs devtmpfs rw\n\
            25 24 0:23 / /dev/shm rw - tmpfs tmpfs rw\n\
            26 24 0:24 / /dev/pts rw shared:3 - devpts devpts rw\n\
            27 1 254:0 / / rw,relatime shared:1 master:2 - ext4 /dev/vda rw\n\
            28 27 254:16 / /var rw - xfs /dev/vdb rw\n\
            29 27 254:0 /srv/a /home rw - ext4 /dev/vda rw\n\
            30 27 254:16 / /mnt/again rw - xfs /dev/vdb rw\n\
            31 27 0:30 / /run rw - tmpfs tmpfs rw\n\
            32 31 0:31 / /run/user/1000 rw - tmpfs tmpfs rw\n\
            33 27 0:32 / /var/lib/docker/overlay2/x/merged rw - overlay overlay rw\n\
            40 27 0:42 / /data/engine/overlay2/x/merged rw - overlay overlay rw\n\
            41 27 0:43 / /home/me/.local/share/containers/storage/overlay/x/merged rw - fuse.fuse-overlayfs x rw\n\
            42 27 0:44 / /data/engine/containers/x/mounts/shm rw - tmpfs shm rw\n\
            34 27 7:0 / /snap/core/1 ro - squashfs /dev/loop0 ro\n\
            35 27 0:40 / /mnt/share rw - nfs4 server:/export rw\n\
            36 27 0:41 / /mnt/people rw - fuse.sshfs me@there rw\n";
        assert_eq!(names(text), ["/", "/dev/shm", "/run", "/var", "/mnt/people", "/mnt/share"]);
    }

    #[test]
    fn a_container_sees_its_own_root_and_not_the_files_bound_into_it() {
        let text = "1 0 0:50 / / rw - overlay overlay rw\n\
            2 1 254:0 /var/lib/docker/containers/x/hosts /etc/hosts rw - ext4 /dev/vda rw\n\
            3 1 254:0 /data /data rw - ext4 /dev/vda rw\n";
        assert_eq!(names(text), ["/"]);
    }

    #[test]
    fn subvolumes_of_one_file_system_are_one() {
        let text = "1 0 0:50 /@ / rw - btrfs /dev/vda rw\n2 1 0:50 /@home /home rw - btrfs /dev/vda rw\n\
            3 1 0:51 /@data /data rw - btrfs /dev/vdb rw\n";
        assert_eq!(names(text), ["/", "/data"]);
    }

    #[test]
    fn what_another_mount_covers_is_not_there() {
        let text = "1 0 254:0 / / rw - ext4 /dev/vda rw\n2 1 254:1 / /data rw - ext4 /dev/vdb rw\n\
            3 2 0:9 / /data rw - proc proc rw\n4 1 254:2 / /more rw - ext4 /dev/vdc rw\n\
            5 4 254:3 / /more rw - ext4 /dev/vdd rw\n";
        let (mounts, _) = mounts(text.as_bytes());
        let found: Vec<_> = mounts.iter().map(|mount| (mount.name.as_str(), mount.device)).collect();
        assert_eq!(found, [("/", (254, 0)), ("/more", (254, 3))]);
    }

    #[test]
    fn read_only_is_what_the_mount_or_its_file_system_says() {
        let text = "1 0 8:1 / / rw,nosuid - ext4 a rw,errors=remount-ro\n2 0 8:2 / /b ro,nosuid - ext4 b rw\n\
            3 0 8:3 / /c rw shared:1 - ext4 c ro,errors=remount-ro\n";
        let (mounts, _) = mounts(text.as_bytes());
        assert_eq!(mounts.iter().map(|mount| mount.is_read_only).collect::<Vec<_>>(), [false, true, true]);
    }

    #[test]
    fn escapes_and_bytes_that_are_no_text_are_resolved() {
        let mut text = b"1 0 8:1 / /a\\040b\\012c\\134d rw - ext4 /dev/sda rw\n2 0 8:2 / /".to_vec();
        text.extend([0xff, 0xfe]);
        text.extend(b" rw - ext4 /dev/sdb rw\n3 0 8:3 / /x\\04 rw - ext4 /dev/sdc rw\n");
        let (mounts, odd) = mounts(&text);
        let names: Vec<_> = mounts.iter().map(|mount| mount.name.as_str()).collect();
        assert_eq!((names, odd), (vec!["/a b\\x0ac\\\\d", "/x\\\\04", "/\\xff\\xfe"], None));
        assert_eq!(mounts[0].path, PathBuf::from("/a b\nc\\d"));
    }

    #[test]
    fn a_line_that_makes_no_sense_costs_itself_alone() {
        let (found, odd) = mounts(b"1 0 8:1 / / rw - ext4 a rw\nnonsense\n2 0 8:2 / /b rw - ext4 b rw\n");
        assert_eq!((found.len(), odd), (2, Some(1)));
    }

    #[test]
    fn two_thousand_mounts_are_listed() {
        let text: String = (0..2_000).map(|n| format!("{n} 1 8:{n} / /srv/{n:04} rw - ext4 /dev/x{n} rw\n")).collect();
        assert_eq!(names(&text).len(), 2_000);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(text: Vec<u8>) {
            mounts(&text);
        }
    }
}
