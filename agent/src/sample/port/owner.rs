//! Which process holds a socket, found through `/proc/PID/fd`.
//!
//! Descriptors are read only while a socket is there whose holder is not known, no more than `LINKS_MAX` of them a tick,
//! and the search goes on where it stopped. What was found is looked at again, a few a tick, so that a socket that went
//! from hand to hand gets its new holder; and whenever a table asks whether its listeners are held as they were.
//! Where the agent may not look, a socket has no holder, and that is said.

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;

use dunlin_shared::time::MonoMs;
use rustix::fs::{CWD, Mode, OFlags, RawDir, openat, readlinkat_raw};
use rustix::io::Errno;

/// Links that are read in one tick, 1 to 2 us each: a host of 200 processes is searched at once.
const LINKS_MAX: usize = 20_000;
/// What was found that is looked at again in one tick.
const CHECKS_MAX: usize = 16;
/// Holders that are asked for in one tick by tables that are to stand, 2 us each: more than a host of the fleet has.
const DOUBTS_MAX: u32 = 1_024;
/// A holder that was not found is looked for again after so long: another process may have been let in.
const AGAIN_MS: u64 = 600_000;
/// Of names of descriptors; a few hundred fit.
const NAMES_BYTES: usize = 8 * 1024;
/// The agent has some twenty files open.
const OWN_FILES_MAX: usize = 256;
/// `socket:[4294967295]` has 19 bytes.
const LINK_BYTES: usize = 32;
/// The first process: under systemd it holds sockets for services that come when somebody calls.
const FIRST: u32 = 1;

#[derive(Debug, Default)]
pub(super) struct Owners {
    /// By inode, of those sockets that were there at the last look.
    known: BTreeMap<u64, Holder>,
    search: Option<Search>,
    /// A process could not be looked into in the last search that came to its end.
    is_refused: bool,
    checked: u64,
    /// What was found no longer held at the last look, sorted.
    lost: Vec<u64>,
    /// Asked since then.
    doubts: u32,
    /// When sockets of the first process were asked for anew.
    doubted: MonoMs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holder {
    /// Not looked for yet, or in the search that is under way; and who held it when it was last looked for.
    Wanted {
        is_searched: bool,
        before: Option<Held>,
    },
    Found(Held),
    /// Not found then.
    Hidden {
        at: MonoMs,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Held {
    pid: u32,
    descriptor: u32,
}

/// One way through all processes.
#[derive(Debug)]
struct Search {
    /// Those that are left, the next one last.
    pids: Vec<u32>,
    is_refused: bool,
}

/// What the search of one tick has cost, and for how many sockets it goes on.
#[derive(Debug)]
struct Effort {
    links: usize,
    wanted: usize,
}

impl Owners {
    /// Once a tick, with the inodes of all sockets there are, sorted. `pids` gives every process and is asked only when
    /// there is something to look for.
    pub(super) fn look(&mut self, root: &Path, now: MonoMs, inodes: &[u64], pids: impl FnOnce() -> Vec<u32>) {
        self.known.retain(|inode, _| inodes.binary_search(inode).is_ok());
        for &inode in inodes.iter().filter(|&&inode| inode != 0) {
            self.known.entry(inode).or_insert(Holder::WANTED);
        }
        self.check(root, now);
        self.doubts = 0;
        if self.search.is_none() && self.wanted(false) > 0 {
            self.search = Some(self.begin(pids()));
        }
        let Some(mut search) = self.search.take() else { return };
        let mut effort = Effort { links: 0, wanted: self.wanted(true) };
        while effort.wanted > 0 && effort.links < LINKS_MAX {
            let Some(pid) = search.pids.pop() else { break };
            // Any other error is that of a process that ended meanwhile.
            if let Err(Errno::ACCESS | Errno::PERM) = self.look_into(root, pid, &mut effort) {
                search.is_refused = true;
            }
        }
        if effort.wanted > 0 && !search.pids.is_empty() {
            self.search = Some(search);
            return;
        }
        if effort.wanted > 0 {
            self.is_refused = search.is_refused;
        }
        for holder in self.known.values_mut() {
            if let Holder::Wanted { is_searched: true, before } = *holder {
                *holder = before.map_or(Holder::Hidden { at: now }, Holder::Found);
            }
        }
    }

    /// Whether the socket is no longer held by who held it. Then it is looked for anew, if it is there still.
    pub(super) fn is_lost(&mut self, root: &Path, inode: u64) -> bool {
        let Some(Holder::Found(held)) = self.known.get(&inode) else { return self.lost.binary_search(&inode).is_ok() };
        if self.doubts >= DOUBTS_MAX || held.holds(root, inode) {
            self.doubts = self.doubts.saturating_add(1);
            return false;
        }
        self.known.insert(inode, Holder::WANTED);
        true
    }

    pub(super) fn pid(&self, inode: u64) -> Option<u32> {
        self.known.get(&inode)?.pid()
    }

    /// Whether sockets are without their holders because the agent may not look for them.
    pub(super) fn is_refused(&self) -> bool {
        self.is_refused && self.known.values().any(|holder| matches!(holder, Holder::Hidden { .. }))
    }

    /// Sockets whose holders are known, of all that may have one.
    pub(super) fn found(&self) -> (usize, usize) {
        (self.known.values().filter(|holder| holder.pid().is_some()).count(), self.known.len())
    }

    /// Nobody is looked for any more.
    pub(super) const fn is_settled(&self) -> bool {
        self.search.is_none()
    }

    fn wanted(&self, is_searched: bool) -> usize {
        self.known.values().filter(|holder| holder.is_wanted(is_searched)).count()
    }

    /// First those that hold other sockets, then the newest, and the first process of all last: who else holds a socket
    /// is the one that serves it.
    fn begin(&mut self, mut pids: Vec<u32>) -> Search {
        for holder in self.known.values_mut() {
            if let Holder::Wanted { is_searched, .. } = holder {
                *is_searched = true;
            }
        }
        let mut holders: Vec<u32> = self.known.values().filter_map(Holder::pid).collect();
        holders.sort_unstable();
        pids.sort_unstable_by_key(|pid| (*pid != FIRST, holders.binary_search(pid).is_ok(), *pid));
        Search { pids, is_refused: false }
    }

    /// Looks at some of what was found again, in turn, and asks anew for what was hidden long ago, or held by the first
    /// process alone.
    fn check(&mut self, root: &Path, now: MonoMs) {
        let is_doubted = now.since(self.doubted) >= AGAIN_MS;
        if is_doubted {
            self.doubted = now;
        }
        for holder in self.known.values_mut() {
            match *holder {
                Holder::Hidden { at } if now.since(at) >= AGAIN_MS => *holder = Holder::WANTED,
                Holder::Found(held) if is_doubted && held.pid == FIRST => {
                    *holder = Holder::Wanted { is_searched: false, before: Some(held) };
                }
                _ => {}
            }
        }
        let (behind, before) = (self.known.range(self.checked.saturating_add(1)..), self.known.range(..=self.checked));
        let due: Vec<u64> = behind.chain(before).map(|(inode, _)| *inode).take(CHECKS_MAX).collect();
        self.lost.clear();
        for inode in due {
            self.checked = inode;
            let Some(Holder::Found(held)) = self.known.get(&inode) else { continue };
            if !held.holds(root, inode) {
                self.known.insert(inode, Holder::WANTED);
                self.lost.push(inode);
            }
        }
        self.lost.sort_unstable();
    }

    fn look_into(&mut self, root: &Path, pid: u32, effort: &mut Effort) -> Result<(), Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let links_max = effort.links.saturating_add(LINKS_MAX);
        effort.links += 1;
        let directory: OwnedFd = openat(CWD, root.join(format!("proc/{pid}/fd")), flags, Mode::empty())?;
        let mut names = [MaybeUninit::uninit(); NAMES_BYTES];
        let mut entries = RawDir::new(&directory, &mut names);
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let Some(descriptor) = number(entry.file_name()) else { continue };
            // The kernel names the lowest first, and who listens has done so before it has thousands of others.
            if effort.links == links_max {
                break;
            }
            effort.links += 1;
            let mut buffer = [MaybeUninit::uninit(); LINK_BYTES];
            // Closed meanwhile, or the directory may be read and its links may not.
            let link = match readlinkat_raw(&directory, entry.file_name(), &mut buffer) {
                Ok((link, _)) => link,
                Err(refused @ (Errno::ACCESS | Errno::PERM)) => return Err(refused),
                Err(_) => continue,
            };
            let Some(holder) = socket_of(link).and_then(|inode| self.known.get_mut(&inode)) else { continue };
            if !matches!(holder, Holder::Found(_)) {
                effort.wanted -= usize::from(holder.is_wanted(true));
                *holder = Holder::Found(Held { pid, descriptor });
            }
        }
        Ok(())
    }
}

impl Held {
    fn holds(self, root: &Path, inode: u64) -> bool {
        let link = format!("proc/{}/fd/{}", self.pid, self.descriptor);
        let mut buffer = [MaybeUninit::uninit(); LINK_BYTES];
        let held = readlinkat_raw(CWD, root.join(link), &mut buffer).ok().and_then(|(link, _)| socket_of(link));
        held == Some(inode)
    }
}

impl Holder {
    const WANTED: Self = Self::Wanted { is_searched: false, before: None };

    const fn pid(&self) -> Option<u32> {
        match self {
            Self::Found(held) | Self::Wanted { before: Some(held), .. } => Some(held.pid),
            Self::Wanted { before: None, .. } | Self::Hidden { .. } => None,
        }
    }

    fn is_wanted(&self, searched: bool) -> bool {
        matches!(self, Self::Wanted { is_searched, .. } if *is_searched == searched)
    }
}

/// The sockets that the agent itself holds.
pub(super) fn own(root: &Path) -> Vec<u64> {
    let Ok(files) = std::fs::read_dir(root.join("proc/self/fd")) else { return Vec::new() };
    let links = files.flatten().take(OWN_FILES_MAX).filter_map(|file| std::fs::read_link(file.path()).ok());
    links.filter_map(|link| socket_of(link.as_os_str().as_encoded_bytes())).collect()
}

/// The inode of `socket:[N]`.
fn socket_of(link: &[u8]) -> Option<u64> {
    let digits = link.strip_prefix(b"socket:[")?.strip_suffix(b"]")?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

fn number(name: &CStr) -> Option<u32> {
    name.to_str().ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::sample::tree::Tree;

    /// A recorded host whose processes hold what they are said to.
    struct Host {
        tree: Tree,
        owners: Owners,
        searches: u32,
    }

    impl Host {
        fn new() -> Self {
            Self { tree: Tree::new(&[]), owners: Owners::default(), searches: 0 }
        }

        fn hold(&self, pid: u32, descriptor: u32, target: &str) {
            let directory = self.tree.path().join(format!("proc/{pid}/fd"));
            fs::create_dir_all(&directory).expect("it can be made");
            symlink(target, directory.join(descriptor.to_string())).expect("it can be made");
        }

        fn end(&self, pid: u32) {
            fs::remove_dir_all(self.tree.path().join(format!("proc/{pid}"))).expect("it was there");
        }

        fn look(&mut self, now: u64, inodes: &[u64]) -> Vec<Option<u32>> {
            let proc = self.tree.path().join("proc");
            let mut is_searched = false;
            self.owners.look(self.tree.path(), MonoMs(now), inodes, || {
                is_searched = true;
                let entries = fs::read_dir(proc).expect("it is there");
                entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
            });
            self.searches += u32::from(is_searched);
            inodes.iter().map(|&inode| self.owners.pid(inode)).collect()
        }
    }

    #[test]
    fn holders_are_looked_for_only_when_a_socket_is_new() {
        let mut host = Host::new();
        host.hold(20, 3, "socket:[100]");
        host.hold(20, 4, "/dev/null");
        host.hold(30, 0, "socket:[200]");
        assert_eq!(host.look(0, &[100, 200]), [Some(20), Some(30)]);
        assert_eq!((host.look(1, &[100, 200]), host.searches), (vec![Some(20), Some(30)], 1));
        host.hold(30, 1, "socket:[300]");
        assert_eq!((host.look(2, &[100, 200, 300]), host.searches), (vec![Some(20), Some(30), Some(30)], 2));
        assert_eq!((host.look(3, &[200]), host.owners.known.len()), (vec![Some(30)], 1));
        assert!(!host.owners.is_refused());
    }

    #[test]
    fn who_holds_a_socket_besides_the_first_process_serves_it() {
        let mut host = Host::new();
        host.hold(1, 40, "socket:[100]");
        host.hold(1, 41, "socket:[200]");
        host.hold(20, 3, "socket:[100]");
        assert_eq!(host.look(0, &[100, 200]), [Some(20), Some(1)]);
    }

    #[test]
    fn a_service_that_came_for_a_socket_of_the_first_process_is_seen_after_a_while() {
        let mut host = Host::new();
        host.hold(1, 40, "socket:[100]");
        host.hold(1, 41, "socket:[200]");
        assert_eq!(host.look(0, &[100, 200]), [Some(1), Some(1)]);
        host.hold(20, 3, "socket:[100]");
        assert_eq!(host.look(AGAIN_MS - 1, &[100, 200]), [Some(1), Some(1)]);
        assert_eq!((host.look(AGAIN_MS, &[100, 200]), host.searches), (vec![Some(20), Some(1)], 2));
    }

    #[test]
    fn a_socket_that_went_to_another_process_gets_its_new_holder() {
        let mut host = Host::new();
        host.hold(20, 3, "socket:[100]");
        assert_eq!(host.look(0, &[100]), [Some(20)]);
        host.end(20);
        host.hold(21, 3, "socket:[100]");
        assert_eq!(host.look(1, &[100]), [Some(21)]);
        // The number of the process is given to another one.
        host.end(21);
        host.hold(21, 3, "socket:[999]");
        host.hold(22, 9, "socket:[100]");
        assert_eq!(host.look(2, &[100]), [Some(22)]);
    }

    #[test]
    fn what_nobody_holds_is_looked_for_again_after_a_while_and_not_before() {
        let mut host = Host::new();
        host.hold(20, 3, "/dev/null");
        assert_eq!(host.look(0, &[0, 100]), [None, None]);
        host.hold(20, 4, "socket:[100]");
        assert_eq!((host.look(AGAIN_MS - 1, &[0, 100]), host.searches), (vec![None, None], 1));
        assert_eq!((host.look(AGAIN_MS, &[0, 100]), host.searches), (vec![None, Some(20)], 2));
    }

    #[test]
    fn a_search_of_many_descriptors_goes_on_at_the_next_tick() {
        let mut host = Host::new();
        host.hold(20, 3, "socket:[100]");
        for pid in 30..34 {
            (0..u32::try_from(LINKS_MAX / 3).expect("it fits")).for_each(|fd| host.hold(pid, fd, "/dev/null"));
        }
        assert_eq!(host.look(0, &[100]), [None]);
        // One that is new meanwhile waits for the search after this one.
        host.hold(33, 1_000_000, "socket:[200]");
        assert_eq!(host.look(1, &[100, 200]), [Some(20), None]);
        let found: Vec<_> = (2..5).map(|now| host.look(now, &[100, 200])).collect();
        assert_eq!((found[2].clone(), host.searches), (vec![Some(20), Some(33)], 2));
    }

    #[test]
    fn a_process_with_more_descriptors_than_a_tick_may_read_costs_no_more_than_those() {
        let mut host = Host::new();
        (0..u32::try_from(LINKS_MAX + 500).expect("it fits")).for_each(|fd| host.hold(20, fd, "/dev/null"));
        let mut effort = Effort { links: 0, wanted: 1 };
        host.owners.look_into(host.tree.path(), 20, &mut effort).expect("it may be read");
        assert_eq!(effort.links, LINKS_MAX);
    }

    #[test]
    fn links_are_read_as_the_kernel_writes_them() {
        assert_eq!(socket_of(b"socket:[4294967295]"), Some(4_294_967_295));
        for link in [&b"pipe:[1]"[..], b"socket:[]", b"socket:[1", b"socket:[x]", b"/socket:[1]", b"\xff"] {
            assert_eq!(socket_of(link), None);
        }
    }
}
