//! An agent whose state directory is on a disk that fills up: its frames go on, and so does what it keeps of them once
//! there is space again.

use std::fs;
use std::path::Path;
use std::time::Duration;

use dunlin_tests::deadline::until;
use dunlin_tests::disk::Disk;
use dunlin_tests::netns::Namespace;
use dunlin_tests::pki::{Authority, node_ids};
use dunlin_tests::site::{Collector, QUIC_PORT, committed};
use dunlin_tests::window::History;

use crate::{LIMIT, program, stop};

/// The least that the rig makes.
const DISK_MIB: u32 = 16;
/// At a tick of a second: more than a group of frames, and so several attempts to write.
const FULL_FRAMES: u64 = 35;
const FULL_LIMIT: Duration = Duration::from_secs(120);
const FAILS: &str = "cannot be written; frames stay in RAM until it can be";
const RESUMES: &str = "can be written again";

/// What the spool has on disk.
fn spooled_bytes(spool: &Path) -> u64 {
    let files = fs::read_dir(spool).expect("it is there").flatten();
    files.filter_map(|file| file.metadata().ok()).map(|file| file.len()).sum()
}

#[test]
fn agent_on_a_full_disk_says_so_once_and_sends_on_and_spools_again_when_there_is_space() {
    let namespace = Namespace::new("full").expect("a namespace");
    let authority = Authority::new().expect("an authority");
    let collector = Collector::start(&namespace, &authority).expect("a collector");
    let disk = Disk::new(DISK_MIB).expect("a disk");
    let (state, node) = (disk.join("state"), authority.node(node_ids(1, 0)[0]).expect("a certificate"));
    node.identity().write(&state, authority.ca_der(), "node").expect("it is writable");
    let program = program("dunlin-agent").inside(&namespace).arg("--state-dir").arg(&state);
    let collectors = format!("127.0.0.1:{QUIC_PORT}");
    let program = program.args(["--collectors", &collectors, "--interval", "1s", "--spool-disk", "1MiB"]);
    let mut agent = program.start().expect("it starts");
    let spool = state.join("spool");
    until("a frame on the disk", LIMIT, || (spool.is_dir() && spooled_bytes(&spool) > 0).then_some(()))
        .expect("a spool");
    collector.wait_committed(3, LIMIT).expect("frames arrive");

    disk.fill().expect("it fills up");
    agent.wait_log(FAILS, LIMIT).expect("it says so");
    // A group that was half written gives its blocks back, which others take on a full disk.
    disk.fill().expect("it fills up");
    let before = committed(&collector.scrape().expect("it answers"));
    collector.wait_committed(before + FULL_FRAMES, FULL_LIMIT).expect("frames go on to arrive");
    let said = agent.log_text();
    let complaints: Vec<_> = said.lines().filter(|line| line.contains(FAILS)).collect();
    assert!(complaints.len() == 1 && !said.contains(RESUMES), "{said}");
    assert!(complaints[0].contains("WARN") && complaints[0].contains(&spool.display().to_string()), "{said}");
    assert!(complaints[0].contains("No space left on device"), "it says why: {said}");

    let full_bytes = spooled_bytes(&spool);
    disk.free().expect("there is space again");
    agent.wait_log(RESUMES, LIMIT).expect("it says that as well");
    let grows = || (spooled_bytes(&spool) > full_bytes).then_some(());
    until("more on the disk", LIMIT, grows).expect("frames are written as they come");
    let said = stop(agent);
    assert_eq!(said.matches(FAILS).count(), 1, "{said}");
    let whole = |history: &History| history.check().is_ok() && history.gaps.is_empty();
    let found =
        collector.wait_window("all of it", LIMIT, |window| window.of(node.id).ok().filter(|all| whole(all)).cloned());
    let history = found.expect("nothing is missing, and nothing was given up");
    assert!(history.frames.len() as u64 >= before + FULL_FRAMES, "{}", history.frames.len());
}
