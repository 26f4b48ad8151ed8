//! What a host's processes and control groups say of themselves: read, or nothing; and of a command line only names.
//! The first byte says which file it is.
#![no_main]

use dunlin_agent::sample::cgroup::hierarchy;
use dunlin_agent::sample::cgroup::owner::{Owner, owner_of};
use dunlin_agent::sample::cgroup::parse::{cpu_max, io_split, io_unified, keyed, limit};
use dunlin_agent::sample::process::command::called;
use dunlin_agent::sample::process::stat::{NAME_BYTES, Stat, io, trimmed, user};
use dunlin_fuzz::Input;
use libfuzzer_sys::fuzz_target;

/// Six controllers and version 2.
const HIERARCHIES_MAX: usize = 7;

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    match input.below(6) {
        0 => stat(input.rest()),
        1 => {
            let name: [u8; NAME_BYTES] = std::array::from_fn(|_| input.byte());
            command(input.rest(), &name);
        }
        2 => assert!(hierarchy::parse(input.rest()).len() <= HIERARCHIES_MAX),
        3 => match owner_of(&String::from_utf8_lossy(input.rest())) {
            Owner::Host => {}
            Owner::Unit(name) => assert!(name.ends_with(".service") && !name.contains('/')),
            Owner::Container { id, .. } => assert!(!id.is_empty() && !id.contains('/')),
        },
        4 => {
            let text = input.rest();
            assert!(io(text).is_none() || text.len() >= 26);
            assert!(user(text).is_none() || text.len() >= 7);
        }
        _ => usage(&String::from_utf8_lossy(input.rest())),
    }
});

/// Whatever it is called, its numbers are those behind the last parenthesis.
fn stat(line: &[u8]) {
    let Some(found) = Stat::parse(line) else { return };
    assert!(trimmed(&found.name).len() < NAME_BYTES);
    let close = line.iter().rposition(|&byte| byte == b')').expect("it was found");
    assert!(line[close..].len() > 40, "twenty-two columns have more bytes than that");
    let renamed = [&b"1 (x"[..], &line[close..]].concat();
    let again = Stat::parse(&renamed).expect("the name does not matter");
    assert_eq!((again.cpu_ticks, again.start_ticks, again.threads), (found.cpu_ticks, found.start_ticks, found.threads));
}

fn command(line: &[u8], name: &[u8; NAME_BYTES]) {
    let found = called(line, name);
    assert!(!found.program.is_empty() && (found.is_interpreter || found.script.is_none()));
    let Some(script) = found.script else { return };
    assert!(!script.is_empty() && !script.iter().any(|byte| b"/= \n\0'\"@?".contains(byte)));
    // What a cut command line names, the whole one names as well.
    let whole = [line, b"more\0"].concat();
    assert_eq!(called(&whole, name).script, Some(script));
}

fn usage(text: &str) {
    assert!(cpu_max(text).is_none_or(|cores| cores > 0.0 && cores.is_finite()));
    assert!(limit(text).is_none_or(|bytes| bytes < 1 << 60));
    assert!(text.contains("bytes=") || io_unified(text) == (0, 0));
    assert!(text.contains("Read ") || text.contains("Write ") || io_split(text) == (0, 0));
    let [used, none] = keyed(text, ["usage_usec", "no such key"]);
    assert!(none.is_none() && (used.is_none() || text.contains("usage_usec ")));
}
