//! What arrives on the socket of HTTP when nobody means well: an answer or an end, and the others go on.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use super::*;

fn talk(site: &Site, send: impl FnOnce(&mut TcpStream) + Send) -> String {
    let work = || {
        let mut stream = TcpStream::connect(HTTP).expect("it listens");
        stream.set_read_timeout(Some(LIMIT)).expect("a limit");
        send(&mut stream);
        let mut answer = Vec::new();
        // Whether the end comes in order or not, what came before it counts.
        stream.read_to_end(&mut answer).ok();
        String::from_utf8_lossy(&answer).into_owned()
    };
    site.namespace.enter(work).expect("the namespace is there")
}

#[test]
fn bodies_of_100_mb_garbage_and_slow_heads_are_answered_and_ended() {
    let site = Site::start();
    let head =
        |length: &str| format!("POST /api/v1/tokens HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{length}\r\n\r\n");
    let declared = talk(&site, |stream| {
        stream.write_all(head("Content-Length: 104857600").as_bytes()).expect("it takes the head");
        let block = vec![b'x'; 1 << 20];
        (0..100).for_each(|_| drop(stream.write_all(&block)));
    });
    assert!(declared.starts_with("HTTP/1.1 413"), "{declared}");
    assert!(declared.contains("urn:dunlin:problem:too-large"), "{declared}");
    let garbage = talk(&site, |stream| drop(stream.write_all(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n")));
    assert!(garbage.starts_with("HTTP/1.1 400"), "{garbage}");
    let endless = talk(&site, |stream| {
        stream.write_all(b"GET / HTTP/1.1\r\nX: ").expect("it takes the start");
        let block = [b'x'; 4096];
        (0..64).for_each(|_| drop(stream.write_all(&block)));
    });
    assert!(endless.is_empty() || endless.starts_with("HTTP/1.1 4"), "{endless}");
    // A head that never ends is cut off: the read comes to an end by itself.
    let slow = talk(&site, |stream| drop(stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n")));
    assert!(slow.is_empty() || slow.starts_with("HTTP/1.1 4"), "{slow}");
    assert_eq!(site.dunlin(&["nodes"]).code, 0);
}
