//! A plain HTTP/1.1 GET for the collector's `/-/healthy`, `/-/ready` and `/metrics`.
//!
//! It opens no connection but to loopback and to the rig's own namespaces. One connection a request,
//! blocking, with one limit on time and one on size. Inside a namespace call it through `netns::enter`.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use thiserror::Error;

use crate::scratch;

/// `/metrics` of a collector stays far below.
const BODY_BYTES_MAX: u64 = 16 * 1024 * 1024;

#[derive(Debug, Error)]
pub enum HttpError {
    #[error("{0} is neither loopback nor in a namespace of the rig")]
    Foreign(SocketAddr),
    #[error("GET http://{address}{path}")]
    Io { address: SocketAddr, path: String, source: io::Error },
    #[error("GET http://{address}{path}: the answer is no HTTP/1.1: {what}")]
    Malformed { address: SocketAddr, path: String, what: &'static str },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    pub body: String,
}

/// Gets `path` from `address` with `limit` for each step: connecting, writing, and every read.
pub fn get(address: SocketAddr, path: &str, limit: Duration) -> Result<Response, HttpError> {
    if !scratch::is_test_address(address.ip()) {
        return Err(HttpError::Foreign(address));
    }
    let raw =
        exchange(address, path, limit).map_err(|source| HttpError::Io { address, path: path.to_owned(), source })?;
    parse(&raw).map_err(|what| HttpError::Malformed { address, path: path.to_owned(), what })
}

fn exchange(address: SocketAddr, path: &str, limit: Duration) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&address, limit)?;
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(limit))?;
    // One write, so that the request goes out whole.
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").as_bytes())?;
    let mut raw = Vec::new();
    stream.take(BODY_BYTES_MAX).read_to_end(&mut raw)?;
    Ok(raw)
}

fn parse(raw: &[u8]) -> Result<Response, &'static str> {
    let split = raw.windows(4).position(|four| four == b"\r\n\r\n").ok_or("no end of headers")?;
    let head = std::str::from_utf8(&raw[..split]).map_err(|_| "headers are not UTF-8")?;
    let body = &raw[split + 4..];
    let mut lines = head.split("\r\n");
    let status = lines
        .next()
        .and_then(|line| line.strip_prefix("HTTP/1.1 "))
        .and_then(|line| line.get(..3))
        .and_then(|code| code.parse().ok())
        .ok_or("no status line")?;
    let header = |wanted: &str| {
        head.split("\r\n")
            .skip(1)
            .filter_map(|line| line.split_once(':'))
            .find(|(name, _)| name.eq_ignore_ascii_case(wanted))
            .map(|(_, value)| value.trim())
    };
    let body = if header("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked")) {
        join_chunks(body)?
    } else if let Some(len) = header("content-length") {
        let len: usize = len.parse().map_err(|_| "content-length is no number")?;
        body.get(..len).ok_or("the body ends early")?.to_vec()
    } else {
        body.to_vec()
    };
    String::from_utf8(body).map(|body| Response { status, body }).map_err(|_| "the body is not UTF-8")
}

fn join_chunks(mut rest: &[u8]) -> Result<Vec<u8>, &'static str> {
    let mut whole = Vec::new();
    loop {
        let end = rest.windows(2).position(|two| two == b"\r\n").ok_or("a chunk has no length")?;
        let size = std::str::from_utf8(&rest[..end]).ok().and_then(|line| line.split(';').next());
        let len = size.and_then(|hex| usize::from_str_radix(hex.trim(), 16).ok()).ok_or("a chunk has no length")?;
        rest = &rest[end + 2..];
        if len == 0 {
            return Ok(whole);
        }
        let after = len.checked_add(2).ok_or("a chunk is too long")?;
        whole.extend_from_slice(rest.get(..len).ok_or("a chunk ends early")?);
        rest = rest.get(after..).ok_or("a chunk ends early")?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn body_is_read_by_length_by_chunks_and_to_the_end() {
        for raw in [
            "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 5\r\n\r\nhello, and more",
            "HTTP/1.1 503 Service Unavailable\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\n\r\n",
            "HTTP/1.1 503 Service Unavailable\r\n\r\nhello",
        ] {
            let response = parse(raw.as_bytes()).expect("each of the three is valid");
            assert_eq!(response, Response { status: 503, body: "hello".to_owned() }, "{raw}");
        }
    }

    #[test]
    fn broken_answers_are_errors() {
        for raw in [
            "",
            "HTTP/1.1 200 OK\r\n",
            "HTTP/1.0 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nhello",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\nhello",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffff\r\nhello",
        ] {
            assert!(parse(raw.as_bytes()).is_err(), "{raw:?}");
        }
    }

    #[test]
    fn foreign_addresses_are_refused_before_a_packet_goes_out() {
        let address = SocketAddr::from(([192, 0, 2, 1], 80));
        assert!(matches!(get(address, "/", Duration::ZERO), Err(HttpError::Foreign(_))));
    }
}
