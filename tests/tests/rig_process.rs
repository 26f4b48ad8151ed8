//! Shows that the rig really kills, stops, waits for and measures programs, with the shell in their place.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::time::Duration;

use dunlin_tests::process::{ProcessError, Program, Running, ended_by};
use rustix::process::Signal;

/// Far above what any step takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(20);

fn shell(script: &str) -> Running {
    let mut running = Program::at("/bin/sh").arg("-c").arg(script).start().expect("there is a shell");
    running.wait_log("started\n", LIMIT).expect("the script says so first");
    running
}

fn exists(pid: i32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

#[test]
fn kill9_ends_a_program_that_ignores_sigterm() {
    let mut running = shell("trap '' TERM; echo started; while :; do sleep 0.05; done");
    let error = running.terminate(Duration::from_millis(100)).expect_err("it ignores the signal");
    assert!(matches!(error, ProcessError::Late { .. }), "{error}");
    assert!(error.to_string().contains("started"), "the error shows the log");
    assert!(!exists(running.pid()), "the deadline killed it");

    let mut running = shell("trap '' TERM; echo started; while :; do sleep 0.05; done");
    assert!(ended_by(running.kill9().expect("it can be killed"), Signal::KILL));
    assert!(!exists(running.pid()));
}

#[test]
fn terminate_gives_the_status_that_the_program_chose() {
    let mut running = shell("trap 'echo bye; exit 7' TERM; echo started; while :; do sleep 0.05; done");
    assert_eq!(running.terminate(LIMIT).expect("it obeys").code(), Some(7));
    assert_eq!(running.log_text(), "started\nbye\n");
}

#[test]
fn dropping_a_running_program_kills_it() {
    let running = shell("echo started; exec sleep 1000");
    let pid = running.pid();
    assert!(exists(pid));
    drop(running);
    assert!(!exists(pid));
}

#[test]
fn stop_halts_a_program_until_cont() {
    let running = shell("echo started; while :; do :; done");
    running.stop().expect("it can be stopped");
    let stopped = running.usage().expect("a stopped process has numbers");
    assert_eq!(running.usage().expect("a stopped process has numbers").cpu, stopped.cpu);
    running.cont().expect("it can go on");
    let moved = dunlin_tests::deadline::until("more CPU time", LIMIT, || {
        (running.usage().expect("it runs").cpu > stopped.cpu).then_some(())
    });
    moved.expect("it burns CPU again");
}

#[test]
fn usage_counts_memory_threads_and_files() {
    let plain = shell("echo started; while :; do :; done");
    let more = shell("exec 6</dev/null 7</dev/null 8</dev/null; echo started; while :; do :; done");
    let (plain, more) = (plain.usage().expect("it runs"), more.usage().expect("it runs"));
    assert!(plain.rss_kib > 0 && plain.rss_peak_kib >= plain.rss_kib, "{plain:?}");
    assert_eq!((plain.threads, more.open_files - plain.open_files), (1, 3));
}

#[test]
fn program_that_ends_before_it_is_ready_is_an_error_at_once_with_its_log() {
    let mut running = Program::at("/bin/sh").arg("-c").arg("echo no such key; exit 78").start().expect("a shell");
    let nowhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 9));
    let error = running.wait_ready(nowhere, Duration::from_secs(3_600)).expect_err("it ends");
    let ProcessError::Ended { status, log_tail, .. } = error else { panic!("{error}") };
    assert_eq!((status.code(), log_tail.as_str()), (Some(78), "no such key"));
}

#[test]
fn wait_ready_waits_for_200() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has a free port");
    let address = listener.local_addr().expect("it is bound");
    let server = std::thread::spawn(move || {
        for status in ["503 Service Unavailable", "503 Service Unavailable", "200 OK"] {
            let (mut stream, _) = listener.accept().expect("the rig asks");
            let mut request = [0; 1024];
            let len = stream.read(&mut request).expect("the rig asks");
            assert!(request[..len].starts_with(b"GET /-/ready HTTP/1.1\r\n"));
            write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").expect("the rig listens");
        }
    });
    let mut running = shell("echo started; exec sleep 1000");
    running.wait_ready(address, LIMIT).expect("the third answer is 200");
    server.join().expect("all three were asked for");
}

#[test]
fn missing_binary_names_the_command_that_builds_it() {
    let error = Program::ours("dunlin-collector", "dunlin-never-built").expect_err("there is none");
    assert!(error.to_string().contains("run: cargo build -p dunlin-collector --bin dunlin-never-built"), "{error}");
}
