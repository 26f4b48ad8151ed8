//! Whose files are that root makes: those of the directory's owner, who could not use them otherwise.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt as _, lchown};
use std::path::Path;

/// Gives a file or directory to whom `dir` belongs. For anybody but root it is so already. Links are not followed: the
/// owner of the directory can put them there.
pub fn give_to_owner_of(dir: &Path, path: &Path) -> io::Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let owner = fs::metadata(dir)?;
    lchown(path, Some(owner.uid()), Some(owner.gid()))
}
