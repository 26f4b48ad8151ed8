//! The collector moves to another address with all that it knows: backup, restore, and agents that know both addresses.

use std::fs;
use std::net::Ipv4Addr;

use dunlin_tests::deadline::until;
use dunlin_tests::site::QUIC_PORT;
use dunlin_tests::topology::COLLECTOR;

use super::{LIMIT, Site};

/// The collector's next address.
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(10, 97, 1, 3);

#[test]
fn agents_follow_a_collector_that_was_moved_by_backup_and_restore_and_nothing_is_missing() {
    let mut site = Site::start();
    let wire = site.wired();
    site.namespace.ip(&["address", "add", &format!("{ELSEWHERE}/24"), "dev", "wire"]).expect("another address");
    let both = format!("{COLLECTOR}:{QUIC_PORT},{ELSEWHERE}:{QUIC_PORT}");
    let token = site.token(&[]);
    let host = site.host_in(&wire, ("web", "web"), (1, 1), Some(&token), &both);
    let id = site.up("web", &host);

    let known = |site: &Site| site.history(&id).map_or(0, |history| history.frames.len());
    until("frames to move", LIMIT, || (known(&site) >= 3).then_some(())).expect("it samples every second");

    // Stopped first, so that nothing is acknowledged behind the backup.
    site.collector.terminate(LIMIT).expect("it stops");
    let file = site.scratch.join("moving.tar");
    site.does(&["backup".as_ref(), &file]);
    fs::rename(site.state(), site.scratch.join("old")).expect("it is the old host's");
    site.does(&["restore".as_ref(), &file]);
    let before = known(&site);
    assert!(before >= 3, "what was measured moves along");
    site.collector = Site::launch_on(&site.namespace, &site.scratch, ELSEWHERE);
    assert_eq!(site.up("web", &host), id);
    let whole = || site.history(&id).filter(|history| history.frames.len() > before + 3 && history.check().is_ok());
    let history = until("all frames", LIMIT, whole).unwrap_or_else(|error| {
        panic!("{error}: {:#?}\n{}\n{}", site.history(&id), site.collector.log_text(), host.running.log_text())
    });
    assert!(history.gaps.is_empty(), "{:?}", history.gaps);
    assert_eq!(site.nodes().len(), 1);
    assert_eq!(site.events("node.enrolled"), 1, "the record of what happened moves along");

    // The list of those who have come, for an upgrade or a move.
    let versions = site.done(&["versions"]);
    let line = versions.lines().find(|line| line.starts_with(env!("CARGO_PKG_VERSION")));
    assert!(
        line.is_some_and(|line| line.split_whitespace().collect::<Vec<_>>()[1..] == ["1", "1", "web"]),
        "{versions}"
    );
}
