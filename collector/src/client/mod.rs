//! Asks a collector over HTTP, for `dunlin` and for `dunlin-collector token`: one request at a time, blocking.
//!
//! Whatever goes wrong is said with what to do about it. A token goes nowhere but to the collector it is for:
//! redirects are not followed.

pub mod invite;
pub mod pages;
pub mod table;
pub mod tokens;
mod trust;
pub mod when;
mod wire;

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use serde::de::DeserializeOwned;
use serde_json::Value;
use thiserror::Error;
pub use trust::Trust;

use self::wire::Sent;
use crate::shape::Problem;

/// Where HTTP listens unless it is told otherwise.
const PORT: u16 = 9738;
const CONNECT_TIME: Duration = Duration::from_secs(10);
/// An answer takes milliseconds; a day of a node's series on a slow machine takes seconds.
const ANSWER_TIME: Duration = Duration::from_secs(30);
/// Until a long answer begins, and between its pieces: `control.db` of a large fleet is copied first, or the fleet searched
/// for a metric.
const STREAM_TIME: Duration = Duration::from_secs(600);

#[derive(Debug, Error)]
pub enum ClientError {
    #[error("{0}")]
    Url(String),
    #[error("{0}")]
    Trust(String),
    #[error("{at} cannot be reached: {why}")]
    Unreachable { at: String, why: String },
    #[error("{at} gave no answer that can be used: {why}")]
    Answer { at: String, why: String },
    #[error("{}", advised(.0))]
    Refused(Box<Problem>),
}

impl ClientError {
    /// Whether the collector said no: asking again changes nothing.
    #[must_use]
    pub const fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused(_))
    }
}

/// Where a collector is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    Http { host: String, port: u16 },
    Https { host: String, port: u16 },
    Unix(PathBuf),
}

pub struct Client {
    target: Target,
    token: Option<String>,
    tls: Option<Arc<ClientConfig>>,
}

/// Both ways at once; which stream it is makes no difference.
trait Line: Read + Write {}
impl<T: Read + Write> Line for T {}

impl Target {
    /// `https://HOST[:PORT]`, `http://HOST[:PORT]` or `unix:/PATH`.
    pub fn parse(url: &str) -> Result<Self, ClientError> {
        let wrong = |why: &str| ClientError::Url(format!("{url:?} is no address of a collector: {why}"));
        if let Some(path) = url.strip_prefix("unix:") {
            return Ok(Self::Unix(path.into()));
        }
        let (scheme, rest) = url.split_once("://").ok_or_else(|| wrong("write https://HOST:9738"))?;
        let rest = rest.trim_end_matches('/');
        if rest.is_empty() || rest.contains(['/', '?', '#', '@', ' ']) {
            return Err(wrong("nothing but a host and a port stands behind ://"));
        }
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) if !host.contains(':') || host.ends_with(']') => {
                (host, port.parse().map_err(|_| wrong("the port is no number from 0 to 65535"))?)
            }
            _ => (rest, PORT),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        match scheme {
            "https" => Ok(Self::Https { host, port }),
            "http" => Ok(Self::Http { host, port }),
            _ => Err(wrong("it begins with https://, http:// or unix:")),
        }
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (scheme, host, port) = match self {
            Self::Unix(path) => return write!(f, "{}", path.display()),
            Self::Http { host, port } => ("http", host, port),
            Self::Https { host, port } => ("https", host, port),
        };
        if host.contains(':') { write!(f, "{scheme}://[{host}]:{port}") } else { write!(f, "{scheme}://{host}:{port}") }
    }
}

impl Client {
    /// The trust is looked at for `https` alone.
    pub fn new(target: Target, token: Option<String>, trust: &Trust) -> Result<Self, ClientError> {
        let tls = match &target {
            Target::Https { .. } => Some(trust.config()?),
            Target::Http { .. } | Target::Unix(_) => None,
        };
        Ok(Self { target, token, tls })
    }

    #[must_use]
    pub const fn target(&self) -> &Target {
        &self.target
    }

    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.ask("GET", path, None, ANSWER_TIME)
    }

    /// The same, for an answer that may be waited for.
    pub fn wait_for<T: DeserializeOwned>(&self, path: &str, wait: Duration) -> Result<T, ClientError> {
        self.ask("GET", path, None, wait + ANSWER_TIME)
    }

    pub fn ask<T: DeserializeOwned>(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
        limit: Duration,
    ) -> Result<T, ClientError> {
        self.read(&self.exchange(method, path, body.map_or(Sent::Nothing, Sent::Json), limit)?)
    }

    /// The same with a text of rules.
    pub fn send_text<T: DeserializeOwned>(
        &self,
        method: &str,
        path: &str,
        text: &str,
        limit: Duration,
    ) -> Result<T, ClientError> {
        self.read(&self.exchange(method, path, Sent::Toml(text), limit)?)
    }

    fn read<T: DeserializeOwned>(&self, bytes: &[u8]) -> Result<T, ClientError> {
        let text: &[u8] = if bytes.is_empty() { b"null" } else { bytes };
        serde_json::from_slice(text).map_err(|error| self.unusable(format!("it is not what was expected ({error})")))
    }

    /// An order that is answered with nothing.
    pub fn order(&self, method: &str, path: &str, body: Option<&Value>) -> Result<(), ClientError> {
        self.exchange(method, path, body.map_or(Sent::Nothing, Sent::Json), ANSWER_TIME).map(drop)
    }

    /// An answer without bounds, as it comes. That it breaks off is an error of the reader.
    pub fn stream(&self, method: &str, path: &str) -> Result<impl Read + use<>, ClientError> {
        let line = self.connect(STREAM_TIME).map_err(|error| self.unreachable(&error))?;
        let request =
            wire::Request { method, path, host: "localhost", token: self.token.as_deref(), body: Sent::Nothing };
        match wire::begin(line, &request).map_err(|error| self.broken(&error))? {
            wire::Begun::Body(body) => Ok(body),
            wire::Begun::Refused(response) => Err(self.refused(&response)),
        }
    }

    /// All pages of a list, up to `max` items.
    pub fn all(&self, path: &str, max: usize) -> Result<Vec<Value>, ClientError> {
        let (mut items, mut after): (Vec<Value>, Option<String>) = (Vec::new(), None);
        loop {
            let separator = if path.contains('?') { '&' } else { '?' };
            let more = after.map(|after| format!("&after={}", escaped(&after))).unwrap_or_default();
            let limit = (max - items.len()).clamp(1, 1_000);
            let mut page: Value = self.get(&format!("{path}{separator}limit={limit}{more}"))?;
            let Some(Value::Array(found)) = page.get_mut("items").map(Value::take) else {
                return Err(self.unusable(String::from("it is no list")));
            };
            items.extend(found);
            after = page.get("next").and_then(Value::as_str).map(str::to_owned);
            if after.is_none() || items.len() >= max {
                return Ok(items);
            }
        }
    }

    /// Passes an answer of any length on while it comes. The inner error is that of `out`.
    pub fn pass_on(&self, path: &str, out: &mut dyn Write) -> Result<io::Result<()>, ClientError> {
        let line = self.connect(STREAM_TIME).map_err(|error| self.unreachable(&error))?;
        let host = self.host();
        let request =
            wire::Request { method: "GET", path, host: &host, token: self.token.as_deref(), body: Sent::Nothing };
        match wire::pass_on(line, &request, out).map_err(|error| self.broken(&error))? {
            wire::Passed::Whole => Ok(Ok(())),
            wire::Passed::NotTaken(error) => Ok(Err(error)),
            wire::Passed::Refused(response) => Err(self.refused(&response)),
        }
    }

    fn exchange(&self, method: &str, path: &str, body: Sent<'_>, limit: Duration) -> Result<Vec<u8>, ClientError> {
        let mut line = self.connect(limit).map_err(|error| self.unreachable(&error))?;
        let host = self.host();
        let request = wire::Request { method, path, host: &host, token: self.token.as_deref(), body };
        let response = wire::exchange(&mut line, &request).map_err(|error| self.broken(&error))?;
        if (200..300).contains(&response.status) { Ok(response.body) } else { Err(self.refused(&response)) }
    }

    fn host(&self) -> String {
        match &self.target {
            Target::Unix(_) => String::from("localhost"),
            Target::Http { .. } | Target::Https { .. } => {
                self.target.to_string().split_once("://").map(|(_, rest)| rest.to_owned()).unwrap_or_default()
            }
        }
    }

    fn refused(&self, response: &wire::Response) -> ClientError {
        match serde_json::from_slice::<Problem>(&response.body) {
            Ok(problem) => ClientError::Refused(Box::new(problem)),
            Err(_) => {
                self.unusable(format!("it answered {} without a reason; is a proxy in between?", response.status))
            }
        }
    }

    fn connect(&self, limit: Duration) -> io::Result<Box<dyn Line>> {
        match &self.target {
            Target::Unix(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_read_timeout(Some(limit))?;
                Ok(Box::new(stream))
            }
            Target::Http { host, port } => Ok(Box::new(connected(host, *port, limit)?)),
            Target::Https { host, port } => {
                let stream = connected(host, *port, limit)?;
                let name = ServerName::try_from(host.clone()).map_err(io::Error::other)?;
                let config = self.tls.as_ref().ok_or_else(|| io::Error::other("there is no TLS"))?;
                let session = ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
                Ok(Box::new(StreamOwned::new(session, stream)))
            }
        }
    }

    fn unusable(&self, why: String) -> ClientError {
        ClientError::Answer { at: self.target.to_string(), why }
    }

    fn unreachable(&self, error: &io::Error) -> ClientError {
        let why = match (error.kind(), &self.target) {
            (io::ErrorKind::PermissionDenied, Target::Unix(_)) => {
                String::from("only root and the collector's own user may; try sudo, or set DUNLIN_URL and DUNLIN_TOKEN")
            }
            (io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused, Target::Unix(_)) => {
                String::from("no collector runs on this state directory")
            }
            (io::ErrorKind::ConnectionRefused, _) => String::from(
                "nothing listens there; is the collector running, is DUNLIN_URL right, and does its http_listen allow it?",
            ),
            (io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock, _) => {
                String::from("no answer in time; does a firewall keep TCP from it?")
            }
            _ => error.to_string(),
        };
        ClientError::Unreachable { at: self.target.to_string(), why }
    }

    /// What went wrong on a connection that was made.
    fn broken(&self, error: &io::Error) -> ClientError {
        if let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            return self.unusable(trust::advice(tls));
        }
        let why = match (error.kind(), &self.target) {
            (io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock, _) => String::from("it did not come in time"),
            (io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof, Target::Http { host, port }) => {
                format!("{error}; if it speaks TLS, write https://{host}:{port}")
            }
            _ => error.to_string(),
        };
        self.unusable(why)
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("target", &self.target).finish_non_exhaustive()
    }
}

/// A word as it can stand in a path or behind a question mark.
#[must_use]
pub fn escaped(word: &str) -> String {
    let mut text = String::with_capacity(word.len());
    for byte in word.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text
}

#[expect(clippy::disallowed_methods, reason = "these programs are linked with the host's own C library")]
fn connected(host: &str, port: u16, limit: Duration) -> io::Result<TcpStream> {
    let mut failed = io::Error::new(io::ErrorKind::NotFound, format!("{host} has no address"));
    for address in (host, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, CONNECT_TIME) {
            Ok(stream) => {
                stream.set_read_timeout(Some(limit))?;
                stream.set_write_timeout(Some(limit))?;
                return Ok(stream);
            }
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

fn advised(problem: &Problem) -> String {
    let mut text = problem.detail.clone();
    match problem.status {
        401 => text.push_str("; set DUNLIN_TOKEN to one that is good"),
        _ if !problem.candidates.is_empty() => {
            text.push(':');
            problem.candidates.iter().for_each(|id| text.push_str(&format!("\n  {id}")));
        }
        // The first is in the detail.
        _ => problem.lines.iter().skip(1).for_each(|line| text.push_str(&format!("\n  {line}"))),
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_with_its_default_port() {
        let https = |host: &str, port| Ok::<_, String>(Target::Https { host: host.to_owned(), port });
        let parse = |url: &str| Target::parse(url).map_err(|error| error.to_string());
        assert_eq!(parse("https://c.example.net"), https("c.example.net", 9738));
        assert_eq!(parse("https://c.example.net:443/"), https("c.example.net", 443));
        assert_eq!(parse("https://[2001:db8::1]:1"), https("2001:db8::1", 1));
        assert_eq!(
            parse("https://[2001:db8::1]").map(|target| target.to_string()),
            Ok("https://[2001:db8::1]:9738".into())
        );
        assert_eq!(parse("unix:/run/x"), Ok(Target::Unix("/run/x".into())));
        for wrong in ["", "c.example.net:9738", "ftp://x", "https://", "https://x/y", "http://x:port", "http://a@b"] {
            assert!(parse(wrong).is_err_and(|said| said.contains("is no address")), "{wrong}");
        }
    }

    #[test]
    fn a_word_in_a_path_cannot_leave_it() {
        assert_eq!(escaped("web-1"), "web-1");
        assert_eq!(escaped("../x?y#z é"), "..%2Fx%3Fy%23z%20%C3%A9");
    }
}
