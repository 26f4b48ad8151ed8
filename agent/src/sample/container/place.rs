//! Where sockets of container engines are: those that are configured, else the places where Docker and Podman put them,
//! rootless ones included.
//!
//! The directory of a user is shut to all others. Whether an engine listens in it is seen nevertheless: the kernel tells
//! everybody by which paths sockets are bound.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{ErrorKind, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use dunlin_shared::inventory::Engine;
use dunlin_shared::limits::SUBJECT_NAME_BYTES_MAX;

use crate::sample::name::shown;

/// Of the system, with `/var/run` for hosts where it is a directory of its own.
const SYSTEM: [&str; 3] = ["run/docker.sock", "var/run/docker.sock", "run/podman/podman.sock"];
/// Of a user, below `/run/user/UID`.
const ROOTLESS: [&str; 2] = ["docker.sock", "podman/podman.sock"];
/// Where RootlessKit, which starts a rootless Docker, is spoken to.
const DOCKER_PARENT: &str = "dockerd-rootless/api.sock";
/// With what stands in front of a path: a name that is none begins with another sign.
const USERS: &[u8] = b" /run/user/";
/// Some ten thousand sockets. A host that has more may have an engine that is not seen.
const BOUND_BYTES_MAX: u64 = 1024 * 1024;
/// A group file is read once for a complaint.
const GROUPS_BYTES_MAX: u64 = 1024 * 1024;

/// Where an engine may be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) path: PathBuf,
    /// What stands behind the engine's word in the name that the inventory has for it.
    whose: Box<str>,
    /// Named in the configuration: that it is not there is worth a word.
    pub(super) is_configured: bool,
    /// As far as the path says.
    pub(super) engine: Engine,
    /// The directory that comes and goes with the user whose engine it is.
    home: Option<PathBuf>,
}

impl Place {
    /// By its first word the collector knows which containers it tells.
    pub(super) fn name_as(&self, engine: Engine) -> Box<str> {
        let mut name = format!("{}{}", engine.as_str(), self.whose);
        name.truncate(name.floor_char_boundary(SUBJECT_NAME_BYTES_MAX));
        name.into()
    }

    /// Its user has left.
    pub(super) fn is_over(&self) -> bool {
        let is_gone = |home: &PathBuf| fs::metadata(home).is_err_and(|error| error.kind() == ErrorKind::NotFound);
        self.home.as_ref().is_some_and(is_gone)
    }

    fn at(path: PathBuf, whose: String) -> Self {
        let engine = engine_of(&path);
        Self { path, whose: whose.into(), is_configured: false, engine, home: None }
    }
}

/// The configured ones, or those that are there, those that are shut last. The same socket under two paths counts once.
pub(super) fn places(root: &Path, configured: &[PathBuf]) -> Vec<Place> {
    if !configured.is_empty() {
        let named = |path: &PathBuf| Place::at(path.clone(), format!(" at {}", shown_path(path)));
        return configured.iter().map(|path| Place { is_configured: true, ..named(path) }).collect();
    }
    let mut found: Vec<(Place, (u64, u64))> = Vec::new();
    let mut shut: Vec<Place> = Vec::new();
    for place in candidates(root) {
        match identity(&place.path) {
            Ok(Some(identity)) if found.iter().all(|(_, known)| *known != identity) => found.push((place, identity)),
            Err(error) if error.kind() == ErrorKind::PermissionDenied && place.home.is_some() => shut.push(place),
            Ok(_) | Err(_) => {}
        }
    }
    if !shut.is_empty() {
        let bound = bound(root);
        shut.retain(|place| signs(place, root).iter().any(|sign| bound.contains(sign)));
    }
    found.into_iter().map(|(place, _)| place).chain(shut).collect()
}

/// The name of the group that may use a socket, where that is a group of its own and may use it.
pub(super) fn group_of(path: &Path) -> Option<String> {
    const GROUP_WRITE: u32 = 0o020;
    let metadata = fs::metadata(path).ok()?;
    if metadata.gid() == 0 || metadata.mode() & GROUP_WRITE == 0 {
        return None;
    }
    let file = Path::new("/etc/group");
    let is_small = fs::metadata(file).is_ok_and(|group| group.len() <= GROUPS_BYTES_MAX);
    let text = is_small.then(|| fs::read_to_string(file).ok()).flatten()?;
    name_of_group(&text, metadata.gid()).map(str::to_owned)
}

fn name_of_group(text: &str, gid: u32) -> Option<&str> {
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(gid)).then_some(name)
    })
}

fn candidates(root: &Path) -> Vec<Place> {
    let system = |path: &&str| {
        let is_second = path.starts_with("var");
        let whose = if is_second { format!(" at /{path}") } else { String::new() };
        Place::at(root.join(path), whose)
    };
    let mut all: Vec<Place> = SYSTEM.iter().map(system).collect();
    let users = fs::read_dir(root.join("run/user")).into_iter().flatten().flatten();
    let mut users: Vec<PathBuf> = users.map(|user| user.path()).collect();
    users.sort();
    for user in users {
        let uid = user.file_name().map(|name| shown(name.as_encoded_bytes())).unwrap_or_default();
        let of_user = |path| Place::at(user.join(path), format!(" of user {uid}"));
        all.extend(ROOTLESS.map(|path| Place { home: Some(user.clone()), ..of_user(path) }));
    }
    all
}

/// Which socket it is, whatever path leads there; none where there is another thing or nothing.
fn identity(path: &Path) -> std::io::Result<Option<(u64, u64)>> {
    let metadata = fs::metadata(path)?;
    Ok(metadata.file_type().is_socket().then(|| (metadata.dev(), metadata.ino())))
}

/// Paths of which one is bound while the engine of this place is there. A rootless Docker listens in a network of its
/// own, of which nothing is seen from outside; what started it listens in the host's.
fn signs(place: &Place, root: &Path) -> Vec<PathBuf> {
    let beside = (place.engine == Engine::Docker).then(|| place.home.as_ref().map(|home| home.join(DOCKER_PARENT)));
    let all = std::iter::once(place.path.clone()).chain(beside.flatten());
    all.filter_map(|path| Some(Path::new("/").join(path.strip_prefix(root).ok()?))).collect()
}

/// Paths of sockets of users, as the kernel lists them: `N: 2 0 10000 1 1 4711 /run/user/1000/bus`.
fn bound(root: &Path) -> HashSet<PathBuf> {
    let mut text = Vec::new();
    let read =
        File::open(root.join("proc/net/unix")).and_then(|file| file.take(BOUND_BYTES_MAX).read_to_end(&mut text));
    if read.is_err() {
        return HashSet::new();
    }
    let lines = text.split(|&byte| byte == b'\n');
    let path = |line: &[u8]| {
        let at = line.windows(USERS.len()).position(|part| part == USERS)?;
        Some(PathBuf::from(OsStr::from_bytes(&line[at + 1..])))
    };
    lines.filter_map(path).collect()
}

fn shown_path(path: &Path) -> String {
    shown(path.as_os_str().as_encoded_bytes())
}

fn engine_of(path: &Path) -> Engine {
    let is_podman = path.as_os_str().as_encoded_bytes().windows(6).any(|part| part == b"podman");
    if is_podman { Engine::Podman } else { Engine::Docker }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use proptest::prelude::*;

    use super::*;
    use crate::sample::tree::Tree;

    fn listen(tree: &Tree, path: &str) -> UnixListener {
        tree.set(path, "");
        tree.remove(path);
        UnixListener::bind(tree.path().join(path)).expect("a socket")
    }

    fn names(tree: &Tree) -> Vec<Box<str>> {
        places(tree.path(), &[]).into_iter().map(|place| place.name_as(place.engine)).collect()
    }

    #[test]
    fn sockets_of_the_system_and_of_users_are_found_once_each() {
        let tree = Tree::new(&[("run/user/1000/bus", ""), ("run/podman/podman.sock", "no socket")]);
        let _held = ["run/docker.sock", "run/user/1000/podman/podman.sock", "run/user/70/docker.sock"]
            .map(|path| listen(&tree, path));
        fs::create_dir(tree.path().join("var")).expect("a directory");
        std::os::unix::fs::symlink("../run", tree.path().join("var/run")).expect("a link");
        assert_eq!(names(&tree), ["docker", "podman of user 1000", "docker of user 70"].map(Box::from));
    }

    #[test]
    fn an_engine_has_its_own_word_whatever_its_path_says() {
        let tree = Tree::new(&[]);
        let _held = ["run/docker.sock", "var/run/docker.sock"].map(|path| listen(&tree, path));
        assert_eq!(names(&tree), ["docker", "docker at /var/run/docker.sock"].map(Box::from));
        let place = places(Path::new("/"), &["/run/dunlin-proxy/engine.sock".into()]).remove(0);
        assert_eq!(&*place.name_as(Engine::Podman), "podman at /run/dunlin-proxy/engine.sock");
    }

    #[test]
    fn what_is_configured_is_taken_as_it_is() {
        let found = places(Path::new("/"), &["/a/docker.sock".into(), "/b/podman.sock".into()]);
        let found: Vec<_> = found.iter().map(|place| (place.name_as(place.engine), place.is_configured)).collect();
        assert_eq!(found, [("docker at /a/docker.sock".into(), true), ("podman at /b/podman.sock".into(), true)]);
    }

    #[test]
    fn an_engine_behind_a_directory_that_is_shut_is_known_by_the_path_that_it_listens_on() {
        let text = "Num RefCount Protocol Flags Type St Inode Path\n\
                    0: 2 0 10000 1 1 11 /run/user/1000/podman/podman.sock\n0: 2 0 0 2 1 12\n\
                    0: 2 0 10000 1 1 13 /run/user/7/dockerd-rootless/api.sock\n0: 2 0 10000 1 1 14 @/run/user/8/bus\n";
        let tree = Tree::new(&[("proc/net/unix", text)]);
        let bound = bound(tree.path());
        let place = |path: &str| Place {
            home: Some(tree.path().join("run/user/7")),
            ..Place::at(tree.path().join(path), String::new())
        };
        let is_there = |path: &str| signs(&place(path), tree.path()).iter().any(|sign| bound.contains(sign));
        assert!(is_there("run/user/1000/podman/podman.sock") && is_there("run/user/7/docker.sock"));
        assert!(!is_there("run/user/7/podman/podman.sock") && !is_there("run/user/1000/podman/podman"));
    }

    #[test]
    fn a_group_has_the_name_that_the_file_gives_it() {
        let text = "root:x:0:\ndocker:x:998:me,you\nbroken\n";
        assert_eq!((name_of_group(text, 998), name_of_group(text, 5)), (Some("docker"), None));
    }

    proptest! {
        #[test]
        fn any_file_of_groups_is_read(before in "[ -~\\n]{0,80}", text: String, gid: u32) {
            prop_assert!(name_of_group(&text, gid).is_none_or(|name| !name.contains([':', '\n'])));
            let text = format!("{before}\nmine:x:{gid}:me\n");
            let name = name_of_group(&text, gid);
            prop_assert!(name.is_some_and(|name| name == "mine" || before.contains(&gid.to_string())), "{name:?}");
        }
    }
}
