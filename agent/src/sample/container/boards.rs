//! Which engines are asked: the sockets that are configured or found, each with its board and the task that writes it.
//!
//! Sockets of users come and go with them, and so do their boards; one whose socket is gone makes room for one that is
//! there. Invariant: no more than `SOCKETS_MAX` are asked at once, and what finds no room is counted.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use dunlin_shared::inventory::Engine;
use dunlin_shared::time::MonoMs;
use tokio::task::AbortHandle;

use super::engine::{Board, State, follow, look_once};
use super::place::{Place, places};
use crate::clock::Clock;
use crate::config::Collect;

/// Of all users; each costs a task and a connection.
pub(super) const SOCKETS_MAX: usize = 8;
/// Sockets that are not there yet are looked for as often.
const SCOUT_EVERY_MS: u64 = 30_000;
/// What one look may take, for who does not stay: a second, and a little for the thread.
const ONCE_MS: u64 = 1_000;
const ONCE_GRACE_MS: u64 = 200;

#[derive(Debug)]
pub(super) struct Boards {
    clock: Clock,
    root: PathBuf,
    configured: Vec<PathBuf>,
    labels: Arc<[String]>,
    follows: bool,
    asked: Vec<Asked>,
    scout_at: Option<MonoMs>,
    left_out: u32,
}

/// An engine that is asked. Its task ends with this value.
#[derive(Debug)]
struct Asked {
    board: Arc<Board>,
    task: Option<AbortHandle>,
}

impl Boards {
    pub(super) fn new(root: &Path, clock: Clock, collect: &Collect) -> Self {
        Self {
            clock,
            root: root.to_owned(),
            configured: collect.sockets.clone(),
            labels: collect.container_labels.clone().into(),
            follows: false,
            asked: Vec::new(),
            scout_at: None,
            left_out: 0,
        }
    }

    /// From now on engines are followed, by tasks of the runtime that ticks are taken in.
    pub(super) const fn follow(&mut self) {
        self.follows = true;
    }

    /// Whether tasks follow the engines; else they are asked once.
    pub(super) const fn are_followed(&self) -> bool {
        self.follows
    }

    /// In an order that stays until `scout` says that it changed.
    pub(super) fn all(&self) -> impl Iterator<Item = &Board> {
        self.asked.iter().map(|asked| &*asked.board)
    }

    /// Sockets that found no room, and whether somebody named them.
    pub(super) const fn left_out(&self) -> (u32, bool) {
        (self.left_out, !self.configured.is_empty())
    }

    /// What each is and how it stands, in their order.
    pub(super) fn states(&self) -> Vec<(Engine, State)> {
        let state = |board: &Board| {
            let page = board.page();
            (page.engine, page.state.clone())
        };
        self.all().map(state).collect()
    }

    /// Finds sockets that nobody asks yet, when it is time, and has them asked. Whether there are others than before.
    pub(super) fn scout(&mut self, now: MonoMs) -> bool {
        if self.scout_at.is_some_and(|at| now < at) {
            return false;
        }
        self.scout_at = Some(if self.follows { now.plus(SCOUT_EVERY_MS) } else { MonoMs(u64::MAX) });
        let has_changed = self.sort_out(&places(&self.root, &self.configured));
        if !self.follows && !self.asked.is_empty() {
            self.ask_once();
        }
        has_changed
    }

    fn sort_out(&mut self, found: &[Place]) -> bool {
        let before = self.asked.len();
        self.asked.retain(|asked| !asked.board.place.is_over());
        let mut has_changed = self.asked.len() != before;
        self.left_out = 0;
        for place in found {
            if self.asked.iter().any(|asked| asked.board.place.path == place.path) {
                continue;
            }
            if self.asked.len() >= SOCKETS_MAX && !self.give_one_up(found) {
                self.left_out = self.left_out.saturating_add(1);
                continue;
            }
            self.ask(place.clone());
            has_changed = true;
        }
        has_changed
    }

    /// The first whose socket is not there any more.
    fn give_one_up(&mut self, found: &[Place]) -> bool {
        let is_gone = |asked: &Asked| {
            let place = &asked.board.place;
            !place.is_configured && found.iter().all(|there| there.path != place.path)
        };
        let gone = self.asked.iter().position(is_gone);
        gone.map(|at| self.asked.remove(at)).is_some()
    }

    fn ask(&mut self, place: Place) {
        let board = Board::new(place);
        let follow = || follow(Arc::clone(&board), self.clock, Arc::clone(&self.labels));
        let task = self.follows.then(|| tokio::spawn(follow()).abort_handle());
        self.asked.push(Asked { board, task });
    }

    /// Asks all engines once, on a thread of its own: who asks may be in a runtime, or in none.
    fn ask_once(&self) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        // Without one the engines stay unasked; the next line of defence, control groups, needs none.
        let Ok(runtime) = runtime else { return };
        let asked: Vec<_> = self.asked.iter().map(|one| (Arc::clone(&one.board), Arc::clone(&self.labels))).collect();
        let clock = self.clock;
        let thread = std::thread::Builder::new().name("engines".to_owned()).spawn(move || {
            runtime.block_on(async {
                let mut all = tokio::task::JoinSet::new();
                for (board, labels) in asked {
                    all.spawn(look_once(board, clock, labels, ONCE_MS));
                }
                let limit = Duration::from_millis(ONCE_MS + ONCE_GRACE_MS);
                // What is not answered by then is left out, and said.
                drop(tokio::time::timeout(limit, async { while all.join_next().await.is_some() {} }).await);
            });
        });
        if let Ok(thread) = thread {
            // A panic of its own would have been said by then.
            drop(thread.join());
        }
        self.all().for_each(|board| board.close(ONCE_MS));
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::net::UnixListener;

    use super::*;
    use crate::sample::tree::Tree;

    /// A host with users who come and go.
    struct Host {
        tree: Tree,
        boards: Boards,
        now: u64,
    }

    impl Host {
        fn new() -> Self {
            let tree = Tree::new(&[("run/user/none", "")]);
            let mut boards = Boards::new(tree.path(), Clock::start(), &Collect::default());
            boards.follow();
            Self { tree, boards, now: 0 }
        }

        fn listen(&self, user: usize) {
            let path = format!("run/user/{user}/docker.sock");
            self.tree.set(&path, "");
            self.tree.remove(&path);
            // Whoever listened is gone, and the socket stays.
            drop(UnixListener::bind(self.tree.path().join(path)).expect("a socket"));
        }

        fn log_out(&self, user: usize) {
            fs::remove_dir_all(self.tree.path().join(format!("run/user/{user}"))).expect("it was there");
        }

        fn scout(&mut self) -> (bool, usize, u32) {
            self.now += SCOUT_EVERY_MS;
            let has_changed = self.boards.scout(MonoMs(self.now));
            (has_changed, self.boards.all().count(), self.boards.left_out().0)
        }

        fn users(&self) -> Vec<String> {
            let user = |board: &Board| board.place.name_as(Engine::Docker).rsplit(' ').next().map(str::to_owned);
            self.boards.all().filter_map(user).collect()
        }
    }

    #[tokio::test]
    async fn a_board_goes_with_its_user_and_makes_room_for_the_next_one() {
        let mut host = Host::new();
        (0..SOCKETS_MAX).for_each(|user| host.listen(user));
        assert_eq!(host.scout(), (true, SOCKETS_MAX, 0));
        assert_eq!(host.scout(), (false, SOCKETS_MAX, 0));
        host.listen(70);
        host.listen(71);
        assert_eq!(host.scout(), (false, SOCKETS_MAX, 2), "what is left out is counted");
        host.log_out(3);
        assert_eq!(host.scout(), (true, SOCKETS_MAX, 1));
        assert!(host.users().contains(&"70".to_owned()), "{:?}", host.users());
        // The engine of one who stays has ended: that is news until somebody needs its place.
        host.tree.remove("run/user/5/docker.sock");
        assert_eq!(host.scout(), (true, SOCKETS_MAX, 0));
        assert!(host.users().contains(&"71".to_owned()) && !host.users().contains(&"5".to_owned()));
        (0..SOCKETS_MAX).filter(|user| ![3, 5].contains(user)).for_each(|user| host.log_out(user));
        assert_eq!(host.scout(), (true, 2, 0));
    }

    #[tokio::test]
    async fn the_task_of_a_board_ends_with_it() {
        let mut host = Host::new();
        host.listen(7);
        host.scout();
        let task = host.boards.asked[0].task.clone().expect("it is followed");
        host.log_out(7);
        host.scout();
        let ended = async {
            while !task.is_finished() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), ended).await.expect("it ends");
    }

    #[tokio::test]
    async fn sockets_that_are_named_and_find_no_room_are_counted() {
        let sockets: Vec<PathBuf> = (0..=SOCKETS_MAX).map(|n| format!("/nowhere/{n}.sock").into()).collect();
        let collect = Collect { sockets, ..Collect::default() };
        let mut boards = Boards::new(Path::new("/"), Clock::start(), &collect);
        boards.follow();
        assert!(boards.scout(MonoMs(0)));
        assert_eq!((boards.all().count(), boards.left_out()), (SOCKETS_MAX, (1, true)));
    }
}
