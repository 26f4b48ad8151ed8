//! Lines as the kernel writes them, and lines that are none.

use proptest::prelude::*;

use super::*;
use crate::sample::tree::Tree;

const HEAD: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";

fn line(address: IpAddr, port: u16, state: &str, uid: u32, inode: u64) -> String {
    let words = |octets: &[u8]| -> String {
        let words = octets.chunks_exact(4).map(|word| u32::from_ne_bytes(word.try_into().expect("four bytes")));
        words.map(|word| format!("{word:08X}")).collect()
    };
    let address = match address {
        IpAddr::V4(v4) => words(&v4.octets()),
        IpAddr::V6(v6) => words(&v6.octets()),
    };
    let other = "0".repeat(address.len());
    format!(
        "   0: {address}:{port:04X} {other}:0000 {state} 00000000:00000000 00:00000000 00000000 {uid:>5}        0 {inode} 1 0000000000000000 100 0 0 10 0\n"
    )
}

fn found(protocol: Protocol, text: &str) -> (Vec<String>, Result<bool, SampleError>) {
    let tree = Tree::new(&[("net/table", text)]);
    let mut found = Vec::new();
    let outcome = read(&tree.path().join("net/table"), protocol, |socket| {
        let Socket { protocol, address, port, uid, inode, .. } = socket;
        found.push(format!("{}:{address}:{port} {uid} {inode}", protocol.as_str()));
    });
    (found, outcome)
}

#[test]
fn a_recorded_host_is_told() {
    let tcp = "   0: 0100007F:0277 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 11234 1 ffff 100 0 0 10 0\n\
               \x20  1: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 8080 1\n\
               \x20  2: 0500000A:0016 0100000A:C001 01 00000000:00000000 02:000A 00000000     0        0 99 1\n\
               \x20  3: 00000000:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 7 1\n";
    let tcp6 = "   0: 00000000000000000000000001000000:0CEA 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000   110        0 5 1\n";
    let udp = "  361: 00000000:0044 00000000:0000 07 00000000:00000000 00:00000000 00000000   101        0 6 2 ffff 0\n\
               \x20 362: 0100007F:0045 0100007F:0046 01 00000000:00000000 00:00000000 00000000   101        0 8 2 ffff 0\n";
    let tables = [(Protocol::Tcp, tcp), (Protocol::Tcp, tcp6), (Protocol::Udp, udp)];
    let found = tables.map(|(protocol, text)| {
        let (found, outcome) = found(protocol, &format!("{HEAD}{text}"));
        assert!(matches!(outcome, Ok(false)), "{outcome:?}");
        found.join(", ")
    });
    let expected =
        ["tcp:127.0.0.1:631 0 11234, tcp:0.0.0.0:22 1000 8080", "tcp:::1:3306 110 5", "udp:0.0.0.0:68 101 6"];
    assert_eq!(found, expected, "what stands behind a connection is no listener");
}

#[test]
fn a_line_that_is_none_is_named_and_what_stands_before_it_is_told() {
    let good = line("10.0.0.1".parse().expect("an address"), 1, "0A", 0, 9);
    for wrong in
        ["nonsense", "   1: 0100007F:0277", "   1: +100007F:0277 00000000:0000 0A 0:0 00:0 0 0 0 1", &"x".repeat(9_000)]
    {
        let (found, outcome) = found(Protocol::Tcp, &format!("{HEAD}{good}{wrong}\n"));
        let said = outcome.expect_err("it is no line").to_string();
        assert!(said.contains("net/table line 3") && found.len() == 1, "{said}");
    }
}

#[test]
fn of_a_table_that_never_ends_a_bounded_part_is_read() {
    let one = line("10.0.0.1".parse().expect("an address"), 53, "07", 0, 9);
    let (found, outcome) = found(Protocol::Udp, &format!("{HEAD}{}", one.repeat(2 * LINES_MAX)));
    assert!(matches!(outcome, Ok(true)), "{outcome:?}");
    assert_eq!(found.len(), LINES_MAX);
}

proptest! {
    #[test]
    fn lines_are_read_as_the_kernel_writes_them(
        v6: Option<[u8; 16]>, v4: [u8; 4], port in 1_u16.., uid: u32, inode in 0..u64::from(u32::MAX), is_tcp: bool,
    ) {
        let address = v6.map_or_else(|| IpAddr::from(v4), IpAddr::from);
        let (protocol, state) = if is_tcp { (Protocol::Tcp, "0A") } else { (Protocol::Udp, "07") };
        let text = line(address, port, state, uid, inode);
        let socket = Socket { protocol, address, port, uid, inode, is_v6_only: false };
        prop_assert_eq!(parse(text.trim_end().as_bytes(), protocol), Some(Line::Listens(socket)));
    }

    #[test]
    fn any_line_is_read_or_refused(bytes: Vec<u8>, cut in 0_usize..160, at in 0_usize..160, byte: u8) {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let mut text = line(IpAddr::from([10, 0, 0, 1]), 80, "0A", 0, 1).into_bytes();
            text.truncate(cut);
            if let Some(place) = text.get_mut(at) {
                *place = byte;
            }
            for bytes in [&bytes, &text] {
                if let Some(Line::Listens(socket)) = parse(bytes, protocol) {
                    prop_assert!(socket.port != 0 && socket.protocol == protocol);
                }
            }
        }
    }
}
