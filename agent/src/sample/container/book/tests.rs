//! Lives of containers as engines tell them, on virtual time: each step once, in an order that can be.

use proptest::prelude::*;

use super::*;

const A: &str = "aaaaaaaaaaaa";
const B: &str = "bbbbbbbbbbbb";

fn run(id: &str, name: &str, started: i64) -> Inspected {
    let container = Container {
        name: name.into(),
        id: id.into(),
        is_told: true,
        image: "web:1".into(),
        digest: "sha256:1".into(),
        started: Some(WallMs(started)),
        ..Container::default()
    };
    Inspected { container, image_id: "sha256:11".into(), stop_signal: Some(3), removes_itself: false }
}

fn down(id: &str, name: &str, started: i64, exit_code: i32) -> Inspected {
    let seen = run(id, name, started);
    let container = Container { state: ContainerState::Exited, exit_code: Some(exit_code), ..seen.container };
    Inspected { container, ..seen }
}

fn ended(exit_code: i32) -> Word {
    Word::Ended { exit_code: Some(exit_code), is_host_short: false }
}

/// A book, and an engine that shows each container as it is given.
#[derive(Default)]
struct World {
    book: Book,
    shown: HashMap<&'static str, Inspected>,
    now: u64,
}

impl World {
    /// With one container that runs and was looked at.
    fn running(stop: Inspected) -> Self {
        let mut world = Self::default();
        world.shown.insert(A, stop);
        world.list(&[A]);
        assert_eq!(world.told(), [""; 0], "the first look is no news");
        world
    }

    fn list(&mut self, ids: &[&str]) {
        let listed: Vec<_> = ids.iter().map(|id| Listed { id: (*id).into(), is_up: true }).collect();
        let total = listed.len();
        self.book.list(listed, total, WallMs(0));
        self.answer();
    }

    fn hear(&mut self, id: &str, at: i64, word: Word) {
        self.book.hear(Event { at: WallMs(at), id: id.into(), word });
        self.answer();
    }

    fn show(&mut self, id: &'static str, seen: Inspected) {
        self.shown.insert(id, seen);
    }

    fn pass(&mut self, ms: u64) {
        self.now += ms;
        self.answer();
    }

    fn answer(&mut self) {
        while let Some(id) = self.book.next(MonoMs(self.now)) {
            let seen = self.shown.get(&*id).cloned();
            self.book.answer(seen, MonoMs(self.now), WallMs(0));
        }
    }

    fn told(&mut self) -> Vec<&'static str> {
        self.book.take_happened().into_iter().map(|(_, one)| one.what.as_str()).collect()
    }

    fn state(&self, id: &str) -> Option<ContainerState> {
        self.book.lives.get(id).map(|life| life.container.state)
    }
}

#[test]
fn a_crash_and_the_restart_after_it_are_both_told() {
    let mut world = World::running(run(A, "web", 1));
    let mut again = run(A, "web", 50);
    again.container.restarts = 1;
    // By the time of the first inspect it runs again.
    world.show(A, again);
    world.hear(A, 10, ended(3));
    assert_eq!(world.told(), [""; 0], "it may have been asked for");
    world.hear(A, 50, Word::Started);
    assert_eq!(world.told(), ["container.crashed", "container.restarted"]);
    world.pass(10 * HOLD_MS);
    assert_eq!(world.told(), [""; 0], "each is told once");
}

#[test]
fn a_loop_that_is_ahead_of_its_events_is_told_run_by_run() {
    let mut world = World::running(run(A, "web", 1));
    let mut last = down(A, "web", 90, 3);
    last.container.restarts = 2;
    world.show(A, last);
    for word in [ended(3), Word::Started, ended(3), Word::Started, ended(3)] {
        world.hear(A, 10, word);
    }
    world.pass(HOLD_MS);
    let round = ["container.crashed", "container.restarted"];
    let last = ["container.crashed"];
    assert_eq!(world.told(), [&round[..], &round, &last].concat());
    assert_eq!(world.state(A), Some(ContainerState::Exited));
}

#[test]
fn a_stop_that_was_asked_for_is_told_as_one_by_signal_word_or_exit_code() {
    let stops: [&[(i64, Word)]; 7] = [
        &[(10, Word::Signalled(Some(15))), (11, Word::Signalled(Some(9))), (12, ended(137)), (13, Word::Stopped)],
        &[(10, Word::Signalled(Some(3))), (12, ended(137))],
        &[(12, ended(137)), (13, Word::Stopped)],
        &[(10, Word::Signalled(None)), (12, ended(137))],
        // Podman 4 tells a stop by cleaning up twice.
        &[(12, ended(137)), (13, Word::CleanedUp), (14, Word::CleanedUp)],
        &[(12, ended(143))],
        &[(12, ended(0))],
    ];
    for events in stops {
        let mut world = World::running(run(A, "web", 1));
        for (at, word) in events {
            if let Word::Ended { exit_code: Some(exit_code), .. } = word {
                world.show(A, down(A, "web", 1, *exit_code));
            }
            world.hear(A, *at, *word);
        }
        assert_eq!(world.told(), ["container.stopped"], "{events:?}");
    }
}

#[test]
fn an_end_that_nobody_asked_for_is_a_crash() {
    let crashes: [&[(i64, Word)]; 4] = [
        &[(12, ended(3))],
        &[(10, Word::Signalled(Some(1))), (12, ended(3))],
        &[(12, ended(3)), (13, Word::CleanedUp)],
        // A signal of an hour ago ended nothing.
        &[(-3_600_000, Word::Signalled(Some(15))), (12, ended(3))],
    ];
    for events in crashes {
        let mut world = World::running(run(A, "web", 1));
        for (at, word) in events {
            world.hear(A, *at, *word);
        }
        assert_eq!(world.told(), [""; 0], "{events:?}");
        world.show(A, down(A, "web", 1, 3));
        world.pass(HOLD_MS);
        assert_eq!(world.told(), ["container.crashed"], "{events:?}");
    }
}

#[test]
fn a_kill_for_want_of_memory_is_told_with_the_end_or_alone() {
    let mut world = World::running(run(A, "web", 1));
    world.show(A, down(A, "web", 1, 137));
    world.hear(A, 10, Word::OutOfMemory);
    world.hear(A, 11, ended(137));
    world.pass(HOLD_MS);
    assert_eq!(world.told(), ["container.oom_killed", "container.crashed"]);

    let mut world = World::running(run(A, "web", 1));
    world.hear(A, 10, Word::OutOfMemory);
    world.hear(A, 10, Word::OutOfMemory);
    world.pass(HOLD_MS);
    assert_eq!(world.told(), ["container.oom_killed"], "another process of it was killed");
    let mut later = down(A, "web", 1, 3);
    later.container.is_oom_killed = true;
    world.show(A, later);
    world.hear(A, 5_000, ended(3));
    world.pass(HOLD_MS);
    assert_eq!(world.told(), ["container.crashed"], "what Docker remembers is told once");

    let mut world = World::running(run(A, "web", 1));
    world.show(A, down(A, "web", 1, 137));
    world.hear(A, 10, Word::Ended { exit_code: Some(137), is_host_short: true });
    world.pass(HOLD_MS);
    assert_eq!(world.told(), ["container.oom_killed", "container.crashed"], "Podman does not say so itself");
}

#[test]
fn a_container_that_is_gone_before_it_is_asked_about_is_told_by_its_events() {
    let mut world = World::running(run(A, "web", 1));
    world.shown.clear();
    world.hear(A, 10, ended(3));
    world.hear(A, 11, Word::Removed);
    assert_eq!(world.told(), ["container.crashed", "container.removed"]);
    world.hear(B, 12, Word::Created);
    assert_eq!((world.told(), world.state(B)), (vec![], None));
}

#[test]
fn what_is_killed_to_be_removed_did_not_crash() {
    let short = |exit_code| Word::Ended { exit_code: Some(exit_code), is_host_short: true };
    let own = Inspected { removes_itself: true, ..run(A, "web", 1) };
    let plain = run(A, "web", 1);
    let crash = ["container.crashed", "container.removed"];
    for (seen, word, later_ms, told) in [
        (plain.clone(), ended(137), 100, &["container.stopped", "container.removed"][..]),
        // It had ended by itself before.
        (plain.clone(), ended(1), 100, &crash),
        (plain.clone(), ended(137), 2 * HOLD_MS, &crash),
        // So does whatever kills it: nobody has to ask for the removal.
        (own, ended(137), 100, &crash),
        (plain, short(137), 0, &["container.oom_killed", "container.crashed", "container.removed"]),
    ] {
        let mut world = World::running(seen);
        world.shown.clear();
        world.hear(A, 10, word);
        world.pass(later_ms);
        world.hear(A, 11, Word::Removed);
        assert_eq!(world.told(), told, "{word:?} and {later_ms} ms later");
    }
}

#[test]
fn a_new_container_is_created_started_and_removed() {
    let mut world = World::running(run(A, "web", 1));
    world.show(B, run(B, "db", 7));
    for word in [Word::Created, Word::Started] {
        world.hear(B, 7, word);
    }
    assert_eq!(world.told(), ["container.created", "container.started"]);
    world.show(B, down(B, "db", 7, 137));
    for word in [Word::Signalled(Some(9)), ended(137), Word::Removed] {
        world.hear(B, 9, word);
    }
    assert_eq!(world.told(), ["container.stopped", "container.removed"]);
}

#[test]
fn a_host_whose_containers_never_come_back_is_told_of_a_changed_image_nevertheless() {
    let mut world = World::running(run(A, "web", 1));
    for n in 0..LIVES_MAX {
        world.book.images.insert(format!("once-{n}").into(), Image::of(&Container::default(), "sha256:0"));
    }
    world.hear(A, 10, Word::Removed);
    let mut next = run(B, "web", 20);
    next.container.image = "web:2".into();
    world.show(B, next);
    world.hear(B, 20, Word::Created);
    assert!(world.told().contains(&"container.image_changed"));
    assert!(world.book.images.len() <= LIVES_MAX);
}

#[test]
fn a_container_that_cannot_be_told_keeps_its_last_state_and_an_end_of_it_is_told_by_its_event() {
    let mut world = World::running(run(A, "web", 1));
    let listed = [A, B].map(|id| Listed { id: id.into(), is_up: true });
    world.book.list(listed.into(), 2, WallMs(0));
    while world.book.next(MonoMs(0)).is_some() {
        world.book.pass_over();
    }
    assert_eq!((world.state(A), world.state(B), world.book.left_out()), (Some(ContainerState::Running), None, 1));
    world.book.hear(Event { at: WallMs(10), id: A.into(), word: ended(3) });
    for now in [0, HOLD_MS] {
        while world.book.next(MonoMs(now)).is_some() {
            world.book.pass_over();
        }
    }
    assert_eq!(world.told(), ["container.crashed"]);
}

#[test]
fn a_replaced_container_is_told_with_the_change_of_its_image() {
    let mut world = World::running(run(A, "web", 1));
    world.hear(A, 9, Word::Removed);
    assert_eq!(world.told(), ["container.removed"]);
    let mut next = run(B, "web", 10);
    next.container.image = "web:2".into();
    world.show(B, next);
    world.hear(B, 10, Word::Created);
    world.hear(B, 11, Word::Started);
    assert_eq!(world.told(), ["container.image_changed", "container.created", "container.started"]);
    let mut rebuilt = run(A, "web", 20);
    (rebuilt.container.image, rebuilt.container.digest) = ("web:2".into(), "sha256:2".into());
    rebuilt.image_id = "sha256:22".into();
    world.show(A, rebuilt.clone());
    world.hear(A, 20, Word::Created);
    assert_eq!(world.told(), ["container.image_changed", "container.created"], "one tag, two images");
    world.hear(A, 21, Word::Removed);
    (rebuilt.container.id, rebuilt.container.digest) = ("cccccccccccc".into(), "sha256:22".into());
    world.show("cccccccccccc", rebuilt);
    world.hear("cccccccccccc", 22, Word::Created);
    assert_eq!(world.told(), ["container.removed", "container.created"], "its registry is not known this time");
}

#[test]
fn pause_health_and_a_new_name_are_told() {
    let mut world = World::running(run(A, "web", 1));
    for (change, told) in [
        ((ContainerState::Paused, "web"), "container.paused"),
        ((ContainerState::Running, "web"), "container.unpaused"),
        ((ContainerState::Running, "www"), "container.renamed"),
    ] {
        let mut seen = run(A, change.1, 1);
        seen.container.state = change.0;
        world.show(A, seen);
        world.hear(A, 5, Word::Changed);
        assert_eq!(world.told(), [told]);
    }
    // A rename that is seen when it is down already does not tell the end before its time.
    world.show(A, down(A, "old", 1, 3));
    world.hear(A, 6, Word::Changed);
    assert_eq!((world.told(), world.state(A)), (vec!["container.renamed"], Some(ContainerState::Running)));
}

#[test]
fn a_look_finds_what_no_event_told() {
    let mut world = World::running(run(A, "web", 1));
    world.show(A, down(A, "web", 1, 3));
    world.show(B, run(B, "db", 5));
    world.list(&[A, B]);
    assert_eq!(world.told(), ["container.created", "container.started"]);
    world.pass(HOLD_MS);
    assert_eq!(world.told(), ["container.crashed"]);
    world.list(&[B]);
    assert_eq!(world.told(), ["container.removed"]);
}

#[test]
fn a_container_of_before_that_is_first_met_by_its_start_is_not_new() {
    let mut world = World::default();
    world.show(A, run(A, "web", 5));
    world.hear(A, 5, Word::Started);
    assert_eq!(world.told(), ["container.started"]);
}

#[test]
fn more_containers_than_a_node_may_have_are_counted() {
    let mut book = Book::default();
    let listed = (0..LIVES_MAX).map(|n| Listed { id: format!("{n:012}").into(), is_up: false }).collect();
    book.list(listed, 5_000, WallMs(0));
    while let Some(id) = book.next(MonoMs(0)) {
        book.answer(Some(run(&id, &id, 1)), MonoMs(0), WallMs(0));
    }
    assert_eq!((book.lives.len(), book.left_out()), (LIVES_MAX, 4_000));
    book.hear(Event { at: WallMs(1), id: A.into(), word: Word::Created });
    book.next(MonoMs(0)).expect("it is asked about");
    book.answer(Some(run(A, "web", 1)), MonoMs(0), WallMs(0));
    assert_eq!((book.lives.len(), book.left_out(), book.take_happened().len()), (LIVES_MAX, 4_001, 0));
}

fn any_word() -> impl Strategy<Value = Word> {
    prop_oneof![
        Just(Word::Created),
        Just(Word::Started),
        Just(Word::Started),
        prop_oneof![Just(0), Just(3), Just(137)].prop_map(ended),
        prop_oneof![Just(0), Just(3), Just(137)].prop_map(ended),
        any::<Option<u8>>().prop_map(Word::Signalled),
        Just(Word::Stopped),
        Just(Word::OutOfMemory),
        Just(Word::CleanedUp),
        Just(Word::Changed),
        Just(Word::Removed),
    ]
}

proptest! {
    /// Whatever is said and shown, ends and starts alternate, and no more than what fits is kept.
    #[test]
    fn any_story_is_told_in_an_order_that_can_be(
        steps in proptest::collection::vec((any_word(), any::<bool>(), 0u64..1_500), 0..60),
    ) {
        let mut world = World::running(run(A, "web", 1));
        let mut is_up = true;
        for (at, (word, shows_up, ms)) in (10i64..).zip(steps) {
            world.show(A, if shows_up { run(A, "web", at) } else { down(A, "web", at, 3) });
            world.hear(A, at, word);
            world.pass(ms);
            for (_, one) in world.book.take_happened() {
                match one.what {
                    What::ContainerStarted => { prop_assert!(!is_up, "started twice"); is_up = true; }
                    What::ContainerStopped { .. } | What::ContainerCrashed { .. } => {
                        prop_assert!(is_up, "ended twice");
                        is_up = false;
                    }
                    What::ContainerRestarted { .. } => is_up = true,
                    What::ContainerRemoved => is_up = false,
                    _ => {}
                }
            }
        }
    }
}
