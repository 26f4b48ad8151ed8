//! The containers of the host: what their engines tell of them, and what their control groups use.
//!
//! The only place that names bollard. A tick never waits for an engine: tasks follow them, and the tick reads what those
//! have written down. Environment, command lines, entry points and arguments are not even read.

pub mod answer;
mod boards;
mod book;
mod engine;
pub mod event;
mod line;
pub mod network;
mod place;
mod roster;
mod row;
#[cfg(test)]
mod tests;
pub mod time;
pub mod trouble;
mod wire;

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use dunlin_shared::inventory::{
    Container, ContainerState, Engine, Happening, Item, Published, Source as SourceItem, Stock,
};
use dunlin_shared::sample::Sample;
use dunlin_shared::time::MonoMs;

use self::boards::Boards;
use self::engine::{Board, State};
use self::network::Host;
use self::roster::{Roster, Scope, Told};
use super::cgroup::Usage;
use super::failure::{Failures, SampleError};
use super::name::shown;
use super::source::Source;
use crate::clock::Clock;
use crate::config::Collect;
use crate::sight::{Kind, Seeing, State as Sees};

/// What is said of containers that nobody tells for want of room.
const BEYOND_NAME: &str = "containers";
const BEYOND: &str = "more containers than a node may have";
/// The same of engines.
const UNASKED_NAME: &str = "engines";
const UNASKED: &str = "more sockets of container engines than are asked at once; collect.sockets names those that are";

/// All containers of a host, tick by tick.
#[derive(Debug)]
pub(in crate::sample) struct Containers {
    root: PathBuf,
    is_wanted: bool,
    boards: Boards,
    /// Of the books, all together, when the roster was written.
    edition: Option<u64>,
    roster: Roster,
    /// Control groups of containers were seen once: that there are none says that no container runs.
    sees_scopes: bool,
    /// By name, at the last tick: those whose engine is silent and says last that they run, though nothing of them does.
    ended: HashSet<Box<str>>,
}

/// A control group of a container, and what it uses.
#[derive(Clone, Copy, Debug)]
pub(in crate::sample) struct Seen<'a> {
    pub(in crate::sample) engine: Engine,
    pub(in crate::sample) id: &'a str,
    pub(in crate::sample) usage: Usage,
    /// Its first process.
    pub(in crate::sample) pid: Option<u32>,
}

impl Containers {
    pub(in crate::sample) fn new(root: &Path, clock: Clock, collect: &Collect) -> Self {
        Self {
            root: root.to_owned(),
            is_wanted: collect.containers,
            boards: Boards::new(root, clock, collect),
            edition: None,
            roster: Roster::default(),
            sees_scopes: false,
            ended: HashSet::new(),
        }
    }

    /// From now on engines are followed, by tasks of the runtime that ticks are taken in.
    pub(in crate::sample) const fn follow(&mut self) {
        self.boards.follow();
    }

    /// The newest word of the engines, without waiting for one: what happened to their containers since the look before.
    pub(in crate::sample) fn look(&mut self, now: MonoMs) -> Vec<Happening> {
        // Below a recorded root nothing but files is read.
        if !self.is_wanted || self.root != Path::new("/") {
            return Vec::new();
        }
        if self.boards.scout(now) {
            self.edition = None;
        }
        let (mut edition, mut happened) = (0, Vec::new());
        for board in self.boards.all() {
            let mut page = board.page();
            edition += page.book.edition();
            happened.extend(page.book.take_happened());
        }
        // Names of those that went are known before the roster is written anew, names of new ones only after.
        let mut renamed: Vec<_> = happened.into_iter().map(|(id, one)| (self.roster.renamed(&id, one), id)).collect();
        if self.edition != Some(edition) {
            self.edition = Some(edition);
            self.write_roster();
            for (one, id) in &mut renamed {
                *one = self.roster.renamed(id, one.clone());
            }
        }
        renamed.into_iter().map(|(one, _)| one).collect()
    }

    /// Puts all containers into the stock and their numbers into the sample. What happened to those that no engine
    /// tells is seen here. `left_out` is how many more have a control group than are seen.
    pub(in crate::sample) fn rows(
        &mut self,
        seen: &[Seen<'_>],
        mut left_out: u32,
        source: &mut Source,
        sample: &mut Sample,
        stock: &mut Stock,
        failures: &mut Failures,
    ) -> Vec<Happening> {
        if !self.is_wanted {
            return Vec::new();
        }
        let states = self.boards.states();
        let scopes = seen.iter().map(|seen| Scope {
            engine: seen.engine,
            id: seen.id,
            memory_limit_bytes: seen.usage.memory_limit_bytes,
            cpu_limit_cores: seen.usage.cpu_limit_cores,
        });
        // Whose a control group is, is known by its kind alone: any engine of that kind may tell it.
        let is = |engine, wanted: &State| states.iter().any(|(known, state)| *known == engine && state == wanted);
        let happened = self.roster.see(
            scopes,
            |engine| is(engine, &State::Looking),
            |engine| is(engine, &State::Working),
            sample.wall,
        );
        self.wake_idle(seen);
        self.sees_scopes |= !seen.is_empty();
        let host = Host::of(source);
        let by_id: HashMap<&str, &Seen<'_>> = seen.iter().map(|seen| (seen.id, seen)).collect();
        self.ended.clear();
        for (name, Told { container: told, board }) in self.roster.told() {
            let scope = by_id.get(&*told.id).copied();
            let is_followed = states.get(*board).is_some_and(|(_, state)| *state == State::Working);
            let container = as_seen(told, scope.is_some() || is_followed || !self.sees_scopes);
            if told.is_up() && !container.is_up() {
                self.ended.insert(name.into());
            }
            if stock.put(Item::Container(Box::new(container.clone()))) {
                row::told(sample, name, &container);
                row::used(source, sample, host, name, scope);
            } else {
                left_out = left_out.saturating_add(1);
            }
        }
        for container in self.roster.strangers() {
            if stock.put(Item::Container(Box::new(container.clone()))) {
                row::told(sample, &container.name, container);
                row::used(source, sample, host, &container.name, by_id.get(&*container.id).copied());
            } else {
                left_out = left_out.saturating_add(1);
            }
        }
        let said = self.sources(stock, failures);
        // What an engine leaves out has a control group as well.
        let left_out = left_out.saturating_sub(said);
        if left_out > 0 {
            let (name, says) = (BEYOND_NAME.into(), BEYOND.into());
            stock.put(Item::Source(SourceItem { name, is_working: true, says, left_out }));
        }
        happened
    }

    pub(in crate::sample) fn name_of(&self, id: &str) -> Option<&str> {
        self.roster.name_of(id)
    }

    /// Of containers that run, as they were told at this tick: an engine goes on naming the ports of one that ended.
    pub(in crate::sample) fn published(&self) -> impl Iterator<Item = (&str, &Published)> {
        let up = self.roster.told().filter(|(name, told)| told.container.is_up() && !self.ended.contains(*name));
        up.flat_map(|(name, told)| told.container.published.iter().map(move |published| (name, published)))
    }

    /// What each engine told, and how many containers no engine tells.
    pub(in crate::sample) fn seeing(&self) -> Vec<Seeing> {
        let mut all: Vec<Seeing> = self.boards.all().filter_map(|board| self.engine(board)).collect();
        if all.is_empty() {
            all.push(Seeing::new(Kind::Engine, Sees::Absent).says("no socket of Docker or Podman is there"));
        }
        if let (1.., is_asked) = self.boards.left_out() {
            all.push(Seeing { is_asked, ..Seeing::new(Kind::Engine, Sees::Partly).says(UNASKED) });
        }
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let (told, strange) = (count(self.roster.told().count()), count(self.roster.strangers().count()));
        if strange > 0 {
            all.push(Seeing::counted(Kind::Containers, told, told.saturating_add(strange)));
        }
        all
    }

    /// All engines have been asked to the end.
    pub(in crate::sample) fn is_settled(&self) -> bool {
        self.boards.all().all(|board| board.page().state != State::Looking)
    }

    fn engine(&self, board: &Board) -> Option<Seeing> {
        let page = board.page();
        let told = Seeing {
            name: shown(board.place.path.as_os_str().as_encoded_bytes()).into(),
            is_asked: board.place.is_configured,
            ..Seeing::new(Kind::Engine, Sees::Works)
        };
        match &page.state {
            State::Looking => None,
            State::Working => {
                let events = if self.boards.are_followed() { ", events are followed" } else { "" };
                let seeing = told.says(format!("{}, API {}{events}", page.engine.as_str(), page.version));
                let known = page.book.containers().count();
                let known = u32::try_from(known).unwrap_or(u32::MAX);
                Some(Seeing { seen: known, of: known.saturating_add(page.book.left_out()), ..seeing })
            }
            State::Troubled { is_absent: true, .. } if !board.place.is_configured => None,
            State::Troubled { says, is_absent: true, .. } => {
                Some(Seeing { state: Sees::Absent, ..told }.says(says.clone()))
            }
            State::Troubled { shut: Some(shut), .. } => {
                Some(Seeing { state: Sees::Refused, group: shut.group.clone(), ..told })
            }
            State::Troubled { says, .. } => Some(Seeing { state: Sees::Failed, ..told }.says(says.clone())),
        }
    }

    fn write_roster(&mut self) {
        let mut all: Vec<Told> = Vec::new();
        for (number, board) in self.boards.all().enumerate() {
            let page = board.page();
            let from = all.len();
            all.extend(page.book.containers().map(|container| Told { container: container.clone(), board: number }));
            // An order that stays: where one engine has two of a name for a moment, they do not change places.
            let key = |told: &Told| (told.container.name.clone(), told.container.id.clone());
            all[from..].sort_by_cached_key(key);
        }
        self.roster.tell(all);
    }

    /// A container of Podman that nobody tells: its engine, which is left alone while it has none, has one now.
    fn wake_idle(&self, seen: &[Seen<'_>]) {
        let is_strange = |seen: &&Seen<'_>| seen.engine == Engine::Podman && self.roster.is_stranger(seen.id);
        if seen.iter().any(|seen| is_strange(&seen)) {
            self.boards.all().filter(|board| board.page().engine == Engine::Podman).for_each(Board::ring);
        }
    }

    /// How many containers the engines leave out.
    fn sources(&self, stock: &mut Stock, failures: &mut Failures) -> u32 {
        let mut all_left_out = 0_u32;
        if let (left_out @ 1.., _) = self.boards.left_out() {
            let (name, says) = (UNASKED_NAME.into(), UNASKED.into());
            stock.put(Item::Source(SourceItem { name, is_working: true, says, left_out }));
        }
        for board in self.boards.all() {
            let page = board.page();
            let (is_working, says) = match &page.state {
                // Nothing is known of it yet.
                State::Looking => continue,
                State::Working => (true, ""),
                // An engine that this host never had is no news; one that went is.
                State::Troubled { is_absent: true, .. } if !board.place.is_configured && page.book.is_empty() => {
                    continue;
                }
                State::Troubled { says, shut, .. } => {
                    failures.note(SampleError::Engine { says: says.clone(), is_shut: shut.is_some() });
                    (false, &**says)
                }
            };
            let (name, says, left_out) = (board.place.name_as(page.engine), says.into(), page.book.left_out());
            all_left_out = all_left_out.saturating_add(left_out);
            stock.put(Item::Source(SourceItem { name, is_working, says, left_out }));
        }
        all_left_out
    }
}

/// Where an engine does not answer, its containers stand as it told them last, but for those whose processes are gone.
/// `may_run` is whether nothing speaks against that one runs.
fn as_seen(container: &Container, may_run: bool) -> Container {
    let state = match container.state {
        ContainerState::Running | ContainerState::Paused if !may_run => ContainerState::Exited,
        state => state,
    };
    Container { state, ..container.clone() }
}
