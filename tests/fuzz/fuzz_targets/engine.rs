//! What container engines answer: lists that arrive in pieces, inspects, events and times. Read, or refused; and what is
//! read fits an inventory. The first byte says which.
#![no_main]

use bollard::models::EventMessage;
use dunlin_agent::sample::container::answer::{Elements, Listed, inspected};
use dunlin_agent::sample::container::event::{Word, event_of, is_id, signal};
use dunlin_agent::sample::container::time::moment;
use dunlin_fuzz::Input;
use dunlin_shared::inventory::{Engine, Inventory, Item, Stock};
use libfuzzer_sys::fuzz_target;

/// An id has as many characters, and a key of two and its quotes are before it.
const LISTED_BYTES: usize = 12 + 8;
/// Somewhat more than from the year 1 to 9999.
const MOMENT_MS_MAX: i64 = 10_000 * 366 * 86_400_000;

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    match input.below(4) {
        0 => {
            let first = input.chunk();
            list(first, input.rest());
        }
        1 => container(input.rest()),
        2 => happened(input.rest()),
        _ => words(&String::from_utf8_lossy(input.rest())),
    }
});

/// Wherever it is torn, the same is found.
fn list(first: &[u8], rest: &[u8]) {
    let whole = [first, rest].concat();
    let (found, is_list) = elements(&[&whole]);
    assert!(found.len() <= whole.len() / LISTED_BYTES && found.iter().all(|one| is_id(&one.id)));
    assert_eq!(elements(&[first, rest]), (found, is_list));
}

/// None where it is no list; and whether it came to its end.
fn elements(pieces: &[&[u8]]) -> (Vec<Listed>, Option<bool>) {
    let (mut elements, mut found) = (Elements::default(), Vec::new());
    let outcome = pieces.iter().try_for_each(|piece| elements.feed(piece, |one| found.push(one)));
    (found, outcome.is_ok().then(|| elements.is_whole()))
}

fn container(answer: &[u8]) {
    let wanted = ["team".to_owned()];
    let Ok(found) = inspected(answer, Engine::Docker, &wanted) else { return };
    assert!(found.stop_signal.is_none_or(|number| (1..=64).contains(&number)));
    assert!(found.container.labels.keys().all(|key| wanted.contains(&String::from(&**key))));
    let stock = Stock::of([Item::Container(Box::new(found.container))]);
    assert_eq!(stock.len(), 1, "it fits");
    let told = Inventory::Whole(stock.to_whole(Vec::new()));
    assert_eq!(Inventory::decode(&told.encode()).ok(), Some(told), "it keeps every limit");
}

fn happened(line: &[u8]) {
    let Ok(message) = serde_json::from_slice::<EventMessage>(line) else { return };
    let Some(event) = event_of(&message) else { return };
    assert!(is_id(&event.id));
    if let Word::Signalled(Some(number)) = event.word {
        assert!((1..=64).contains(&number));
    }
}

fn words(text: &str) {
    assert!(moment(text).is_none_or(|at| (-MOMENT_MS_MAX..=MOMENT_MS_MAX).contains(&at.0)));
    assert!(signal(text).is_none_or(|number| (1..=64).contains(&number)));
}
