//! How soon a port that opened is told: at the first tick after it or the second, on the host and in the network of a
//! container, where it stands in the place of another.
//!
//! A busy machine makes a tick late, so ticks are counted, by the agent's own clock, and not time.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::time::{SystemTime, UNIX_EPOCH};

use dunlin_collector::record::{Event, Pos};
use dunlin_collector::store::Reader;
use dunlin_shared::codec::{decode_delta, decode_key};
use dunlin_shared::frame::{BodyKind, Frame};
use dunlin_shared::id::FrameId;
use dunlin_shared::inventory::{Item, Key, Place, Protocol};
use dunlin_shared::sample::Reading;
use dunlin_tests::deadline::until;
use dunlin_tests::engines::Kind;
use dunlin_tests::netns::Namespace;
use dunlin_tests::tool;

use crate::{LIMIT, Site, engine};

const TICKS_MAX: usize = 2;
/// One server, and on request another in its place: as many sockets as before.
const SERVERS: &str = "httpd -f -p 8081 & c=$!; trap 'kill $c; wait $c; httpd -f -p 8082 & c=$!' USR1; \
                       while :; do sleep 0.1; done";

#[test]
fn a_port_that_opened_is_told_within_two_ticks() {
    let namespace = Namespace::new("opened").expect("a namespace");
    let docker = engine(Kind::Docker, &namespace);
    docker.launch("alone", &["--network", "none"], &["sh", "-c", SERVERS]).expect("it starts");
    let site = Site::start(&namespace, &docker);
    let inside = |port| Place { network: Some("alone".into()), ..anywhere(port) };
    told(&site, inside(8081));

    let listener = namespace.enter(|| TcpListener::bind("0.0.0.0:7001")).expect("the namespace is there");
    let listener = listener.expect("it is free");
    let opened = now_ms();
    within_two_ticks(&site, Place { network: None, address: [0, 0, 0, 0].into(), ..anywhere(7001) }, opened);
    drop(listener);

    let pid = docker.run(&["inspect", "--format", "{{.State.Pid}}", "alone"]).expect("it tells");
    docker.run(&["kill", "--signal", "USR1", "alone"]).expect("it does");
    let listed = || tool::run("nsenter", &["-t", &pid, "-n", "ss", "-lntH"]).ok()?.contains(":8082").then_some(());
    until("the other server", LIMIT, listed).expect("it listens");
    let opened = now_ms();
    within_two_ticks(&site, inside(8082), opened);
    // And who holds it is known.
    site.wait("its holder", |history| match history.stock.get(&Key::Port(inside(8082)))? {
        Item::Port(port) if port.process.as_deref() == Some("httpd") => Some(()),
        _ => None,
    });
}

/// What takes connections from anywhere, as busybox opens it.
fn anywhere(port: u16) -> Place {
    Place { network: None, protocol: Protocol::Tcp, address: "::".parse().expect("an address"), port }
}

fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is later than 1970");
    i64::try_from(now.as_millis()).expect("it is no far future")
}

fn told(site: &Site<'_>, place: Place) -> i64 {
    let key = Key::Port(place);
    site.wait(&format!("{key:?}"), |history| {
        history.stock.get(&key)?;
        let opened = history.happened.iter().rev().find(|one| one.key.as_ref() == Some(&key));
        Some(opened.map_or(0, |one| one.at.0))
    })
}

fn within_two_ticks(site: &Site<'_>, place: Place, opened: i64) {
    let told = told(site, place.clone());
    let since = ticks(site).into_iter().filter(|tick| (opened..=told).contains(tick)).count();
    assert!(told > 0 && since <= TICKS_MAX, "{place}: told at the tick {since} after it opened");
}

/// When each sample was taken.
fn ticks(site: &Site<'_>) -> Vec<i64> {
    let mut frames: BTreeMap<FrameId, Frame> = BTreeMap::new();
    for record in Reader::new(&site.collector.state_dir().join("window")).scan(Pos(0)).expect("it can be read") {
        if let (_, record) = record.expect("it is whole")
            && let Event::Frame { frame, .. } = record.event
        {
            frames.insert(frame.id, frame);
        }
    }
    let mut readings: BTreeMap<FrameId, Reading> = BTreeMap::new();
    for (id, frame) in frames {
        let reading = match frame.kind {
            BodyKind::Key => decode_key(&frame.body),
            BodyKind::Delta { .. } => {
                let base = frame.base().and_then(|base| readings.get(&base)).expect("its base came before it");
                decode_delta(base, &frame.body)
            }
            BodyKind::Inventory => continue,
        };
        readings.insert(id, reading.expect("the collector took it"));
    }
    readings.values().map(|reading| reading.wall.0).collect()
}
