//! HTTP/1.1 by hand: any method, any path and any header, for requests that no client would send.
//!
//! One connection a request. An answer that never ends is read until a given text has come.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use super::*;

/// Answers of the API are far smaller.
const ANSWER_BYTES_MAX: usize = 4 << 20;

pub(crate) struct Request<'a> {
    pub(crate) method: &'a str,
    /// Path and query.
    pub(crate) target: &'a str,
    pub(crate) token: Option<&'a str>,
    pub(crate) body: &'a str,
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(':'));
        lines.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// What says why not says it as RFC 9457 wants it.
    pub(crate) fn is_problem(&self) -> bool {
        let problem: serde_json::Value = serde_json::from_str(&self.body).unwrap_or_default();
        self.header("content-type") == Some("application/problem+json")
            && problem["status"] == self.status
            && problem["detail"].as_str().is_some_and(|detail| !detail.is_empty() && detail.len() < 1_000)
    }
}

impl Site {
    /// What is answered; of an answer that never ends, its head.
    pub(crate) fn ask(&self, request: &Request<'_>) -> Answer {
        self.ask_until(request, |_| true)
    }

    /// The same, until `is_enough` of an answer that never ends.
    pub(crate) fn ask_until(&self, request: &Request<'_>, is_enough: impl Fn(&str) -> bool + Sync) -> Answer {
        let Request { method, target, token, body } = request;
        let bearer = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
        let kind = match body.as_bytes().first() {
            None => "",
            Some(b'[') => "Content-Type: application/toml\r\n",
            Some(_) => "Content-Type: application/json\r\n",
        };
        let length = body.len();
        let head = format!("{method} {target} HTTP/1.1\r\nHost: rig\r\nConnection: close\r\n{bearer}{kind}");
        self.send(format!("{head}Content-Length: {length}\r\n\r\n{body}").as_bytes(), is_enough)
    }

    pub(crate) fn send(&self, raw: &[u8], is_enough: impl Fn(&str) -> bool + Sync) -> Answer {
        self.talk(raw, 0, is_enough)
    }

    /// The head of a request, and so many MiB after it.
    pub(crate) fn flood(&self, head: &str, mib: usize) -> Answer {
        self.talk(format!("{head}Content-Length: {}\r\n\r\n", mib << 20).as_bytes(), mib, |_| true)
    }

    fn talk(&self, raw: &[u8], mib: usize, is_enough: impl Fn(&str) -> bool + Sync) -> Answer {
        let talk = || {
            let mut stream = TcpStream::connect(HTTP).expect("it listens");
            stream.set_read_timeout(Some(LIMIT)).expect("a limit");
            // It may answer before it has read all, and then take no more.
            stream.write_all(raw).ok();
            let block = vec![b'x'; 1 << 20];
            (0..mib).for_each(|_| drop(stream.write_all(&block)));
            let mut answer = Vec::new();
            let mut block = [0; 4_096];
            while answer.len() < ANSWER_BYTES_MAX {
                match stream.read(&mut block) {
                    Ok(0) | Err(_) => break,
                    Ok(read) => answer.extend_from_slice(&block[..read]),
                }
                let text = String::from_utf8_lossy(&answer);
                let head = text.split_once("\r\n\r\n").map(|(head, _)| head);
                if head.is_some_and(|head| head.contains("text/event-stream")) && is_enough(&text) {
                    break;
                }
            }
            String::from_utf8(answer).expect("it is text")
        };
        let text = self.namespace.enter(talk).expect("the namespace is there");
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
        let status = status.unwrap_or_else(|| panic!("no answer to {:.200}: {text:?}", String::from_utf8_lossy(raw)));
        Answer { status, head: head.to_owned(), body: body.to_owned() }
    }
}
