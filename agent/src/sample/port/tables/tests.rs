//! When tables of a network are read, and when what is known of them stands.

use dunlin_shared::time::MonoMs;
use proptest::prelude::*;

use super::*;
use crate::sample::tree::Tree;

const HEAD: &str = "  sl  local_address rem_address   st\n";

/// One network, and what was read of it.
struct Net {
    tree: Tree,
    tables: Tables,
    reads: u32,
}

impl Net {
    fn new() -> Self {
        let files = ["tcp", "udp"].map(|name| (format!("proc/7/net/{name}"), HEAD));
        let files: Vec<_> = files.iter().map(|(name, text)| (name.as_str(), *text)).collect();
        Self { tree: Tree::new(&files), tables: Tables::of(512), reads: 0 }
    }

    /// Sets what listens, and what the kernel counts: sockets of TCP and UDP, and connections.
    fn set(&self, table: &str, ports: &[u16], counts: Option<[u64; 3]>) {
        let state = if table.starts_with("tcp") { "0A" } else { "07" };
        let line = |port: &u16| format!(" 0: 00000000:{port:04X} 00000000:0000 {state} 0:0 0:0 0 0 0 {port}\n");
        self.tree.set(&format!("proc/7/net/{table}"), &format!("{HEAD}{}", ports.iter().map(line).collect::<String>()));
        if let Some([tcp, udp, connections]) = counts {
            let text =
                format!("sockets: used 9\nTCP: inuse {tcp} orphan 0 tw 7 alloc 2 mem 38\nUDP: inuse {udp} mem 91\n");
            self.tree.set("proc/7/net/sockstat", &text);
            let text = format!("Ip: A\nIp: 1\nTcp: MaxConn CurrEstab InSegs\nTcp: -1 {connections} 5\n");
            self.tree.set("proc/7/net/snmp", &text);
        }
    }

    fn look_with(&mut self, reads: u32, is_anew: bool) -> (Vec<u16>, Effort) {
        let mut source = Source::new(self.tree.path());
        let mut effort = Effort { reads, is_spent: false, is_cut: false };
        let mut young = Young::default();
        young.begin(&mut source, MonoMs(0));
        let outcome = self.tables.look(&mut source, Path::new("proc/7/net"), is_anew, &mut effort, &mut young);
        outcome.expect("it is readable");
        self.reads += reads - effort.reads;
        (self.tables.pour(100).sockets().map(|socket| socket.port).collect(), effort)
    }

    fn look(&mut self) -> Vec<u16> {
        self.look_with(9, false).0
    }
}

#[test]
fn tables_are_read_again_when_the_kernel_counts_otherwise() {
    let mut net = Net::new();
    net.set("tcp", &[80, 443], Some([2, 0, 0]));
    assert_eq!((net.look(), net.reads), (vec![80, 443], 1));
    assert_eq!((net.look(), net.reads), (vec![80, 443], 1));
    // Three connections and nothing else.
    net.set("tcp", &[80, 443], Some([5, 0, 3]));
    assert_eq!((net.look(), net.reads), (vec![80, 443], 1));
    // One listener more, or a connection that is being closed.
    net.set("tcp", &[80, 443, 8080], Some([6, 0, 3]));
    assert_eq!((net.look(), net.reads), (vec![80, 443, 8080], 2));
    net.set("tcp", &[443], Some([1, 0, 0]));
    assert_eq!((net.look(), net.reads), (vec![443], 3));
    net.set("tcp", &[443], Some([0, 0, 0]));
    assert_eq!((net.look(), net.reads), (vec![], 3), "without sockets there is nothing to read");
}

#[test]
fn with_many_connections_and_where_nothing_is_counted_a_table_is_always_read() {
    let mut net = Net::new();
    net.set("tcp", &[80], Some([1 + MANY, 0, MANY]));
    net.look();
    net.set("tcp", &[81], None);
    assert_eq!((net.look(), net.reads), (vec![81], 2));
    let mut blind = Net::new();
    blind.set("tcp", &[80], None);
    assert_eq!(
        (blind.look(), blind.look(), blind.reads),
        (vec![80], vec![80], 4),
        "that of IPv6 is looked for as well"
    );
}

#[test]
fn one_listener_in_the_place_of_another_is_seen_when_it_is_read_anew() {
    let mut net = Net::new();
    net.set("tcp", &[80], Some([1, 0, 0]));
    net.look();
    net.set("tcp", &[81], None);
    assert_eq!(net.look(), [80]);
    assert_eq!(net.look_with(9, true).0, [81]);
}

#[test]
fn a_table_that_has_to_wait_keeps_what_is_known_of_it() {
    let mut net = Net::new();
    net.set("tcp", &[80], Some([1, 1, 0]));
    net.set("udp", &[53], None);
    let (ports, effort) = net.look_with(0, false);
    assert!(ports == [53] && effort.is_spent, "{ports:?} {effort:?}");
    assert_eq!(net.look(), [80, 53]);
    net.set("tcp", &[80, 81], Some([2, 1, 0]));
    assert_eq!(net.look_with(0, false).0, [80, 53]);
    assert_eq!(net.look(), [80, 81, 53]);
}

#[test]
fn what_has_no_room_is_counted_once() {
    let mut net = Net::new();
    let many: Vec<u16> = (1..=700).collect();
    net.set("tcp", &many, Some([700, 0, 0]));
    net.look();
    let poured = net.tables.pour(100);
    assert_eq!((poured.len(), poured.left_out()), (100, 600));
    net.look();
    assert_eq!(net.reads, 1, "what was not kept is counted among those that listen");
}

proptest! {
    #[test]
    fn any_counts_are_read_or_refused(
        before in "[ -~\\n]{0,60}",
        key in prop_oneof![Just("inuse "), Just("inuses "), Just("mem ")],
        number in prop_oneof!["[0-9]{1,25}", "[ -~]{0,8}"],
        text: String,
    ) {
        prop_assert!(counts(&text, ["TCP:", "UDP:"]).is_none() || text.contains("UDP:"));
        let text = format!("{before}\nTCP: {key}{number}\nUDP: inuse 17 mem 91\n");
        let is_before = before.lines().any(|line| line.starts_with("TCP:") || line.starts_with("UDP:"));
        let expected = number.split(' ').next().filter(|_| key == "inuse ").and_then(|word| word.parse().ok());
        let found = counts(&text, ["TCP:", "UDP:"]);
        prop_assert!(is_before || found == expected.map(|tcp| [tcp, 17]), "{found:?} of {text}");
    }

    #[test]
    fn connections_of_any_file_are_read_or_refused(
        names in prop::collection::vec(prop_oneof![Just("CurrEstab"), Just("MaxConn"), Just("")], 0..6),
        values in prop::collection::vec(prop_oneof![Just("7"), Just("-1"), Just("x"), Just("99999999999999999999999")], 0..6),
        text: String,
    ) {
        established(&text);
        let at = names.iter().position(|name| *name == "CurrEstab");
        let value = at.and_then(|at| values.get(at));
        let text = format!("Ip: A\nIp: 1\nTcp: {}\nTcp: {}\n", names.join(" "), values.join(" "));
        prop_assert_eq!(established(&text), value.filter(|value| **value == "7").map(|_| 7));
        let net = Net::new();
        net.tree.set("proc/7/net/snmp", &text);
        let found = connections(&mut Source::new(net.tree.path()), Path::new("proc/7/net"));
        prop_assert_eq!(found, established(&text));
    }
}
