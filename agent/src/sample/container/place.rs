//! Where sockets of container engines are: those that are configured, else the places where Docker and Podman put them,
//! rootless ones included.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use dunlin_shared::inventory::Engine;
use dunlin_shared::limits::SUBJECT_NAME_BYTES_MAX;

use crate::sample::name::shown;

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

/// The configured ones, or those that are there. The same socket under two paths counts once.
pub(super) fn places(root: &Path, configured: &[PathBuf]) -> Vec<Place> {
    if !configured.is_empty() {
        let named = |path: &PathBuf| Place::at(path.clone(), format!(" at {}", shown_path(path)));
        return configured.iter().map(|path| Place { is_configured: true, ..named(path) }).collect();
    }
    let mut found: Vec<(Place, (u64, u64))> = Vec::new();
    for place in candidates(root) {
        match identity(&place.path) {
            Some(identity) if found.iter().all(|(_, known)| *known != identity) => found.push((place, identity)),
            _ => {}
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

/// Which socket it is, whatever path leads there. A directory that is shut hides it: then there is none.
fn identity(path: &Path) -> Option<(u64, u64)> {
    let metadata = fs::metadata(path).ok()?;
    metadata.file_type().is_socket().then(|| (metadata.dev(), metadata.ino()))
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
    fn a_group_has_the_name_that_the_file_gives_it() {
        let text = "root:x:0:\ndocker:x:998:me,you\nbroken\n";
        assert_eq!((name_of_group(text, 998), name_of_group(text, 5)), (Some("docker"), None));
    }
}
