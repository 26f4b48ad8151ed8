//! Where the static agent's crates get their randomness: from the system call, and from /dev/urandom on kernels before 3.17,
//! which do not have it.
//!
//! Left to itself, `getrandom` finds no libc to ask in a static program and opens /dev/urandom, which an empty root lacks; told
//! to make the call, it fails where there is none. ring tries the one and then the other.

use getrandom::Error;
use ring::rand::{SecureRandom as _, SystemRandom};

/// Called by `getrandom` where it is built with `getrandom_backend="custom"`: by the Makefile, for the agent as it ships.
#[expect(unsafe_code, reason = "the crate's own contract for a source of one's own")]
#[unsafe(no_mangle)]
unsafe extern "Rust" fn __getrandom_v03_custom(place: *mut u8, len: usize) -> Result<(), Error> {
    // SAFETY: the caller gives a place of so many bytes that is its own; zeroed, it may be borrowed as bytes.
    let place = unsafe {
        place.write_bytes(0, len);
        std::slice::from_raw_parts_mut(place, len)
    };
    SystemRandom::new().fill(place).map_err(|_| Error::UNEXPECTED)
}
