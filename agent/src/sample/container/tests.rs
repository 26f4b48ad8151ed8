//! Engines that are none, or that are hostile, at the other end of a real socket; and one that behaves.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use dunlin_shared::inventory::{Container, ContainerState, Engine as By, Item, Key, Protocol, Published, Stock};
use dunlin_shared::sample::Sample;
use dunlin_shared::time::{MonoMs, WallMs};

use super::engine::{Board, State, follow, look_once};
use super::place::places;
use super::roster::Told;
use super::{Containers, Seen, Usage};
use crate::clock::Clock;
use crate::config::Collect;
use crate::sample::Sampler;
use crate::sample::failure::Failures;
use crate::sample::source::Source;
use crate::sample::tree::{Tree, Values};

const ID: &str = "42c68eb63c6ad5d3e6c0356b0f4e7a77322bcdba394203d597c7e396afae502d";
/// What a test waits for comes long before.
const LIMIT: Duration = Duration::from_secs(30);
/// Longer than a thread of this test needs to answer, short beside what a test may take.
const QUESTION_MS: u64 = 20_000;

/// Answers each connection by a function of the path that is asked for. The threads end with the test's process.
fn serve(tree: &Tree, reply: impl Fn(&str, UnixStream) + Send + Sync + 'static) -> PathBuf {
    let path = tree.path().join("engine.sock");
    let listener = UnixListener::bind(&path).expect("a socket");
    let reply = Arc::new(reply);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let reply = Arc::clone(&reply);
            thread::spawn(move || {
                let mut lines = BufReader::new(stream.try_clone().expect("it is open")).lines().map_while(Result::ok);
                let asked = lines.next().unwrap_or_default();
                lines.take_while(|line| !line.is_empty()).for_each(drop);
                reply(asked.split(' ').nth(1).unwrap_or_default(), stream);
            });
        }
    });
    path
}

fn answer(stream: &mut UnixStream, body: &str) {
    let head = format!("HTTP/1.1 200 OK\r\nServer: Docker/20\r\nContent-Length: {}\r\n\r\n", body.len());
    // Whoever asked may be gone.
    stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes())).ok();
}

const ENDLESS: &[u8] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";

/// Writes until the other end has enough; how many bytes that took.
fn pour(mut stream: UnixStream, chunk: &str) -> usize {
    let chunk = format!("{:x}\r\n{chunk}\r\n", chunk.len());
    let mut written = 0;
    if stream.write_all(ENDLESS).is_ok() {
        while stream.write_all(chunk.as_bytes()).is_ok() {
            written += chunk.len();
        }
    }
    written
}

fn board(path: &Path) -> Arc<Board> {
    Board::new(places(Path::new("/"), &[path.to_owned()]).remove(0))
}

fn says(board: &Board) -> String {
    match &board.page().state {
        State::Troubled { says, .. } => says.to_string(),
        state => format!("{state:?}"),
    }
}

async fn look(path: &Path) -> String {
    let board = board(path);
    look_once(Arc::clone(&board), Clock::start(), Arc::new([]), QUESTION_MS).await;
    says(&board)
}

#[tokio::test]
async fn a_socket_that_is_no_engine_is_told_as_what_it_is() {
    let tree = Tree::new(&[]);
    let missing = look(&tree.path().join("none.sock")).await;
    assert!(missing.contains("nothing is there; start the engine"), "{missing}");
    let path = tree.path().join("dead.sock");
    drop(UnixListener::bind(&path).expect("a socket"));
    let refused = look(&path).await;
    assert!(refused.contains("nothing listens there"), "{refused}");
    let path = serve(&tree, |_, mut stream| stream.write_all(b"\0\xff\xfe garbage\r\n\r\n").expect("it listens"));
    let garbage = look(&path).await;
    assert!(garbage.contains("its answer cannot be read"), "{garbage}");
}

#[tokio::test]
async fn a_socket_that_says_nothing_costs_its_deadline() {
    let tree = Tree::new(&[]);
    let held = Mutex::new(Vec::new());
    let path = serve(&tree, move |_, stream| held.lock().expect("nobody panics with it").push(stream));
    let board = board(&path);
    look_once(Arc::clone(&board), Clock::start(), Arc::new([]), 50).await;
    assert!(says(&board).contains("no answer within 50 ms"), "{}", says(&board));
}

#[tokio::test]
async fn a_socket_that_answers_without_end_costs_bounded_memory() {
    let version = |stream: &mut UnixStream| answer(stream, r#"{"ApiVersion":"1.41"}"#);
    let bounds = [("/version", 1), ("/containers/json", 34), ("/json", 2)];
    for (endless, mebibytes) in bounds {
        let tree = Tree::new(&[]);
        let (count, counted) = sync_channel(1);
        let path = serve(&tree, move |asked, mut stream| match asked {
            asked
                if asked.split('?').next().unwrap_or_default().ends_with(endless)
                    && !(endless == "/json" && asked.contains("/containers/json")) =>
            {
                count.try_send(pour(stream, &" ".repeat(8_192))).ok();
            }
            asked if asked.contains("/version") => version(&mut stream),
            _ => answer(&mut stream, &format!(r#"[{{"Id":"{ID}","State":"running"}}]"#)),
        });
        let said = look(&path).await;
        assert!(said.contains("it answers with more than"), "{endless}: {said}");
        let written = counted.recv_timeout(LIMIT).expect("it was asked");
        assert!(written < mebibytes << 20, "{endless}: {written} bytes were taken");
    }
}

/// An engine with one container, whose state and events a test sets.
struct Engine {
    path: PathBuf,
    state: Arc<Mutex<String>>,
    events: Receiver<UnixStream>,
}

impl Engine {
    fn start(tree: &Tree) -> Self {
        let state = Arc::new(Mutex::new(String::from(r#"{"Status":"running","StartedAt":"2026-01-01T00:00:00Z"}"#)));
        let shown = Arc::clone(&state);
        let (streams, events): (SyncSender<UnixStream>, _) = sync_channel(8);
        let path = serve(tree, move |asked, mut stream| match asked {
            asked if asked.contains("/version") => answer(&mut stream, r#"{"ApiVersion":"1.41"}"#),
            asked if asked.contains("/events") => {
                stream.write_all(ENDLESS).expect("it listens");
                streams.send(stream).expect("the test takes it");
            }
            asked if asked.contains("/containers/json") => {
                answer(&mut stream, &format!(r#"[{{"Id":"{ID}","State":"running"}}]"#));
            }
            asked if asked.contains(ID) => {
                let state = shown.lock().expect("no test panics with it").clone();
                answer(
                    &mut stream,
                    &format!(r#"{{"Id":"{ID}","Name":"/web","State":{state},"Config":{{"Env":["S3CRET"]}}}}"#),
                );
            }
            _ => answer(&mut stream, "OK"),
        });
        Self { path, state, events }
    }

    fn show(&self, state: &str) {
        state.clone_into(&mut self.state.lock().expect("no test panics with it"));
    }

    /// The stream of events of the connection that stands now.
    async fn stream(&self) -> UnixStream {
        until(|| self.events.try_recv().ok()).await
    }
}

fn say(stream: &mut UnixStream, action: &str, attributes: &str) {
    let event = format!(
        r#"{{"Type":"container","Action":"{action}","Actor":{{"ID":"{ID}","Attributes":{{{attributes}}}}},"scope":"local","time":1767225700}}"#
    );
    let chunk = format!("{:x}\r\n{event}\n\r\n", event.len() + 1);
    stream.write_all(chunk.as_bytes()).expect("it listens");
}

async fn until<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let found = async {
        loop {
            if let Some(found) = look() {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LIMIT, found).await.expect("it comes")
}

async fn told(board: &Board, wanted: &str) {
    let mut seen = Vec::new();
    until(|| {
        seen.extend(board.page().book.take_happened().into_iter().map(|(_, one)| one.what.as_str()));
        seen.contains(&wanted).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_engine_is_followed_through_its_events_and_found_again_after_it_went() {
    let tree = Tree::new(&[]);
    let engine = Engine::start(&tree);
    let board = board(&engine.path);
    let task = tokio::spawn(follow(Arc::clone(&board), Clock::start(), Arc::new([])));
    let mut stream = engine.stream().await;
    until(|| (board.page().state == State::Working).then_some(())).await;
    engine.show(
        r#"{"Status":"exited","ExitCode":3,"StartedAt":"2026-01-01T00:00:00Z","FinishedAt":"2026-01-01T00:01:00Z"}"#,
    );
    say(&mut stream, "die", r#""exitCode":"3""#);
    told(&board, "container.crashed").await;

    drop(stream);
    until(|| says(&board).contains("it closed the connection").then_some(())).await;
    engine.show(r#"{"Status":"running","StartedAt":"2026-01-01T00:02:00Z"}"#);
    let _stream = engine.stream().await;
    told(&board, "container.started").await;
    until(|| (board.page().state == State::Working).then_some(())).await;
    assert!(!format!("{board:?}").contains("S3CRET"));
    task.abort();
}

#[tokio::test]
async fn a_container_that_its_engine_fails_or_hangs_over_costs_the_others_nothing() {
    let other = ID.replace("42", "43");
    for head in ["HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n{", ""] {
        let tree = Tree::new(&[]);
        let (broken, held) = (other.clone(), Mutex::new(Vec::new()));
        let path = serve(&tree, move |asked, mut stream| match asked {
            asked if asked.contains("/version") => answer(&mut stream, r#"{"ApiVersion":"1.41"}"#),
            asked if asked.contains("/containers/json") => {
                answer(
                    &mut stream,
                    &format!(r#"[{{"Id":"{broken}","State":"running"}},{{"Id":"{ID}","State":"running"}}]"#),
                );
            }
            asked if asked.contains(&*broken) && head.is_empty() => held.lock().expect("nobody panics").push(stream),
            asked if asked.contains(&*broken) => stream.write_all(head.as_bytes()).expect("it listens"),
            _ => answer(&mut stream, &format!(r#"{{"Id":"{ID}","Name":"/web","State":{{"Status":"running"}}}}"#)),
        });
        let board = board(&path);
        look_once(Arc::clone(&board), Clock::start(), Arc::new([]), 4_000).await;
        let page = board.page();
        let names: Vec<_> = page.book.containers().map(|container| &*container.name).collect();
        assert_eq!((names, page.book.left_out(), &page.state), (vec!["web"], 1, &State::Working), "{head:?}");
    }
}

#[tokio::test]
async fn an_image_is_asked_for_its_digest_once_and_a_proxy_that_refuses_it_costs_no_container() {
    let image = format!("sha256:{}", "5".repeat(64));
    for (is_passed, digest, asked_times) in [(true, "sha256:a1", 1), (false, &*image, 1)] {
        let tree = Tree::new(&[]);
        let (asked_for, count) = (image.clone(), Arc::new(Mutex::new(0)));
        let counted = Arc::clone(&count);
        let path = serve(&tree, move |asked, mut stream| match asked {
            asked if asked.contains("/version") => answer(&mut stream, r#"{"ApiVersion":"1.41"}"#),
            asked if asked.contains("/containers/json") => {
                let ids = ["42", "43", "44"]
                    .map(|start| format!(r#"{{"Id":"{}","State":"running"}}"#, ID.replace("42", start)));
                answer(&mut stream, &format!("[{}]", ids.join(",")));
            }
            asked if asked.contains("/images/") => {
                *counted.lock().expect("nobody panics with it") += 1;
                assert!(asked.ends_with(&format!("/images/{asked_for}/json")), "{asked}");
                if is_passed {
                    answer(&mut stream, r#"{"RepoDigests":["redis@sha256:a1"]}"#);
                } else {
                    stream.write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n").expect("it listens");
                }
            }
            asked => {
                let id = asked.split('/').nth_back(1).expect("a path with an id");
                let config = r#""State":{"Status":"running"},"Config":{"Image":"redis:7"}"#;
                answer(&mut stream, &format!(r#"{{"Id":"{id}","Name":"/web","Image":"{asked_for}",{config}}}"#));
            }
        });
        let board = board(&path);
        look_once(Arc::clone(&board), Clock::start(), Arc::new([]), QUESTION_MS).await;
        let page = board.page();
        let digests: Vec<_> = page.book.containers().map(|container| &*container.digest).collect();
        assert_eq!((digests, &page.state), (vec![digest; 3], &State::Working));
        assert_eq!(*count.lock().expect("nobody panics with it"), asked_times);
    }
}

#[tokio::test]
async fn the_first_stock_that_is_told_holds_the_containers_of_an_engine_that_answers() {
    let tree = Tree::new(&[]);
    let engine = Engine::start(&tree);
    let (sockets, clock) = (vec![engine.path.clone()], Clock::start());
    let collect = Collect { sockets, processes: false, ports: false, units: false, ..Collect::default() };
    let sampler = Sampler::new(Path::new("/"), clock, Arc::default());
    let mut sampler = sampler.collecting(collect).following();
    let told = until(|| {
        let taken = sampler.sample(clock.mono(), clock.wall());
        (!taken.is_early).then_some(taken)
    });
    let told = told.await;
    let web = Key::Container("web".into());
    assert!(told.stock.get(&web).is_some(), "{:?}", told.stock);
    // The machine may run containers of its own.
    assert!(told.happened.iter().all(|one| one.key.as_ref() != Some(&web)), "{:?}", told.happened);
}

#[tokio::test]
async fn an_endless_event_ends_the_connection_and_nothing_else() {
    let tree = Tree::new(&[]);
    let engine = Engine::start(&tree);
    let board = board(&engine.path);
    let task = tokio::spawn(follow(Arc::clone(&board), Clock::start(), Arc::new([])));
    let mut stream = engine.stream().await;
    let poured = thread::spawn(move || {
        let chunk = format!("{:x}\r\n{}\r\n", 8_192, "\"".to_owned() + &"x".repeat(8_191));
        let mut written = 0;
        while stream.write_all(chunk.as_bytes()).is_ok() {
            written += chunk.len();
        }
        written
    });
    until(|| says(&board).starts_with(&*engine.path.display().to_string()).then_some(())).await;
    let written = poured.join().expect("it ends");
    assert!(written < 1 << 20, "{written} bytes were taken: {}", says(&board));
    assert_eq!(board.page().book.containers().count(), 1, "what is known stays");
    task.abort();
}

#[test]
fn without_a_socket_a_container_is_told_by_its_control_group_with_its_numbers() {
    let dev = "titles\ntitles\n  lo: 9 0 0 0 0 0 0 0 9\neth0: 5 0 0 0 0 0 0 0 6\n";
    let tree = Tree::new(&[("proc/self/net/tcp", ""), ("proc/7/net/tcp", ""), ("proc/7/net/dev", dev)]);
    let mut containers = Containers::new(tree.path(), Clock::start(), &Collect::default());
    let usage = Usage { memory_used_bytes: Some(131_072.0), memory_limit_bytes: Some(262_144.0), ..Usage::default() };
    let seen = [Seen { engine: By::Containerd, id: ID, usage, pid: Some(7) }];
    let mut rows = |seen: &[Seen<'_>]| {
        let (mut sample, mut stock) = (Sample::new(MonoMs(0), WallMs(3)), Stock::default());
        assert!(containers.look(MonoMs(0)).is_empty());
        let mut source = Source::new(tree.path());
        let happened = containers.rows(seen, 0, &mut source, &mut sample, &mut stock, &mut Failures::default());
        (Values::of(&sample), stock, happened)
    };
    let (values, stock, happened) = rows(&seen);
    let subject = format!("container:{}", &ID[..12]);
    let of = |metric: &str| values.at(&subject, metric);
    assert_eq!((of("container_running"), of("container_memory_used_ratio")), (Some(1.0), Some(0.5)));
    assert_eq!((of("container_net_received_bytes"), of("container_net_sent_bytes")), (Some(5.0), Some(6.0)));
    assert_eq!((of("container_restarts"), of("container_healthy"), of("container_cpu_seconds")), (None, None, None));
    let Some(Item::Container(container)) = stock.items().next() else { panic!("{stock:?}") };
    assert_eq!((container.is_told, container.memory_limit_bytes, happened.len()), (false, Some(262_144), 0));
    let (values, stock, happened) = rows(&[]);
    assert_eq!((values.subjects("container:").len(), stock.len(), happened.len()), (0, 0, 1));
    assert_eq!(happened[0].what.as_str(), "container.stopped");
}

#[tokio::test]
async fn of_two_engines_of_a_kind_each_answers_for_its_own_containers() {
    let tree = Tree::new(&[]);
    let engine = Engine::start(&tree);
    let sockets = vec![tree.path().join("none.sock"), engine.path.clone()];
    let mut containers =
        Containers::new(Path::new("/"), Clock::start(), &Collect { sockets: sockets.clone(), ..Collect::default() });
    containers.follow();
    until(|| {
        containers.look(MonoMs(0));
        let states = containers.boards.states();
        (matches!(states[0].1, State::Troubled { .. }) && states[1].1 == State::Working).then_some(())
    })
    .await;
    let of = |id: &str, name: &str, board| {
        let (id, name) = (id.into(), name.into());
        let container = Container { id, name, engine: By::Docker, is_told: true, ..Container::default() };
        Told { container, board }
    };
    let other = ID.replace("42", "43");
    containers.roster.tell([of(&other, "dead", 0), of(ID, "web", 1)]);
    containers.sees_scopes = true;
    let (mut sample, mut stock) = (Sample::new(MonoMs(0), WallMs(3)), Stock::default());
    let mut source = Source::new(tree.path());
    containers.rows(&[], 0, &mut source, &mut sample, &mut stock, &mut Failures::default());
    let state = |name: &str| match stock.get(&Key::Container(name.into())) {
        Some(Item::Container(container)) => container.state,
        other => panic!("{other:?}"),
    };
    assert_eq!((state("dead"), state("web")), (ContainerState::Exited, ContainerState::Running));
    let is_working =
        |path: &Path| match stock.get(&Key::Source(format!("docker at {}", path.display()).as_str().into())) {
            Some(Item::Source(source)) => source.is_working,
            other => panic!("{other:?}"),
        };
    assert_eq!((is_working(&sockets[0]), is_working(&sockets[1])), (false, true));
}

#[test]
fn ports_are_published_by_containers_that_run_and_by_no_others() {
    let tree = Tree::new(&[]);
    let mut containers = Containers::new(tree.path(), Clock::start(), &Collect::default());
    let published = vec![Published { protocol: Protocol::Tcp, address: [0; 4].into(), port: 80, inside: 80 }];
    let of = |id: &str, name: &str, state| Container {
        id: id.into(),
        name: name.into(),
        engine: By::Docker,
        is_told: true,
        state,
        published: published.clone(),
        ..Container::default()
    };
    let other = ID.replace("42", "43");
    // Podman tells the ports of containers that ended as well.
    let told = [of(ID, "web", ContainerState::Running), of(&other, "old", ContainerState::Exited)];
    containers.roster.tell(told.map(|container| Told { container, board: 0 }));
    let mut names = |seen: &[Seen<'_>]| -> Vec<String> {
        let (mut sample, mut stock) = (Sample::new(MonoMs(0), WallMs(3)), Stock::default());
        let mut source = Source::new(tree.path());
        containers.rows(seen, 0, &mut source, &mut sample, &mut stock, &mut Failures::default());
        containers.published().map(|(name, _)| name.to_owned()).collect()
    };
    let seen = [Seen { engine: By::Docker, id: ID, usage: Usage::default(), pid: None }];
    assert_eq!(names(&seen), ["web"]);
    assert_eq!(names(&[]), [""; 0], "it ended together with its engine");
    assert_eq!(names(&seen), ["web"], "its engine is away, and it runs on");
}

#[test]
fn a_container_that_ended_together_with_its_engine_is_not_told_as_running() {
    let tree = Tree::new(&[]);
    let mut containers = Containers::new(tree.path(), Clock::start(), &Collect::default());
    let told = Container { id: ID.into(), name: "web".into(), engine: By::Docker, ..Container::default() };
    containers.roster.tell([Told { container: Container { is_told: true, ..told }, board: 0 }]);
    let mut state = |seen: &[Seen<'_>]| {
        let (mut sample, mut stock) = (Sample::new(MonoMs(0), WallMs(3)), Stock::default());
        let mut source = Source::new(tree.path());
        containers.rows(seen, 0, &mut source, &mut sample, &mut stock, &mut Failures::default());
        let Some(Item::Container(container)) = stock.get(&Key::Container("web".into())) else { panic!("{stock:?}") };
        container.state
    };
    let seen = [Seen { engine: By::Docker, id: ID, usage: Usage::default(), pid: None }];
    assert_eq!(state(&[]), ContainerState::Running, "nothing says that control groups can be seen here");
    assert_eq!(state(&seen), ContainerState::Running);
    assert_eq!(state(&[]), ContainerState::Exited, "its engine does not answer, and its processes are gone");
}
