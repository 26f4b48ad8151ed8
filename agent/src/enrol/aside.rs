//! How an identity leaves the state directory: set aside because it is another machine's, or forgotten by
//! `dunlin-agent seal`. Only these two give up a key.
//!
//! Either can be cut short at any point and done again: the key goes after everything that was made with it, and
//! the memory of the machine goes last.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::MACHINE;
use crate::identity::{AUTHORITIES, CERTIFICATE, KEY};
use crate::sight::file;
use crate::state::{self, TEMPORARY_SUFFIX};
use crate::{epoch, goodbyes};

const ASIDE_SUFFIX: &str = ".from-another-machine";

/// The numbers of its frames mean something to its node alone.
const HISTORY: [&str; 4] = ["spool", goodbyes::NAME, epoch::NAME, file::NAME];
const IDENTITY: [&str; 4] = [CERTIFICATE, AUTHORITIES, KEY, MACHINE];

#[derive(Debug, Error)]
#[error("{}", path.display())]
pub struct AsideError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// Whether there is any part of an identity.
#[must_use]
pub fn is_there(state_dir: &Path) -> bool {
    [CERTIFICATE, AUTHORITIES, KEY].iter().any(|name| state_dir.join(name).exists())
}

/// Renames the identity and removes its history. How many files were renamed.
pub fn set_aside(state_dir: &Path) -> Result<usize, AsideError> {
    for name in HISTORY {
        remove(state_dir, name)?;
    }
    let mut moved = 0;
    for name in IDENTITY {
        let path = state_dir.join(name);
        match fs::rename(&path, state_dir.join(format!("{name}{ASIDE_SUFFIX}"))) {
            Ok(()) => moved += 1,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(AsideError { path, source }),
        }
        // One after the other, also on the disk.
        state::sync_dir_of(&path).map_err(|source| AsideError { path, source })?;
    }
    Ok(moved)
}

/// Removes identity and history and what is left of others. What was removed, in order.
pub fn forget(state_dir: &Path) -> Result<Vec<PathBuf>, AsideError> {
    let mut removed = Vec::new();
    for name in forgettable() {
        removed.extend(remove(state_dir, &name)?);
    }
    Ok(removed)
}

/// What `forget` would remove now.
#[must_use]
pub fn left(state_dir: &Path) -> Vec<PathBuf> {
    let paths = forgettable().map(|name| state_dir.join(name));
    paths.filter(|path| path.symlink_metadata().is_ok()).collect()
}

fn forgettable() -> impl Iterator<Item = String> {
    let names = HISTORY.iter().chain(&IDENTITY);
    let with_leftovers = names.flat_map(|name| ["", TEMPORARY_SUFFIX, ASIDE_SUFFIX].map(|end| format!("{name}{end}")));
    with_leftovers.chain([epoch::DAMAGED_NAME.to_owned()])
}

/// Gone from the disk when it returns.
fn remove(state_dir: &Path, name: &str) -> Result<Option<PathBuf>, AsideError> {
    let path = state_dir.join(name);
    match state::remove(&path)
        .and_then(|was_there| if was_there { state::sync_dir_of(&path).map(|()| true) } else { Ok(false) })
    {
        Ok(was_there) => Ok(was_there.then_some(path)),
        Err(source) => Err(AsideError { path, source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::enrol::machine;
    use crate::identity::testing::Authority;
    use crate::state::tests::Dir;

    fn lived_in() -> Dir {
        let dir = Dir::new();
        Authority::new("ours").enrol(&dir.0);
        machine::remember(&dir.0, &"a".repeat(32)).expect("it is writable");
        fs::create_dir(dir.0.join("spool")).expect("it is writable");
        for name in ["spool/1-0.seg", "epoch", "goodbyes", "lock", "node.key.tmp", "notes-of-mine"] {
            fs::write(dir.0.join(name), "x").expect("it is writable");
        }
        dir
    }

    #[test]
    fn what_is_set_aside_is_kept_under_another_name_and_its_history_is_gone() {
        let dir = lived_in();
        let key = fs::read(dir.0.join(KEY)).expect("it is there");
        assert_eq!(set_aside(&dir.0).expect("it is writable"), 4);
        let names: Vec<String> = IDENTITY.iter().map(|name| format!("{name}{ASIDE_SUFFIX}")).collect();
        let mut expected: Vec<&str> = names.iter().map(String::as_str).collect();
        expected.extend(["lock", "node.key.tmp", "notes-of-mine"]);
        expected.sort_unstable();
        assert_eq!(dir.names(), expected);
        assert_eq!(fs::read(dir.0.join("node.key.from-another-machine")).expect("it is kept"), key);
        assert_eq!(set_aside(&dir.0).expect("it is writable"), 0);
        assert_eq!(dir.names(), expected);
    }

    #[test]
    fn sealing_leaves_nothing_of_an_identity_and_all_that_is_not_ours() {
        let dir = lived_in();
        set_aside(&dir.0).expect("it is writable");
        Authority::new("ours").enrol(&dir.0);
        fs::write(dir.0.join("node.key.tmp"), "half a key").expect("it is writable");
        let removed = forget(&dir.0).expect("it is writable");
        assert_eq!(dir.names(), ["lock", "notes-of-mine"]);
        assert_eq!(removed.len(), 3 + 4 + 1, "{removed:?}");
        assert_eq!(forget(&dir.0).expect("it is writable"), Vec::<PathBuf>::new());
    }

    #[test]
    fn a_seal_that_is_cut_short_never_leaves_a_certificate_without_its_key() {
        let order: Vec<&str> = HISTORY.iter().chain(&IDENTITY).copied().collect();
        let at = |name| order.iter().position(|&other| other == name).expect("it is forgotten");
        assert!(at(CERTIFICATE) < at(KEY) && at(AUTHORITIES) < at(KEY) && at(KEY) < at(MACHINE));
        assert!(at("spool") < at(KEY) && at("epoch") < at(KEY));
    }
}
