//! The file `revoked`: whom people shut out, kept beside `control.db` so that its loss lets nobody back in.
//!
//! One line a node: when, its id, the SHA-256 of its public key, `revoked` or `forgotten`, and a sum over
//! all that. Lines are only ever added, and synced before whoever asked is answered. A line that cannot be
//! read is passed over and told; the newest 10,000 are read, so that a start never costs more than that.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use dunlin_shared::id::NodeId;

use super::error::StoreError;
use super::quarantine::sync_dir_of;
use super::sum::Sum;
use crate::registry::{KeyHash, Revocation};
use crate::shape::Moment;

const FILE: &str = "revoked";
const ONLY_OWNER: u32 = 0o600;
/// A fleet of the size that one collector carries. Who was shut out before that has no certificate any
/// more, which lasts a week, and needs a token.
const LINES_MAX: usize = 10_000;
/// The longest line: 24 bytes of time, 36 of id, 64 of key, 9 of word, 8 of sum, and what is between.
const LINE_BYTES: usize = 146;

#[derive(Debug)]
pub struct Revoked {
    path: PathBuf,
    /// What stands in the file, and whether the node was forgotten.
    known: HashSet<(NodeId, bool)>,
    /// What the disk had no room for.
    unwritten: Vec<Revocation>,
    /// Whether the file ends in the middle of a line.
    is_torn: bool,
}

/// What was found when the file was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RevokedFound {
    /// In the order of the file.
    pub lines: Vec<Revocation>,
    /// Lines that cannot be read, and the beginning of the first of them.
    pub damaged: usize,
    pub first_damaged: String,
    /// There are older lines, which are not read.
    pub has_older: bool,
}

impl Revoked {
    /// A file that is not there has no lines.
    pub fn open(state_dir: &Path) -> Result<(Self, RevokedFound), StoreError> {
        let path = state_dir.join(FILE);
        let (bytes, is_cut) = match File::open(&path) {
            Ok(mut file) => newest(&mut file).map_err(|error| StoreError::io(&path, error))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => (Vec::new(), false),
            Err(error) => return Err(StoreError::io(&path, error)),
        };
        let found = read(&bytes, is_cut);
        let known = found.lines.iter().map(|line| (line.node, line.is_forgotten)).collect();
        let is_torn = bytes.last().is_some_and(|byte| *byte != b'\n');
        Ok((Self { path, known, unwritten: Vec::new(), is_torn }, found))
    }

    /// Adds those that are not there yet. What cannot be written now waits, and is written with the next.
    pub fn append(&mut self, revocations: impl IntoIterator<Item = Revocation>) -> Result<(), StoreError> {
        for revocation in revocations {
            if self.known.insert((revocation.node, revocation.is_forgotten)) {
                self.unwritten.push(revocation);
            }
        }
        if self.unwritten.is_empty() {
            return Ok(());
        }
        let mut text = String::from(if self.is_torn { "\n" } else { "" });
        self.unwritten.iter().for_each(|revocation| text.push_str(&line(revocation)));
        let is_new = !self.path.exists();
        let mut options = OpenOptions::new();
        let opened = options.append(true).create(true).mode(ONLY_OWNER).open(&self.path);
        let mut file = opened.map_err(|error| StoreError::io(&self.path, error))?;
        self.is_torn = true;
        file.write_all(text.as_bytes()).map_err(|error| StoreError::io(&self.path, error))?;
        file.sync_all().map_err(|error| StoreError::sync(&self.path, error))?;
        if is_new {
            sync_dir_of(&self.path)?;
        }
        self.is_torn = false;
        self.unwritten.clear();
        Ok(())
    }
}

/// The newest lines' bytes, and whether there is more before them.
fn newest(file: &mut File) -> io::Result<(Vec<u8>, bool)> {
    let most = (LINES_MAX * LINE_BYTES) as u64;
    let length = file.metadata()?.len();
    let from = length.saturating_sub(most);
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes)?;
    if from > 0 {
        // Where it was cut, a line most likely was cut too.
        let mut before = [0];
        file.read_exact_at(&mut before, from - 1)?;
        if before != *b"\n" {
            let end = bytes.iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |at| at + 1);
            bytes.drain(..end);
        }
    }
    Ok((bytes, from > 0))
}

fn read(bytes: &[u8], is_cut: bool) -> RevokedFound {
    let mut found = RevokedFound { has_older: is_cut, ..RevokedFound::default() };
    for text in bytes.split(|byte| *byte == b'\n').filter(|text| !text.is_empty()) {
        match std::str::from_utf8(text).ok().and_then(parse) {
            Some(revocation) => found.lines.push(revocation),
            None => {
                if found.damaged == 0 {
                    found.first_damaged = String::from_utf8_lossy(text).chars().take(LINE_BYTES).collect();
                }
                found.damaged += 1;
            }
        }
    }
    let older = found.lines.len().saturating_sub(LINES_MAX);
    found.has_older |= older > 0;
    found.lines.drain(..older);
    found
}

fn line(revocation: &Revocation) -> String {
    let hex = |key: KeyHash| key.0.iter().map(|byte| format!("{byte:02x}")).collect();
    let key = revocation.key.map_or(String::from("-"), hex);
    let word = if revocation.is_forgotten { "forgotten" } else { "revoked" };
    let said = format!("{} {} {key} {word}", Moment(revocation.at), revocation.node);
    format!("{said} {}\n", sum(&said))
}

fn parse(text: &str) -> Option<Revocation> {
    let (said, given) = text.rsplit_once(' ')?;
    if given != sum(said) {
        return None;
    }
    let mut words = said.split(' ');
    let at = words.next()?.parse::<Moment>().ok()?.0;
    let node = words.next()?.parse().ok()?;
    let key = match words.next()? {
        "-" => None,
        hex => Some(key(hex)?),
    };
    let is_forgotten = match words.next()? {
        "revoked" => false,
        "forgotten" => true,
        _ => return None,
    };
    words.next().is_none().then_some(Revocation { at, node, key, is_forgotten })
}

fn key(hex: &str) -> Option<KeyHash> {
    let mut bytes = [0; 32];
    if hex.len() != 2 * bytes.len() || !hex.is_ascii() {
        return None;
    }
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(hex.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(KeyHash(bytes))
}

fn sum(said: &str) -> String {
    let mut sum = Sum::new();
    sum.add(said.as_bytes());
    format!("{:08x}", sum.value())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use dunlin_shared::time::WallMs;
    use proptest::prelude::*;

    use super::super::tests::full::Disk;
    use super::super::tests::{Dir, T0};
    use super::*;

    fn revocation(number: u16) -> Revocation {
        let node = NodeId::v7(u64::from(number), [7; 10]);
        Revocation { at: T0, node, key: Some(KeyHash([9; 32])), is_forgotten: number % 2 == 1 }
    }

    fn found(dir: &Path) -> RevokedFound {
        Revoked::open(dir).expect("it opens").1
    }

    #[test]
    fn a_line_reads_as_it_is_documented() {
        let node = NodeId::from_bytes([0x12; 16]);
        let revocation =
            Revocation { at: WallMs(1_795_000_000_000), node, key: Some(KeyHash([0xab; 32])), is_forgotten: false };
        let text = line(&revocation);
        assert!(text.starts_with(&format!("2026-11-18T11:06:40.000Z {node} {} revoked ", "ab".repeat(32))), "{text}");
        assert_eq!(parse(text.trim_end()), Some(revocation));
        let longest = Revocation { is_forgotten: true, ..revocation };
        assert_eq!(line(&longest).len(), LINE_BYTES);
    }

    #[test]
    fn what_was_added_is_there_once_after_a_restart_and_for_its_owner_alone() {
        let dir = Dir::new();
        let (mut revoked, at_first) = Revoked::open(dir.path()).expect("it opens");
        assert_eq!(at_first, RevokedFound::default());
        revoked.append([revocation(1), revocation(2), revocation(1)]).expect("added");
        let (mut revoked, there) = Revoked::open(dir.path()).expect("it opens");
        assert_eq!(there.lines, [revocation(1), revocation(2)]);
        revoked.append([revocation(2), revocation(3)]).expect("added");
        assert_eq!(found(dir.path()).lines, [1, 2, 3].map(revocation));
        let mode = std::fs::metadata(dir.path().join(FILE)).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, ONLY_OWNER);
    }

    #[test]
    fn a_torn_line_is_told_and_what_follows_it_is_whole() {
        let dir = Dir::new();
        let path = dir.path().join(FILE);
        Revoked::open(dir.path()).expect("it opens").0.append([1, 2].map(revocation)).expect("added");
        let whole = std::fs::read(&path).expect("read");
        for cut in 1..whole.len() {
            std::fs::write(&path, &whole[..cut]).expect("written");
            let (mut revoked, there) = Revoked::open(dir.path()).expect("it opens");
            let is_whole = whole[cut - 1] == b'\n' || whole[cut] == b'\n';
            assert_eq!(there.damaged, usize::from(!is_whole), "cut at {cut}");
            revoked.append([revocation(8)]).expect("added");
            let after = found(dir.path());
            assert_eq!(after.lines.last(), Some(&revocation(8)), "cut at {cut}");
            assert_eq!(after.lines.len(), there.lines.len() + 1);
            assert_eq!(&std::fs::read(&path).expect("read")[..cut], &whole[..cut], "nothing was taken away");
        }
    }

    #[test]
    fn only_the_newest_lines_are_read_of_a_file_that_has_grown_too_long() {
        let dir = Dir::new();
        let (mut revoked, _) = Revoked::open(dir.path()).expect("it opens");
        let count = u16::try_from(LINES_MAX).expect("it is small");
        revoked.append((0..count).map(revocation)).expect("added");
        let there = found(dir.path());
        assert_eq!((there.lines.len(), there.has_older), (LINES_MAX, false));
        revoked.append((count..count + 900).map(revocation)).expect("added");
        let there = found(dir.path());
        assert_eq!((there.lines.len(), there.has_older, there.damaged), (LINES_MAX, true, 0));
        assert_eq!(there.lines.last(), Some(&revocation(count + 899)));
    }

    #[test]
    fn what_a_full_disk_had_no_room_for_is_added_when_there_is() {
        let disk = Disk::new(2_048);
        let (mut revoked, _) = Revoked::open(disk.path()).expect("it opens");
        revoked.append([revocation(1)]).expect("added");
        let filler = disk.fill();
        // A block may have room left; a thousand lines do not fit into it.
        let refused = revoked.append((2..1_000).map(revocation));
        assert!(matches!(refused, Err(StoreError::Unavailable { .. })), "{refused:?}");
        std::fs::remove_file(filler).expect("it is there");
        revoked.append([]).expect("there is room again");
        let there = found(disk.path());
        for number in 1..1_000 {
            assert!(there.lines.contains(&revocation(number)), "{number}");
        }
    }

    proptest! {
        /// Whatever is in the file: nothing panics, and no line is read that was not written.
        #[test]
        fn damage_is_told_and_never_believed(at in 0usize..290, byte in any::<u8>(), junk in prop::collection::vec(any::<u8>(), 0..400)) {
            let mut bytes: Vec<u8> = [1, 2].map(revocation).iter().flat_map(|revocation| line(revocation).into_bytes()).collect();
            let at = at % bytes.len();
            bytes[at] = byte;
            for line in read(&bytes, false).lines {
                prop_assert!([1, 2].map(revocation).contains(&line));
            }
            prop_assert!(read(&junk, false).lines.is_empty());
        }
    }
}
