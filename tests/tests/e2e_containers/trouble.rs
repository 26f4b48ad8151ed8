//! An engine that stops, comes back, or hangs, and ones that lie. Ticks go out on time, and what is missing is said.

use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread;
use std::time::Duration;

use dunlin_collector::record::Pos;
use dunlin_shared::inventory::{ContainerState, Item, Key};
use dunlin_tests::deadline::until;
use dunlin_tests::engines::{IMAGE, Kind};
use dunlin_tests::netns::Namespace;
use dunlin_tests::scratch::Scratch;
use dunlin_tests::window::History;

use crate::{LIMIT, Site, container, engine};

const SLEEPER: &[&str] = &["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done"];

#[test]
fn ticks_go_out_on_time_while_an_engine_is_away_or_hangs() {
    let namespace = Namespace::new("trouble").expect("a namespace");
    let mut docker = engine(Kind::Docker, &namespace);
    docker.launch("web", &["--network", "host"], SLEEPER).expect("it starts");
    let site = Site::start(&namespace, &docker);
    assert_eq!(site.container("web").state, ContainerState::Running);
    let socket = format!("docker at {}", docker.socket().display());
    let source = |history: &History, is_working: bool| match history.stock.get(&Key::Source(socket.as_str().into()))? {
        Item::Source(source) if source.is_working == is_working => Some(source.says.to_string()),
        _ => None,
    };
    site.wait("an engine that works", |history| source(history, true));

    docker.service().stop().expect("it hangs");
    let before = site.wait("a frame", |history| history.frames.last().copied());
    let says = site.wait("a word of it", |history| source(history, false));
    assert!(says.contains("no answer within"), "{says}");
    site.wait("frames", |history| Some(history.on_time(before.pos))).expect("each tick is on time");
    assert_eq!(site.container("web").state, ContainerState::Running, "what is known stays");
    docker.service().cont().expect("it goes on");
    site.wait("an engine that works again", |history| source(history, true));

    let before = site.wait("a frame", |history| history.frames.last().copied());
    docker.stop().expect("it ends");
    let says = site.wait("a word of it", |history| source(history, false));
    assert!(says.contains("start the engine") || says.contains("closed the connection"), "{says}");
    docker.restart().expect("it starts");
    site.wait("an engine that works again", |history| source(history, true));
    site.wait("its container, which ended with it", |history| {
        container(history, "web").filter(|web| web.state == ContainerState::Exited)
    });
    site.wait("frames", |history| Some(history.on_time(before.pos))).expect("each tick is on time");
}

fn is_open(history: &History, port: u16) -> bool {
    history
        .stock
        .items()
        .any(|item| matches!(item, Item::Port(one) if one.place.port == port && one.place.network.is_none()))
}

#[test]
fn a_published_port_is_closed_with_its_container_though_its_engine_ended_with_it() {
    let namespace = Namespace::new("published").expect("a namespace");
    let mut docker = engine(Kind::Docker, &namespace);
    docker.run(&["network", "create", "--subnet", "10.97.79.0/24", "shop"]).expect("a network");
    docker.launch("web", &["--network", "shop", "-p", "18080:80"], SLEEPER).expect("it starts");
    let site = Site::start(&namespace, &docker);
    site.wait("its port", |history| is_open(history, 18_080).then_some(()));
    docker.stop().expect("it ends");
    site.wait("its end", |history| container(history, "web").filter(|web| web.state == ContainerState::Exited));
    site.wait("a port that is closed", |history| (!is_open(history, 18_080)).then_some(()));
}

#[test]
fn a_container_that_does_not_run_has_no_open_port_whatever_its_engine_says_of_it() {
    let namespace = Namespace::new("published").expect("a namespace");
    let podman = engine(Kind::Podman, &namespace);
    podman.run(&["create", "--name", "old", "-p", "18081:80", IMAGE, "true"]).expect("it is made");
    let site = Site::start(&namespace, &podman);
    let (old, is_open) = site.wait("it with its ports", |history| {
        let is_told = history.stock.get(&Key::Source("ports".into())).is_some();
        container(history, "old").filter(|_| is_told).map(|old| (old, is_open(history, 18_081)))
    });
    assert_eq!((old.state, old.published.len(), is_open), (ContainerState::Created, 1, false));
}

#[test]
fn a_container_that_was_removed_while_the_agent_was_away_is_told_as_removed() {
    let namespace = Namespace::new("away").expect("a namespace");
    let docker = engine(Kind::Docker, &namespace);
    for name in ["old", "web"] {
        docker.launch(name, &["--network", "host"], SLEEPER).expect("it starts");
    }
    let mut site = Site::start(&namespace, &docker);
    for name in ["old", "web"] {
        site.container(name);
    }
    assert!(site.agent.terminate(LIMIT).expect("it ends").success(), "{}", site.agent.log_text());
    docker.run(&["rm", "-f", "old"]).expect("it does");
    site.agent.restart().expect("it starts");
    site.wait("a stock without it", |history| {
        (container(history, "web").is_some() && container(history, "old").is_none()).then_some(())
    });
    let told = until("a word of its end", LIMIT, || {
        Some(site.told_in_feed("container.removed")).filter(|told| !told.is_empty())
    });
    assert_eq!(told.expect("it comes"), ["old"]);
}

/// How something that listens where an engine should be treats who asks.
#[derive(Clone, Copy, Debug)]
enum Liar {
    /// No word of any protocol.
    Garbage,
    /// Takes connections and says nothing.
    Silent,
    /// A byte now and then.
    Slow,
    /// Hangs up within its answer.
    Torn,
    /// An answer that does not end.
    Endless,
}

const LIARS: [(&str, Liar); 5] = [
    ("garbage", Liar::Garbage),
    ("silent", Liar::Silent),
    ("slow", Liar::Slow),
    ("torn", Liar::Torn),
    ("endless", Liar::Endless),
];
const HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n";

impl Liar {
    /// Listens until the test is over.
    fn listen(self, socket: &Path) {
        let listener = UnixListener::bind(socket).expect("it is free");
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                thread::spawn(move || self.answer(stream));
            }
        });
    }

    /// Who asks may hang up at any time.
    fn answer(self, mut stream: UnixStream) -> Option<()> {
        let mut asked = [0; 4_096];
        stream.read(&mut asked).ok().filter(|&got| got > 0)?;
        match self {
            Self::Garbage => stream.write_all(b"\x00\xff\xfe this is no answer\r\n\r\n{]").ok(),
            Self::Silent => stream.read_to_end(&mut Vec::new()).ok().map(drop),
            Self::Slow => format!("{HEAD}Content-Length: 2\r\n\r\n").bytes().try_for_each(|byte| {
                thread::sleep(Duration::from_millis(300));
                stream.write_all(&[byte]).ok()
            }),
            Self::Torn => write!(stream, "{HEAD}Content-Length: 1000\r\n\r\n{{\"Id\":\"").ok(),
            Self::Endless => {
                write!(stream, "{HEAD}\r\n[").ok()?;
                while stream.write_all(&[b'['; 65_536]).is_ok() {}
                None
            }
        }
    }
}

#[test]
fn ticks_go_out_on_time_beside_engines_that_lie() {
    let namespace = Namespace::new("liars").expect("a namespace");
    let scratch = Scratch::new("liars").expect("a directory");
    let sockets = LIARS.map(|(name, liar)| {
        liar.listen(&scratch.join(name));
        scratch.join(name)
    });
    let site = Site::start_beside(&namespace, &sockets);
    for socket in &sockets {
        let key = Key::Source(format!("docker at {}", socket.display()).as_str().into());
        let says = site.wait(&format!("a word of {}", socket.display()), |history| match history.stock.get(&key)? {
            Item::Source(source) if !source.is_working => Some(source.says.to_string()),
            _ => None,
        });
        assert!(!says.is_empty(), "{}", socket.display());
    }
    let outcome = site.wait("frames", |history| (history.frames.len() > 6).then(|| history.on_time(Pos(0))));
    outcome.expect("each tick is on time");
    // All the rest is told.
    site.wait("the groups of processes", |history| {
        history.stock.items().any(|item| matches!(item, Item::Group(_))).then_some(())
    });
}
