//! Frozen bytes, true answers, and answers that a hostile server or a damaged network would send.
//! It also builds answers for the tests of the resolver.

use proptest::prelude::*;

use super::*;

/// Owner, type and data of a record.
pub(in crate::resolve) type Record = (Name, u16, Vec<u8>);

pub(in crate::resolve) fn name(text: &str) -> Name {
    Name::parse(text).expect("a legal name")
}

pub(in crate::resolve) fn a(owner: &str, last: u8) -> Record {
    (name(owner), 1, vec![127, 1, 2, last])
}

pub(in crate::resolve) fn aaaa(owner: &str, last: u8) -> Record {
    let mut data = vec![0; 16];
    data[..2].copy_from_slice(&[0xFD, 0x00]);
    data[15] = last;
    (name(owner), 28, data)
}

pub(in crate::resolve) fn cname(owner: &str, target: &str) -> Record {
    (name(owner), TYPE_CNAME, name(target).wire().to_vec())
}

/// The answer to `query` with these flags (an error code, or truncation) and records.
pub(in crate::resolve) fn reply(query: &[u8], flags: u16, records: &[Record]) -> Vec<u8> {
    let mut bytes = query[..2].to_vec();
    bytes.extend_from_slice(&(FLAG_RESPONSE | FLAGS_QUERY | flags).to_be_bytes());
    bytes.extend_from_slice(&[0, 1]);
    let count = u16::try_from(records.len()).expect("few records");
    bytes.extend_from_slice(&count.to_be_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&query[HEADER_LEN..]);
    for (owner, record_type, data) in records {
        bytes.extend_from_slice(owner.wire());
        bytes.extend_from_slice(&record_type.to_be_bytes());
        bytes.extend_from_slice(&CLASS_IN.to_be_bytes());
        bytes.extend_from_slice(&[0, 0, 0, 60]);
        let len = u16::try_from(data.len()).expect("short data");
        bytes.extend_from_slice(&len.to_be_bytes());
        bytes.extend_from_slice(data);
    }
    bytes
}

fn question(text: &str, family: Family) -> Question {
    Question { id: 0xBEEF, name: name(text), family, exact_case: false }
}

fn parse(flags: u16, records: &[Record]) -> Result<Answer, MessageError> {
    let question = question("a.example", Family::V4);
    parse_answer(&reply(&question.encode(), flags, records), &question)
}

fn v4(last: &[u8]) -> Answer {
    Answer::Addresses(last.iter().map(|n| [127, 1, 2, *n].into()).collect())
}

#[test]
fn question_has_the_bytes_of_rfc_1035() {
    let bytes = question("a.example", Family::V6).encode();
    assert_eq!(bytes, b"\xBE\xEF\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01a\x07example\x00\x00\x1C\x00\x01");
}

#[test]
fn compressed_answer_with_alias_gives_its_addresses() {
    let question = question("a.example", Family::V4);
    let mut bytes = question.encode();
    bytes[2..4].copy_from_slice(&[0x81, 0x80]);
    bytes[7] = 2;
    // a.example (at 12) is an alias of b.example (example is at 14); b.example is 10.0.0.9.
    bytes.extend_from_slice(b"\xC0\x0C\0\x05\0\x01\0\0\0\x3C\0\x04\x01b\xC0\x0E");
    bytes.extend_from_slice(b"\xC0\x27\0\x01\0\x01\0\0\0\x3C\0\x04\x0A\0\0\x09");
    assert_eq!(parse_answer(&bytes, &question), Ok(Answer::Addresses(vec![[10, 0, 0, 9].into()])));
}

#[test]
fn aliases_are_followed_in_any_order_of_records() {
    let records = [
        a("c.example", 3),
        cname("b.example", "C.example"),
        a("other.example", 9),
        cname("A.example", "b.example"),
        a("c.example", 4),
    ];
    assert_eq!(parse(0, &records), Ok(v4(&[3, 4])));
}

#[test]
fn alias_without_address_is_given_back() {
    let records = [cname("a.example", "b.example"), aaaa("b.example", 1)];
    assert_eq!(parse(0, &records), Ok(Answer::Alias(name("b.example"))));
}

#[test]
fn circles_and_overlong_chains_of_aliases_are_refused() {
    let circle = [cname("a.example", "b.example"), cname("b.example", "a.example")];
    assert_eq!(parse(0, &circle), Err(MessageError::AliasChain));
    let chain = |len: usize| -> Vec<Record> {
        let owner = |n: usize| {
            if n == 0 { "a.example".to_owned() } else { format!("h{n}.example") }
        };
        let mut records: Vec<_> = (0..len).map(|n| cname(&owner(n), &owner(n + 1))).collect();
        records.push(a(&owner(len), 1));
        records
    };
    assert_eq!(parse(0, &chain(ALIASES_MAX)), Ok(v4(&[1])));
    assert_eq!(parse(0, &chain(ALIASES_MAX + 1)), Err(MessageError::AliasChain));
}

#[test]
fn codes_and_truncation_are_told_apart() {
    assert_eq!(parse(0, &[]), Ok(Answer::NoData));
    assert_eq!(parse(3, &[]), Ok(Answer::NoSuchName));
    assert_eq!(parse(2, &[]), Ok(Answer::Failed(Rcode(2))));
    assert_eq!(parse(FLAG_TRUNCATED, &[]), Ok(Answer::Truncated));
}

#[test]
fn what_does_not_match_the_question_is_foreign() {
    let ours = question("a.example", Family::V4);
    let good = reply(&ours.encode(), 0, &[a("a.example", 1)]);
    assert_eq!(parse_answer(&good, &ours), Ok(v4(&[1])));
    let changed = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        parse_answer(&bytes, &ours)
    };
    let last_of_question = ours.encode().len() - 1;
    for (at, byte, what) in [
        (1, 0, "id"),
        (2, 0x01, "a question"),
        (2, 0xA1, "opcode"),
        (5, 2, "two questions"),
        (13, b'b', "name"),
        (last_of_question - 2, 28, "type"),
        (last_of_question, 3, "class"),
    ] {
        assert_eq!(changed(at, byte), Err(MessageError::Foreign), "{what}");
    }
}

#[test]
fn changed_case_is_reported_only_where_it_matters() {
    let mut ours = question("a.example", Family::V4);
    let lower = reply(&ours.encode(), 0, &[a("a.example", 1)]);
    ours.name = name("A.eXample");
    assert_eq!(parse_answer(&lower, &ours), Ok(v4(&[1])));
    ours.exact_case = true;
    assert_eq!(parse_answer(&lower, &ours), Err(MessageError::CaseChanged));
    let same = reply(&ours.encode(), 0, &[a("a.example", 1)]);
    assert_eq!(parse_answer(&same, &ours), Ok(v4(&[1])));
}

#[test]
fn pointers_that_do_not_lead_back_are_refused() {
    let ours = question("a.example", Family::V4);
    let query = ours.encode();
    let first_record = u8::try_from(query.len()).expect("a short question");
    let tail = |owner: &[u8]| {
        let mut bytes = reply(&query, 0, &[]);
        bytes[7] = 1;
        bytes.extend_from_slice(owner);
        bytes.extend_from_slice(b"\0\x01\0\x01\0\0\0\x3C\0\x04\x0A\0\0\x09");
        parse_answer(&bytes, &ours)
    };
    let bad = Err(MessageError::BadName);
    assert_eq!(tail(&[0xC0, first_record]), bad, "to itself");
    assert_eq!(tail(&[0xC0, first_record + 4]), bad, "forward");
    assert_eq!(tail(&[1, b'x', 0xC0, first_record]), bad, "a circle");
    assert_eq!(tail(&[0x40, 0]), bad, "an unknown kind of label");
    assert!(matches!(tail(&[0xC0, 12]), Ok(Answer::Addresses(_))));
}

#[test]
fn names_that_grow_beyond_255_bytes_by_pointers_are_refused() {
    let ours = question("a.example", Family::V4);
    let mut bytes = reply(&ours.encode(), 0, &[]);
    bytes[7] = 5;
    let mut previous = 12;
    // Each owner is 63 bytes in front of the one before.
    for _ in 0..5 {
        let here = u8::try_from(bytes.len() % 256).expect("below 256");
        let high = u8::try_from(bytes.len() / 256).expect("a short message");
        bytes.push(63);
        bytes.extend_from_slice(&[b'x'; 63]);
        bytes.extend_from_slice(&u16::to_be_bytes(0xC000 | previous));
        bytes.extend_from_slice(b"\0\x01\0\x01\0\0\0\x3C\0\x00");
        previous = u16::from_be_bytes([high, here]);
    }
    assert_eq!(parse_answer(&bytes, &ours), Err(MessageError::BadName));
}

#[test]
fn counts_and_lengths_beyond_the_end_are_refused() {
    let ours = question("a.example", Family::V4);
    let good = reply(&ours.encode(), 0, &[a("a.example", 1)]);
    let mut counts = good.clone();
    counts[6..8].copy_from_slice(&[0xFF, 0xFF]);
    assert_eq!(parse_answer(&counts, &ours), Err(MessageError::Short));
    let mut length = good.clone();
    let at = length.len() - 6;
    length[at..at + 2].copy_from_slice(&[0xFF, 0xFF]);
    assert_eq!(parse_answer(&length, &ours), Err(MessageError::Short));
    for len in 0..good.len() {
        let cut = parse_answer(&good[..len], &ours);
        let header_and_question = ours.encode().len();
        let want = if len < header_and_question { MessageError::Foreign } else { MessageError::Short };
        assert_eq!(cut, Err(want), "cut to {len} bytes");
    }
}

#[test]
fn data_of_the_wrong_length_is_refused() {
    let address = (name("a.example"), 1, vec![10, 0, 0]);
    assert_eq!(parse(0, &[address]), Err(MessageError::BadAddress));
    let alias = (name("a.example"), TYPE_CNAME, b"\x01b\0\0".to_vec());
    assert_eq!(parse(0, &[alias]), Err(MessageError::BadName));
    let open = (name("a.example"), TYPE_CNAME, b"\x09b".to_vec());
    assert_eq!(parse(0, &[open]), Err(MessageError::Short));
}

#[test]
fn addresses_are_bounded_and_not_repeated() {
    let mut records: Vec<_> = (0..200).map(|n| a("a.example", n)).collect();
    records.insert(0, a("a.example", 0));
    let want: Vec<u8> = (0..32).collect();
    assert_eq!(parse(0, &records), Ok(v4(&want)));
}

/// What holds for every answer, whatever the bytes were.
fn check_bounds(bytes: &[u8], question: &Question) -> Result<(), TestCaseError> {
    match parse_answer(bytes, question) {
        Ok(Answer::Addresses(ips)) => {
            prop_assert!((1..=ADDRESSES_MAX).contains(&ips.len()));
            let v4 = question.family == Family::V4;
            prop_assert!(ips.iter().all(|ip| ip.is_ipv4() == v4));
        }
        Ok(Answer::Alias(alias)) => prop_assert!(alias.wire().len() <= 255),
        Ok(Answer::Failed(code)) => prop_assert!((1..16).contains(&code.0)),
        Ok(_) | Err(_) => {}
    }
    Ok(())
}

fn family() -> impl Strategy<Value = Family> {
    prop_oneof![Just(Family::V4), Just(Family::V6)]
}

fn records() -> impl Strategy<Value = Vec<Record>> {
    let host = || "[abc]\\.example";
    let record = prop_oneof![
        (host(), any::<u8>()).prop_map(|(owner, n)| a(&owner, n)),
        (host(), any::<u8>()).prop_map(|(owner, n)| aaaa(&owner, n)),
        (host(), host()).prop_map(|(owner, target)| cname(&owner, &target)),
    ];
    prop::collection::vec(record, 0..12)
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..600),
        family in family(),
    ) {
        check_bounds(&bytes, &question("a.example", family))?;
    }

    #[test]
    fn arbitrary_records_behind_our_question_never_panic(
        count in any::<u16>(),
        tail in prop::collection::vec(prop_oneof![Just(0u8), Just(0xC0), 0u8..64, any::<u8>()], 0..600),
        family in family(),
    ) {
        let ours = question("a.example", family);
        let mut bytes = reply(&ours.encode(), 0, &[]);
        bytes[6..8].copy_from_slice(&count.to_be_bytes());
        bytes.extend_from_slice(&tail);
        check_bounds(&bytes, &ours)?;
        prop_assert_ne!(parse_answer(&bytes, &ours), Err(MessageError::Foreign));
    }

    #[test]
    fn mutated_answers_never_panic(
        records in records(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in any::<prop::sample::Index>(),
        family in family(),
    ) {
        let ours = question("a.example", family);
        let mut bytes = reply(&ours.encode(), 0, &records);
        for (at, byte) in flips {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        check_bounds(&bytes, &ours)?;
        check_bounds(&bytes[..cut.index(bytes.len())], &ours)?;
    }

    #[test]
    fn true_answers_hold_only_addresses_that_were_sent(records in records(), family in family()) {
        let ours = question("a.example", family);
        let answer = parse_answer(&reply(&ours.encode(), 0, &records), &ours);
        if let Ok(Answer::Addresses(ips)) = &answer {
            for ip in ips {
                let sent = records.iter().any(|(_, _, data)| match ip {
                    IpAddr::V4(ip) => ip.octets() == data[..],
                    IpAddr::V6(ip) => ip.octets() == data[..],
                });
                prop_assert!(sent);
            }
        }
        let direct = records.iter().any(|(owner, record_type, _)| {
            *owner == ours.name && *record_type == family.record_type()
        });
        prop_assert!(!direct || matches!(answer, Ok(Answer::Addresses(_))));
    }
}
