//! What is asked of one engine: its version, its containers, one of them, and the events that follow.
//!
//! Every question has a deadline and every answer a bound, so that an engine that is hung, broken or none costs little
//! and is found out. Only GET is ever sent.

use std::future::poll_fn;
use std::io::ErrorKind;
use std::path::Path;
use std::pin::Pin;
use std::time::Duration;

use bollard::errors::Error;
use bollard::models::EventMessage;
use bollard::query_parameters::EventsOptions;
use bollard::{API_DEFAULT_VERSION, BollardRequest, Docker, body_full};
use bytes::Bytes;
use dunlin_shared::inventory::Engine;
use dunlin_shared::limits::CONTAINERS_MAX;
use dunlin_shared::time::{MonoMs, WallMs};
use futures_core::Stream;
use hyper::Response;
use hyper::body::Incoming;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep_until, timeout};

use super::answer::{Elements, Inspected, Listed, digest, inspected};
use super::event::{Event, event_of, filters};
use super::trouble::Trouble;
use super::wire::{Wire, read};
use crate::clock::Clock;

/// A version has some hundred bytes; the longest seen, with all components of an engine, 2 KiB.
const VERSION_BYTES_MAX: usize = 64 * 1024;
/// One container with the output of its last health checks has 30 KiB at most; labels may be many.
const INSPECT_BYTES_MAX: usize = 1024 * 1024;
/// To learn what an image is called elsewhere is worth a part of the time of other questions: without, its containers
/// are told all the same.
const IMAGE_PART: u64 = 4;
/// Sixteen thousand containers of 2 KiB. They are read one by one and never held.
const LIST_BYTES_MAX: usize = 32 * 1024 * 1024;
/// An event, with the labels of its container.
const EVENT_BYTES_MAX: usize = 256 * 1024;
/// Events that wait for the session to take them.
const EVENTS_HEARD_MAX: usize = 64;
/// An engine that says more is not read faster: what it says costs processor time here.
const EVENTS_PER_S_MAX: u32 = 200;
/// bollard bounds the wait for an answer's head, which an engine need not send before the first event: a month.
const UNBOUNDED_S: u64 = 30 * 86_400;

/// Asks one engine. It ends its connections when it is dropped.
#[derive(Debug)]
pub(super) struct Line {
    wire: Wire,
    version: String,
    limit_ms: u64,
}

/// Events as they come, read by a task of their own, so that an engine that is asked something is heard meanwhile.
#[derive(Debug)]
pub(super) struct Events {
    heard: mpsc::Receiver<Result<Event, Trouble>>,
    /// Ends with this value.
    _reader: JoinSet<()>,
}

/// All containers that an engine has, those that run first, and how many they are.
#[derive(Debug, Default)]
pub(super) struct List {
    pub(super) listed: Vec<Listed>,
    pub(super) total: usize,
    pub(super) engine: Engine,
}

impl Line {
    /// Agrees with the engine on a version. Each question may take `limit_ms`.
    pub(super) async fn open(path: &Path, limit_ms: u64) -> Result<Self, Trouble> {
        let wire = Wire::new(path);
        wire.allow(VERSION_BYTES_MAX);
        let docker = docker(&wire)?;
        let docker = within(limit_ms, docker.negotiate_version()).await?;
        let docker = docker.map_err(|error| trouble(error, &wire, path, VERSION_BYTES_MAX))?;
        Ok(Self { version: docker.client_version().to_string(), wire, limit_ms })
    }

    /// Of the API, as both ends speak it.
    pub(super) fn version(&self) -> &str {
        &self.version
    }

    pub(super) async fn list(&self) -> Result<List, Trouble> {
        let mut list = List::default();
        let (mut up, mut down) = (Vec::new(), Vec::new());
        let mut elements = Elements::default();
        let max = usize::try_from(CONTAINERS_MAX).unwrap_or(usize::MAX);
        let total = &mut list.total;
        let asked = async {
            let response = self.ask("/containers/json?all=true", LIST_BYTES_MAX).await?;
            let response = response.ok_or(Trouble::Garbage)?;
            list.engine = engine_of(&response);
            read(response, |bytes| {
                elements.feed(bytes, |one| {
                    *total += 1;
                    let kept = if one.is_up { &mut up } else { &mut down };
                    if kept.len() < max {
                        kept.push(one);
                    }
                })
            })
            .await
        };
        let outcome = within(self.limit_ms, asked).await?;
        self.spent(outcome, LIST_BYTES_MAX)?;
        if !elements.is_whole() {
            return Err(Trouble::Garbage);
        }
        // Newest first is how engines list them.
        down.truncate(max - up.len());
        up.append(&mut down);
        list.listed = up;
        Ok(list)
    }

    /// None when there is no such container any more.
    pub(super) async fn inspect(
        &self,
        id: &str,
        engine: Engine,
        labels: &[String],
    ) -> Result<Option<Inspected>, Trouble> {
        let answer = self.whole(&format!("/containers/{id}/json"), self.limit_ms).await?;
        answer.map(|answer| inspected(&answer, engine, labels)).transpose()
    }

    /// What registries call the image that has this id here; none where nobody knows.
    pub(super) async fn digest(&self, id: &str, name: &str) -> Result<Option<Box<str>>, Trouble> {
        let answer = self.whole(&format!("/images/{id}/json"), self.limit_ms / IMAGE_PART).await?;
        answer.map_or(Ok(None), |answer| digest(&answer, name))
    }

    /// Whether it still answers.
    pub(super) async fn ping(&self) -> Result<(), Trouble> {
        let asked = async { self.ask("/_ping", VERSION_BYTES_MAX).await.map(drop) };
        within(self.limit_ms, asked).await?
    }

    /// Events from `since` on.
    pub(super) fn events(&self, path: &Path, since: WallMs, clock: Clock) -> Result<Events, Trouble> {
        let wire = Wire::new(path);
        wire.allow(EVENT_BYTES_MAX);
        let docker = docker(&wire)?;
        let (s, ms) = (since.0.div_euclid(1_000), since.0.rem_euclid(1_000));
        let options =
            EventsOptions { since: Some(format!("{s}.{ms:03}000000")), until: None, filters: Some(filters()) };
        let (say, heard) = mpsc::channel(EVENTS_HEARD_MAX);
        let mut reader = JoinSet::new();
        reader.spawn(read_events(Box::pin(docker.events(Some(options))), wire, say, clock));
        Ok(Events { heard, _reader: reader })
    }

    /// The head of an answer; none where nothing of that name is.
    async fn ask(&self, path: &str, max: usize) -> Result<Option<Response<Incoming>>, Trouble> {
        self.wire.allow(max);
        let uri = format!("/v{}{path}", self.version);
        let request = hyper::Request::get(uri).body(body_full(Bytes::new())).map_err(|_| Trouble::Garbage)?;
        let response = self.wire.clone().send(request).await;
        let response = response.map_err(|error| trouble(error, &self.wire, self.wire.path(), max))?;
        match response.status().as_u16() {
            200 => Ok(Some(response)),
            404 => Ok(None),
            status => Err(Trouble::Status { status }),
        }
    }

    /// The answer about one thing; none when there is no such thing any more.
    async fn whole(&self, path: &str, limit_ms: u64) -> Result<Option<Vec<u8>>, Trouble> {
        let mut answer = Vec::new();
        let asked = async {
            let Some(response) = self.ask(path, INSPECT_BYTES_MAX).await? else { return Ok(false) };
            read(response, |bytes| {
                answer.extend_from_slice(bytes);
                Ok(())
            })
            .await?;
            Ok(true)
        };
        let outcome = within(limit_ms, asked).await?;
        Ok(self.spent(outcome, INSPECT_BYTES_MAX)?.then_some(answer))
    }

    fn spent<T>(&self, outcome: Result<T, Trouble>, max: usize) -> Result<T, Trouble> {
        outcome.map_err(|trouble| if self.wire.is_spent() { Trouble::TooLong { max } } else { trouble })
    }
}

impl Events {
    /// The next one, for as long as one waits.
    pub(super) async fn next(&mut self) -> Result<Event, Trouble> {
        self.heard.recv().await.unwrap_or(Err(Trouble::Closed))
    }

    /// The next one, if it is there.
    pub(super) fn poll(&mut self) -> Option<Result<Event, Trouble>> {
        self.heard.try_recv().ok()
    }
}

/// Reads no faster than it is listened to, and no more than so much a second.
async fn read_events(
    mut stream: Pin<Box<impl Stream<Item = Result<EventMessage, Error>>>>,
    wire: Wire,
    say: mpsc::Sender<Result<Event, Trouble>>,
    clock: Clock,
) {
    let (mut second, mut count) = (0, 0);
    while let Some(next) = poll_fn(|cx| stream.as_mut().poll_next(cx)).await {
        let said = match next {
            Ok(message) => event_of(&message).map(Ok),
            Err(error) => Some(Err(trouble(error, &wire, wire.path(), EVENT_BYTES_MAX))),
        };
        if let Some(said) = said {
            let is_over = said.is_err();
            if say.send(said).await.is_err() || is_over {
                return;
            }
        }
        wire.allow(EVENT_BYTES_MAX);
        let now = clock.mono().0 / 1_000;
        (second, count) = if now == second { (second, count + 1) } else { (now, 1) };
        if count >= EVENTS_PER_S_MAX {
            sleep_until(clock.instant(MonoMs((second + 1) * 1_000))).await;
        }
    }
}

/// bollard's client on our own way to the socket.
fn docker(wire: &Wire) -> Result<Docker, Trouble> {
    let wire = wire.clone();
    let send = move |request: BollardRequest| wire.clone().send(request);
    let made = Docker::connect_with_custom_transport(send, Some("http://localhost"), UNBOUNDED_S, API_DEFAULT_VERSION);
    made.map_err(|_| Trouble::Garbage)
}

/// Podman names itself in its answers.
fn engine_of(response: &Response<Incoming>) -> Engine {
    let server = response.headers().get("server").map_or(&b""[..], |server| server.as_bytes());
    let is_podman = response.headers().contains_key("libpod-api-version") || server.starts_with(b"Libpod");
    if is_podman { Engine::Podman } else { Engine::Docker }
}

async fn within<T>(limit_ms: u64, asked: impl Future<Output = T>) -> Result<T, Trouble> {
    timeout(Duration::from_millis(limit_ms), asked).await.map_err(|_| Trouble::Slow { limit_ms })
}

fn trouble(error: Error, wire: &Wire, path: &Path, max: usize) -> Trouble {
    match error {
        _ if wire.is_spent() => Trouble::TooLong { max },
        // What bollard makes of a stream of events that breaks off.
        Error::IOError { err } if err.kind() == ErrorKind::Other => Trouble::Closed,
        Error::IOError { err } => Trouble::of_connect(err, || super::place::group_of(path)),
        Error::DockerResponseServerError { status_code, .. } => Trouble::Status { status: status_code },
        Error::HyperResponseError { err } if err.is_parse() => Trouble::Garbage,
        Error::HyperResponseError { .. } => Trouble::Closed,
        _ => Trouble::Garbage,
    }
}
