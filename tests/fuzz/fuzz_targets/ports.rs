//! What the kernel tells of sockets, over netlink and in `/proc`: read within what is there, or refused.
//! The first byte says which, and whether the length of each message is made to fit, for the rest would seldom be read else.
#![no_main]

use dunlin_agent::sample::port::diag;
use dunlin_agent::sample::port::listing::{self, Line};
use dunlin_fuzz::Input;
use dunlin_shared::inventory::Protocol;
use libfuzzer_sys::fuzz_target;

const NUMBER: u32 = 1;
/// The least that a message with a socket has.
const SOCKET_BYTES: usize = 16 + 72;

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let flags = input.byte();
    let protocol = if flags & 1 == 0 { Protocol::Tcp } else { Protocol::Udp };
    match flags & 6 {
        0 => datagram(input.rest(), protocol),
        2 => datagram(&messages(&mut input), protocol),
        _ => lines(input.rest(), protocol),
    }
});

fn datagram(bytes: &[u8], protocol: Protocol) {
    let mut sockets = 0;
    let answer = diag::read(bytes, protocol, NUMBER, |socket| {
        assert!(socket.port != 0 && socket.protocol == protocol);
        sockets += 1;
    });
    assert!(sockets <= bytes.len() / SOCKET_BYTES);
    match answer {
        Ok(answer) => assert!(answer.error.is_none_or(|code| code > 0)),
        Err(error) => assert!(error.at < bytes.len()),
    }
}

/// Whole messages to our number, of kinds and contents that the input says.
fn messages(input: &mut Input<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    while !input.is_empty() {
        let (kind, flags, content) = (input.byte(), input.byte(), input.chunk());
        let length = u32::try_from(16 + content.len()).expect("a chunk is short");
        bytes.extend(length.to_ne_bytes());
        bytes.extend(u16::from(kind).to_ne_bytes());
        bytes.extend(u16::from(flags).to_ne_bytes());
        bytes.extend(NUMBER.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes.extend(content);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    bytes
}

fn lines(bytes: &[u8], protocol: Protocol) {
    for line in bytes.split(|&byte| byte == b'\n') {
        match listing::parse(line, protocol) {
            Some(Line::Listens(socket)) => assert!(socket.port != 0 && socket.protocol == protocol),
            Some(Line::Past) => assert!(protocol == Protocol::Tcp),
            Some(Line::Other) | None => {}
        }
    }
}
