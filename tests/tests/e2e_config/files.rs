//! State directories that are read-only, in use, damaged, or of a later version.

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use dunlin_tests::deadline::until;
use dunlin_tests::netns::Namespace;
use dunlin_tests::pki::{Authority, node_ids};
use dunlin_tests::process::Program;
use dunlin_tests::scratch::Scratch;
use dunlin_tests::site::{Collector, HTTP};

use crate::{LIMIT, program, refused, stop};

/// Where SQLite keeps `user_version`, the format's number: four bytes, the highest first.
const USER_VERSION_AT: u64 = 60;
/// The second page of a database begins with the head of a table.
const PAGE: u64 = 4_096;

struct AgentState {
    scratch: Scratch,
}

impl AgentState {
    fn new() -> Self {
        let scratch = Scratch::new("agent-state").expect("a directory");
        let authority = Authority::new().expect("an authority");
        let node = authority.node(node_ids(1, 0)[0]).expect("a certificate");
        node.identity().write(&scratch.join("state"), authority.ca_der(), "node").expect("it is writable");
        Self { scratch }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scratch.join("state").join(name)
    }

    /// An agent without a collector.
    fn program(&self) -> Program {
        let program = program("dunlin-agent").arg("--state-dir").arg(self.scratch.join("state"));
        program.args(["--collectors", "127.0.0.1:1", "--interval", "1s", "--spool-disk", "1MiB"])
    }
}

#[test]
fn read_only_state_is_said_with_its_path() {
    let agent = AgentState::new();
    let (code, said) = refused(agent.program().under(read_only(&agent.path(""))));
    assert_eq!((code, said.lines().count()), (1, 1), "{said}");
    assert!(said.contains("Read-only file system") && said.contains("must be able to write to"), "{said}");

    let namespace = Namespace::new("read-only").expect("a namespace");
    let authority = Authority::new().expect("an authority");
    let mut collector = Collector::start(&namespace, &authority).expect("a collector");
    collector.terminate().expect("it stops");
    let state = collector.state_dir();
    let program = program("dunlin-collector").inside(&namespace).under(read_only(&state));
    let (code, said) = refused(program.arg("--state-dir").arg(&state));
    assert_eq!((code, said.lines().count()), (1, 1), "{said}");
    assert!(said.contains("Read-only file system") && said.contains(&state.display().to_string()), "{said}");
}

#[test]
fn state_that_is_in_use_names_the_process() {
    let namespace = Namespace::new("locked").expect("a namespace");
    let authority = Authority::new().expect("an authority");
    let collector = Collector::start(&namespace, &authority).expect("a collector");
    let second = program("dunlin-collector").inside(&namespace).arg("--state-dir").arg(collector.state_dir());
    let (code, said) = refused(second.args(["--quic-listen", "0.0.0.0:1", "--http-listen", "127.0.0.1:1"]));
    assert_eq!((code, said.lines().count()), (1, 1), "{said}");
    assert!(said.contains(&format!("process {}", collector.running().pid())), "{said}");
    assert_eq!(collector.running().get(HTTP, "/-/ready").expect("the first goes on").status, 200);
}

#[test]
fn address_in_use_is_said_with_its_key() {
    let namespace = Namespace::new("bound").expect("a namespace");
    let authority = Authority::new().expect("an authority");
    let _first = Collector::start(&namespace, &authority).expect("a collector");
    let other = Scratch::new("other").expect("a directory");
    let identity = authority.collector().expect("a certificate");
    identity.write(other.path(), authority.ca_der(), "collector").expect("it is writable");
    for (quic, http, key) in
        [("0.0.0.0:9737", "127.0.0.1:2", "quic_listen"), ("0.0.0.0:1", "127.0.0.1:9738", "http_listen")]
    {
        let second = program("dunlin-collector").inside(&namespace).arg("--state-dir").arg(other.path());
        let (code, said) = refused(second.args(["--quic-listen", quic, "--http-listen", http]));
        assert_eq!(code, 1, "{said}");
        let last = said.lines().last().expect("it says why");
        assert!(last.contains(key) && last.contains("in use"), "{said}");
    }
}

#[test]
fn damaged_epoch_is_set_aside_and_said() {
    let agent = AgentState::new();
    fs::write(agent.path("epoch"), "7 deadbeef\n").expect("it is writable");
    let mut running = agent.program().start().expect("it is built");
    running.wait_log("epoch's file was damaged", LIMIT).expect("it says so and goes on");
    running.wait_log("started", LIMIT).expect("it goes on");
    stop(running);
    assert_eq!(fs::read_to_string(agent.path("epoch.damaged")).expect("it is kept"), "7 deadbeef\n");
}

#[test]
fn damaged_spool_is_said_and_what_is_sound_is_kept() {
    let agent = AgentState::new();
    let mut running = agent.program().start().expect("it is built");
    let segment = until("five frames in the spool", LIMIT, || {
        let file = fs::read_dir(agent.path("spool")).ok()?.flatten().map(|entry| entry.path());
        let file = file.filter(|path| path.extension().is_some_and(|end| end == "seg")).max()?;
        (fs::read(&file).ok()?.iter().filter(|&&byte| byte == 0xd5).count() >= 5).then_some(file)
    });
    let segment = segment.expect("frames are written as they come");
    running.kill9().expect("it can be killed");
    let len = fs::metadata(&segment).expect("it is there").len();
    damage(&segment, len / 2);
    let mut running = agent.program().start().expect("it is built");
    running.wait_log("damaged", LIMIT).expect("it says so");
    running.wait_log("frames of earlier runs wait", LIMIT).expect("and keeps the rest");
    let said = stop(running);
    let line = said.lines().find(|line| line.contains("damaged")).expect("it was waited for");
    assert!(line.contains(&segment.display().to_string()) && line.contains("frames are lost"), "{line}");
}

#[test]
fn damaged_databases_are_set_aside_loudly_and_the_collector_goes_on() {
    for (choose, at) in [(control as fn(&Path) -> PathBuf, 0), (journal, 0), (journal, PAGE)] {
        let namespace = Namespace::new("damaged").expect("a namespace");
        let authority = Authority::new().expect("an authority");
        let mut collector = Collector::start(&namespace, &authority).expect("a collector");
        let ticks = collector.wait_window("a window", LIMIT, |_| Some(()));
        ticks.expect("it has one");
        collector.terminate().expect("it stops");
        let file = choose(&collector.state_dir());
        damage(&file, at);
        collector.restart().expect("it starts in spite of it");
        let said = collector.running().log_text();
        let line = said.lines().find(|line| line.contains("a damaged file is set aside")).unwrap_or(&said);
        let name = file.file_name().expect("a file has a name").to_string_lossy().into_owned();
        assert!(line.contains("WARN") && line.contains(&name), "{said}");
        let scrape = collector.scrape().expect("it answers");
        assert!(scrape.value("dunlin_files_set_aside_total", &[]).is_some_and(|count| count >= 1.0));
        assert!(collector.terminate().expect("it stops").success());
    }
}

#[test]
fn later_format_is_refused_and_left_alone() {
    let namespace = Namespace::new("newer").expect("a namespace");
    let authority = Authority::new().expect("an authority");
    let mut collector = Collector::start(&namespace, &authority).expect("a collector");
    collector.terminate().expect("it stops");
    let file = control(&collector.state_dir());
    let open = OpenOptions::new().write(true).open(&file).expect("it is there");
    open.write_all_at(&99_u32.to_be_bytes(), USER_VERSION_AT).expect("it is writable");
    let before = fs::read(&file).expect("it is there");
    let again = program("dunlin-collector").inside(&namespace).arg("--state-dir").arg(collector.state_dir());
    let (code, said) = refused(again);
    assert_eq!((code, said.lines().count()), (78, 1), "systemd is not to start it again: {said}");
    assert!(said.contains("format 99") && said.contains(&file.display().to_string()), "{said}");
    assert_eq!(fs::read(&file).expect("it is there"), before, "it is left as it was");
}

fn control(state: &Path) -> PathBuf {
    state.join("control.db")
}

fn journal(state: &Path) -> PathBuf {
    let files = fs::read_dir(state.join("window")).expect("it is there").flatten().map(|entry| entry.path());
    let is_journal = |path: &PathBuf| {
        path.file_name()
            .and_then(|name| name.to_str())
            .is_some_and(|name| name.starts_with("journal-") && name.ends_with(".db"))
    };
    files.filter(is_journal).max().expect("it has a journal")
}

fn damage(file: &Path, at: u64) {
    let open = OpenOptions::new().write(true).open(file).expect("it is there");
    open.write_all_at(&[0xa7; 64], at).expect("it is writable");
}

/// A command that gives the program a file system where this directory is read-only.
fn read_only(directory: &Path) -> Vec<OsString> {
    let script = "mount --bind \"$0\" \"$0\" && mount -o remount,ro,bind \"$0\" && exec \"$@\"";
    let unshare = dunlin_tests::tool::find("unshare").expect("util-linux is there");
    let words = ["-m", "/bin/sh", "-c", script].map(OsString::from);
    [vec![unshare.into()], words.to_vec(), vec![directory.into()]].concat()
}
