//! What the agent says of listening sockets beside what `ss` says of them, in a network that holds a test's own alone.
//!
//! `ss` reads the kernel as the agent does, and its holders from `/proc`, so that both must agree to the last one.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use dunlin_tests::netns::Namespace;
use dunlin_tests::scratch::Scratch;
use dunlin_tests::tool;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with, sockopt};
use serde_json::Value;

use crate::agent_binary;

/// Nobody, as Debian numbers it.
const NOBODY: &str = "65534";

/// Everything that may stand in a table of sockets, kept open.
#[derive(Debug)]
struct Sockets {
    _tcp: Vec<TcpListener>,
    _udp: Vec<UdpSocket>,
    _streams: Vec<TcpStream>,
    _raw: Vec<OwnedFd>,
}

/// A line of `ss -lntup`, or what the agent says of a port: where, and who holds it.
type Listed = BTreeMap<(String, String), BTreeSet<String>>;

fn namespace() -> Namespace {
    let namespace = Namespace::new("ports").expect("a namespace");
    for device in ["all", "default", "lo"] {
        namespace.sysctl(&format!("net/ipv6/conf/{device}/disable_ipv6"), "0").expect("it has IPv6");
    }
    for address in ["10.97.9.1/32", "192.0.2.9/32", "fd00::9/128", "2001:db8::9/128"] {
        // One of version 6 counts as tentative for a moment, and cannot be bound, unless told to skip that.
        let skip: &[&str] = if address.contains(':') { &["nodad"] } else { &[] };
        namespace.ip(&[&["address", "add", address, "dev", "lo"], skip].concat()).expect("it takes addresses");
    }
    namespace
}

fn open() -> Sockets {
    let tcp = ["127.0.0.1:7001", "0.0.0.0:7002", "10.97.9.1:7003", "192.0.2.9:7004", "[::1]:7005", "[::]:7006"];
    let tcp = [&tcp[..], &["[fd00::9]:7007", "[2001:db8::9]:7008", "127.0.0.1:7009"]].concat();
    let tcp: Vec<_> = tcp.iter().map(|address| TcpListener::bind(address).expect("it is free")).collect();
    let udp = ["127.0.0.1:7101", "0.0.0.0:7102", "[::1]:7103", "[::]:7104", "0.0.0.0:50104", "127.0.0.1:7105"];
    let udp: Vec<_> = udp.iter().map(|address| UdpSocket::bind(address).expect("it is free")).collect();
    // Connected ones are listed by neither.
    udp[5].connect("127.0.0.1:7101").expect("it is there");
    let streams: Vec<_> = (0..20).map(|_| TcpStream::connect("127.0.0.1:7001").expect("it listens")).collect();
    let mut raw = Vec::new();
    // Two on one place, and one that takes IPv6 alone beside one that takes IPv4.
    for (port, kind, only) in
        [(7201, SocketType::STREAM, true), (7201, SocketType::STREAM, true), (7202, SocketType::DGRAM, true)]
    {
        raw.push(bound(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)), kind, only));
    }
    for (port, kind) in [(7201, SocketType::STREAM), (7202, SocketType::DGRAM), (7202, SocketType::DGRAM)] {
        raw.push(bound(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)), kind, false));
    }
    raw.push(bound("[::ffff:127.0.0.1]:7203".parse().expect("an address"), SocketType::STREAM, false));
    // Bound, and not listening.
    let quiet = made(AddressFamily::INET, SocketType::STREAM);
    bind(&quiet, &SocketAddr::from((Ipv4Addr::LOCALHOST, 7301))).expect("it is free");
    raw.push(quiet);
    Sockets { _tcp: tcp, _udp: udp, _streams: streams, _raw: raw }
}

/// None that is handed on to the programs that a test starts.
fn made(family: AddressFamily, kind: SocketType) -> OwnedFd {
    socket_with(family, kind, SocketFlags::CLOEXEC, None).expect("a socket")
}

fn bound(address: SocketAddr, kind: SocketType, only: bool) -> OwnedFd {
    let family = if address.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    let socket = made(family, kind);
    sockopt::set_socket_reuseport(&socket, true).expect("it may be shared");
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, only).expect("it is of IPv6");
    }
    bind(&socket, &address).expect("it is free");
    if kind == SocketType::STREAM {
        listen(&socket, 16).expect("it is bound");
    }
    socket
}

/// What the agent says in this network, run behind these words.
fn said(namespace: &Namespace, before: &[&str]) -> Value {
    let words: Vec<OsString> = before.iter().map(OsString::from).chain([agent_binary().into()]).collect();
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).args(["once", "--json"]);
    let text = namespace.finish(&mut command).expect("it tells");
    serde_json::from_str(&text).expect("it is JSON")
}

fn source(said: &Value) -> &Value {
    let sources = said["sources"].as_array().expect("a list");
    sources.iter().find(|source| source["name"] == "ports").expect("it is told")
}

fn ports(said: &Value) -> &Vec<Value> {
    said["ports"].as_array().expect("a list")
}

fn agents(said: &Value) -> Listed {
    let text = |port: &Value, key: &str| port[key].as_str().unwrap_or_default().to_owned();
    // Whatever containers run on this machine have networks of their own.
    let listed = ports(said).iter().filter(|port| port["network"].is_null()).map(|port| {
        let place = format!("{} {}", text(port, "address"), port["port"]);
        let holders = port["process"].as_str().map(str::to_owned).into_iter().collect();
        ((text(port, "protocol"), place), holders)
    });
    listed.collect()
}

/// `udp UNCONN 0 0 127.0.0.1%lo:53 0.0.0.0:* users:(("name",pid=1,fd=2),...)`
fn ss(namespace: &Namespace) -> Listed {
    let mut listed = Listed::new();
    for line in namespace.exec("ss", &["-lntupH"]).expect("ss is there").lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (address, port) = words[4].rsplit_once(':').expect("a port stands behind the last colon");
        let address = address.trim_matches(['[', ']']).split('%').next().expect("there is a first part");
        let address = if address == "*" { "::" } else { address };
        let holders = listed.entry((words[0].to_owned(), format!("{address} {port}"))).or_default();
        holders.extend(line.split('"').skip(1).step_by(2).map(str::to_owned));
    }
    listed
}

#[test]
fn ports_agree_with_ss() {
    let namespace = namespace();
    let sockets = namespace.enter(open).expect("they open");
    let (said, expected) = (said(&namespace, &["env"]), ss(&namespace));
    let found = agents(&said);
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    for (place, holders) in &found {
        // `ss` cuts names after 15 bytes, as the kernel does.
        let is_listed = |holder: &String| expected[place].iter().any(|name| holder.starts_with(name.as_str()));
        assert!(holders.len() == 1 && holders.iter().all(is_listed), "{place:?} {holders:?} {:?}", expected[place]);
    }
    assert_eq!(found.len(), 19, "{found:?}");
    let mut own = ports(&said).iter().filter(|port| port["network"].is_null());
    assert!(own.all(|port| port["user"] == "root" && port["container"].is_null()));
    let scope = |number: u16| {
        let of = |port: &&Value| port["port"] == number;
        ports(&said).iter().find(of).and_then(|port| port["scope"].as_str()).expect("it is told")
    };
    let scopes = [7001, 7002, 7003, 7004, 7005, 7006, 7007, 7008, 7203].map(scope);
    let expected = ["loopback", "any", "private", "public", "loopback", "any", "private", "public", "loopback"];
    assert_eq!(scopes, expected);
    drop(sockets);
}

#[test]
fn without_privileges_ports_are_told_without_their_holders_and_with_what_would_show_them() {
    let namespace = namespace();
    let sockets = namespace.enter(open).expect("they open");
    let (reuid, regid) = (format!("--reuid={NOBODY}"), format!("--regid={NOBODY}"));
    let setpriv = ["setpriv", &reuid, &regid, "--clear-groups", "--bounding-set=-all", "--no-new-privs"];
    // The directories of a build may be closed to others.
    let copy = Scratch::new("ports").expect("a directory");
    let program = copy.join("dunlin-agent");
    fs::copy(agent_binary(), &program).expect("it fits");
    fs::set_permissions(copy.path(), Permissions::from_mode(0o755)).expect("it is ours");
    let mut command = tool::command(setpriv[0]).expect("setpriv is there");
    command.args(&setpriv[1..]).arg(&program).args(["once", "--json"]);
    let text = namespace.finish(&mut command).expect("it tells");
    let said: Value = serde_json::from_str(&text).expect("it is JSON");
    let (found, expected) = (agents(&said), ss(&namespace));
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    assert!(found.values().all(BTreeSet::is_empty), "{found:?}");
    assert!(ports(&said).iter().filter(|port| port["network"].is_null()).all(|port| port["user"] == "root"));
    let source = source(&said);
    let says = source["says"].as_str().expect("a text");
    assert!(source["working"] == true && says.contains("CAP_SYS_PTRACE CAP_DAC_READ_SEARCH"), "{source}");
    drop(sockets);
}

#[test]
fn without_netlink_the_tables_of_proc_tell_the_same() {
    let namespace = namespace();
    let sockets = namespace.enter(open).expect("they open");
    let strace = tool::find("strace").expect("strace is there").into_os_string().into_string().expect("a plain path");
    // As systemd refuses it with RestrictAddressFamilies=.
    let inject = "inject=socket:error=EAFNOSUPPORT";
    let said = said(&namespace, &[&strace, "-f", "-qq", "-o", "/dev/null", "-e", "trace=socket", "-e", inject]);
    assert_eq!(agents(&said).keys().collect::<Vec<_>>(), ss(&namespace).keys().collect::<Vec<_>>());
    assert!(source(&said)["says"].as_str().is_some_and(|says| says.contains("AF_NETLINK")), "{said}");
    drop(sockets);
}
