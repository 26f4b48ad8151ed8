//! An engine that stops, comes back, or hangs. Ticks go out on time, and what is missing is said.

use dunlin_shared::inventory::{ContainerState, Item, Key};
use dunlin_tests::engines::Kind;
use dunlin_tests::netns::Namespace;
use dunlin_tests::window::History;

use crate::{Site, container, engine};

const SLEEPER: &[&str] = &["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done"];

#[test]
fn ticks_go_out_on_time_while_an_engine_is_away_or_hangs() {
    let namespace = Namespace::new("trouble").expect("a namespace");
    let mut docker = engine(Kind::Docker, &namespace);
    docker.launch("web", &["--network", "host"], SLEEPER).expect("it starts");
    let site = Site::start(&namespace, &docker);
    assert_eq!(site.container("web").state, ContainerState::Running);
    let socket = docker.socket().display().to_string();
    let source = |history: &History, is_working: bool| match history.stock.get(&Key::Source(socket.as_str().into()))? {
        Item::Source(source) if source.is_working == is_working => Some(source.says.to_string()),
        _ => None,
    };
    site.wait("an engine that works", |history| source(history, true));

    docker.service().stop().expect("it hangs");
    let before = site.wait("a frame", |history| history.frames.last().copied());
    let says = site.wait("a word of it", |history| source(history, false));
    assert!(says.contains("no answer within"), "{says}");
    let frames = site.wait("frames", |history| Some(history.since(before.pos)));
    on_time(&frames.iter().map(|frame| frame.at.0).collect::<Vec<_>>());
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
    let frames = site.wait("frames", |history| Some(history.since(before.pos)));
    on_time(&frames.iter().map(|frame| frame.at.0).collect::<Vec<_>>());
}

/// One a second; half a second more is what a busy machine takes.
fn on_time(received_ms: &[i64]) {
    let late: Vec<_> = received_ms.windows(2).map(|two| two[1] - two[0]).filter(|&ms| ms > 2_000).collect();
    assert!(received_ms.len() > 2 && late.is_empty(), "{late:?} of {} frames", received_ms.len());
}
