//! Reads the files of processes, thousands in a tick: relative to the directory and without an allocation for each.
//!
//! Below a recorded root it reads the recorded files alone.

use std::ffi::CStr;
use std::io::{self, Write as _};
use std::mem::MaybeUninit;

use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, Mode, OFlags, RawDir, openat, statat};
use rustix::io::{Errno, read};

use super::stat::number;
use crate::sample::failure::SampleError;
use crate::sample::source::Source;

/// `4294967295/cmdline` and a zero.
const PATH_BYTES: usize = 32;
/// Some 250 names at once.
const NAMES_BYTES: usize = 8 * 1024;

#[derive(Debug)]
pub(super) struct Reader {
    proc: OwnedFd,
}

impl Reader {
    pub(super) fn open(source: &Source) -> Result<Self, SampleError> {
        let path = source.path("proc");
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match rustix::fs::open(&path, flags, Mode::empty()) {
            Ok(proc) => Ok(Self { proc }),
            Err(error) => Err(SampleError::Unreadable { path, source: error.into() }),
        }
    }

    /// All there are, lowest first.
    pub(super) fn pids(&self, pids: &mut Vec<u32>) -> io::Result<()> {
        pids.clear();
        let mut buffer = [MaybeUninit::uninit(); NAMES_BYTES];
        let mut entries = RawDir::new(&self.proc, &mut buffer);
        while let Some(entry) = entries.next() {
            let pid = number(entry?.file_name().to_bytes()).and_then(|pid| u32::try_from(pid).ok());
            pids.extend(pid);
        }
        pids.sort_unstable();
        Ok(())
    }

    /// Into `buffer`, at most as much as it was made for.
    pub(super) fn read<'a>(&self, pid: u32, file: &str, buffer: &'a mut [u8]) -> Result<&'a [u8], Errno> {
        let mut path = [0; PATH_BYTES];
        let file = openat(&self.proc, name(pid, file, &mut path), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        let mut filled = 0;
        while filled < buffer.len() {
            match read(&file, &mut buffer[filled..]) {
                Ok(0) => break,
                // A line of numbers that fits comes at once; asking again would be a system call for each process.
                Ok(count) => {
                    filled += count;
                    if filled < buffer.len() && buffer[filled - 1] == b'\n' {
                        break;
                    }
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(&buffer[..filled])
    }

    /// How many files a process has open. Since Linux 6.2 the size of the directory says it, to everybody; before that
    /// its names are counted, for which one has to be allowed to trace the process.
    pub(super) fn files_open(&self, pid: u32, is_counted: bool) -> Result<u64, Errno> {
        let mut path = [0; PATH_BYTES];
        let path = name(pid, "fd", &mut path);
        if is_counted {
            return Ok(u64::try_from(statat(&self.proc, path, AtFlags::empty())?.st_size).unwrap_or(0));
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = openat(&self.proc, path, flags, Mode::empty())?;
        let mut buffer = [MaybeUninit::uninit(); NAMES_BYTES];
        let (mut entries, mut count) = (RawDir::new(dir, &mut buffer), 0);
        while let Some(entry) = entries.next() {
            count += u64::from(entry?.file_name().to_bytes().iter().all(u8::is_ascii_digit));
        }
        Ok(count)
    }
}

/// `PID/FILE` as the kernel takes it.
fn name<'a>(pid: u32, file: &str, path: &'a mut [u8; PATH_BYTES]) -> &'a CStr {
    let mut rest = &mut path[..PATH_BYTES - 1];
    write!(rest, "{pid}/{file}").expect("a number and a short name fit");
    CStr::from_bytes_until_nul(path).expect("its last byte is zero")
}
