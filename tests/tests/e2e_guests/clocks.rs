//! Machines whose clocks say 1970 and 2100. Of their agents the skew is shown, and what they send is kept, sealed and
//! answered at the time at which it came; a collector there seals as any other, and purges nothing when its clock is moved.

use std::fs;
use std::time::SystemTime;

use dunlin_collector::client::{Client, Target, Trust};
use dunlin_collector::shape::{Node, SeriesPage};
use dunlin_collector::store::{Files, Level};
use dunlin_shared::time::WallMs;
use dunlin_tests::deadline::until;
use dunlin_tests::fleet::history::close_journal;
use dunlin_tests::guest::{Base, Guest, ITSELF, OUTSIDE};
use dunlin_tests::netns::Namespace;
use dunlin_tests::package::Built;
use dunlin_tests::pki::{Authority, node_ids};
use dunlin_tests::scratch::Scratch;
use dunlin_tests::site::{Collector, QUIC_PORT};
use dunlin_tests::window::is_sealed;

use crate::{LIMIT, debian, write};

/// Seconds since 1970: a minute after the boot of a host without a battery for its clock, and 2100-01-01.
const CLOCKS: [i64; 2] = [60, 4_102_444_800];
/// A boot, and what a slow machine adds.
const WITHIN_MS: i64 = 600_000;
const JOURNAL_MS: i64 = 300_000;

/// The numbers behind a word on a line of the guest.
fn numbers(said: &str, word: &str) -> Vec<Vec<i64>> {
    let of = |line: &str| {
        let rest = line.strip_prefix("=== ")?.strip_prefix(word)?;
        rest.split_whitespace().map(|number| number.parse().ok()).collect()
    };
    said.lines().filter_map(of).collect()
}

fn now() -> WallMs {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("it is later than 1970");
    WallMs(i64::try_from(since.as_millis()).expect("it fits for long"))
}

#[test]
fn agents_whose_clocks_say_1970_and_2100_are_kept_by_the_clock_of_the_collector() {
    let namespace = Namespace::new("clocks").expect("a namespace");
    let authority = Authority::new().expect("an authority");
    let mut collector = Collector::start(&namespace, &authority).expect("a collector");
    let nodes = [193, 194].map(|number| authority.node(node_ids(number, 0)[number - 1]).expect("a certificate"));
    let began = now();
    for (node, clock_s) in nodes.iter().zip(CLOCKS) {
        let files = Scratch::new("files").expect("a directory");
        let script = include_str!("clocks.init").replace("ITSELF", &ITSELF.to_string());
        let script =
            script.replace("COLLECTOR", &format!("{OUTSIDE}:{QUIC_PORT}")).replace("CLOCK", &clock_s.to_string());
        write(files.path(), "init", &script);
        node.identity().write(&files.join("state"), authority.ca_der(), "node").expect("it is writable");
        let guest = Guest::start(&namespace, Base::Bare, files.path()).expect("a guest");
        let readings = |window: &dunlin_tests::window::Window| {
            let history = window.of(node.id).ok()?;
            (history.frames.iter().filter(|frame| frame.is_reading).count() >= 4).then_some(())
        };
        let found = collector.wait_window("readings of the guest", LIMIT * 2, readings);
        found.unwrap_or_else(|error| panic!("{error}\n{}", guest.said()));
    }
    let ended = now();
    assert!(collector.terminate().expect("it ends").success(), "{}", collector.log_text());
    close_journal(&collector.state_dir(), ended.plus(JOURNAL_MS)).expect("the collector has stopped");
    collector.restart().expect("it starts again");
    let sealed = || is_sealed(&collector.state_dir()).expect("it can be listed").then_some(());
    until("all is sealed", LIMIT, sealed).unwrap_or_else(|error| panic!("{error}: {}", collector.log_text()));
    let files = Files::list(&collector.state_dir().join("window")).expect("it can be listed");
    assert!(files.of(Level::Full).any(|name| name.first.0 == 1), "nothing is purged: {files:?}");

    let target = Target::Unix(collector.state_dir().join("admin.sock"));
    let client = Client::new(target, None, &Trust::default()).expect("a client");
    for (node, clock_s) in nodes.iter().zip(CLOCKS) {
        let about: Node = client.get(&format!("/api/v1/nodes/{}", node.id)).expect("it is known");
        let skew_ms = about.skew_ms.expect("it said Hello");
        let ahead_ms = WallMs(clock_s * 1_000).since(began);
        assert!((skew_ms - ahead_ms).abs() <= WITHIN_MS, "{skew_ms} ms, not about {ahead_ms}");
        for resolution in ["full", "5m"] {
            let path = format!("/api/v1/nodes/{}/series?metric=host_load1&resolution={resolution}", node.id);
            let page: SeriesPage = client.get(&path).expect("it is answered");
            let points: Vec<_> = page.items[0].points.iter().filter(|(_, value)| value.is_some()).collect();
            let least = if resolution == "full" { 4 } else { 1 };
            assert!(points.len() >= least, "{resolution}: {points:?}");
            let received = began.plus(-JOURNAL_MS)..=ended;
            assert!(points.iter().all(|(at, _)| received.contains(&at.0)), "{resolution}: {points:?}");
        }
    }
}

#[test]
fn a_collector_whose_clock_says_1970_or_2100_seals_and_one_whose_clock_moves_between_them_purges_nothing() {
    let namespace = Namespace::new("moved").expect("a namespace");
    let files = debian(include_str!("clocks.probe"));
    let built = Built::find().expect("the programs are built");
    for program in ["dunlin", "dunlin-collector"] {
        let target = files.join("usr/bin");
        fs::create_dir_all(&target)
            .and_then(|()| fs::copy(built.programs.join(program), target.join(program)))
            .expect("copied");
    }
    let mut guest = Guest::start(&namespace, Base::Debian, files.path()).expect("a guest");
    guest.wait_said("=== end", LIMIT * 2).unwrap_or_else(|error| panic!("{error}\n{}", guest.said()));
    let said = guest.said();
    let (live, moved, back) = (numbers(&said, "live"), numbers(&said, "moved"), numbers(&said, "back"));
    assert_eq!((live.len(), moved.len(), back.len()), (2, 2, 2), "{said}");
    for line in live.iter().chain(&moved).chain(&back) {
        assert_eq!(line[1..3], [2, 0], "both levels hold the first that came, and nothing is purged: {said}");
    }
    assert!(live.iter().all(|line| line[3] >= 1), "{said}");
    assert_eq!(live, back, "what was answered is answered: {said}");
}
