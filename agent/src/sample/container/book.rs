//! The containers of one engine, and what happened to them, from what the engine lists, says and answers.
//!
//! Pure. Events are taken in their order, and those that need more than they say ask for an inspect: `next` names the
//! container, `answer` takes what came. An inspect may show a state that later events lead to; each end and each start
//! is told by its own event nevertheless, so that a crash and a restart between two ticks are both told, and once.

use std::collections::{HashMap, HashSet, VecDeque};

use dunlin_shared::inventory::{Container, ContainerState, Happening, Item, Key, What, happenings};
use dunlin_shared::limits::{CONTAINERS_MAX, HAPPENINGS_MAX};
use dunlin_shared::time::{MonoMs, WallMs};

use super::answer::{Inspected, Listed};
use super::event::{Event, Word};

/// How long an end waits for the word that somebody asked for it: Docker's `stop` came 60 ms after the `die`,
/// Podman's second clean-up 60 ms after the first, and its removal of what it killed as soon.
pub(super) const HOLD_MS: u64 = 1_000;
/// A signal that ends a container in order counts as a stop for so long: longer than anybody lets a stop take.
const ASKED_MS: i64 = 15 * 60_000;
/// The same where the engine does not say which signal it was: it may have been one that ends nothing.
const ASKED_UNNAMED_MS: i64 = 10_000;
/// Events that wait for an inspect. A host that starts a thousand containers at once makes 3,000, which the socket and
/// the engine hold back meanwhile.
const EVENTS_MAX: usize = 512;
const LIVES_MAX: usize = CONTAINERS_MAX as usize;
/// SIGTERM and SIGKILL: what `stop`, `kill` and `rm` send.
const ENDING: [u8; 2] = [15, 9];
/// A process that a SIGTERM ended says so by its exit code, and nobody crashes with it.
const TERMINATED: i32 = 128 + 15;
const KILLED: i32 = 128 + 9;

#[derive(Debug, Default)]
pub(super) struct Book {
    lives: HashMap<Box<str>, Life>,
    events: VecDeque<Event>,
    looks: VecDeque<Box<str>>,
    question: Option<Question>,
    happened: VecDeque<(Box<str>, Happening)>,
    /// Images of names whose container went: the next one of that name may have another.
    images: HashMap<Box<str>, Image>,
    left_out: u32,
    /// The first look is no news.
    has_looked: bool,
    /// Raised with each change, so that readers need not compare.
    edition: u64,
}

#[derive(Debug)]
struct Life {
    container: Container,
    image_id: Box<str>,
    stop_signal: Option<u8>,
    removes_itself: bool,
    /// Until when an end counts as asked for.
    asked_until: Option<WallMs>,
    /// A process in it was killed for want of memory, when, and until when its own end may follow from that.
    killed: Option<(WallMs, MonoMs)>,
    /// Such a kill was told already while it ran on. Docker goes on saying so until its next start.
    is_kill_told: bool,
    ended: Option<Ended>,
}

/// What a container runs. Whether it is another one its id says: a digest may be known at one time and not at another.
#[derive(Debug, PartialEq, Eq)]
struct Image {
    name: Box<str>,
    digest: Box<str>,
    id: Box<str>,
}

/// An end that is not told yet.
#[derive(Clone, Copy, Debug)]
struct Ended {
    at: WallMs,
    exit_code: Option<i32>,
    due: MonoMs,
    clean_ups: u8,
}

#[derive(Debug)]
enum Question {
    Event(Event),
    End(Box<str>),
    Look(Box<str>),
}

impl Book {
    pub(super) fn containers(&self) -> impl Iterator<Item = &Container> {
        self.lives.values().map(|life| &life.container)
    }

    pub(super) const fn edition(&self) -> u64 {
        self.edition
    }

    pub(super) const fn left_out(&self) -> u32 {
        self.left_out
    }

    pub(super) const fn has_looked(&self) -> bool {
        self.has_looked
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lives.is_empty() && self.looks.is_empty()
    }

    /// What happened since it was asked last, by id.
    pub(super) fn take_happened(&mut self) -> VecDeque<(Box<str>, Happening)> {
        std::mem::take(&mut self.happened)
    }

    /// Whether there is room for one more event. Without, those that follow wait where they are.
    pub(super) fn has_room(&self) -> bool {
        self.events.len() < EVENTS_MAX
    }

    pub(super) fn hear(&mut self, event: Event) {
        debug_assert!(self.has_room(), "events are taken only where there is room");
        self.events.push_back(event);
    }

    /// All containers of the engine, `total` of them. What is not listed is gone, all others are looked at.
    pub(super) fn list(&mut self, listed: Vec<Listed>, total: usize, at: WallMs) {
        let there: HashSet<&str> = listed.iter().map(|one| &*one.id).collect();
        let gone: Vec<_> = self.lives.keys().filter(|id| !there.contains(&***id)).cloned().collect();
        gone.iter().for_each(|id| self.remove(id, at));
        self.left_out = u32::try_from(total.saturating_sub(listed.len())).unwrap_or(u32::MAX);
        self.looks = listed.into_iter().map(|one| one.id).collect();
        self.has_looked |= self.looks.is_empty();
    }

    /// A new connection: what was asked on the old one is not answered any more. What happened since is found by a list.
    pub(super) fn reconnect(&mut self) {
        self.question = None;
        self.events.clear();
        self.looks.clear();
    }

    /// The id of the container to inspect next, after everything that needs none.
    pub(super) fn next(&mut self, now: MonoMs) -> Option<Box<str>> {
        debug_assert!(self.question.is_none(), "one question at a time");
        while let Some(event) = self.events.pop_front() {
            let id = event.id.clone();
            if self.needs_inspect(&event, now) {
                self.question = Some(Question::Event(event));
                return Some(id);
            }
        }
        self.tell_kills(now);
        let due = self.lives.iter().find(|(_, life)| life.ended.is_some_and(|ended| ended.due <= now));
        if let Some(id) = due.map(|(id, _)| id.clone()) {
            self.question = Some(Question::End(id.clone()));
            return Some(id);
        }
        let id = self.looks.pop_front()?;
        self.question = Some(Question::Look(id.clone()));
        Some(id)
    }

    /// When `next` has something to ask though nothing new is heard.
    pub(super) fn due(&self) -> Option<MonoMs> {
        let kills = self.lives.values().filter_map(|life| life.killed).map(|(_, due)| due);
        self.lives.values().filter_map(|life| life.ended).map(|ended| ended.due).chain(kills).min()
    }

    /// What the inspect showed; none for a container that is gone by now.
    pub(super) fn answer(&mut self, inspected: Option<Inspected>, now: MonoMs, wall: WallMs) {
        self.edition += 1;
        match (self.question.take(), inspected) {
            (Some(Question::Event(event)), Some(seen)) => self.take_event(&event, seen),
            (Some(Question::End(id)), seen) => self.take_end(&id, seen),
            (Some(Question::Look(_)), Some(seen)) => self.take_look(seen, now, wall),
            (Some(Question::Look(id)), None) => self.remove(&id, wall),
            // Gone before it could be asked about: its removal is told by an event of its own.
            (Some(Question::Event(_)) | None, _) => {}
        }
        // The last look of the first list.
        self.has_looked |= self.looks.is_empty();
    }

    /// The container that was asked about cannot be told: what is known of it stays.
    pub(super) fn pass_over(&mut self) {
        self.edition += 1;
        match self.question.take() {
            Some(Question::End(id)) => self.settle(&id),
            Some(Question::Look(id)) if !self.lives.contains_key(&id) => {
                self.left_out = self.left_out.saturating_add(1);
            }
            Some(Question::Look(_) | Question::Event(_)) | None => {}
        }
        self.has_looked |= self.looks.is_empty();
    }

    /// Takes what an event says by itself; whether there is more to ask.
    fn needs_inspect(&mut self, event: &Event, now: MonoMs) -> bool {
        let Some(life) = self.lives.get_mut(&event.id) else {
            // Whatever else is said of it, the next look finds it.
            return matches!(event.word, Word::Created | Word::Started);
        };
        match event.word {
            Word::Signalled(signal) => {
                let ends = signal.is_none_or(|signal| ENDING.contains(&signal) || life.stop_signal == Some(signal));
                let limit_ms = if signal.is_some() { ASKED_MS } else { ASKED_UNNAMED_MS };
                if ends {
                    life.asked_until = Some(WallMs(event.at.0.saturating_add(limit_ms)));
                }
            }
            Word::Stopped => life.asked(event.at, now),
            Word::CleanedUp => {
                // Podman 4 does not tell every stop. Who stops cleans up as well, beside the engine's own clean-up.
                let ups = life.ended.as_mut().map_or(0, |ended| {
                    ended.clean_ups += 1;
                    ended.clean_ups
                });
                if ups >= 2 {
                    life.asked(event.at, now);
                }
            }
            Word::OutOfMemory if life.container.is_up() => life.killed = Some((event.at, now.plus(HOLD_MS))),
            Word::OutOfMemory => {}
            Word::Ended { exit_code, is_host_short } => {
                if life.container.is_up() {
                    if is_host_short && exit_code == Some(KILLED) {
                        life.killed = Some((event.at, now));
                    }
                    let is_plain = matches!(exit_code, Some(0 | TERMINATED)) || life.is_asked(event.at);
                    let due = if is_plain { now } else { now.plus(HOLD_MS) };
                    life.ended = Some(Ended { at: event.at, exit_code, due, clean_ups: 0 });
                }
            }
            Word::Removed => {
                // Not every Podman says before that it stops what it removes: what was killed just now was killed for that.
                let was_killed = life.ended.is_some_and(|ended| ended.exit_code == Some(KILLED));
                if was_killed && life.killed.is_none() && !life.removes_itself {
                    life.asked(event.at, now);
                }
                self.remove(&event.id, event.at);
            }
            Word::Started => {
                self.settle(&event.id);
                return true;
            }
            Word::Created | Word::Changed => return true,
        }
        false
    }

    fn take_event(&mut self, event: &Event, seen: Inspected) {
        let Some(life) = self.lives.get_mut(&event.id) else {
            return self.welcome(event, seen);
        };
        let (before, after) = (&life.container, &seen.container);
        if event.word == Word::Started {
            (life.killed, life.is_kill_told, life.asked_until) = (None, false, None);
            let mut seen = seen;
            if !seen.container.is_up() {
                // It ended again already, which its next event tells.
                seen.container = Container { state: ContainerState::Running, started: None, ..seen.container };
            }
            let count = seen.container.restarts;
            let is_engines_doing = !life.container.is_stop_asked && count > 0;
            if !life.container.is_up() && is_engines_doing {
                // An inspect that was ahead of its events has counted this restart already.
                life.container.restarts = life.container.restarts.min(count - 1);
            }
            return self.replace(seen, event.at);
        }
        let is_same_run = before.started == after.started || before.started.is_none();
        match (before.is_up(), after.is_up()) {
            (true, true) if is_same_run => self.replace(seen, event.at),
            (false, false) => self.replace(seen, event.at),
            // A start or an end of which an event is still to come; the new name does not wait for it.
            _ => {
                let container = Container { name: after.name.clone(), ..before.clone() };
                self.replace(Inspected { container, ..seen }, event.at);
            }
        }
    }

    /// A container that is met for the first time, by an event.
    fn welcome(&mut self, event: &Event, seen: Inspected) {
        let id = seen.container.id.clone();
        if event.word == Word::Created {
            let container = Container { state: ContainerState::Created, started: None, ..seen.container };
            return self.insert(id, Inspected { container, ..seen }, Some(event.at));
        }
        // It stood before; its start is the news.
        let container = seen.container.clone();
        let before = Container { state: ContainerState::Exited, started: None, ..container };
        self.insert(id, Inspected { container: before, ..seen.clone() }, None);
        self.replace(seen, event.at);
    }

    fn take_look(&mut self, seen: Inspected, now: MonoMs, wall: WallMs) {
        let id = seen.container.id.clone();
        let Some(life) = self.lives.get_mut(&id) else {
            let news = self.has_looked.then_some(wall);
            return self.insert(id, seen, news);
        };
        if life.container.is_up() && !seen.container.is_up() {
            // An end that no event has told yet, or that came while nobody listened.
            let at = seen.container.finished.unwrap_or(wall);
            let due = now.plus(HOLD_MS);
            life.ended.get_or_insert(Ended { at, exit_code: seen.container.exit_code, due, clean_ups: 0 });
            return;
        }
        self.replace(seen, wall);
    }

    fn take_end(&mut self, id: &str, seen: Option<Inspected>) {
        let Some(life) = self.lives.get_mut(id) else { return };
        match seen {
            Some(seen) if !seen.container.is_up() => {
                let Some(ended) = life.ended.take() else { return };
                let mut container = seen.container;
                container.exit_code = container.exit_code.or(ended.exit_code);
                container.is_stop_asked = life.is_stop(ended.at, container.exit_code);
                let is_killed = life.killed.take().is_some() || (container.is_oom_killed && !life.is_kill_told);
                container.is_oom_killed = is_killed && !container.is_stop_asked && container.exit_code != Some(0);
                self.replace(Inspected { container, ..seen }, ended.at);
            }
            // It runs again, or is gone: what the event said is all there is.
            _ => self.settle(id),
        }
    }

    /// Tells an end by its event alone.
    fn settle(&mut self, id: &str) {
        let Some(life) = self.lives.get_mut(id) else { return };
        let Some(ended) = life.ended.take() else { return };
        let is_stop_asked = life.is_stop(ended.at, ended.exit_code);
        let is_killed = life.killed.take().is_some() && !is_stop_asked && ended.exit_code != Some(0);
        let container = Container {
            state: ContainerState::Exited,
            exit_code: ended.exit_code,
            finished: Some(ended.at),
            is_oom_killed: is_killed,
            is_stop_asked,
            ..life.container.clone()
        };
        let (image_id, stop_signal, removes_itself) = (life.image_id.clone(), life.stop_signal, life.removes_itself);
        self.replace(Inspected { container, image_id, stop_signal, removes_itself }, ended.at);
    }

    /// Another state of a container that is known, and what follows from that.
    fn replace(&mut self, seen: Inspected, at: WallMs) {
        let id = seen.container.id.clone();
        let Some(life) = self.lives.get_mut(&id) else { return };
        let mut after = seen.container;
        if !after.is_up() && !life.container.is_up() {
            // Why it ended is known from when it did.
            after.is_stop_asked |= life.container.is_stop_asked;
            after.is_oom_killed |= life.container.is_oom_killed;
        }
        let before = std::mem::replace(&mut life.container, after.clone());
        (life.image_id, life.stop_signal, life.removes_itself) = (seen.image_id, seen.stop_signal, seen.removes_itself);
        let key = Key::Container(after.name.clone());
        let renamed = (before.name != after.name).then(|| What::ContainerRenamed { before: before.name.clone() });
        let renamed = renamed.map(|what| Happening { at, key: Some(key), what });
        let (before, after) = (Item::Container(Box::new(before)), Item::Container(Box::new(after)));
        let news = renamed.into_iter().chain(happenings(Some(&before), Some(&after), at));
        news.for_each(|one| self.tell(&id, one));
    }

    fn insert(&mut self, id: Box<str>, seen: Inspected, news: Option<WallMs>) {
        if self.lives.len() >= LIVES_MAX {
            self.left_out = self.left_out.saturating_add(1);
            return;
        }
        if let Some(at) = news {
            self.tell_image(&seen, at);
            let item = Item::Container(Box::new(seen.container.clone()));
            happenings(None, Some(&item), at).into_iter().for_each(|one| self.tell(&id, one));
        }
        let Inspected { container, image_id, stop_signal, removes_itself } = seen;
        let (asked_until, killed, ended) = (None, None, None);
        let is_kill_told = false;
        let life = Life { container, image_id, stop_signal, removes_itself, asked_until, killed, is_kill_told, ended };
        self.lives.insert(id, life);
    }

    fn remove(&mut self, id: &str, at: WallMs) {
        self.settle(id);
        let Some(life) = self.lives.remove(id) else { return };
        self.edition += 1;
        let (image, container) = (Image::of(&life.container, &life.image_id), life.container);
        // Names that are made up for one run never come back: they must not keep others out for ever.
        if self.images.len() >= LIVES_MAX {
            self.images.clear();
        }
        self.images.insert(container.name.clone(), image);
        let item = Item::Container(Box::new(container));
        happenings(Some(&item), None, at).into_iter().for_each(|one| self.tell(id, one));
    }

    /// A container in the place of another of its name: an upgrade, as it is done with containers.
    fn tell_image(&mut self, seen: &Inspected, at: WallMs) {
        let container = &seen.container;
        let named = self.lives.values().find(|life| life.container.name == container.name);
        let named = named.map(|life| Image::of(&life.container, &life.image_id));
        let Some(before) = self.images.remove(&container.name).or(named) else { return };
        let after = Image::of(container, &seen.image_id);
        let (before, after) = match () {
            () if before.name != after.name => (before.name, after.name),
            () if before.id != after.id && before.digest != after.digest => (before.digest, after.digest),
            () => (before.id, after.id),
        };
        if before != after && !before.is_empty() && !after.is_empty() {
            let what = What::ContainerImageChanged { before, after };
            self.tell(&container.id, Happening { at, key: Some(Key::Container(container.name.clone())), what });
        }
    }

    /// Kills in containers that ran on nevertheless.
    fn tell_kills(&mut self, now: MonoMs) {
        let mut told = Vec::new();
        for (id, life) in &mut self.lives {
            let Some((at, _)) = life.killed.filter(|&(_, due)| due <= now && life.ended.is_none()) else { continue };
            (life.killed, life.is_kill_told) = (None, true);
            let key = Some(Key::Container(life.container.name.clone()));
            told.push((id.clone(), Happening { at, key, what: What::ContainerOomKilled }));
        }
        told.into_iter().for_each(|(id, one)| self.tell(&id, one));
    }

    fn tell(&mut self, id: &str, happening: Happening) {
        if self.happened.len() >= HAPPENINGS_MAX {
            self.happened.pop_front();
        }
        self.happened.push_back((id.into(), happening));
    }
}

impl Image {
    fn of(container: &Container, id: &str) -> Self {
        Self { name: container.image.clone(), digest: container.digest.clone(), id: id.into() }
    }
}

impl Life {
    fn is_asked(&self, at: WallMs) -> bool {
        self.asked_until.is_some_and(|until| at <= until)
    }

    fn is_stop(&self, at: WallMs, exit_code: Option<i32>) -> bool {
        self.is_asked(at) || exit_code == Some(TERMINATED)
    }

    /// Somebody asked for the end that is under way or told just now.
    fn asked(&mut self, at: WallMs, now: MonoMs) {
        if let Some(ended) = &mut self.ended {
            ended.due = now;
            self.asked_until = Some(at.max(ended.at));
        } else if self.container.is_up() {
            self.asked_until = Some(WallMs(at.0.saturating_add(ASKED_UNNAMED_MS)));
        }
    }
}

#[cfg(test)]
mod tests;
