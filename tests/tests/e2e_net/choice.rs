//! Which collector an agent goes to: a list of several, and a name that comes to mean another address.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use dunlin_tests::netns::Namespace;
use dunlin_tests::pki::Authority;
use dunlin_tests::process::Program;
use dunlin_tests::scratch::Scratch;
use dunlin_tests::site::{Agent, Collector, HTTP, QUIC_PORT, with_files};
use dunlin_tests::topology::{COLLECTOR, Direct};

use crate::LIMIT;

/// Nothing has this address.
const NOBODY: Ipv4Addr = Ipv4Addr::new(10, 97, 1, 99);
/// The collector's second address.
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(10, 97, 1, 3);
/// Nothing listens on this port.
const CLOSED_PORT: u16 = 9741;
const STRANGER_PORT: u16 = 9742;
/// Three collectors that each take 5 s at most, and the pauses between.
const ROUND_LIMIT: Duration = Duration::from_secs(60);
/// An attempt at the old address, the longest back-off, and an attempt at the new one.
const FOLLOW_LIMIT: Duration = Duration::from_secs(60);
const NAME: &str = "collector.fleet.test";

#[test]
fn agent_reaches_the_one_collector_of_its_list_that_serves_it_and_says_why_not_the_others() {
    let net = Direct::new().expect("the rig makes a network");
    let (authority, other) = (Authority::new().expect("an authority"), Authority::new().expect("an authority"));
    let state = Scratch::in_memory("stranger").expect("a directory");
    other.collector().expect("a certificate").write(state.path(), other.ca_der(), "collector").expect("it is writable");
    let stranger = Program::ours("dunlin-collector", "dunlin-collector").expect("it is built").inside(&net.collector);
    let stranger = stranger.arg("run").arg("--state-dir").arg(state.path());
    let listen = format!("0.0.0.0:{STRANGER_PORT}");
    let stranger = stranger.args(["--quic-listen", &listen, "--http-listen", "127.0.0.1:9748"]);
    let mut stranger = stranger.start().expect("it starts");
    stranger.wait_ready(SocketAddr::from((Ipv4Addr::LOCALHOST, 9748)), LIMIT).expect("a foreign collector");

    let (nobody, closed) = (format!("{NOBODY}:{QUIC_PORT}"), format!("{COLLECTOR}:{CLOSED_PORT}"));
    let foreign = format!("{COLLECTOR}:{STRANGER_PORT}");
    let list = format!("{nobody},{closed},{foreign},{COLLECTOR}:{QUIC_PORT}");
    // Nobody serves it yet, so that it tries them all whichever it begins with.
    let mut agent = Agent::start(&net.agent, &authority, &list).expect("an agent");
    for reason in [
        format!("not connected: {nobody} ({nobody}) did not answer within 5 s"),
        format!("not connected: {closed} ({closed}) did not answer within 5 s"),
        format!("not connected: {foreign} ({foreign}): this agent does not believe the collector's certificate"),
    ] {
        agent.wait_log(&reason, ROUND_LIMIT).expect("the reason is said");
    }

    let collector = Collector::start(&net.collector, &authority).expect("a collector");
    collector.wait_committed(3, ROUND_LIMIT).expect("the agent finds it");
    drop(stranger);
    let log = agent.log_text();
    let said = log.lines().filter(|line| line.contains(&nobody)).count();
    assert!(said <= 3, "the same reason is not said in every round:\n{log}");
}

#[test]
fn agent_follows_its_collector_when_the_hosts_file_changes() {
    let hosts = Scratch::new("hosts").expect("a directory");
    let write = |address: Ipv4Addr| {
        fs::write(hosts.join("hosts"), format!("127.0.0.1 localhost\n{address} {NAME} # ours\n")).expect("writable");
    };
    write(COLLECTOR);
    follow(&[(&hosts.join("hosts"), "/etc/hosts")], write);
}

#[test]
fn agent_follows_its_collector_when_the_dns_changes() {
    let files = Scratch::new("resolv").expect("a directory");
    fs::write(files.join("hosts"), "127.0.0.1 localhost\n").expect("it is writable");
    fs::write(files.join("resolv.conf"), format!("nameserver {COLLECTOR}\noptions timeout:1\n")).expect("writable");
    let binds = [(files.join("hosts"), "/etc/hosts"), (files.join("resolv.conf"), "/etc/resolv.conf")];
    let binds = binds.each_ref().map(|(file, target)| (file.as_path(), *target));
    let answer = AtomicU32::new(COLLECTOR.to_bits());
    let done = AtomicBool::new(false);
    follow_with(&binds, |address| answer.store(address.to_bits(), Ordering::SeqCst), &|namespace, follow| {
        let socket = namespace.enter(|| UdpSocket::bind((COLLECTOR, 53))).expect("the namespace is there");
        let socket = socket.expect("the port is free");
        socket.set_read_timeout(Some(Duration::from_millis(100))).expect("a socket has a time-out");
        std::thread::scope(|scope| {
            scope.spawn(|| serve_names(&socket, &answer, &done));
            // A failed test must end the server as well.
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(follow));
            done.store(true, Ordering::SeqCst);
            if let Err(panic) = outcome {
                std::panic::resume_unwind(panic);
            }
        });
    });
}

fn follow(files: &[(&Path, &str)], move_to: impl Fn(Ipv4Addr)) {
    follow_with(files, move_to, &|_, follow| follow());
}

/// The collector moves to another address, and its name with it.
fn follow_with(files: &[(&Path, &str)], move_to: impl Fn(Ipv4Addr), beside: &dyn Fn(&Namespace, &dyn Fn())) {
    let net = Direct::new().expect("the rig makes a network");
    net.collector.ip(&["address", "add", &format!("{ELSEWHERE}/24"), "dev", "wire"]).expect("a second address");
    let authority = Authority::new().expect("an authority");
    beside(&net.collector, &|| {
        let mut collector = Collector::start(&net.collector, &authority).expect("a collector");
        let prefix = with_files(files).expect("unshare is there");
        let mut agent = Agent::start_under(&net.agent, &authority, NAME, prefix).expect("an agent");
        collector.wait_committed(3, LIMIT).expect("the agent finds it by its name");
        move_to(ELSEWHERE);
        collector.kill9().expect("it can be killed");
        collector.restart_on((ELSEWHERE, QUIC_PORT).into()).expect("it starts at its new address");
        collector.wait_committed(3, FOLLOW_LIMIT).expect("the agent finds it again");
        collector
            .wait_window("a window without holes", LIMIT, |window| window.of(agent.node).ok()?.check().ok())
            .expect("nothing is missing at last");
        let status = agent.terminate(LIMIT).expect("it stops");
        assert!(status.success(), "{}", agent.log_text());
        assert!(collector.running().get(HTTP, "/-/healthy").is_ok());
    });
}

/// A server that knows one name and its IPv4 address.
fn serve_names(socket: &UdpSocket, answer: &AtomicU32, done: &AtomicBool) {
    let mut buffer = [0; 512];
    while !done.load(Ordering::SeqCst) {
        let Ok((len, from)) = socket.recv_from(&mut buffer) else { continue };
        let Some(reply) = reply_to(&buffer[..len], answer.load(Ordering::SeqCst)) else { continue };
        if let Err(error) = socket.send_to(&reply, from) {
            eprintln!("an answer was not sent: {error}");
        }
    }
}

/// The question is repeated, and answered when it asks for an A record; for others there is none.
fn reply_to(query: &[u8], address: u32) -> Option<Vec<u8>> {
    const HEADER: usize = 12;
    let labels = query.get(HEADER..)?;
    let name_len = labels.iter().position(|&byte| byte == 0)? + 1;
    let question = labels.get(..name_len + 4)?;
    let is_a = question[name_len..name_len + 2] == [0, 1];
    let mut reply = query.get(..2)?.to_vec();
    // Response, recursion desired and available, no error; one question, one answer or none.
    reply.extend([0x81, 0x80, 0, 1, 0, u8::from(is_a), 0, 0, 0, 0]);
    reply.extend(question);
    if is_a {
        // The name of the question, A, IN, a time to live of 60 s, four bytes.
        reply.extend([0xc0, 0x0c, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        reply.extend(address.to_be_bytes());
    }
    Some(reply)
}
