//! What a system bus says: messages of any bytes, messages whose lengths are made to fit, for the rest would seldom be
//! read else, and lists of units as systemd writes them. Read within what is there, or refused. The first byte says which.
#![no_main]

use dunlin_agent::sample::bus::talk::{names, number, text};
use dunlin_agent::sample::bus::wire::{MESSAGE_BYTES_MAX, decode, message_bytes};
use dunlin_fuzz::Input;
use libfuzzer_sys::fuzz_target;

const RETURN: u8 = 2;
const UNITS: &[u8] = b"a(ssssssouso)";

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    match input.below(3) {
        0 => read(input.rest()),
        1 => {
            let (kind, fields) = (input.byte(), input.chunk());
            read(&message(kind, fields, input.rest()));
        }
        _ => units(&mut input),
    }
});

fn read(bytes: &[u8]) {
    if let Some(Ok(len)) = bytes.first_chunk().map(message_bytes) {
        assert!(len <= MESSAGE_BYTES_MAX, "no more is waited for");
    }
    let again = || decode(bytes);
    let Ok(found) = again() else { return };
    assert!(found.signature.len() < bytes.len());
    let (list, words, since) = (again().map(names), again().map(text), again().map(number));
    if let Ok(Ok(units)) = list {
        let len: usize = units.iter().map(|(name, path)| name.len() + path.len()).sum();
        assert!(len < bytes.len());
    }
    if let Ok(Ok(Some(words))) = words {
        assert!(words.len() < bytes.len());
        assert!(matches!(since, Ok(Ok(None))), "a text is no number");
    }
}

/// Every unit that is in a list comes back, and nothing else does.
fn units(input: &mut Input<'_>) {
    let mut expected = Vec::new();
    let mut list = Vec::new();
    while !input.is_empty() {
        let mut word = || {
            let len = usize::from(input.byte());
            String::from_utf8_lossy(input.take(len)).into_owned()
        };
        let (name, path, other) = (word(), word(), word());
        align(&mut list, 8);
        for text in [&name, &other, &other, &other, &other, &other, &path] {
            string(&mut list, text);
        }
        align(&mut list, 4);
        list.extend(7_u32.to_le_bytes());
        string(&mut list, &other);
        string(&mut list, &other);
        expected.push((name, path));
    }
    let len = u32::try_from(list.len()).expect("an input is short");
    let body = [&len.to_le_bytes()[..], &[0; 4], &list].concat();
    let fields = [&[5, 1, b'u', 0, 9, 0, 0, 0, 8, 1, b'g', 0, 13][..], UNITS, &[0]].concat();
    let bytes = message(RETURN, &fields, &body);
    match decode(&bytes) {
        Ok(message) => assert_eq!(names(message), Ok(expected)),
        Err(_) => assert!(bytes.len() > MESSAGE_BYTES_MAX),
    }
}

fn message(kind: u8, fields: &[u8], body: &[u8]) -> Vec<u8> {
    let length = |part: &[u8]| u32::try_from(part.len()).expect("an input is short").to_le_bytes();
    let mut bytes = [&[b'l', kind, 0, 1][..], &length(body), &[9, 0, 0, 0], &length(fields), fields].concat();
    align(&mut bytes, 8);
    bytes.extend(body);
    bytes
}

fn string(bytes: &mut Vec<u8>, text: &str) {
    align(bytes, 4);
    bytes.extend(u32::try_from(text.len()).expect("a byte says how long").to_le_bytes());
    bytes.extend(text.as_bytes());
    bytes.push(0);
}

fn align(bytes: &mut Vec<u8>, to: usize) {
    bytes.resize(bytes.len().next_multiple_of(to), 0);
}
