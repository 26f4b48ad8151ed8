//! Finds a name in a hosts file. Reads line by line, because hosts files of block lists have megabytes.
//! Lines that make no sense are passed over, as every resolver does; memory stays bounded by one line.

use std::io::{self, BufRead, Read};
use std::net::IpAddr;

use super::name::Name;

/// Block lists reach about 10 MiB; what lies beyond this is not read.
const FILE_LEN_MAX: u64 = 16 * 1024 * 1024;
/// Longer than any line that a person or a tool writes: 16 names of full length.
const LINE_LEN_MAX: u64 = 4096;
/// More addresses for one name than an uplink will ever try.
const ADDRESSES_MAX: usize = 32;

/// All addresses that the file gives for `name`, in the order of the file.
pub fn lookup<R: BufRead>(file: R, name: &Name) -> io::Result<Vec<IpAddr>> {
    let wanted = name.to_string();
    let mut file = file.take(FILE_LEN_MAX);
    let mut found = Vec::new();
    let mut line = Vec::new();
    let mut inside_long_line = false;
    while found.len() < ADDRESSES_MAX {
        line.clear();
        if file.by_ref().take(LINE_LEN_MAX).read_until(b'\n', &mut line)? == 0 {
            break;
        }
        let complete = line.last() == Some(&b'\n') || (line.len() as u64) < LINE_LEN_MAX;
        if !inside_long_line
            && let Some(ip) = match_line(&String::from_utf8_lossy(&line), &wanted)
            && !found.contains(&ip)
        {
            found.push(ip);
        }
        inside_long_line = !complete;
    }
    Ok(found)
}

fn match_line(line: &str, wanted: &str) -> Option<IpAddr> {
    let line = line.split('#').next().unwrap_or_default();
    let mut words = line.split_ascii_whitespace();
    let ip = words.next()?.parse().ok()?;
    words
        .any(|word| {
            let word = word.strip_suffix('.').unwrap_or(word);
            word.eq_ignore_ascii_case(wanted)
        })
        .then_some(ip)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn find(file: &[u8], name: &str) -> Vec<String> {
        let name = Name::parse(name).expect("legal");
        let found = lookup(file, &name).expect("memory can be read");
        found.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn names_and_aliases_match_without_regard_to_case() {
        let file = b"# comment\n127.0.0.1 localhost\n10.0.0.1\tone.example One # two\r\n\n::2 ONE\n10.0.0.1 one\n";
        assert_eq!(find(file, "one"), ["10.0.0.1", "::2"]);
        assert_eq!(find(file, "One.Example"), ["10.0.0.1"]);
        assert!(find(file, "two").is_empty());
        assert!(find(file, "10.example").is_empty());
    }

    #[test]
    fn senseless_lines_are_passed_over() {
        let file = b"one\n10.0.0.300 one\nfe80::1%eth0 one\n\xff\xfe one\n10.0.0.7 one.";
        assert_eq!(find(file, "one"), ["10.0.0.7"]);
    }

    #[test]
    fn rest_of_an_overlong_line_is_not_taken_for_a_line() {
        let mut file = b"#".repeat(4096);
        file.extend_from_slice(b"10.0.0.6 one\n10.0.0.7 one\n");
        assert_eq!(find(&file, "one"), ["10.0.0.7"]);
    }

    #[test]
    fn addresses_of_one_name_are_bounded() {
        let file: String = (0..200).map(|n| format!("10.0.0.{n} one\n")).collect();
        assert_eq!(find(file.as_bytes(), "one").len(), ADDRESSES_MAX);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_find_nothing_and_do_not_panic(file in prop::collection::vec(any::<u8>(), 0..2000)) {
            prop_assert!(find(&file, "a-name-that-chance-does-not-write.example").is_empty());
        }
    }
}
