//! Turns a fuzzer's bytes into choices and numbers. What has run out reads as zero, so that every input is whole.
//! Nothing here judges anything: the targets do.

use std::fs;
use std::path::{Path, PathBuf};

/// A directory in memory, for what reads and writes files. It is emptied when it goes.
#[derive(Debug)]
pub struct Place(PathBuf);

impl Place {
    #[must_use]
    pub fn new(target: &str) -> Self {
        let memory = Path::new("/dev/shm");
        let below = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let path = below.join(format!("dunlin-fuzz-{target}-{}", std::process::id()));
        fs::create_dir_all(&path).expect("there is a place");
        Self(path)
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    #[must_use]
    pub fn file(&self, bytes: &[u8]) -> PathBuf {
        let file = self.0.join("input");
        fs::write(&file, bytes).expect("there is room");
        file
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

/// The bytes of one run, read from the front.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *first
    }

    pub fn bool(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    /// Mostly small, and at times any number there is: its first byte says which.
    pub fn number(&mut self) -> u64 {
        match self.byte() {
            small @ 0..=250 => u64::from(small),
            251 | 252 => u64::from(u16::from_le_bytes([self.byte(), self.byte()])),
            253 => u64::from(u32::from_le_bytes(std::array::from_fn(|_| self.byte()))),
            254 => u64::from_le_bytes(std::array::from_fn(|_| self.byte())),
            255 => u64::MAX - u64::from(self.byte()),
        }
    }

    /// Below `bound`, which is not 0.
    pub fn below(&mut self, bound: usize) -> usize {
        usize::from(self.byte()) % bound
    }

    /// As many bytes as two of its own say, or what is left.
    pub fn chunk(&mut self) -> &'a [u8] {
        let len = usize::from(u16::from_le_bytes([self.byte(), self.byte()]));
        self.take(len)
    }

    pub fn take(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        taken
    }

    pub const fn rest(&mut self) -> &'a [u8] {
        let rest = self.0;
        self.0 = &[];
        rest
    }
}
