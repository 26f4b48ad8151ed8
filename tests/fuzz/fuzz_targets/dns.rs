//! Answers to one DNS question: read within the limits, or refused; never a loop, never more addresses than are tried.
//! The first byte says whether the header and the question are made to fit, for the rest would seldom be read else.
#![no_main]

use std::net::IpAddr;

use dunlin_agent::resolve::Name;
use dunlin_agent::resolve::message::{Answer, Family, Question, parse_answer};
use dunlin_fuzz::Input;
use libfuzzer_sys::fuzz_target;

/// As many as one answer may give.
const ADDRESSES_MAX: usize = 32;

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let flags = input.byte();
    let family = if flags & 1 == 0 { Family::V4 } else { Family::V6 };
    let text = if flags & 2 == 0 { "collector.example.net" } else { "C" };
    let name = Name::parse(text).expect("a good name");
    let question = Question { id: 0x1234, name, family, exact_case: flags & 4 != 0 };
    let bytes = if flags & 8 == 0 { answer_to(&question, &mut input) } else { input.rest().to_vec() };
    match parse_answer(&bytes, &question) {
        Ok(Answer::Addresses(addresses)) => {
            assert!((1..=ADDRESSES_MAX).contains(&addresses.len()));
            assert!(addresses.iter().all(|address| matches!(address, IpAddr::V4(_)) == (family == Family::V4)));
        }
        Ok(Answer::Alias(name)) => {
            assert!(name != question.name, "an alias of itself says nothing");
            let next = Question { name, ..question };
            assert!(next.encode().len() <= 12 + 255 + 4, "a name that can be asked for");
            drop(name_is_shown(&next));
        }
        Ok(Answer::NoData | Answer::NoSuchName | Answer::Failed(_) | Answer::Truncated) => {}
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});

/// The question with an answer's flags and counts, then the input.
fn answer_to(question: &Question, input: &mut Input<'_>) -> Vec<u8> {
    let mut bytes = question.encode();
    bytes[2] = 0x80 | (input.byte() & 0x07);
    bytes[3] = input.byte() & 0x8f;
    bytes[7] = input.byte();
    bytes.extend_from_slice(input.rest());
    bytes
}

fn name_is_shown(question: &Question) -> String {
    question.name.to_string()
}
