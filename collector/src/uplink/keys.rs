//! The keys of the endpoint, in one file of the state directory, so that agents notice a restart at their next packet
//! and end a handshake that it interrupted.
//!
//! A file that is there and cannot be read is never written over. It is written whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use thiserror::Error;
use tracing::warn;

use crate::clock::Clock;

const NAME: &str = "endpoint.key";
/// What it is written to before it takes its name.
const FRESH: &str = "endpoint.key.new";
const BYTES: usize = 64 + 8 + 32;

#[derive(Debug, Error)]
pub enum KeysError {
    #[error("{} cannot be used", path.display())]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the system gives no random numbers")]
    NoRandom,
}

/// Keys that must survive a restart.
#[derive(Debug)]
pub struct EndpointKeys {
    pub reset: [u8; 64],
    pub connection_ids: u64,
    /// A handshake that was asked to come back with a token may come back to the next run.
    pub tokens: [u8; 32],
}

/// Made on the first start, mode 0600.
pub fn endpoint_keys(state_dir: &Path) -> Result<EndpointKeys, KeysError> {
    let path = state_dir.join(NAME);
    let failed = |source| KeysError::File { path: path.clone(), source };
    let bytes = match read(&path) {
        Ok(Some(bytes)) => bytes,
        Ok(None) => {
            // Nothing depends on what is in such a file, but it was not written here.
            warn!("{}: it has not {BYTES} bytes and is made anew; agents notice this start late", path.display());
            make(state_dir, failed)?
        }
        Err(error) if error.kind() == ErrorKind::NotFound => make(state_dir, failed)?,
        Err(error) => return Err(failed(error)),
    };
    let (mut reset, mut connection_ids, mut tokens) = ([0; 64], [0; 8], [0; 32]);
    reset.copy_from_slice(&bytes[..64]);
    connection_ids.copy_from_slice(&bytes[64..72]);
    tokens.copy_from_slice(&bytes[72..]);
    Ok(EndpointKeys { reset, connection_ids: u64::from_le_bytes(connection_ids), tokens })
}

/// None for a file of another size, however large it is.
fn read(path: &Path) -> io::Result<Option<[u8; BYTES]>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(BYTES as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes.try_into().ok())
}

fn make(state_dir: &Path, failed: impl FnOnce(io::Error) -> KeysError) -> Result<[u8; BYTES], KeysError> {
    let bytes = Clock::random::<BYTES>().ok_or(KeysError::NoRandom)?;
    write(state_dir, &bytes).map_err(failed)?;
    Ok(bytes)
}

fn write(state_dir: &Path, bytes: &[u8]) -> io::Result<()> {
    let fresh = state_dir.join(FRESH);
    // One that a crash left behind may have been made with another mode.
    fs::remove_file(&fresh).or_else(|error| if error.kind() == ErrorKind::NotFound { Ok(()) } else { Err(error) })?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&fresh, state_dir.join(NAME))?;
    File::open(state_dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::store::tests::Dir;

    fn keys(dir: &Dir) -> EndpointKeys {
        endpoint_keys(dir.path()).expect("they are made or read")
    }

    fn file(dir: &Dir) -> PathBuf {
        dir.path().join(NAME)
    }

    fn all(keys: &EndpointKeys) -> ([u8; 64], u64, [u8; 32]) {
        (keys.reset, keys.connection_ids, keys.tokens)
    }

    #[test]
    fn keys_are_made_once_and_are_for_their_owner_alone() {
        let dir = Dir::new();
        // What a start that was interrupted left is no hindrance.
        fs::write(dir.path().join(FRESH), "torn").expect("it is writable");
        let made = keys(&dir);
        assert_eq!(all(&keys(&dir)), all(&made));
        let found: Vec<_> =
            fs::read_dir(dir.path()).expect("it is there").flatten().map(|entry| entry.file_name()).collect();
        assert_eq!(found, [NAME]);
        assert_eq!(fs::metadata(file(&dir)).expect("it is there").permissions().mode() & 0o777, 0o600);
        assert_ne!(all(&keys(&Dir::new())), all(&made));
    }

    #[test]
    fn a_file_of_another_size_is_replaced_whole() {
        for len in [0, BYTES - 1, BYTES + 1, 4 * BYTES] {
            let dir = Dir::new();
            fs::write(file(&dir), vec![7; len]).expect("it is writable");
            let made = keys(&dir);
            assert_ne!(made.tokens, [7; 32]);
            assert_eq!(fs::metadata(file(&dir)).expect("it is there").len(), BYTES as u64);
            assert_eq!(all(&keys(&dir)), all(&made));
        }
    }

    #[test]
    fn a_file_that_cannot_be_read_is_refused_with_its_path_and_left_as_it_is() {
        // Whoever runs the tests may read every file; nobody reads a directory, or a link to itself.
        let (directory, loops) = (Dir::new(), Dir::new());
        fs::create_dir(file(&directory)).expect("it is writable");
        std::os::unix::fs::symlink(NAME, file(&loops)).expect("it is writable");
        for dir in [&directory, &loops] {
            let kind = || fs::symlink_metadata(file(dir)).expect("it is there").file_type();
            let before = kind();
            let refused = endpoint_keys(dir.path()).expect_err("it cannot be read");
            assert!(matches!(&refused, KeysError::File { path, .. } if *path == file(dir)), "{refused}");
            assert!(refused.to_string().contains(&file(dir).display().to_string()), "{refused}");
            assert_eq!(kind(), before);
            assert!(!dir.path().join(FRESH).exists());
        }
    }
}
