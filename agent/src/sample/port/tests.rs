//! Looks as a whole, on recorded trees.

use std::os::unix::fs::symlink;

use dunlin_shared::inventory::Key;

use super::*;
use crate::sample::tree::Tree;

const HEAD: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";

/// A recorded host, and what the other parts of a tick say of it.
struct Host {
    tree: Tree,
    ports: Ports,
    now: u64,
    containers: Vec<(&'static str, Vec<u32>)>,
    is_at_rest: bool,
    published: Vec<(&'static str, Published)>,
}

fn socket(address: [u8; 4], port: u16, uid: u32, inode: u64) -> String {
    let address = u32::from_ne_bytes(address);
    format!(
        "   0: {address:08X}:{port:04X} 00000000:0000 ST 00000000:00000000 00:00000000 00000000 {uid} 0 {inode} 1\n"
    )
}

impl Host {
    fn new() -> Self {
        let tree = Tree::new(&[("proc/net/tcp", HEAD), ("proc/net/udp", HEAD), ("etc/passwd", "root:x:0:0::/:\n")]);
        Self { tree, ports: Ports::new(), now: 0, containers: Vec::new(), is_at_rest: false, published: Vec::new() }
    }

    /// Sets a table of the network that this directory of `proc` is in.
    fn set(&self, place: &str, protocol: Protocol, sockets: &[String]) {
        let state = if protocol == Protocol::Tcp { "0A" } else { "07" };
        let text = format!("{HEAD}{}", sockets.concat().replace("ST", state));
        self.tree.set(&format!("proc/{place}/{}", protocol.as_str()), &text);
    }

    /// In the network of process 40.
    fn listen_inside(&self, port: u16, inode: u64) {
        self.set("40/net", Protocol::Tcp, &[socket([0; 4], port, 0, inode)]);
    }

    fn hold(&self, pid: u32, inode: u64) {
        self.tree.set(&format!("proc/{pid}/fd/none"), "");
        let link = self.tree.path().join(format!("proc/{pid}/fd/{inode}"));
        symlink(format!("socket:[{inode}]"), link).expect("it can be made");
    }

    fn look(&mut self) -> (Stock, Vec<String>) {
        self.now += 1;
        let mut source = Source::new(self.tree.path());
        let (mut stock, mut failures) = (Stock::default(), Failures::default());
        let published: Vec<_> = self.published.iter().map(|(name, published)| (*name, published)).collect();
        let container_of = |pid| {
            let of = |(_, pids): &&(&str, Vec<u32>)| pids.contains(&pid);
            self.containers.iter().find(of).map(|(name, _)| Box::from(*name))
        };
        let running = |(name, pids): &(&str, Vec<u32>)| Running {
            name: (*name).into(),
            pids: pids.clone(),
            is_at_rest: self.is_at_rest,
        };
        let running: Vec<Running> = self.containers.iter().map(running).collect();
        let around = Around {
            pids: &|| vec![1, 20, 30, 40, 50],
            group_of: &|pid| Some(format!("p{pid}").into()),
            container_of: &container_of,
            containers: &running,
            published: &published,
        };
        self.ports.look(&mut source, MonoMs(self.now), &around, &mut Users::default(), &mut stock, &mut failures);
        (stock, failures.into_list().into_iter().map(|failure| failure.error.to_string()).collect())
    }

    /// Ports as `place scope process container user`.
    fn told(&mut self) -> Vec<String> {
        let (stock, said) = self.look();
        assert!(said.is_empty(), "{said:?}");
        let dash = |name: &Option<Box<str>>| name.as_deref().unwrap_or("-").to_owned();
        let line = |item: &Item| match item {
            Item::Port(Port { place, scope, process, container, user }) => {
                let names = [dash(process), dash(container), dash(user)].join(" ");
                Some(format!("{place} {} {names}", scope.as_str()))
            }
            _ => None,
        };
        stock.items().filter_map(line).collect()
    }
}

fn seen(stock: &Stock) -> Seen {
    match stock.get(&Key::Source(NAME.into())) {
        Some(Item::Source(seen)) => seen.clone(),
        other => panic!("{other:?}"),
    }
}

fn published(port: u16) -> Published {
    Published { protocol: Protocol::Tcp, address: [0, 0, 0, 0].into(), port, inside: 80 }
}

#[test]
fn ports_are_told_with_who_holds_them_in_the_tick_in_which_they_are_seen() {
    let mut host = Host::new();
    host.set("net", Protocol::Tcp, &[socket([0; 4], 22, 0, 100), socket([127, 0, 0, 1], 3306, 27, 200)]);
    host.hold(20, 100);
    assert_eq!(host.told(), ["tcp:0.0.0.0:22 any p20 - root", "tcp:127.0.0.1:3306 loopback - - 27"]);
    host.set("net", Protocol::Tcp, &[socket([0; 4], 22, 0, 100), socket([10, 0, 0, 1], 443, 0, 300)]);
    host.hold(30, 300);
    assert_eq!(host.told(), ["tcp:0.0.0.0:22 any p20 - root", "tcp:10.0.0.1:443 private p30 - root"]);
}

#[test]
fn what_the_agent_speaks_from_is_no_port_of_the_host() {
    let mut host = Host::new();
    host.set("net", Protocol::Udp, &[socket([0; 4], 53, 0, 100), socket([0; 4], 1_234, 0, 200)]);
    host.set("net", Protocol::Tcp, &[socket([0; 4], 22, 0, 300)]);
    [200, 300].into_iter().for_each(|inode| host.hold(20, inode));
    symlink("20", host.tree.path().join("proc/self")).expect("it can be made");
    assert_eq!(host.told(), ["tcp:0.0.0.0:22 any p20 - root", "udp:0.0.0.0:53 any - - root"]);
    assert_eq!(host.ports.seeing()[0], Seeing::counted(Kind::Ports, 2, 2), "a port that is not told is not counted");
}

#[test]
fn a_network_at_rest_keeps_what_it_has_and_is_looked_at_now_and_then() {
    let mut host = Host::new();
    host.containers = vec![("dns", vec![40])];
    let drawn = socket([0; 4], 40_000, 0, 100);
    host.set("40/net", Protocol::Tcp, &[]);
    host.set("40/net", Protocol::Udp, &[socket([0; 4], 53, 0, 99), drawn.clone()]);
    let (new, both) = (["dns/udp:0.0.0.0:53 private - dns 0"], "dns/udp:0.0.0.0:40000 private - dns 0");
    assert_eq!(host.told(), new);
    host.is_at_rest = true;
    assert_eq!(host.told(), [new[0], both], "it proved that it stays, though nothing runs any more");
    for _ in 0..20 {
        assert_eq!(host.told(), [new[0], both], "a look at its turn finds no socket that is young again");
    }
    host.set("40/net", Protocol::Udp, &[drawn]);
    let looks = (1..=6).find(|_| host.told() == [both]);
    assert!(looks.is_some_and(|looks| looks > 1), "it is seen at its turn: {looks:?}");
    host.is_at_rest = false;
    host.set("40/net", Protocol::Udp, &[]);
    assert!(host.told().is_empty(), "what runs is looked at at once");
}

/// A container whose network has one listener, as many as before at each look.
fn one_listener(pids: Vec<u32>, inode: u64, port: u16) -> Host {
    let mut host = Host::new();
    host.containers = vec![("db", pids)];
    host.listen_inside(port, inode);
    host.set("40/net", Protocol::Udp, &[]);
    host.tree.set("proc/40/net/sockstat", "sockets: used 9\nTCP: inuse 1 orphan 0\nUDP: inuse 0 mem 91\n");
    host
}

#[test]
fn a_server_that_starts_again_on_its_port_in_a_container_is_its_holder_at_the_next_tick() {
    let mut host = one_listener(vec![20, 40], 100, 3306);
    host.hold(20, 100);
    assert_eq!(host.told(), ["db/tcp:0.0.0.0:3306 private p20 db 0"]);
    std::fs::remove_dir_all(host.tree.path().join("proc/20")).expect("it was there");
    host.containers = vec![("db", vec![30, 40])];
    host.listen_inside(3306, 200);
    host.hold(30, 200);
    assert_eq!(host.told(), ["db/tcp:0.0.0.0:3306 private p30 db 0"]);
}

#[test]
fn one_listener_in_the_place_of_another_is_seen_at_once_when_a_process_ended_or_lost_it() {
    // Holders are not seen.
    let mut host = one_listener(vec![20, 40], 100, 3306);
    assert_eq!(host.told(), ["db/tcp:0.0.0.0:3306 private - db 0"]);
    host.containers = vec![("db", vec![40])];
    host.listen_inside(3307, 200);
    assert_eq!(host.told(), ["db/tcp:0.0.0.0:3307 private - db 0"]);
    // The same process, which lets the one go.
    let mut host = one_listener(vec![40], 100, 3306);
    host.hold(40, 100);
    assert_eq!(host.told(), ["db/tcp:0.0.0.0:3306 private p40 db 0"]);
    host.tree.remove("proc/40/fd/100");
    host.hold(40, 200);
    host.listen_inside(3307, 200);
    assert_eq!(host.told(), ["db/tcp:0.0.0.0:3307 private p40 db 0"]);
}

#[test]
fn what_comes_and_goes_beside_a_server_costs_no_reading() {
    let mut host = one_listener(vec![40], 100, 3306);
    host.told();
    host.containers = vec![("db", vec![40, 50])];
    host.told();
    host.containers = vec![("db", vec![40])];
    // Were it read, this would be seen.
    host.listen_inside(3307, 200);
    assert_eq!(host.told(), ["db/tcp:0.0.0.0:3306 private - db 0"]);
}

#[test]
fn a_network_rests_when_all_that_share_it_do() {
    let running = |name: &str, is_at_rest| Running { name: name.into(), pids: vec![40], is_at_rest };
    let tree = Tree::new(&[("proc/net/tcp", HEAD), ("proc/40/net/tcp", HEAD)]);
    let mut networks = Networks::default();
    for (a, b, rested) in [(true, true, 1), (true, true, 2), (true, false, 0), (false, true, 0), (true, true, 1)] {
        networks.find(tree.path(), &[running("b", b), running("a", a)]);
        assert_eq!(networks.rested(), [rested]);
    }
}

#[test]
fn a_container_has_its_own_ports_and_those_in_the_hosts_network() {
    let mut host = Host::new();
    host.containers = vec![("db", vec![40]), ("shared", vec![50])];
    host.set("40/net", Protocol::Tcp, &[socket([0; 4], 3306, 0, 100), socket([127, 0, 0, 1], 33060, 0, 101)]);
    host.set("40/net", Protocol::Udp, &[]);
    host.set("net", Protocol::Tcp, &[socket([0; 4], 80, 0, 200)]);
    host.tree.set("proc/50/net/none", "");
    symlink(host.tree.path().join("proc/net/tcp"), host.tree.path().join("proc/50/net/tcp")).expect("it can be made");
    host.hold(50, 200);
    host.hold(40, 100);
    let expected = [
        "tcp:0.0.0.0:80 any p50 shared 0",
        "db/tcp:0.0.0.0:3306 private p40 db 0",
        "db/tcp:127.0.0.1:33060 loopback - db 0",
    ];
    assert_eq!(host.told(), expected);
}

#[test]
fn a_published_port_names_its_container_with_a_proxy_and_without() {
    let mut host = Host::new();
    host.published = vec![("web", published(80)), ("api", published(8080))];
    host.set("net", Protocol::Tcp, &[socket([0; 4], 80, 0, 100), socket([10, 0, 0, 1], 80, 0, 101)]);
    host.hold(30, 100);
    let expected =
        ["tcp:0.0.0.0:80 any p30 web root", "tcp:0.0.0.0:8080 any - api -", "tcp:10.0.0.1:80 private - - root"];
    assert_eq!(host.told(), expected);
}

#[test]
fn without_its_tables_a_host_has_a_failure_and_a_source_that_does_not_work() {
    let mut host = Host::new();
    host.set("net", Protocol::Tcp, &[socket([0; 4], 22, 0, 100)]);
    host.tree.remove("proc/net/udp");
    let (stock, said) = host.look();
    assert!(said.len() == 1 && said[0].contains("proc/net/udp"), "{said:?}");
    assert!(!seen(&stock).is_working && stock.len() == 2, "what was read before is told");
    host.set("net", Protocol::Udp, &[]);
    assert!(seen(&host.look().0).is_working);
}

#[test]
fn ports_beyond_what_a_node_may_have_are_counted_and_those_told_stay_the_same() {
    let mut host = Host::new();
    let all: Vec<String> = (1..=6_000_u16).rev().map(|port| socket([127, 0, 0, 1], port, 0, u64::from(port))).collect();
    host.set("net", Protocol::Tcp, &all);
    host.containers = vec![("db", vec![40])];
    host.set("40/net", Protocol::Tcp, &[socket([0; 4], 3306, 0, 9_999)]);
    host.set("40/net", Protocol::Udp, &[]);
    let (stock, _) = host.look();
    assert_eq!((stock.len(), seen(&stock).left_out), (2_001, 4_001));
    assert_eq!(host.look().0.change_from(&stock), None);
}

#[test]
fn what_a_source_says_fits() {
    for text in [REFUSED, OTHERWISE, CUT, TOO_MANY] {
        assert!(text.len() <= dunlin_shared::limits::FACT_BYTES_MAX, "{text}");
    }
}
