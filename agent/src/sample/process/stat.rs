//! The line of `/proc/N/stat`, and what the other small files of a process say. Pure.
//!
//! A process names itself: its name may hold spaces, line feeds, parentheses and bytes that are no text. It ends at the
//! last closing parenthesis, for nothing behind it has one.

/// The kernel keeps 16 bytes of a process's name, and a zero behind it.
pub const NAME_BYTES: usize = 16;
/// Set for what the kernel runs for itself.
const KERNEL_THREAD: u64 = 0x0020_0000;

/// What one process is and uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Padded with zeros.
    pub name: [u8; NAME_BYTES],
    pub state: u8,
    pub is_kernel: bool,
    /// Time on processors, in ticks of the kernel's clock.
    pub cpu_ticks: u64,
    pub threads: u64,
    /// Ticks after boot.
    pub start_ticks: u64,
    pub resident_pages: u64,
}

impl Stat {
    #[must_use]
    pub fn parse(line: &[u8]) -> Option<Self> {
        let open = line.iter().position(|&byte| byte == b'(')?;
        let close = line.iter().rposition(|&byte| byte == b')')?;
        let comm = line.get(open + 1..close)?;
        let mut name = [0; NAME_BYTES];
        for (to, from) in name.iter_mut().zip(comm.iter().take(NAME_BYTES - 1)) {
            *to = *from;
        }
        let mut words = line[close + 1..].split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
        let state = *words.next()?.first()?;
        // Behind the state: parent, group, session, terminal, its group, flags, four counts of faults.
        let flags = number(words.nth(5)?)?;
        let user = number(words.nth(4)?)?;
        let system = number(words.next()?)?;
        // The times of its children, priority, nice value.
        let threads = number(words.nth(4)?)?;
        let start_ticks = number(words.nth(1)?)?;
        let resident_pages = number(words.nth(1)?).unwrap_or(0);
        let is_kernel = flags & KERNEL_THREAD != 0;
        Some(Self {
            name,
            state,
            is_kernel,
            cpu_ticks: user.saturating_add(system),
            threads,
            start_ticks,
            resident_pages,
        })
    }

    /// It ended, and nobody waited for it yet.
    #[must_use]
    pub const fn is_ended(&self) -> bool {
        matches!(self.state, b'Z' | b'X' | b'x')
    }
}

/// The name without its padding.
#[must_use]
pub fn trimmed(name: &[u8; NAME_BYTES]) -> &[u8] {
    let end = name.iter().position(|&byte| byte == 0).unwrap_or(NAME_BYTES);
    &name[..end]
}

/// Bytes read from and written to storage, from `/proc/N/io`.
#[must_use]
pub fn io(text: &[u8]) -> Option<(u64, u64)> {
    Some((field(text, b"read_bytes: ")?, field(text, b"write_bytes: ")?))
}

/// Resident pages, from `/proc/N/statm`: its second number.
#[must_use]
pub fn resident(line: &[u8]) -> Option<u64> {
    number(line.split(u8::is_ascii_whitespace).nth(1)?)
}

/// The effective user, from `/proc/N/status`: real, effective, saved, of the file system.
#[must_use]
pub fn user(text: &[u8]) -> Option<u32> {
    let line = text.split(|&byte| byte == b'\n').find_map(|line| line.strip_prefix(b"Uid:"))?;
    let mut words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    u32::try_from(number(words.nth(1)?)?).ok()
}

fn field(text: &[u8], key: &[u8]) -> Option<u64> {
    text.split(|&byte| byte == b'\n').find_map(|line| number(line.strip_prefix(key)?))
}

pub(super) fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |sum, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        sum.checked_mul(10)?.checked_add(digit)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const REST: &[u8] =
        b" S 1 7 7 0 -1 4194560 9 8 7 6 250 50 3 2 20 0 12 0 2738677 313344 360 18446744073709551615 0\n";

    fn line(name: &[u8]) -> Vec<u8> {
        [b"17 (", name, b")", REST].concat()
    }

    #[test]
    fn a_line_is_read_whatever_its_process_calls_itself() {
        for name in
            [&b"cat"[..], b"a b", b"a)b", b"(sd-pam)", b") S 1 2 (", b"x\ny", b"\xff\xfe", b"", b"fifteen-bytes-x"]
        {
            let stat = Stat::parse(&line(name)).expect("it is a line");
            assert_eq!(trimmed(&stat.name), name);
            assert_eq!((stat.state, stat.is_kernel, stat.cpu_ticks), (b'S', false, 300));
            assert_eq!((stat.threads, stat.start_ticks, stat.resident_pages), (12, 2_738_677, 360));
        }
    }

    #[test]
    fn a_thread_of_the_kernel_and_a_zombie_are_known() {
        let text = "2 (kthreadd) Z 0 0 0 0 -1 2129984 0 0 0 0 0 3 0 0 20 0 1 0 5 0 0 0";
        let stat = Stat::parse(text.as_bytes()).expect("it is a line");
        assert!(stat.is_kernel && stat.is_ended() && stat.resident_pages == 0, "{stat:?}");
    }

    #[test]
    fn small_files_are_read_by_their_keys() {
        let text = b"rchar: 9\nwchar: 8\nread_bytes: 4096\nwrite_bytes: 8192\ncancelled_write_bytes: 1\n";
        assert_eq!([io(text), io(b"rchar: 1\n"), io(b"read_bytes: x\n")], [Some((4096, 8192)), None, None]);
        assert_eq!([resident(b"5746 452 0 5\n"), resident(b"5746\n"), resident(b"")], [Some(452), None, None]);
        let text = b"Name:\tUid:\t7\nUmask:\t0022\nUid:\t0\t33\t0\t33\nGid:\t0\t0\t0\t0\n";
        assert_eq!([user(text), user(b"Uid:\t0\n"), user(b"")], [Some(33), None, None]);
    }

    proptest! {
        #[test]
        fn any_name_comes_back_as_far_as_the_kernel_keeps_it(name in proptest::collection::vec(1_u8.., 0..40)) {
            let stat = Stat::parse(&line(&name)).expect("it is a line");
            prop_assert_eq!(trimmed(&stat.name), &name[..name.len().min(NAME_BYTES - 1)]);
            prop_assert_eq!(stat.start_ticks, 2_738_677);
        }

        #[test]
        fn a_line_that_was_cut_is_refused_or_has_its_numbers(cut in 0_usize..100) {
            let whole = line(b"a b");
            if let Some(stat) = Stat::parse(&whole[..cut.min(whole.len())]) {
                prop_assert_eq!((stat.cpu_ticks, stat.threads), (300, 12));
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(text: Vec<u8>) {
            prop_assert!(Stat::parse(&text).is_none() || text.contains(&b')'));
            prop_assert!(io(&text).is_none() && user(&text).is_none());
            prop_assert!(resident(&text).is_none() || text.len() > 1);
        }
    }
}
