//! A service's report, as anybody may have written it into the state directory: refused, or what `check` says of it holds
//! nothing that could move a terminal's cursor. What was read is written again and is the same.
#![no_main]

use dunlin_agent::sight::file::{SOURCES_MAX, parse, render};
use dunlin_agent::sight::judge::judge;
use dunlin_fuzz::Input;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    if input.bool() {
        // The lines alone: the frame around them would seldom be whole.
        let lines = input.rest();
        let head = b"dunlin-agent sight 1\nat\t1\nprocess\t1\t1\n";
        report(&[&head[..], lines, b"\nend\n"].concat());
    } else {
        report(input.rest());
    }
});

fn report(bytes: &[u8]) {
    let Ok(sight) = parse(bytes) else { return };
    assert!(sight.sources.len() <= SOURCES_MAX);
    assert_eq!(parse(render(&sight).as_bytes()).as_ref(), Ok(&sight));
    let said = judge(&sight);
    assert_eq!(said.len(), sight.sources.len());
    for one in &said {
        let ways = one.mend.iter().flat_map(|mend| &mend.ways);
        let lines = ways.flat_map(|way| way.lines.iter().chain([&way.to, &way.opens]));
        let mut all = lines.chain([&one.what, &one.text]);
        assert!(all.all(|line| !line.contains(char::is_control)));
    }
}
