//! The task that follows one engine: it connects, looks at all containers, takes events, and begins anew when that ends.
//!
//! What it knows lies on a board that the tick reads without waiting. An engine that hangs, stops or answers nonsense
//! costs its own task alone, and says so on the board.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dunlin_shared::backoff::Backoff;
use dunlin_shared::inventory::Engine;
use dunlin_shared::limits::CONTAINERS_MAX;
use dunlin_shared::time::MonoMs;
use tokio::sync::Notify;
use tokio::time::sleep_until;

use super::answer::{Inspected, is_image_id};
use super::book::Book;
use super::event::{Event, Word};
use super::line::{Events, Line};
use super::place::Place;
use super::trouble::Trouble;
use crate::clock::Clock;

/// A question to an engine. One with a thousand containers lists them in half a second.
const QUESTION_MS: u64 = 5_000;
/// Every so often an engine is asked whether it still answers: one that hangs is silent, as one at rest is.
const PING_EVERY_MS: u64 = 15_000;
/// Events can get lost; a look at all finds what they would have told.
const LOOK_EVERY_MS: u64 = 300_000;
/// Images whose digests are remembered: as many as there may be containers.
const IMAGES_MAX: usize = CONTAINERS_MAX as usize;
/// Between attempts to connect.
const RETRY_MS: (u64, u64) = (1_000, 60_000);

/// What an engine's task tells, and what it is told.
#[derive(Debug)]
pub(super) struct Board {
    pub(super) place: Place,
    page: Mutex<Page>,
    /// Rung when a container of this engine was seen that it did not tell.
    bell: Notify,
}

#[derive(Debug, Default)]
pub(super) struct Page {
    pub(super) book: Book,
    pub(super) state: State,
    pub(super) engine: Engine,
    /// The version of its API that it was agreed on.
    pub(super) version: Box<str>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum State {
    /// It was not asked to the end yet.
    #[default]
    Looking,
    Working,
    Troubled {
        says: Box<str>,
        is_absent: bool,
        /// The host is made so that the agent may not ask; and the group that may, if there is one.
        shut: Option<Shut>,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shut {
    pub(super) group: Box<str>,
}

/// By the id that it has here, and the name that a container was started by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Image {
    id: Box<str>,
    name: Box<str>,
}

/// There is nothing to follow.
struct Idle;

/// Kills for want of memory on the whole host: what Podman on cgroup v1 does not tell of its containers.
#[derive(Debug, Default)]
struct HostKills {
    /// At the last ping and at the one before.
    seen: [Option<u64>; 2],
}

impl Board {
    pub(super) fn new(place: Place) -> Arc<Self> {
        let page = Page { engine: place.engine, ..Page::default() };
        Arc::new(Self { place, page: Mutex::new(page), bell: Notify::new() })
    }

    /// A lock that is held for no longer than it takes to copy or change what stands there.
    pub(super) fn page(&self) -> MutexGuard<'_, Page> {
        self.page.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn ring(&self) {
        self.bell.notify_one();
    }

    /// Nobody asks any more. An engine that did not answer to the end until then is too slow for who does not stay.
    pub(super) fn close(&self, limit_ms: u64) {
        if self.page().state == State::Looking {
            self.set(&Trouble::Slow { limit_ms });
        }
    }

    fn set(&self, trouble: &Trouble) {
        let says = trouble.line(&self.place.path).into();
        let is_absent = matches!(trouble, Trouble::Missing);
        let shut = match trouble {
            Trouble::Denied { group } => Some(Shut { group: group.as_deref().unwrap_or_default().into() }),
            _ => None,
        };
        self.page().state = State::Troubled { says, is_absent, shut };
    }
}

/// Follows the engine for as long as the agent runs.
pub(super) async fn follow(board: Arc<Board>, clock: Clock, labels: Arc<[String]>) {
    let mut pause = Backoff::new(RETRY_MS.0, RETRY_MS.1);
    loop {
        board.page().book.reconnect();
        let began = clock.mono();
        let outcome = Session::open(&board, clock, &labels).await;
        let ended = match outcome {
            Ok(session) => session.follow().await,
            Err(trouble) => Err(trouble),
        };
        let is_idle = ended.is_ok();
        let wait_ms = match ended {
            Ok(Idle) => LOOK_EVERY_MS,
            Err(trouble) => {
                board.set(&trouble);
                if clock.mono().since(began) > RETRY_MS.1 {
                    pause.reset();
                }
                pause.next_ms(clock.random())
            }
        };
        let again = clock.instant(clock.mono().plus(wait_ms));
        tokio::select! {
            () = sleep_until(again) => {}
            () = board.bell.notified(), if is_idle => {}
        }
    }
}

/// One look at all containers, for who does not stay.
pub(super) async fn look_once(board: Arc<Board>, clock: Clock, labels: Arc<[String]>, limit_ms: u64) {
    let looked: Result<(), Trouble> = async {
        let mut session = Session::open_within(&board, clock, &labels, limit_ms).await?;
        session.look().await?;
        while session.answer_one().await? {}
        Ok(())
    }
    .await;
    if let Err(trouble) = looked {
        board.set(&trouble);
    }
}

/// One connection to an engine.
struct Session<'a> {
    board: &'a Board,
    clock: Clock,
    labels: &'a [String],
    line: Line,
    engine: Engine,
    kills: HostKills,
    images: Images,
    look_at: MonoMs,
    ping_at: MonoMs,
}

/// What registries call the images that containers run, each asked for once on a connection.
#[derive(Debug, Default)]
struct Images {
    known: HashMap<Image, Option<Box<str>>>,
    /// A proxy does not let it pass, or the engine does not answer it: nothing more is asked.
    is_refused: bool,
}

impl<'a> Session<'a> {
    async fn open(board: &'a Board, clock: Clock, labels: &'a [String]) -> Result<Self, Trouble> {
        Self::open_within(board, clock, labels, QUESTION_MS).await
    }

    async fn open_within(board: &'a Board, clock: Clock, labels: &'a [String], limit_ms: u64) -> Result<Self, Trouble> {
        let line = Line::open(&board.place.path, limit_ms).await?;
        board.page().version = line.version().into();
        let now = clock.mono();
        let ping_at = now.plus(PING_EVERY_MS);
        let kills = HostKills { seen: [host_kills(), None] };
        let engine = board.place.engine;
        Ok(Self { board, clock, labels, line, engine, kills, images: Images::default(), look_at: now, ping_at })
    }

    /// Events are asked for before the list, from this moment on, so that nothing falls between the two.
    async fn follow(mut self) -> Result<Idle, Trouble> {
        let mut events = self.line.events(&self.board.place.path, self.clock.wall(), self.clock)?;
        loop {
            let now = self.clock.mono();
            if now >= self.look_at {
                self.look().await?;
                if self.engine == Engine::Podman && self.board.page().book.is_empty() {
                    // Podman's service ends when nobody asks it; to stay would keep 40 MiB alive for nothing.
                    return Ok(Idle);
                }
            }
            if now >= self.ping_at {
                self.ping_at = now.plus(PING_EVERY_MS);
                self.line.ping().await?;
                self.kills.note(host_kills());
            }
            self.hear_what_is_there(&mut events)?;
            if self.answer_one().await? {
                continue;
            }
            let due = self.board.page().book.due().unwrap_or(self.ping_at);
            let wake = due.min(self.ping_at).min(self.look_at);
            tokio::select! {
                event = events.next() => self.hear(event?),
                () = sleep_until(self.clock.instant(wake)) => {}
            }
        }
    }

    /// Lists all containers, so that each is looked at.
    async fn look(&mut self) -> Result<(), Trouble> {
        self.look_at = self.clock.mono().plus(LOOK_EVERY_MS);
        let list = self.line.list().await?;
        self.engine = list.engine;
        let mut page = self.board.page();
        page.engine = list.engine;
        page.book.list(list.listed, list.total, self.clock.wall());
        if page.book.has_looked() {
            page.state = State::Working;
        }
        Ok(())
    }

    /// Takes what the engine has said by now, as far as there is room for it.
    fn hear_what_is_there(&self, events: &mut Events) -> Result<(), Trouble> {
        loop {
            let has_room = self.board.page().book.has_room();
            match if has_room { events.poll() } else { None } {
                Some(event) => self.hear(event?),
                None => return Ok(()),
            }
        }
    }

    fn hear(&self, mut event: Event) {
        if let Word::Ended { is_host_short, .. } = &mut event.word {
            *is_host_short = self.engine == Engine::Podman && self.kills.rose(host_kills());
        }
        self.board.page().book.hear(event);
    }

    /// Asks what the book wants to know next; whether there was anything.
    async fn answer_one(&mut self) -> Result<bool, Trouble> {
        let Some(id) = self.board.page().book.next(self.clock.mono()) else { return Ok(false) };
        let mut inspected = self.line.inspect(&id, self.engine, self.labels).await;
        if let Ok(Some(seen)) = &mut inspected {
            self.images.complete(&self.line, seen).await;
        }
        let (now, wall) = (self.clock.mono(), self.clock.wall());
        let mut page = self.board.page();
        match inspected {
            Ok(inspected) => page.book.answer(inspected, now, wall),
            Err(trouble) if trouble.may_be_of_one() => {
                page.book.pass_over();
                // Nothing could be told of any: it is the engine.
                if page.book.is_empty() {
                    return Err(trouble);
                }
                // Whether it is the engine is asked at once.
                self.ping_at = now;
            }
            Err(trouble) => return Err(trouble),
        }
        if page.book.has_looked() {
            page.state = State::Working;
        }
        Ok(true)
    }
}

impl Images {
    /// Puts the digest in the place of the image's id, where there is one.
    async fn complete(&mut self, line: &Line, seen: &mut Inspected) {
        let container = &mut seen.container;
        let image = Image { id: seen.image_id.clone(), name: container.image.clone() };
        if !self.known.contains_key(&image) {
            if self.is_refused || !is_image_id(&image.id) {
                return;
            }
            let asked = line.digest(&image.id, &image.name).await;
            self.is_refused = asked.is_err();
            if self.known.len() >= IMAGES_MAX {
                self.known.clear();
            }
            self.known.insert(image.clone(), asked.unwrap_or_default());
        }
        if let Some(Some(digest)) = self.known.get(&image) {
            container.digest.clone_from(digest);
        }
    }
}

impl HostKills {
    fn note(&mut self, kills: Option<u64>) {
        self.seen = [kills, self.seen[0]];
    }

    /// Since the ping before the last: a container's end is told some time after the kill that caused it.
    fn rose(&self, kills: Option<u64>) -> bool {
        let before = self.seen[1].or(self.seen[0]);
        matches!((before, kills), (Some(before), Some(kills)) if kills > before)
    }
}

fn host_kills() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/vmstat").ok()?;
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}
