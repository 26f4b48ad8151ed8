//! Files below the root, read into one buffer that is used again and again.
//!
//! A file of `/proc` has no size until it is read, so each has a limit, and what is beyond it is not seen. Text is
//! handed out with its path, so that whoever cannot read it says where it stands.

use std::borrow::Cow;
use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::path::{Path, PathBuf};

use super::failure::SampleError;

/// `/proc/stat` of 256 processors with a thousand interrupts has 60 KiB.
pub(super) const FILE_BYTES_MAX: usize = 256 * 1024;
/// What the buffer keeps between ticks; longer files are rare and give their memory back.
const KEPT_BYTES: usize = 32 * 1024;

/// Of a file of one line: the kernel writes no longer ones than a page.
const LINE_BYTES: usize = 4 * 1024;

#[derive(Debug)]
pub(super) struct Source {
    root: PathBuf,
    buffer: Vec<u8>,
}

/// A file's content and where it is from.
#[derive(Debug)]
pub struct Text<'a> {
    pub path: PathBuf,
    pub bytes: &'a [u8],
}

impl Source {
    pub(super) fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), buffer: Vec::new() }
    }

    pub(super) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.root.join(name)
    }

    pub(super) fn read(&mut self, name: impl AsRef<Path>) -> Result<Text<'_>, SampleError> {
        self.read_up_to(name, FILE_BYTES_MAX)
    }

    /// Of a file that is longer, its whole lines within the limit, and `TooLong` only when there is none.
    pub(super) fn read_up_to(&mut self, name: impl AsRef<Path>, max: usize) -> Result<Text<'_>, SampleError> {
        let path = self.root.join(name);
        self.buffer.clear();
        self.buffer.shrink_to(KEPT_BYTES);
        let limit = max as u64 + 1;
        let outcome = File::open(&path).and_then(|file| file.take(limit).read_to_end(&mut self.buffer));
        if let Err(source) = outcome {
            return Err(SampleError::Unreadable { path, source });
        }
        if self.buffer.len() > max {
            let whole = self.buffer[..max].iter().rposition(|&byte| byte == b'\n');
            match whole {
                Some(end) => self.buffer.truncate(end + 1),
                None => return Err(SampleError::TooLong { path, max }),
            }
        }
        Ok(Text { path, bytes: &self.buffer })
    }

    /// The same for what not every host has: missing, it is `Absent` and says why that may be.
    pub(super) fn read_optional(&mut self, name: impl AsRef<Path>, why: &'static str) -> Result<Text<'_>, SampleError> {
        self.read(name).map_err(|error| match error {
            SampleError::Unreadable { path, source } if is_lack(&source) => SampleError::Absent { path, why },
            other => other,
        })
    }

    /// The number that is all there is in a file.
    pub(super) fn number(&mut self, name: impl AsRef<Path>) -> Option<f64> {
        std::str::from_utf8(self.first(name)?).ok()?.split_whitespace().next()?.parse().ok()
    }

    /// The first line of a file, trimmed.
    pub(super) fn line(&mut self, name: impl AsRef<Path>) -> Option<String> {
        Some(String::from_utf8_lossy(self.first(name)?).lines().next()?.trim().to_owned())
    }

    /// What one read gives. The kernel hands out whole lines, so to ask whether there are more is a system call in vain.
    fn first(&mut self, name: impl AsRef<Path>) -> Option<&[u8]> {
        let mut file = File::open(self.root.join(name)).ok()?;
        self.buffer.resize(LINE_BYTES, 0);
        loop {
            match file.read(&mut self.buffer) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                read => return Some(&self.buffer[..read.ok()?]),
            }
        }
    }
}

impl Text<'_> {
    /// What is no UTF-8 is replaced; it costs a copy only then.
    pub(super) fn lossy(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(self.bytes)
    }

    pub(super) fn malformed(&self, line: usize, text: &str) -> SampleError {
        SampleError::malformed(&self.path, line, text)
    }
}

/// A kernel that was built or started without a feature has no file for it, or refuses to read it.
fn is_lack(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Unsupported | ErrorKind::NotADirectory)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::tree::Tree;

    #[test]
    fn of_a_file_beyond_the_limit_only_whole_lines_are_seen() {
        let tree = Tree::new(&[("proc/long", "first\nsecond\nthird"), ("proc/line", "no end in sight")]);
        let mut source = Source::new(tree.path());
        let text = source.read_up_to("proc/long", 15).expect("it has whole lines");
        assert_eq!(text.lossy(), "first\nsecond\n");
        let error = source.read_up_to("proc/line", 4).expect_err("no whole line");
        assert!(matches!(error, SampleError::TooLong { max: 4, .. }), "{error}");
    }

    #[test]
    fn what_a_kernel_lacks_is_absent_and_what_cannot_be_read_is_not() {
        let tree = Tree::new(&[("proc/dir/file", "")]);
        let mut source = Source::new(tree.path());
        let absent = source.read_optional("proc/pressure/cpu", "no PSI").expect_err("it is missing");
        assert!(absent.is_absence() && absent.to_string().ends_with("no PSI"), "{absent}");
        let error = source.read_optional("proc/dir", "no PSI").expect_err("a directory is no file");
        assert!(!error.is_absence(), "{error}");
    }

    #[test]
    fn a_long_file_gives_its_memory_back() {
        let tree = Tree::new(&[("proc/long", &"line\n".repeat(40_000)), ("proc/short", "1")]);
        let mut source = Source::new(tree.path());
        source.read("proc/long").expect("it is there");
        source.read("proc/short").expect("it is there");
        assert!(source.buffer.capacity() <= 2 * KEPT_BYTES, "{}", source.buffer.capacity());
    }
}
