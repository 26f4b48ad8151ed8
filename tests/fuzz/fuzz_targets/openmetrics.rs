//! OpenMetrics text as anybody may have written it: it is imported or refused, and what is said of it holds nothing that could move a
//! terminal's cursor. What is imported has samples, and no more than it has lines.
#![no_main]

use dunlin_collector::import::look;
use dunlin_fuzz::{Input, Place};
use dunlin_shared::time::WallMs;
use libfuzzer_sys::fuzz_target;

/// Behind whatever a seed holds: 2100-01-01.
const NOW: WallMs = WallMs(4_102_444_800_000);
/// Without it every file is refused at once.
const HEAD: &[u8] = b"# TYPE host_load1 gauge\n";

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let head = if input.bool() { HEAD } else { b"" };
    let text = [head, input.rest()].concat();
    let place = Place::new("openmetrics");
    let file = place.file(&text);
    match look(&file, place.path(), NOW) {
        Ok(samples) => {
            let lines = text.split(|byte| *byte == b'\n').count();
            assert!((1..=lines).contains(&usize::try_from(samples).expect("few")) || samples == 0);
        }
        Err(error) => assert!(!error.to_string().contains(char::is_control), "{error:?}"),
    }
});
