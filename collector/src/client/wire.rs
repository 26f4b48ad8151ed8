//! HTTP/1.1 as far as a client needs it: one request, one answer, and the connection ends.
//!
//! What a server sends is not trusted: heads and bodies are bounded, and a broken one is an error.

use std::borrow::Cow;
use std::io::{self, BufRead, BufReader, Read, Write};

use serde_json::Value;

const LINE_BYTES_MAX: u64 = 16 * 1024;
const HEADERS_MAX: usize = 100;
/// The largest answer has about 10 MB.
const BODY_BYTES_MAX: usize = 64 * 1024 * 1024;

#[derive(Debug)]
pub(super) struct Request<'a> {
    pub(super) method: &'a str,
    pub(super) path: &'a str,
    pub(super) host: &'a str,
    pub(super) token: Option<&'a str>,
    pub(super) body: Sent<'a>,
}

/// What is sent with a request.
#[derive(Clone, Copy, Debug)]
pub(super) enum Sent<'a> {
    Nothing,
    Json(&'a Value),
    Toml(&'a str),
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Response {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
}

struct Head {
    status: u16,
    length: Option<usize>,
    is_chunked: bool,
}

/// A body of any length, read as it comes. That it ends early is an error.
#[derive(Debug)]
pub(super) struct Body<L> {
    line: L,
    /// Of this chunk, or of all where there are none.
    left: usize,
    is_chunked: bool,
    is_over: bool,
}

/// What a long answer begins as: its body, or all of an answer that is none.
pub(super) enum Begun<L> {
    Body(Body<L>),
    Refused(Response),
}

/// What became of a body that was passed on.
#[derive(Debug)]
pub(super) enum Passed {
    Whole,
    /// It was refused, and nothing was passed on.
    Refused(Response),
    /// Whom it was passed on to does not take it.
    NotTaken(io::Error),
}

const PASSED_BYTES: usize = 64 * 1024;

pub(super) fn exchange(line: &mut (impl Read + Write), request: &Request<'_>) -> io::Result<Response> {
    send(line, request)?;
    response(&mut BufReader::new(line))
}

/// For an answer that has no bounds.
pub(super) fn begin<L: Read + Write>(mut line: L, request: &Request<'_>) -> io::Result<Begun<BufReader<L>>> {
    send(&mut line, request)?;
    let mut line = BufReader::new(line);
    let Head { status, length, is_chunked } = head(&mut line)?;
    if status == 200 {
        return match length {
            _ if is_chunked => Ok(Begun::Body(Body { line, left: 0, is_chunked, is_over: false })),
            Some(left) => Ok(Begun::Body(Body { line, left, is_chunked, is_over: true })),
            None => Err(broken("nobody can tell where it ends")),
        };
    }
    let body = if is_chunked { chunks(&mut line)? } else { exactly(&mut line, length.unwrap_or(0))? };
    Ok(Begun::Refused(Response { status, body }))
}

/// Passes an answer of any length on while it comes.
pub(super) fn pass_on<L: Read + Write>(line: L, request: &Request<'_>, out: &mut dyn Write) -> io::Result<Passed> {
    let mut body = match begin(line, request)? {
        Begun::Body(body) => body,
        Begun::Refused(response) => return Ok(Passed::Refused(response)),
    };
    let mut buffer = vec![0; PASSED_BYTES];
    loop {
        let passed = match body.read(&mut buffer)? {
            0 => out.flush(),
            count => match out.write_all(&buffer[..count]) {
                Ok(()) => continue,
                failed => failed,
            },
        };
        return Ok(passed.map_or_else(Passed::NotTaken, |()| Passed::Whole));
    }
}

impl<L: BufRead> Read for Body<L> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 && !self.is_over {
            self.left = chunk(&mut self.line)?;
            self.is_over = self.left == 0;
        }
        let most = self.left.min(buffer.len());
        if most == 0 {
            return Ok(0);
        }
        let count = self.line.read(&mut buffer[..most])?;
        if count == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it ends early"));
        }
        self.left -= count;
        if self.left == 0 && self.is_chunked && !text(&mut self.line)?.is_empty() {
            return Err(broken("a chunk is longer than it says"));
        }
        Ok(count)
    }
}

fn send(line: &mut (impl Read + Write), request: &Request<'_>) -> io::Result<()> {
    let (kind, body) = match request.body {
        Sent::Nothing => (None, Cow::Borrowed("")),
        Sent::Json(value) => (Some("application/json"), Cow::Owned(value.to_string())),
        Sent::Toml(text) => (Some("application/toml"), Cow::Borrowed(text)),
    };
    let mut head = format!("{} {} HTTP/1.1\r\nHost: {}\r\n", request.method, request.path, request.host);
    head.push_str("Connection: close\r\nAccept: application/json\r\nUser-Agent: dunlin/");
    head.push_str(concat!(env!("CARGO_PKG_VERSION"), "\r\n"));
    if let Some(token) = request.token {
        if token.bytes().any(|byte| !byte.is_ascii_graphic()) {
            return Err(io::Error::other("the token holds a character that no token has"));
        }
        head.push_str(&format!("Authorization: Bearer {token}\r\n"));
    }
    if let Some(kind) = kind {
        head.push_str(&format!("Content-Type: {kind}\r\nContent-Length: {}\r\n", body.len()));
    } else if request.method != "GET" {
        head.push_str("Content-Length: 0\r\n");
    }
    // One write, so that the request goes out whole.
    line.write_all(format!("{head}\r\n{body}").as_bytes())?;
    line.flush()
}

fn response(line: &mut impl BufRead) -> io::Result<Response> {
    let Head { status, length, is_chunked } = head(line)?;
    let body = match (is_chunked, length) {
        (true, _) => chunks(line)?,
        (false, Some(length)) => exactly(line, length)?,
        (false, None) if status == 204 || status == 304 => Vec::new(),
        (false, None) => to_the_end(line)?,
    };
    Ok(Response { status, body })
}

fn head(line: &mut impl BufRead) -> io::Result<Head> {
    let status = status(line)?;
    let (mut length, mut is_chunked) = (None, false);
    for count in 0.. {
        let header = text(line)?;
        if header.is_empty() {
            break;
        }
        if count == HEADERS_MAX {
            return Err(broken("it has too many headers"));
        }
        let (name, value) = header.split_once(':').ok_or_else(|| broken("a header has no colon"))?;
        if name.eq_ignore_ascii_case("content-length") {
            length = Some(value.trim().parse().map_err(|_| broken("its length is no number"))?);
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            is_chunked = value.trim().eq_ignore_ascii_case("chunked");
        }
    }
    Ok(Head { status, length, is_chunked })
}

fn status(line: &mut impl BufRead) -> io::Result<u16> {
    let first = text(line)?;
    let code = first.strip_prefix("HTTP/1.1 ").or_else(|| first.strip_prefix("HTTP/1.0 "));
    let code = code.and_then(|rest| rest.get(..3)).and_then(|code| code.parse().ok());
    code.ok_or_else(|| broken("it is no HTTP"))
}

/// A line without its end.
fn text(line: &mut impl BufRead) -> io::Result<String> {
    let mut bytes = Vec::new();
    line.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut bytes)?;
    if bytes.pop() != Some(b'\n') {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it ends early"));
    }
    if bytes.last() == Some(&b'\r') {
        bytes.pop();
    }
    String::from_utf8(bytes).map_err(|_| broken("its head is not text"))
}

/// The length of the next one.
fn chunk(line: &mut impl BufRead) -> io::Result<usize> {
    let head = text(line)?;
    let size = head.split(';').next().unwrap_or_default().trim();
    usize::from_str_radix(size, 16).map_err(|_| broken("a chunk has no length"))
}

fn chunks(line: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut whole = Vec::new();
    loop {
        let size = chunk(line)?;
        if size == 0 {
            return Ok(whole);
        }
        if whole.len().saturating_add(size) > BODY_BYTES_MAX {
            return Err(broken("it is too large"));
        }
        whole.extend(exactly(line, size)?);
        if !text(line)?.is_empty() {
            return Err(broken("a chunk is longer than it says"));
        }
    }
}

fn exactly(line: &mut impl BufRead, length: usize) -> io::Result<Vec<u8>> {
    if length > BODY_BYTES_MAX {
        return Err(broken("it is too large"));
    }
    let mut body = Vec::new();
    line.by_ref().take(length as u64).read_to_end(&mut body)?;
    if body.len() < length {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it ends early"));
    }
    Ok(body)
}

fn to_the_end(line: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    line.by_ref().take(BODY_BYTES_MAX as u64 + 1).read_to_end(&mut body)?;
    if body.len() > BODY_BYTES_MAX { Err(broken("it is too large")) } else { Ok(body) }
}

fn broken(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> io::Result<Response> {
        response(&mut text.as_bytes())
    }

    #[test]
    fn a_body_is_read_by_length_by_chunks_and_to_the_end() {
        for text in [
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello, and more",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\n\r\n",
            "HTTP/1.0 200 OK\n\nhello",
        ] {
            assert_eq!(read(text).ok(), Some(Response { status: 200, body: b"hello".to_vec() }), "{text}");
        }
        assert_eq!(read("HTTP/1.1 204 No Content\r\n\r\n").map(|response| response.status).ok(), Some(204));
    }

    #[test]
    fn broken_answers_are_errors() {
        for text in [
            "",
            "SSH-2.0-OpenSSH_9.2\r\n",
            "HTTP/1.1 200 OK\r\n",
            "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nhello",
            "HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\nhello",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\nhello",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nhello\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffff\r\nhello",
        ] {
            assert!(read(text).is_err(), "{text:?}");
        }
    }

    /// Answers whatever it is asked.
    struct Spoken(io::Cursor<Vec<u8>>);

    impl Read for Spoken {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.0.read(buffer)
        }
    }

    impl Write for Spoken {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn passed(text: &str) -> (io::Result<Passed>, Vec<u8>) {
        let request = Request { method: "GET", path: "/", host: "x", token: None, body: Sent::Nothing };
        let mut out = Vec::new();
        (pass_on(Spoken(io::Cursor::new(text.into())), &request, &mut out), out)
    }

    #[test]
    fn what_is_passed_on_is_whole_or_an_error() {
        let (done, out) =
            passed("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n");
        assert!(matches!(done, Ok(Passed::Whole)) && out == b"hello");
        let (done, out) = passed("HTTP/1.1 429 Too Many\r\ncontent-length: 2\r\n\r\n{}");
        assert!(matches!(done, Ok(Passed::Refused(Response { status: 429, .. }))) && out.is_empty());
        for cut in [
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\nhello",
            "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nhello",
            "HTTP/1.1 200 OK\r\n\r\nhello",
        ] {
            assert!(passed(cut).0.is_err(), "{cut:?}");
        }
        let request = Request { method: "GET", path: "/", host: "x", token: None, body: Sent::Nothing };
        let text = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";
        let done = pass_on(Spoken(io::Cursor::new(text.into())), &request, &mut io::Cursor::new([0; 2].as_mut()));
        assert!(matches!(done, Ok(Passed::NotTaken(_))), "{done:?}");
    }

    #[test]
    fn a_token_with_a_line_break_is_not_sent() {
        let request = Request { method: "GET", path: "/", host: "x", token: Some("a\r\nX: y"), body: Sent::Nothing };
        let mut line = io::Cursor::new(Vec::new());
        assert!(exchange(&mut line, &request).is_err());
        assert!(line.into_inner().is_empty());
    }

    proptest! {
        #[test]
        fn no_answer_makes_it_panic(bytes: Vec<u8>) {
            let mut text = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
            text.extend(&bytes);
            drop(response(&mut text.as_slice()));
            drop(response(&mut bytes.as_slice()));
        }
    }
}
