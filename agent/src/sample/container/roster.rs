//! All containers of a host under names that are its own: those that engines tell, and those that only a control group
//! betrays.
//!
//! Pure. A container keeps its name for as long as it stands; two of one name, of two engines, never share one.

use std::collections::{BTreeMap, HashMap, HashSet};

use dunlin_shared::inventory::{Container, ContainerState, Engine, Happening, Key, What};
use dunlin_shared::limits::{CONTAINERS_MAX, SUBJECT_NAME_BYTES_MAX};
use dunlin_shared::time::WallMs;

use super::answer::short;
use crate::sample::name::shown;

/// Ticks that a control group must stand before it is told though its engine, which answers, does not know it: what is
/// started just now is told by its engine in a moment, and steps of a build never are.
const STRANGE_TICKS: u32 = 3;

#[derive(Debug, Default)]
pub(super) struct Roster {
    /// By name.
    told: BTreeMap<Box<str>, Told>,
    /// Names by id.
    names: HashMap<Box<str>, Box<str>>,
    /// By id.
    strangers: HashMap<Box<str>, Stranger>,
    has_begun: bool,
}

/// A container that an engine tells, and the number of that engine's board.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) container: Container,
    pub(super) board: usize,
}

/// A container that no engine tells.
#[derive(Debug)]
struct Stranger {
    container: Container,
    ticks: u32,
    is_here: bool,
    is_shown: bool,
    /// It began after the first look.
    is_news: bool,
}

/// A control group of a container, for the roster.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scope<'a> {
    pub(super) engine: Engine,
    pub(super) id: &'a str,
    pub(super) memory_limit_bytes: Option<f64>,
    pub(super) cpu_limit_cores: Option<f64>,
}

impl Roster {
    pub(super) fn name_of(&self, id: &str) -> Option<&str> {
        self.names.get(id).map(AsRef::as_ref)
    }

    /// Those that engines tell, by name.
    pub(super) fn told(&self) -> impl Iterator<Item = (&str, &Told)> {
        self.told.iter().map(|(name, told)| (&**name, told))
    }

    /// Those that only their control group tells.
    pub(super) fn strangers(&self) -> impl Iterator<Item = &Container> {
        self.strangers.values().filter(|stranger| stranger.is_shown).map(|stranger| &stranger.container)
    }

    /// What the engines tell now, the first engine's names first.
    pub(super) fn tell(&mut self, containers: impl IntoIterator<Item = Told>) {
        let before = std::mem::take(&mut self.names);
        self.told.clear();
        let strangers = self.strangers.values().filter(|stranger| stranger.is_shown);
        let taken: HashSet<Box<str>> = strangers.map(|stranger| stranger.container.name.clone()).collect();
        for mut told in containers {
            let container = &mut told.container;
            let name = self.own_name(container, &before, &taken);
            self.names.insert(container.id.clone(), name.clone());
            self.strangers.remove(&container.id);
            container.name.clone_from(&name);
            self.told.insert(name, told);
        }
        for (id, stranger) in &self.strangers {
            self.names.insert(id.clone(), stranger.container.name.clone());
        }
    }

    /// What happened to a container, under the name that it has here.
    pub(super) fn renamed(&self, id: &str, mut happening: Happening) -> Happening {
        if let (Some(name), Some(Key::Container(key))) = (self.names.get(id), &mut happening.key) {
            key.clone_from(name);
        }
        happening
    }

    /// The control groups that stand now. `is_awaited` is whether an engine may still tell its containers, `is_known`
    /// whether it does. Of strangers, what happened is seen here alone.
    pub(super) fn see<'a>(
        &mut self,
        scopes: impl Iterator<Item = Scope<'a>>,
        is_awaited: impl Fn(Engine) -> bool,
        is_known: impl Fn(Engine) -> bool,
        at: WallMs,
    ) -> Vec<Happening> {
        let mut happened = Vec::new();
        let max = usize::try_from(CONTAINERS_MAX).unwrap_or(usize::MAX);
        self.strangers.values_mut().for_each(|stranger| stranger.is_here = false);
        for scope in scopes.filter(|scope| !self.is_told(scope.id)).collect::<Vec<_>>() {
            if self.strangers.len() >= max && !self.strangers.contains_key(scope.id) {
                continue;
            }
            let is_news = self.has_begun;
            let of = || Stranger { is_news, ..Stranger::of(&scope) };
            let stranger = self.strangers.entry(scope.id.into()).or_insert_with(of);
            (stranger.is_here, stranger.ticks) = (true, stranger.ticks.saturating_add(1));
            stranger.container.memory_limit_bytes = whole(scope.memory_limit_bytes);
            let millicores = scope.cpu_limit_cores.map(|cores| cores * 1_000.0);
            stranger.container.cpu_limit_millicores = whole(millicores).and_then(|cores| u32::try_from(cores).ok());
            let waits = is_awaited(scope.engine) || (is_known(scope.engine) && stranger.ticks < STRANGE_TICKS);
            if !waits && !stranger.is_shown {
                stranger.is_shown = true;
                if self.told.contains_key(&stranger.container.name) {
                    let name = format!("{}@{}", stranger.container.name, scope.engine.as_str());
                    stranger.container.name = name[..name.floor_char_boundary(SUBJECT_NAME_BYTES_MAX)].into();
                }
                self.names.insert(scope.id.into(), stranger.container.name.clone());
                if stranger.is_news {
                    happened.push(stranger.happened(What::ContainerStarted, at));
                }
            }
        }
        let gone: Vec<_> =
            self.strangers.iter().filter(|(_, stranger)| !stranger.is_here).map(|(id, _)| id.clone()).collect();
        for id in gone {
            let Some(stranger) = self.strangers.remove(&id) else { continue };
            self.names.remove(&id);
            if stranger.is_shown {
                happened.push(stranger.happened(What::ContainerStopped { exit_code: None }, at));
            }
        }
        self.has_begun = true;
        happened
    }

    pub(super) fn is_stranger(&self, id: &str) -> bool {
        self.strangers.contains_key(id)
    }

    fn is_told(&self, id: &str) -> bool {
        self.names.contains_key(id) && !self.strangers.contains_key(id)
    }

    fn own_name(
        &self,
        container: &Container,
        before: &HashMap<Box<str>, Box<str>>,
        taken: &HashSet<Box<str>>,
    ) -> Box<str> {
        let engine = container.engine.as_str();
        let wishes = [
            container.name.to_string(),
            format!("{}@{engine}", container.name),
            format!("{}@{engine}-{}", container.name, short(&container.id)),
        ];
        let is_free = |name: &str| !self.told.contains_key(name) && !taken.contains(name);
        // Who has a name keeps it, so that a series does not change hands.
        let kept = before.get(&container.id).filter(|name| wishes.iter().any(|wish| **wish == ***name));
        let kept = kept.filter(|name| is_free(name)).map(|name| name.to_string());
        let free = kept.or_else(|| wishes.iter().find(|wish| is_free(wish)).cloned());
        let [.., last] = wishes;
        let mut name = free.unwrap_or(last);
        name.truncate(name.floor_char_boundary(SUBJECT_NAME_BYTES_MAX));
        name.into()
    }
}

impl Stranger {
    fn of(scope: &Scope<'_>) -> Self {
        let name = if scope.engine == Engine::Lxc { scope.id } else { short(scope.id) };
        let container = Container {
            name: shown(name.as_bytes()).into(),
            id: shown(scope.id.as_bytes()).into(),
            engine: scope.engine,
            state: ContainerState::Running,
            ..Container::default()
        };
        Self { container, ticks: 0, is_here: false, is_shown: false, is_news: false }
    }

    fn happened(&self, what: What, at: WallMs) -> Happening {
        Happening { at, key: Some(Key::Container(self.container.name.clone())), what }
    }
}

/// A limit in whole units, where there is one that fits.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is checked to fit")]
fn whole(value: Option<f64>) -> Option<u64> {
    value.filter(|value| (0.0..9e15).contains(value)).map(|value| value as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "aaaaaaaaaaaaaaaa";
    const B: &str = "bbbbbbbbbbbbbbbb";

    fn container(id: &str, name: &str, engine: Engine) -> Told {
        let container = Container { id: id.into(), name: name.into(), engine, is_told: true, ..Container::default() };
        Told { container, board: 0 }
    }

    fn scope(engine: Engine, id: &str) -> Scope<'_> {
        Scope { engine, id, memory_limit_bytes: Some(1e6), cpu_limit_cores: Some(0.5) }
    }

    fn see(roster: &mut Roster, scopes: &[Scope<'_>], awaited: bool, known: bool) -> Vec<&'static str> {
        let happened = roster.see(scopes.iter().copied(), |_| awaited, |_| known, WallMs(1));
        happened.iter().map(|one| one.what.as_str()).collect()
    }

    #[test]
    fn two_containers_of_one_name_have_names_of_their_own_and_keep_them() {
        let mut roster = Roster::default();
        roster.tell([container(A, "web", Engine::Docker), container(B, "web", Engine::Podman)]);
        assert_eq!((roster.name_of(A), roster.name_of(B)), (Some("web"), Some("web@podman")));
        roster.tell([container(B, "web", Engine::Podman)]);
        assert_eq!((roster.name_of(A), roster.name_of(B)), (None, Some("web@podman")));
        roster.tell([container(A, "web", Engine::Podman), container(B, "web", Engine::Podman)]);
        assert_eq!((roster.name_of(A), roster.name_of(B)), (Some("web"), Some("web@podman")));
    }

    #[test]
    fn without_an_engine_containers_are_seen_by_their_control_groups() {
        let mut roster = Roster::default();
        assert_eq!(see(&mut roster, &[scope(Engine::Containerd, A)], false, false), [""; 0], "it stood before");
        let seen: Vec<_> = roster.strangers().map(|one| (&*one.name, one.is_told, one.cpu_limit_millicores)).collect();
        assert_eq!(seen, [("aaaaaaaaaaaa", false, Some(500))]);
        assert_eq!(
            see(&mut roster, &[scope(Engine::Lxc, "mail")], false, false),
            ["container.started", "container.stopped"]
        );
        assert_eq!((roster.name_of("mail"), roster.name_of(A)), (Some("mail"), None));
    }

    #[test]
    fn a_container_that_no_engine_tells_shares_its_name_with_none_that_one_does() {
        let mut roster = Roster::default();
        roster.tell([container(A, "mail", Engine::Docker)]);
        see(&mut roster, &[scope(Engine::Lxc, "mail"), scope(Engine::Lxc, "web")], false, false);
        roster.tell([container(A, "mail", Engine::Docker), container(B, "web", Engine::Docker)]);
        let names = [A, B, "mail", "web"].map(|id| roster.name_of(id).map(str::to_owned));
        assert_eq!(names, ["mail", "web@docker", "mail@lxc", "web"].map(|name| Some(name.to_owned())));
    }

    #[test]
    fn what_stood_before_is_no_news_however_long_its_engine_was_waited_for() {
        let mut roster = Roster::default();
        let scopes = [scope(Engine::Docker, A)];
        assert_eq!(see(&mut roster, &scopes, true, false), [""; 0]);
        for _ in 0..STRANGE_TICKS {
            assert_eq!(see(&mut roster, &scopes, false, true), [""; 0]);
        }
        assert_eq!(roster.strangers().count(), 1, "it is another engine's");
        assert_eq!(see(&mut roster, &[], false, true), ["container.stopped"]);
    }

    #[test]
    fn what_an_engine_may_still_tell_is_waited_for() {
        let mut roster = Roster::default();
        see(&mut roster, &[scope(Engine::Docker, A)], true, false);
        assert_eq!(roster.strangers().count(), 0, "its engine was not asked to the end");
        roster.tell([container(A, "web", Engine::Docker)]);
        let scopes = [scope(Engine::Docker, A), scope(Engine::Docker, B)];
        for _ in 1..STRANGE_TICKS {
            assert_eq!(see(&mut roster, &scopes, false, true), [""; 0]);
        }
        assert_eq!(see(&mut roster, &scopes, false, true), ["container.started"], "its engine does not know it");
        roster.tell([container(A, "web", Engine::Docker), container(B, "db", Engine::Docker)]);
        assert_eq!((roster.name_of(B), roster.strangers().count()), (Some("db"), 0));
        assert_eq!(see(&mut roster, &scopes, false, true), [""; 0]);
    }
}
