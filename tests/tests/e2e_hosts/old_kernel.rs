//! The packaged agent where the kernel has none of the system calls that came after Linux 3.10: strace answers for it as such a
//! kernel would. What else such a kernel lacks cannot be played here.

use std::fs;
use std::time::Duration;

use dunlin_tests::netns::Namespace;
use dunlin_tests::package::Built;
use dunlin_tests::pki::join_token;
use dunlin_tests::process::Program;
use dunlin_tests::scratch::Scratch;
use dunlin_tests::site::Collector;
use dunlin_tests::tool;

/// Every call of this machine's table that is newer, and that a program of today might make.
const NEWER: &str = "renameat2,getrandom,memfd_create,bpf,execveat,membarrier,mlock2,copy_file_range,preadv2,pwritev2,statx,\
                     rseq,io_uring_setup,pidfd_send_signal,pidfd_open,clone3,close_range,openat2,faccessat2,epoll_pwait2";
const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn the_agent_enrols_and_streams_without_any_system_call_that_linux_3_10_lacks() {
    let namespace = Namespace::new("old").expect("a namespace");
    let (collector, token) = Collector::start_enrolling(&namespace, join_token(1)).expect("a collector");
    let scratch = Scratch::new("old").expect("a directory");
    let agent = Built::find().expect("it is built").agent;
    let trace = scratch.join("trace");
    let strace = tool::find("strace").expect("it is there");
    let inject = [format!("trace={NEWER}"), format!("inject={NEWER}:error=ENOSYS")];
    let prefix = vec![strace.into(), "-fqq".into(), "-o".into(), trace.clone().into()];
    let prefix = inject.into_iter().fold(prefix, |mut words: Vec<std::ffi::OsString>, one| {
        words.extend(["-e".into(), one.into()]);
        words
    });
    let program =
        Program::at(agent).inside(&namespace).under(prefix).arg("run").arg("--state-dir").arg(scratch.join("state"));
    let program = program.args(["--collectors", "127.0.0.1", "--interval", "1s"]);
    let running = program.env("DUNLIN_JOIN_TOKEN", token.reveal()).start().expect("it starts");
    let up = collector.wait_nodes("up", 1.0, LIMIT).and_then(|()| collector.wait_committed(3, LIMIT));
    up.unwrap_or_else(|error| panic!("{error}\n{}", running.log_text()));
    let trace = fs::read_to_string(&trace).expect("it was traced");
    assert!(trace.contains("ENOSYS"), "it would have called one: {trace}");
}

#[test]
fn check_names_what_the_kernel_lacks() {
    let agent = Built::find().expect("it is built").agent;
    let script =
        "mount -t tmpfs none /proc/pressure && exec \"$0\" check --collectors 127.0.0.1:1 --state-dir /nonexistent";
    let mut command = tool::command("unshare").expect("it is there");
    let said = command.args(["-mn", "/bin/sh", "-c", script]).arg(agent).output().expect("it starts");
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    let pressure = said.lines().find(|line| line.contains("pressure:")).unwrap_or_else(|| panic!("{said}"));
    assert!(pressure.contains("this kernel has no pressure accounting"), "{pressure}");
}
