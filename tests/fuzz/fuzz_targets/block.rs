//! A block as the window's files hold it: it is refused, or it is a stretch that a block can hold. Columns that
//! are picked are those of the whole, and what was read is written and read again the same.
#![no_main]

use dunlin_collector::block::{Effort, decode, decode_some, encode};
use libfuzzer_sys::fuzz_target;

/// What is larger is read once and no more, so that a run takes milliseconds.
const AGAIN_MAX: usize = 50_000;

fuzz_target!(|data: &[u8]| {
    let mut asked = 0;
    let some = decode_some(data, |_, _| {
        asked += 1;
        asked % 3 == 0
    });
    let Ok(stretch) = decode(data) else {
        return;
    };
    assert!(stretch.fits());
    assert!(stretch.columns.iter().all(|column| column.values.len() == stretch.rows.len()));
    if stretch.rows.len() * stretch.columns.len() > AGAIN_MAX {
        return;
    }
    let some = some.expect("a part of what is sound is sound");
    let third = stretch.columns.iter().skip(2).step_by(3);
    assert!(some.rows == stretch.rows && some.columns.iter().eq(third), "picked columns are those of the whole");
    for effort in [Effort::Quick, Effort::Thorough] {
        assert_eq!(decode(&encode(&stretch, effort)).as_ref(), Ok(&stretch), "written and read again");
    }
});
