//! Names that the host chose, made fit for a subject: UTF-8 without control characters, and not too long.
//!
//! Two different names never become one: what is replaced is written as `\xNN`, and a backslash is doubled.

use dunlin_shared::limits::SUBJECT_NAME_BYTES_MAX;

/// What a cut name ends with: a mark and 64 bits of what it was.
const CUT_BYTES: usize = 17;

pub(crate) fn shown(name: &[u8]) -> String {
    let mut text = String::with_capacity(name.len());
    for chunk in name.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' => text.push_str("\\\\"),
                c if c.is_control() => c.to_string().bytes().for_each(|byte| push_byte(&mut text, byte)),
                c => text.push(c),
            }
        }
        chunk.invalid().iter().for_each(|&byte| push_byte(&mut text, byte));
    }
    if text.len() > SUBJECT_NAME_BYTES_MAX {
        let kept = text.floor_char_boundary(SUBJECT_NAME_BYTES_MAX - CUT_BYTES);
        text.truncate(kept);
        text.push_str(&format!("~{:016x}", fnv(name)));
    }
    text
}

fn push_byte(text: &mut String, byte: u8) {
    text.push_str(&format!("\\x{byte:02x}"));
}

/// FNV-1a: the same on every host and in every version, as a series' name has to be.
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn hostile_names_become_readable_ones() {
        for (name, text) in [
            (&b"/srv/data"[..], "/srv/data"),
            (b"/a\nb", "/a\\x0ab"),
            (b"/a\\x0ab", "/a\\\\x0ab"),
            (b"/\xff\xfe", "/\\xff\\xfe"),
            ("/数据/ü".as_bytes(), "/数据/ü"),
            ("/\u{85}".as_bytes(), "/\\xc2\\x85"),
        ] {
            assert_eq!(shown(name), text);
        }
    }

    #[test]
    fn long_names_are_cut_and_stay_apart() {
        let long = |end: &str| format!("/{}{end}", "ü".repeat(200));
        let (one, other) = (shown(long("a").as_bytes()), shown(long("b").as_bytes()));
        assert!(one.len() <= SUBJECT_NAME_BYTES_MAX && one != other, "{one} {other}");
        assert_eq!(shown(&[b'a'; 255]), "a".repeat(255));
    }

    proptest! {
        #[test]
        fn any_name_fits_a_subject_and_none_is_mistaken_for_another(a: Vec<u8>, b: Vec<u8>) {
            let (one, other) = (shown(&a), shown(&b));
            prop_assert!(one.len() <= SUBJECT_NAME_BYTES_MAX && !one.chars().any(char::is_control));
            prop_assert_eq!(one == other, a == b);
        }
    }
}
