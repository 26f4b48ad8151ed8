//! The agent under strace, and in a root that holds nothing but itself.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use dunlin_tests::netns::Namespace;
use dunlin_tests::pki::{Authority, node_ids};
use dunlin_tests::process::Program;
use dunlin_tests::scratch::Scratch;
use dunlin_tests::site::{Agent, Collector, QUIC_PORT};
use dunlin_tests::tool;

use crate::{LIMIT, loopback};

/// Calls that start a program, listen, or change a file system.
const CALLS: &str = "execve,execveat,socket,bind,listen,accept,accept4,open,openat,openat2,creat,truncate,unlink,unlinkat,\
                     rename,renameat,renameat2,mkdir,mkdirat,rmdir,link,linkat,symlink,symlinkat,mknod,mknodat,chmod,\
                     fchmodat,chown,fchownat,mount,ptrace";
/// Calls that name what they change.
const CHANGES: &[&str] =
    &["truncate", "unlink", "rename", "mkdir", "rmdir", "link", "symlink", "mknod", "chmod", "chown"];
const NAME: &str = "collector.fleet.test";

#[test]
fn agent_starts_nothing_listens_nowhere_and_writes_its_state_alone() {
    let namespace = Namespace::new("traced").expect("a namespace");
    let authority = Authority::new().expect("an authority");
    let mut collector = Collector::start(&namespace, &authority).expect("a collector");
    let traces = Scratch::new("traces").expect("a directory");
    let log = traces.join("calls");
    let strace = tool::find("strace").expect("strace is there");
    // The spool writes as well; -D keeps the agent the process that we signal.
    let mut prefix: Vec<OsString> = vec!["/usr/bin/env".into(), "DUNLIN_AGENT_SPOOL_DISK=1MiB".into(), strace.into()];
    prefix.extend(
        ["-D", "-f", "-qq", "-s", "512", "-e", "signal=none", "-e", &format!("trace={CALLS}"), "-o"]
            .map(OsString::from),
    );
    prefix.extend([log.clone().into(), "--".into()]);
    let mut agent = Agent::start_under(&namespace, &authority, &loopback(), prefix).expect("an agent");
    collector.wait_committed(8, LIMIT).expect("frames arrive");
    // A reconnect and a failed attempt are part of an agent's life.
    collector.kill9().expect("it can be killed");
    agent.wait_log("not connected", LIMIT).expect("it notices");
    collector.restart().expect("it starts again");
    collector.wait_committed(8, LIMIT).expect("frames arrive again");
    let status = agent.terminate(LIMIT).expect("it stops");
    assert!(status.success(), "{}", agent.log_text());

    let calls = fs::read_to_string(&log).expect("strace wrote it");
    let state = agent.state_dir();
    let made: Vec<&str> = calls.lines().filter_map(|line| line.split_once(' ').map(|(_, call)| call.trim())).collect();
    let of = |name: &str| made.iter().filter(|call| call.starts_with(name)).copied().collect::<Vec<_>>();
    assert_eq!(of("execve").len(), 1, "its own start and no other: {:?}", of("execve"));
    assert_eq!([of("listen("), of("accept"), of("mount("), of("ptrace(")].concat(), [""; 0]);
    // Over networks it speaks QUIC alone. Streams are those to the engines and the bus of this very host.
    let sockets = of("socket(");
    let is_known = |call: &&str| call.contains("SOCK_DGRAM") || call.starts_with("socket(AF_UNIX, SOCK_STREAM");
    assert!(sockets.iter().all(is_known), "{sockets:?}");
    let binds = of("bind(");
    assert!(!binds.is_empty() && binds.iter().all(|call| call.contains("htons(0)")), "{binds:?}");
    let written = made.iter().filter(|call| is_change(call));
    let written: Vec<_> = written.filter(|call| !paths(call).all(|path| Path::new(path).starts_with(&state))).collect();
    assert!(written.is_empty(), "outside of {}: {written:?}", state.display());
    assert!(made.iter().any(|call| is_change(call)), "its epoch and spool were seen");
}

#[test]
fn static_agent_runs_in_an_empty_root() {
    let namespace = Namespace::new("empty-root").expect("a namespace");
    let authority = Authority::new().expect("an authority");
    let collector = Collector::start(&namespace, &authority).expect("a collector");
    let root = Scratch::new("root").expect("a directory");
    for directory in ["etc", "proc", "state"] {
        fs::create_dir(root.join(directory)).expect("it is writable");
    }
    fs::write(root.join("etc/hosts"), format!("127.0.0.1 {NAME}\n")).expect("it is writable");
    fs::write(root.join("etc/resolv.conf"), "").expect("it is writable");
    fs::copy(static_agent(), root.join("dunlin-agent")).expect("it fits");
    let node = authority.node(node_ids(191, 0)[190]).expect("a certificate");
    node.identity().write(&root.join("state"), authority.ca_der(), "node").expect("it is writable");

    let script = "mount -t proc proc \"$0/proc\" && exec chroot \"$0\" \"$@\"";
    let unshare = tool::find("unshare").expect("util-linux is there");
    let words = ["-m", "/bin/sh", "-c", script].map(OsString::from);
    let prefix = [vec![unshare.into()], words.to_vec(), vec![root.path().into()]].concat();
    let program = Program::at("/dunlin-agent").inside(&namespace).under(prefix).arg("run");
    let program = program.args(["--state-dir", "/state", "--interval", "1s"]);
    let mut running = program.args(["--collectors", &format!("{NAME}:{QUIC_PORT}")]).start().expect("it starts");
    let arrived = collector.wait_committed(4, LIMIT);
    assert!(arrived.is_ok(), "{arrived:?}; is the static agent of this version? make agent\n{}", running.log_text());
    assert!(running.terminate(LIMIT).expect("it stops").success(), "{}", running.log_text());
    assert!(!running.log_text().contains("WARN"), "nothing is missing: {}", running.log_text());
    let kept: Vec<_> =
        fs::read_dir(root.path()).expect("it is there").flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(kept.len(), 4, "nothing was added to the root: {kept:?}");
}

/// What `make agent` builds, beside the directory of this test's profile.
fn static_agent() -> PathBuf {
    let own = std::env::current_exe().expect("a test has a path");
    let target = own.ancestors().nth(3).expect("cargo keeps tests in TARGET/PROFILE/deps");
    let path = target.join(format!("{}-unknown-linux-gnu/agent/dunlin-agent", std::env::consts::ARCH));
    assert!(path.is_file(), "{} is not built; run: make agent", path.display());
    path
}

/// Whether a call changes a file system, or opens a file so that it could.
fn is_change(call: &str) -> bool {
    let opens = call.starts_with("open") || call.starts_with("creat");
    opens && ["O_WRONLY", "O_RDWR", "O_CREAT", "creat("].iter().any(|flag| call.contains(flag))
        || CHANGES.iter().any(|name| call.starts_with(name))
}

/// The paths in a call, in quotes.
fn paths(call: &str) -> impl Iterator<Item = &str> {
    call.split('"').skip(1).step_by(2)
}
