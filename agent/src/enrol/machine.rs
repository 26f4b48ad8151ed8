//! What machine the identity was made on, kept in `STATE_DIR/machine`: so that a copy of a disk is noticed
//! on the machine that it was copied to.
//!
//! The machine's id is compared and never sent, and it is no proof of anything: without one, or without a
//! memory of one, nothing is concluded.
//!
//! The file is one line: the 32 hexadecimal digits of the host's `machine-id`.

use std::io;
use std::path::Path;

use crate::state;

pub(super) const NAME: &str = "machine";

/// Where hosts keep it; the second is older than systemd.
const SOURCES: [&str; 2] = ["etc/machine-id", "var/lib/dbus/machine-id"];
const DIGITS: usize = 32;
const FILE_BYTES_MAX: u64 = 64;

/// What the memory says of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Memory {
    /// It was made here, or nobody can tell.
    Here,
    /// It does not say, and this machine has an id to be remembered.
    Blank(String),
    /// It was made on another machine.
    Elsewhere,
}

/// The id of the machine below `root`, when it has one.
pub(super) fn id(root: &Path) -> Option<String> {
    SOURCES.iter().find_map(|source| digits(&state::read(&root.join(source), FILE_BYTES_MAX).ok()??))
}

pub(super) fn recall(state_dir: &Path, here: Option<String>) -> Memory {
    let Some(here) = here else { return Memory::Here };
    match state::read(&state_dir.join(NAME), FILE_BYTES_MAX) {
        // What cannot be read may say anything: nothing is concluded, and nothing overwritten.
        Err(_) => Memory::Here,
        Ok(text) => match text.and_then(|text| digits(&text)) {
            None => Memory::Blank(here),
            Some(there) if there == here => Memory::Here,
            Some(_) => Memory::Elsewhere,
        },
    }
}

pub(super) fn remember(state_dir: &Path, id: &str) -> io::Result<()> {
    state::replace(&state_dir.join(NAME), format!("{id}\n").as_bytes())
}

fn digits(text: &[u8]) -> Option<String> {
    let text = str::from_utf8(text).ok()?.trim();
    let is_id = text.len() == DIGITS && text.bytes().all(|digit| digit.is_ascii_hexdigit());
    is_id.then(|| text.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::state::tests::Dir;

    const HERE: &str = "0123456789abcdef0123456789abcdef";
    const THERE: &str = "fedcba9876543210fedcba9876543210";

    #[test]
    fn the_first_readable_id_counts_and_what_is_no_id_does_not() {
        let root = Dir::new();
        assert_eq!(id(&root.0), None);
        for dir in ["etc", "var/lib/dbus"] {
            fs::create_dir_all(root.0.join(dir)).expect("it is writable");
        }
        fs::write(root.0.join(SOURCES[1]), THERE).expect("it is writable");
        for text in ["", "uninitialized\n", "0123"] {
            fs::write(root.0.join(SOURCES[0]), text).expect("it is writable");
            assert_eq!(id(&root.0).as_deref(), Some(THERE), "{text:?}");
        }
        fs::write(root.0.join(SOURCES[0]), format!("{}\n", HERE.to_uppercase())).expect("it is writable");
        assert_eq!(id(&root.0).as_deref(), Some(HERE));
    }

    #[test]
    fn another_machine_is_noticed_and_nothing_else_is_concluded() {
        let dir = Dir::new();
        let here = || Some(HERE.to_owned());
        assert_eq!(recall(&dir.0, here()), Memory::Blank(HERE.to_owned()));
        remember(&dir.0, HERE).expect("it is writable");
        assert_eq!(recall(&dir.0, here()), Memory::Here);
        assert_eq!(recall(&dir.0, Some(THERE.to_owned())), Memory::Elsewhere);
        assert_eq!(recall(&dir.0, None), Memory::Here);
        let whole = fs::read(dir.0.join(NAME)).expect("it is there");
        for torn in 0..DIGITS {
            fs::write(dir.0.join(NAME), &whole[..torn]).expect("it is writable");
            assert_eq!(recall(&dir.0, here()), Memory::Blank(HERE.to_owned()));
        }
    }
}
