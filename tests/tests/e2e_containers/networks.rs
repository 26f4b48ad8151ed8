//! Ports in the networks of real containers, without entering them, beside what `ss` says inside of each; and who holds
//! the host's, published ones and their proxies among them.

use std::collections::{BTreeMap, BTreeSet};

use dunlin_shared::inventory::{Item, Port, Protocol, Scope};
use dunlin_tests::engines::{Engine, Kind};
use dunlin_tests::netns::Namespace;
use dunlin_tests::tool;
use dunlin_tests::window::History;

use crate::{Site, engine};

/// Where something listens, with the container whose network it is: `alone tcp 127.0.0.1 8081`.
type Places = BTreeSet<String>;

/// Two servers, of which one takes connections from anywhere.
const BOTH: &str = "httpd -f -p 127.0.0.1:8081 & exec httpd -f -p 8082";
const ALONE: &[&str] = &["--network", "none"];

#[test]
fn ports_in_the_networks_of_docker_are_those_of_ss() {
    let namespace = Namespace::new("networks").expect("a namespace");
    let docker = engine(Kind::Docker, &namespace);
    docker.run(&["network", "create", "--subnet", "10.97.78.0/24", "shop"]).expect("a network");
    docker.launch("alone", ALONE, &["sh", "-c", BOTH]).expect("it starts");
    let published = ["--network", "shop", "-p", "127.0.0.1:18080:80"];
    docker.launch("web", &published, &["httpd", "-f", "-p", "80"]).expect("it starts");
    docker.launch("zaun", &["--network", "container:web"], &["nc", "-l", "-p", "9000"]).expect("it starts");
    docker.launch("open", &["--network", "host"], &["httpd", "-f", "-p", "8083"]).expect("it starts");
    let site = Site::start(&namespace, &docker);
    let ports = agree(&site, &docker, &["alone", "web"]);

    let of = |place: &str| ports.get(place).unwrap_or_else(|| panic!("{place} is not told: {ports:?}"));
    for (place, scope, process, container) in [
        ("alone tcp 127.0.0.1 8081", Scope::Loopback, "httpd", "alone"),
        ("alone tcp :: 8082", Scope::Private, "httpd", "alone"),
        ("web tcp :: 80", Scope::Private, "httpd", "web"),
        ("- tcp :: 8083", Scope::Any, "httpd", "open"),
        ("- tcp 127.0.0.1 18080", Scope::Loopback, "docker-proxy", "web"),
    ] {
        let port = of(place);
        let found = (port.scope, port.process.as_deref(), port.container.as_deref());
        assert_eq!(found, (scope, Some(process), Some(container)), "{place}");
    }
    // Who shares the network of another is told there, and named.
    let shared = ports.iter().find(|(place, _)| place.ends_with(" 9000")).expect("it is told");
    assert_eq!((shared.1.process.as_deref(), shared.1.container.as_deref()), (Some("nc"), Some("zaun")));

    docker.run(&["rm", "-f", "alone"]).expect("it does");
    site.wait("a network that is gone", |history| {
        ports_of(history).keys().all(|place| !place.starts_with("alone ")).then_some(())
    });
    agree(&site, &docker, &["web"]);
}

#[test]
fn ports_in_the_networks_of_podman_are_those_of_ss() {
    let namespace = Namespace::new("networks").expect("a namespace");
    let podman = engine(Kind::Podman, &namespace);
    podman.launch("alone", ALONE, &["sh", "-c", BOTH]).expect("it starts");
    let site = Site::start(&namespace, &podman);
    let ports = agree(&site, &podman, &["alone"]);
    let of = |place: &str| {
        let port = ports.get(place).unwrap_or_else(|| panic!("{place} is not told: {ports:?}"));
        (port.scope, port.process.as_deref(), port.container.as_deref())
    };
    assert_eq!(of("alone tcp 127.0.0.1 8081"), (Scope::Loopback, Some("httpd"), Some("alone")));
    assert_eq!(of("alone tcp :: 8082"), (Scope::Private, Some("httpd"), Some("alone")));
}

#[test]
fn a_port_that_podman_publishes_is_told_with_who_serves_it_and_goes_with_its_container() {
    let namespace = Namespace::new("published").expect("a namespace");
    let podman = engine(Kind::Podman, &namespace);
    let server: &[&str] = &["httpd", "-f", "-p", "80"];
    // On a bridge the port is forwarded and held by the container's monitor; a container without privileges has a proxy.
    podman.launch("bridge", &["-p", "127.0.0.1:18081:80"], server).expect("it starts");
    let rootless = ["--network", "slirp4netns", "-p", "127.0.0.1:18082:80"];
    podman.launch("slirp", &rootless, server).expect("it starts");
    let site = Site::start(&namespace, &podman);
    let ports = agree(&site, &podman, &["bridge", "slirp"]);
    for (place, scope, process, container) in [
        ("- tcp 127.0.0.1 18081", Scope::Loopback, "conmon", "bridge"),
        ("- tcp 127.0.0.1 18082", Scope::Loopback, "rootlessport", "slirp"),
        ("bridge tcp :: 80", Scope::Private, "httpd", "bridge"),
        ("slirp tcp :: 80", Scope::Private, "httpd", "slirp"),
    ] {
        let port = ports.get(place).unwrap_or_else(|| panic!("{place} is not told: {ports:?}"));
        let found = (port.scope, port.process.as_deref(), port.container.as_deref());
        assert_eq!(found, (scope, Some(process), Some(container)), "{place}");
    }
    for (name, port) in [("bridge", 18_081), ("slirp", 18_082)] {
        let container = site.container(name);
        let published: Vec<_> = container.published.iter().map(|one| (one.port, one.inside)).collect();
        assert_eq!(published, [(port, 80)], "{name}");
        podman.run(&["stop", "-t", "0", name]).expect("it does");
        let mut left = Vec::new();
        let gone = site.try_wait("ports that are gone", |history| {
            let is_its = |port: &Port| port.container.as_deref() == Some(name) || port.place.port == published[0].0;
            left = ports_of(history).into_values().filter(is_its).collect();
            left.is_empty().then_some(())
        });
        gone.unwrap_or_else(|error| panic!("{error}: of {name} there are {left:?}"));
    }
    agree(&site, &podman, &[]);
}

/// Waits until the agent says the same as `ss` does in all of these networks, and gives what it says.
fn agree(site: &Site<'_>, engine: &Engine<'_>, names: &[&str]) -> BTreeMap<String, Port> {
    let pids: Vec<(&str, String)> = names
        .iter()
        .map(|name| (*name, engine.run(&["inspect", "--format", "{{.State.Pid}}", name]).expect("it tells")))
        .collect();
    let mut last = (Places::new(), Places::new());
    let found = site.try_wait("the ports that ss says", |history| {
        let mut expected = places("-", &site.namespace().exec("ss", SS).expect("ss is there"));
        for (name, pid) in &pids {
            let inside = [&["-t", pid, "-n", "ss"], SS].concat();
            expected.extend(places(name, &tool::run("nsenter", &inside).expect("it is there")));
        }
        let ports = ports_of(history);
        // Whatever else runs on this machine has networks too.
        let is_ours = |place: &&String| {
            let network = place.split(' ').next();
            network == Some("-") || names.iter().any(|name| network == Some(name))
        };
        let said: Places = ports.keys().filter(is_ours).cloned().collect();
        last = (said, expected);
        (last.0 == last.1).then_some(ports)
    });
    found.unwrap_or_else(|error| panic!("{error}: the agent says {:?}, ss {:?}", last.0, last.1))
}

fn ports_of(history: &History) -> BTreeMap<String, Port> {
    let of = |item: &Item| match item {
        Item::Port(port) => Some(port.clone()),
        _ => None,
    };
    let place = |port: &Port| {
        let protocol = if port.place.protocol == Protocol::Tcp { "tcp" } else { "udp" };
        let network = port.place.network.as_deref().unwrap_or("-");
        format!("{network} {protocol} {} {}", port.place.address, port.place.port)
    };
    history.stock.items().filter_map(of).map(|port| (place(&port), port)).collect()
}

const SS: &[&str] = &["-lntupH"];

/// `tcp LISTEN 0 9 *:8082 *:* users:(("httpd",pid=7,fd=3))`. What the agent speaks from listens to nobody.
fn places(network: &str, listing: &str) -> Places {
    let of = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (address, port) = words[4].rsplit_once(':').expect("a port stands behind the last colon");
        let address = address.trim_matches(['[', ']']).split('%').next().expect("there is a first part");
        let address = if address == "*" { "::" } else { address };
        format!("{network} {} {address} {port}", words[0])
    };
    listing.lines().filter(|line| !line.contains("((\"dunlin-agent\",")).map(of).collect()
}
