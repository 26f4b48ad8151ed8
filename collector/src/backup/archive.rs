//! The archive: a tar file (ustar) that is written in one way only, so that whatever differs from it is noticed.
//!
//! ```text
//! manifest.json   what it is of, and how much follows
//! FILE ...        the state's files by their names
//! sums            a line of `sha256sum` for each of the entries before
//! 1024 zeros
//! ```
//!
//! A reader makes the header that has to stand there from name, size and time, and compares. Sizes from 8 GiB on are
//! written in base 256, as GNU tar does. Nothing is held in memory but a block and the sums.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::io::{self, ErrorKind, Read, Write};

use ring::digest::{Context, SHA256};

use super::{BackupError, FORMAT, Manifest, refused_name};

const BLOCK: usize = 512;
const PIECE: usize = 64 * 1024;
const MANIFEST: &str = "manifest.json";
const SUMS: &str = "sums";
/// The manifest has 200 bytes.
const MANIFEST_BYTES_MAX: u64 = 64 * 1024;
const NAME_BYTES_MAX: usize = 100;
/// Sixty-four digits and what stands between them and the name.
const SUM_BYTES: usize = 67;
/// What eleven octal digits hold.
const OCTAL_MAX: u64 = (1 << 33) - 1;

/// What a reader meets.
pub enum Part<'a> {
    Manifest(&'a Manifest),
    /// What is left unread of the body is passed over, and checked all the same.
    File {
        name: &'a str,
        body: &'a mut dyn Read,
    },
}

impl std::fmt::Debug for Part<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Manifest(manifest) => f.debug_tuple("Manifest").field(manifest).finish(),
            Self::File { name, .. } => f.debug_struct("File").field("name", name).finish_non_exhaustive(),
        }
    }
}

#[derive(Debug)]
pub struct Writer<W> {
    out: W,
    sums: String,
    time_s: u64,
}

#[derive(Debug, PartialEq, Eq)]
struct Head {
    name: String,
    size: u64,
    time_s: u64,
}

/// An entry's body, with its sum.
struct Body<'a, R> {
    input: &'a mut R,
    left: u64,
    sum: Context,
}

impl<W: Write> Writer<W> {
    pub fn begin(out: W, manifest: &Manifest) -> io::Result<Self> {
        let time_s = u64::try_from(manifest.at.0.0 / 1_000).unwrap_or(0).min(OCTAL_MAX);
        let mut writer = Self { out, sums: String::new(), time_s };
        let mut text = serde_json::to_string_pretty(manifest).map_err(io::Error::other)?;
        text.push('\n');
        writer.file(MANIFEST, text.len() as u64, &mut text.as_bytes())?;
        Ok(writer)
    }

    /// Exactly `size` bytes of the body.
    pub fn file(&mut self, name: &str, size: u64, body: &mut dyn Read) -> io::Result<()> {
        let sum = self.entry(name, size, body)?;
        writeln!(self.sums, "{sum}  {name}").map_err(io::Error::other)
    }

    pub fn finish(mut self) -> io::Result<()> {
        let sums = std::mem::take(&mut self.sums);
        self.entry(SUMS, sums.len() as u64, &mut sums.as_bytes())?;
        self.out.write_all(&[0; 2 * BLOCK])?;
        self.out.flush()
    }

    fn entry(&mut self, name: &str, size: u64, body: &mut dyn Read) -> io::Result<String> {
        let head = Head { name: name.to_owned(), size, time_s: self.time_s };
        self.out.write_all(&head.block().ok_or_else(|| io::Error::other("the name is too long"))?)?;
        let mut body = Body { input: &mut &mut *body, left: size, sum: Context::new(&SHA256) };
        let mut piece = vec![0; PIECE];
        loop {
            let count = body.read(&mut piece)?;
            if count == 0 {
                break;
            }
            self.out.write_all(&piece[..count])?;
        }
        self.out.write_all(&[0; BLOCK][..padding(size)])?;
        Ok(body.sum())
    }
}

/// What a whole archive takes at most: beside the files themselves a header, padding and a line of sums for each.
#[must_use]
pub const fn archive_bytes(manifest: &Manifest) -> u64 {
    let entries = manifest.files.saturating_add(2);
    let beside = entries.saturating_mul((2 * BLOCK + NAME_BYTES_MAX + SUM_BYTES) as u64);
    manifest.bytes.saturating_add(beside).saturating_add(MANIFEST_BYTES_MAX + 2 * BLOCK as u64)
}

/// Reads an archive from its first byte to its last. What was told before an error was not whole.
pub fn read(
    mut input: impl Read,
    told: &mut dyn FnMut(Part<'_>) -> Result<(), BackupError>,
) -> Result<Manifest, BackupError> {
    let (manifest, time_s, mut sums) = read_manifest(&mut input)?;
    told(Part::Manifest(&manifest))?;
    let (mut names, mut bytes) = (HashSet::new(), 0_u64);
    loop {
        let head = Head::read(&mut input)?.ok_or_else(|| broken("it ends before its sums"))?;
        if head.time_s != time_s {
            return Err(broken("an entry is of another time"));
        }
        if head.name == SUMS {
            read_sums(&mut input, &head, &sums)?;
            break;
        }
        if let Some(why) = refused_name(&head.name) {
            return Err(BackupError::Archive(format!("{:?} is refused: {why}", head.name)));
        }
        if !names.insert(head.name.clone()) {
            return Err(BackupError::Archive(format!("{} is there twice", head.name)));
        }
        bytes = bytes.saturating_add(head.size);
        if bytes > manifest.bytes {
            return Err(broken("it is larger than its manifest says"));
        }
        let mut body = Body { input: &mut input, left: head.size, sum: Context::new(&SHA256) };
        told(Part::File { name: &head.name, body: &mut body })?;
        io::copy(&mut body, &mut io::sink()).map_err(cut)?;
        sums.push_str(&format!("{}  {}\n", body.sum(), head.name));
        pass_padding(&mut input, head.size)?;
    }
    if (names.len() as u64, bytes) != (manifest.files, manifest.bytes) {
        return Err(broken("it holds less than its manifest says"));
    }
    let mut end = [1; 2 * BLOCK];
    input.read_exact(&mut end).map_err(cut)?;
    let after = input.read(&mut [0]).map_err(cut)?;
    if end != [0; 2 * BLOCK] || after != 0 {
        return Err(broken("there is something behind its end"));
    }
    Ok(manifest)
}

fn read_manifest(input: &mut impl Read) -> Result<(Manifest, u64, String), BackupError> {
    let head = Head::read(input)?.filter(|head| head.name == MANIFEST && head.size <= MANIFEST_BYTES_MAX);
    let head = head.ok_or_else(|| broken("it does not begin with a manifest; it is no backup of a collector"))?;
    let mut body = Body { input, left: head.size, sum: Context::new(&SHA256) };
    let mut text = Vec::new();
    body.read_to_end(&mut text).map_err(cut)?;
    let sums = format!("{}  {MANIFEST}\n", body.sum());
    pass_padding(input, head.size)?;
    let value: serde_json::Value = serde_json::from_slice(&text).map_err(|_| broken("its manifest cannot be read"))?;
    let found = value.get("format").and_then(serde_json::Value::as_u64).and_then(|found| u32::try_from(found).ok());
    match found {
        Some(found) if found > FORMAT => return Err(BackupError::Newer { found }),
        Some(FORMAT) => {}
        _ => return Err(broken("its manifest names no format")),
    }
    let manifest = serde_json::from_value(value).map_err(|_| broken("its manifest cannot be read"))?;
    Ok((manifest, head.time_s, sums))
}

fn read_sums(input: &mut impl Read, head: &Head, expected: &str) -> Result<(), BackupError> {
    // Never more than what is expected is read into memory.
    if head.size != expected.len() as u64 {
        return Err(broken("its sums are of other files"));
    }
    let mut text = vec![0; expected.len()];
    input.read_exact(&mut text).map_err(cut)?;
    let wrong = text.split(|byte| *byte == b'\n').zip(expected.lines()).find(|(found, line)| *found != line.as_bytes());
    if let Some((_, line)) = wrong {
        let name = line.split("  ").nth(1).unwrap_or_default();
        return Err(BackupError::Archive(format!("{name} is not what it was when it was written")));
    }
    if text != expected.as_bytes() {
        return Err(broken("its sums are damaged"));
    }
    pass_padding(input, head.size)
}

impl Head {
    /// `None` at the end.
    fn read(input: &mut impl Read) -> Result<Option<Self>, BackupError> {
        let mut block = [0; BLOCK];
        input.read_exact(&mut block).map_err(cut)?;
        if block == [0; BLOCK] {
            return Ok(None);
        }
        if &block[257..265] != b"ustar\x0000" {
            return Err(broken("an entry has no header of this kind"));
        }
        let text = |bytes: &[u8]| {
            let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
            String::from_utf8_lossy(&bytes[..end]).into_owned()
        };
        let name = text(&block[..NAME_BYTES_MAX]);
        if octal(&block[148..154]) != Some(checksum(&block)) {
            return Err(BackupError::Archive(format!("the header of {name:?} is damaged")));
        }
        if block[156] != b'0' {
            return Err(BackupError::Archive(format!("{name:?} is refused: it is no ordinary file")));
        }
        let size = if block[124] == 0x80 {
            block[128..136].first_chunk().map(|bytes| u64::from_be_bytes(*bytes))
        } else {
            octal(&block[124..135])
        };
        let head = size.zip(octal(&block[136..147])).map(|(size, time_s)| Self { name, size, time_s });
        match head.filter(|head| head.block() == Some(block)) {
            Some(head) => Ok(Some(head)),
            None => Err(broken("an entry has a header that no collector writes")),
        }
    }

    /// The one way to write it; `None` for a name that is too long.
    fn block(&self) -> Option<[u8; BLOCK]> {
        let mut block = [0; BLOCK];
        let mut put = |at: usize, text: &[u8]| block[at..at + text.len()].copy_from_slice(text);
        if self.name.len() >= NAME_BYTES_MAX {
            return None;
        }
        put(0, self.name.as_bytes());
        put(100, b"0000600\x000000000\x000000000\x00");
        if self.size > OCTAL_MAX {
            put(124, &[0x80]);
            put(128, &self.size.to_be_bytes());
        } else {
            put(124, format!("{:011o}", self.size).as_bytes());
        }
        put(136, format!("{:011o}", self.time_s).as_bytes());
        put(156, b"0");
        put(257, b"ustar\x0000");
        put(329, b"0000000\x000000000\x00");
        let sum = format!("{:06o}\0 ", checksum(&block));
        block[148..156].copy_from_slice(sum.as_bytes());
        Some(block)
    }
}

impl<R: Read> Body<'_, R> {
    fn sum(self) -> String {
        self.sum.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl<R: Read> Read for Body<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        if most == 0 {
            return Ok(0);
        }
        let count = self.input.read(&mut buffer[..most])?;
        if count == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        self.left -= count as u64;
        self.sum.update(&buffer[..count]);
        Ok(count)
    }
}

/// The sum of a header's bytes, with blanks where it stands itself.
fn checksum(block: &[u8; BLOCK]) -> u64 {
    block.iter().enumerate().map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u64::from(*byte) }).sum()
}

fn octal(digits: &[u8]) -> Option<u64> {
    digits
        .iter()
        .try_fold(0_u64, |number, digit| (b'0'..=b'7').contains(digit).then(|| number * 8 + u64::from(digit - b'0')))
}

fn padding(size: u64) -> usize {
    usize::try_from((BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64).unwrap_or(0)
}

fn pass_padding(input: &mut impl Read, size: u64) -> Result<(), BackupError> {
    let mut rest = [0; BLOCK];
    let rest = &mut rest[..padding(size)];
    input.read_exact(rest).map_err(cut)?;
    if rest.iter().any(|byte| *byte != 0) { Err(broken("there is something between two entries")) } else { Ok(()) }
}

fn broken(what: &str) -> BackupError {
    BackupError::Archive(what.to_owned())
}

fn cut(error: io::Error) -> BackupError {
    BackupError::Stream(error)
}

#[cfg(test)]
mod tests {
    use dunlin_shared::time::WallMs;
    use proptest::prelude::*;

    use super::*;
    use crate::shape::Moment;

    const FILES: [(&str, &[u8]); 3] =
        [("control.db", &[7; 700]), ("window/journal-300-1.db", b"rows"), ("revoked", b"")];

    fn manifest(files: &[(&str, &[u8])]) -> Manifest {
        Manifest {
            format: FORMAT,
            program: String::from("0.1.0"),
            at: Moment(WallMs(1_795_000_000_000)),
            incarnation: String::from("77"),
            position: 9,
            applied: 8,
            files: files.len() as u64,
            bytes: files.iter().map(|(_, body)| body.len() as u64).sum(),
        }
    }

    fn archive(manifest: &Manifest, files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut writer = Writer::begin(&mut bytes, manifest).expect("memory");
        for (name, body) in files {
            writer.file(name, body.len() as u64, &mut &**body).expect("memory");
        }
        writer.finish().expect("memory");
        bytes
    }

    fn whole() -> Vec<u8> {
        archive(&manifest(&FILES), &FILES)
    }

    fn found(bytes: &[u8]) -> Result<Vec<(String, Vec<u8>)>, BackupError> {
        let mut files = Vec::new();
        read(bytes, &mut |part| {
            if let Part::File { name, body } = part {
                let mut content = Vec::new();
                body.read_to_end(&mut content).map_err(cut)?;
                files.push((name.to_owned(), content));
            }
            Ok(())
        })?;
        Ok(files)
    }

    fn why(bytes: &[u8]) -> String {
        found(bytes).expect_err("it is refused").to_string()
    }

    #[test]
    fn what_was_written_is_read() {
        let expected = FILES.map(|(name, body)| (name.to_owned(), body.to_vec()));
        assert_eq!(found(&whole()).expect("it is sound"), expected);
    }

    #[test]
    fn large_sizes_are_written_in_base_256() {
        for size in [0, OCTAL_MAX, OCTAL_MAX + 1, u64::MAX] {
            let head = Head { name: String::from("control.db"), size, time_s: 5 };
            let block = head.block().expect("a short name");
            assert_eq!(Head::read(&mut block.as_slice()).expect("it is ours"), Some(head));
        }
    }

    #[test]
    fn hostile_entries_are_refused_with_the_reason() {
        for (name, reason) in [
            ("/etc/passwd", "absolute"),
            ("../control.db", "leads out"),
            ("window/../../x", "leads out"),
            ("lock", "no file of a collector's state"),
            ("restored.json", "no file of a collector's state"),
            ("window/x", "no file of a collector's state"),
        ] {
            let files: [(&str, &[u8]); 1] = [(name, b"x")];
            assert!(why(&archive(&manifest(&files), &files)).contains(reason), "{name}");
        }
        let twice = [FILES[0], FILES[0]];
        assert!(why(&archive(&manifest(&twice), &twice)).contains("there twice"));
        assert!(why(&archive(&manifest(&FILES[..1]), &FILES)).contains("larger than its manifest says"));
        assert!(why(&archive(&manifest(&FILES), &FILES[..2])).contains("less than its manifest says"));
        let newer = Manifest { format: FORMAT + 1, ..manifest(&FILES) };
        assert!(matches!(found(&archive(&newer, &FILES)), Err(BackupError::Newer { found }) if found == FORMAT + 1));
        for kind in *b"123456Lx" {
            // The header of the first file: a link, a device, a directory.
            let mut bytes = whole();
            let block = &mut bytes[2 * BLOCK..3 * BLOCK];
            block[156] = kind;
            let sum = checksum(block.first_chunk().expect("a block"));
            block[148..154].copy_from_slice(format!("{sum:06o}").as_bytes());
            assert!(why(&bytes).contains("no ordinary file"), "{}", char::from(kind));
        }
        assert!(why(b"PK and more").contains("breaks off"));
        assert!(why(&[b'x'; 2 * BLOCK]).contains("no header of this kind"));
    }

    proptest! {
        #[test]
        fn every_flipped_bit_is_noticed(at in 0usize..10_000, bit in 0u8..8) {
            let mut bytes = whole();
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            prop_assert!(found(&bytes).is_err(), "byte {at}");
        }

        #[test]
        fn whatever_is_cut_off_or_added_is_noticed(cut in 0usize..10_000, more in 1usize..2_000) {
            let mut bytes = whole();
            prop_assert!(found(&bytes[..cut % bytes.len()]).is_err());
            bytes.extend(vec![0; more]);
            prop_assert!(found(&bytes).is_err());
        }

        #[test]
        fn no_archive_makes_it_panic(bytes: Vec<u8>) {
            drop(found(&bytes));
            let mut begun = whole();
            begun.truncate(4 * BLOCK);
            begun.extend(bytes);
            prop_assert!(found(&begun).is_err());
        }
    }
}
