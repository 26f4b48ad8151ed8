//! A support bundle: a few texts in one tar file (ustar) that an ordinary `tar` can read. Pure: texts in, bytes out.
//!
//! It is made to be sent to strangers. So it is made of what is written for it, one text after the other, and never of
//! files as they lie there; and a last look drops every line that holds what looks like a token or a key.

/// What may be read in a text of a bundle in place of what may not.
pub const WITHHELD: &str = "(withheld)";

const BLOCK: usize = 512;
const NAME_BYTES_MAX: usize = 100;
/// Far above what any of the texts has; what is longer is cut at a line.
const TEXT_BYTES_MAX: usize = 4 << 20;
/// How tokens of this project and keys of anybody begin.
const MARKS: [&str; 4] = ["dunlin-join.", "dunlin-api.", "PRIVATE KEY", "Bearer "];

#[derive(Debug)]
pub struct Bundle {
    archive: Vec<u8>,
    time_s: u64,
}

impl Bundle {
    /// `time_s`: since 1970, of all that is in it.
    #[must_use]
    pub const fn new(time_s: u64) -> Self {
        Self { archive: Vec::new(), time_s }
    }

    /// Adds a text under a name, without the lines that nobody else may read.
    pub fn add(&mut self, name: &str, text: &str) {
        debug_assert!(name.len() < NAME_BYTES_MAX && name.is_ascii(), "names are our own");
        let text = clean(text);
        self.archive.extend(header(name, text.len(), self.time_s));
        self.archive.extend(text.as_bytes());
        self.archive.resize(self.archive.len().next_multiple_of(BLOCK), 0);
    }

    /// The whole file.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        self.archive.resize(self.archive.len() + 2 * BLOCK, 0);
        self.archive
    }
}

fn clean(text: &str) -> String {
    let mut kept = String::new();
    for line in text.lines() {
        let line = if MARKS.iter().any(|mark| line.contains(mark)) { WITHHELD } else { line };
        if kept.len() + line.len() > TEXT_BYTES_MAX {
            kept.push_str("(the rest is cut off)\n");
            break;
        }
        kept.push_str(line);
        kept.push('\n');
    }
    kept
}

/// A plain file of 0600 that belongs to root.
fn header(name: &str, len: usize, time_s: u64) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, name.as_bytes());
    put(100, b"0000600\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(124, format!("{len:011o}\0").as_bytes());
    // Eleven octal digits reach to the year 2242.
    put(136, format!("{:011o}\0", time_s.min((1 << 33) - 1)).as_bytes());
    put(148, b"        ");
    put(156, b"0");
    put(257, b"ustar\x0000");
    let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_lie_in_blocks_behind_headers_whose_sums_are_right() {
        let mut bundle = Bundle::new(1_795_271_160);
        bundle.add("check.txt", "all is well\n");
        bundle.add("empty.txt", "");
        let archive = bundle.finish();
        assert_eq!(archive.len(), 5 * BLOCK);
        for (at, name, len) in [(0, "check.txt", 12), (2 * BLOCK, "empty.txt", 0)] {
            let head = &archive[at..at + BLOCK];
            assert!(head.starts_with(name.as_bytes()));
            assert_eq!(&head[124..136], format!("{len:011o}\0").as_bytes());
            let told = std::str::from_utf8(&head[148..154]).expect("digits");
            let sum = head[..148].iter().chain(&head[156..]).map(|&byte| u32::from(byte)).sum::<u32>() + 8 * 32;
            assert_eq!(u32::from_str_radix(told, 8), Ok(sum));
        }
        assert_eq!(&archive[BLOCK..BLOCK + 12], b"all is well\n");
    }

    #[test]
    fn a_line_with_a_token_or_a_key_is_dropped_and_the_others_are_kept() {
        let text = "a = 1\ntoken dunlin-join.AAAA.BBBB here\n-----BEGIN PRIVATE KEY-----\nb = 2";
        assert_eq!(clean(text), format!("a = 1\n{WITHHELD}\n{WITHHELD}\nb = 2\n"));
    }

    #[test]
    fn a_text_without_an_end_is_cut_off() {
        let cut = clean(&"0123456789\n".repeat(TEXT_BYTES_MAX / 10));
        assert!(cut.len() < TEXT_BYTES_MAX + 100 && cut.ends_with("(the rest is cut off)\n"));
    }
}
