//! Where sockets of container engines are: those that are configured, else the places where Docker and Podman put them,
//! rootless ones included.

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use dunlin_shared::inventory::Engine;
use dunlin_shared::limits::SUBJECT_NAME_BYTES_MAX;

use crate::sample::name::shown;

/// Of all users; each costs a task and a connection.
pub(super) const SOCKETS_MAX: usize = 8;
/// Of the system, with `/var/run` for hosts where it is a directory of its own.
const SYSTEM: [&str; 3] = ["run/docker.sock", "var/run/docker.sock", "run/podman/podman.sock"];
/// Of a user, below `/run/user/UID`.
const ROOTLESS: [&str; 2] = ["docker.sock", "podman/podman.sock"];
/// A group file is read once for a complaint.
const GROUPS_BYTES_MAX: u64 = 1024 * 1024;

/// Where an engine may be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) path: PathBuf,
    /// What the inventory calls it.
    pub(super) name: Box<str>,
    /// Named in the configuration: that it is not there is worth a word.
    pub(super) is_configured: bool,
    /// As far as the path says.
    pub(super) engine: Engine,
}

/// The configured ones, or those that are there. The same socket under two paths counts once.
pub(super) fn places(root: &Path, configured: &[PathBuf]) -> Vec<Place> {
    if !configured.is_empty() {
        let places = configured.iter().take(SOCKETS_MAX).map(|path| Place {
            path: path.clone(),
            name: shown(path.as_os_str().as_encoded_bytes()).into(),
            is_configured: true,
            engine: engine_of(path),
        });
        return places.collect();
    }
    let mut found: Vec<(Place, (u64, u64))> = Vec::new();
    for (path, name) in candidates(root) {
        let Some(identity) = identity(&path) else { continue };
        if found.len() < SOCKETS_MAX && found.iter().all(|(_, known)| *known != identity) {
            let engine = engine_of(&path);
            found.push((Place { path, name, is_configured: false, engine }, identity));
        }
    }
    found.into_iter().map(|(place, _)| place).collect()
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

fn candidates(root: &Path) -> Vec<(PathBuf, Box<str>)> {
    let mut all: Vec<(PathBuf, Box<str>)> =
        SYSTEM.iter().map(|path| (root.join(path), engine_of(Path::new(path)).as_str().into())).collect();
    let users = fs::read_dir(root.join("run/user")).into_iter().flatten().flatten();
    let mut users: Vec<PathBuf> = users.map(|user| user.path()).collect();
    users.sort();
    for user in users {
        let uid = user.file_name().map(|name| shown(name.as_encoded_bytes())).unwrap_or_default();
        for path in ROOTLESS {
            let path = user.join(path);
            let mut name = format!("{} of user {uid}", engine_of(&path).as_str());
            name.truncate(name.floor_char_boundary(SUBJECT_NAME_BYTES_MAX));
            all.push((path, name.into()));
        }
    }
    all
}

/// Which socket it is, whatever path leads there. A directory that is shut hides it: then there is none.
fn identity(path: &Path) -> Option<(u64, u64)> {
    let metadata = fs::metadata(path).ok()?;
    metadata.file_type().is_socket().then(|| (metadata.dev(), metadata.ino()))
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

    #[test]
    fn sockets_of_the_system_and_of_users_are_found_once_each() {
        let tree = Tree::new(&[("run/user/1000/bus", ""), ("run/podman/podman.sock", "no socket")]);
        let _held = ["run/docker.sock", "run/user/1000/podman/podman.sock", "run/user/70/docker.sock"]
            .map(|path| listen(&tree, path));
        fs::create_dir(tree.path().join("var")).expect("a directory");
        std::os::unix::fs::symlink("../run", tree.path().join("var/run")).expect("a link");
        let names: Vec<_> = places(tree.path(), &[]).into_iter().map(|place| place.name).collect();
        assert_eq!(names, ["docker", "podman of user 1000", "docker of user 70"].map(Box::from));
    }

    #[test]
    fn what_is_configured_is_taken_as_it_is() {
        let found = places(Path::new("/"), &["/a/docker.sock".into(), "/b/podman.sock".into()]);
        let found: Vec<_> = found.iter().map(|place| (&*place.name, place.engine, place.is_configured)).collect();
        assert_eq!(found, [("/a/docker.sock", Engine::Docker, true), ("/b/podman.sock", Engine::Podman, true)]);
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
