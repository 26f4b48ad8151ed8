//! Answers of a kernel as they are, cut, nested wrongly, and damaged.

use proptest::collection::vec;
use proptest::prelude::*;

use super::super::socket::Table;
use super::*;

const NUMBER: u32 = 7;

fn message(kind: u16, flags: u16, number: u32, content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(HEAD_BYTES + content.len()).expect("a short message");
    let mut bytes = [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), &flags.to_ne_bytes()].concat();
    bytes.extend(number.to_ne_bytes());
    bytes.extend([0; 4]);
    bytes.extend(content);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).expect("a short attribute");
    let mut bytes = [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), value].concat();
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn content(socket: &Socket, state: u8) -> Vec<u8> {
    let mut bytes = vec![0; SOCKET_BYTES];
    bytes[1] = state;
    bytes[4..6].copy_from_slice(&socket.port.to_be_bytes());
    match socket.address {
        IpAddr::V4(v4) => {
            bytes[0] = AF_INET;
            bytes[8..12].copy_from_slice(&v4.octets());
        }
        IpAddr::V6(v6) => {
            bytes[0] = AF_INET6;
            bytes[8..24].copy_from_slice(&v6.octets());
        }
    }
    bytes[64..68].copy_from_slice(&socket.uid.to_ne_bytes());
    let inode = u32::try_from(socket.inode).expect("the kernel tells 32 bits");
    bytes[68..72].copy_from_slice(&inode.to_ne_bytes());
    bytes.extend(attribute(8, &[3]));
    if socket.address.is_ipv6() {
        bytes.extend(attribute(ATTRIBUTE_V6_ONLY, &[u8::from(socket.is_v6_only)]));
    }
    bytes.extend(attribute(15, &[1, 2, 3, 4, 5, 6]));
    bytes
}

fn told(socket: &Socket) -> Vec<u8> {
    message(KIND_BY_FAMILY, 2, NUMBER, &content(socket, state(socket.protocol)))
}

fn read_all(bytes: &[u8], protocol: Protocol) -> (Vec<Socket>, Result<Answer, Malformed>) {
    let mut sockets = Vec::new();
    let answer = read(bytes, protocol, NUMBER, |socket| sockets.push(socket));
    (sockets, answer)
}

fn web() -> Socket {
    let address = "192.0.2.1".parse().expect("an address");
    Socket { protocol: Protocol::Tcp, address, port: 80, uid: 33, inode: 4_711, is_v6_only: false }
}

#[test]
fn a_request_asks_for_listeners_of_one_kind() {
    let bytes = request(Protocol::Tcp, Family::V6, 3);
    assert_eq!(u32_at(&bytes, 0), Some(72));
    assert_eq!((u16_at(&bytes, 4), u16_at(&bytes, 6), u32_at(&bytes, 8)), (Some(20), Some(0x301), Some(3)));
    assert_eq!((&bytes[16..18], u32_at(&bytes, 20)), (&[10, 6][..], Some(1 << 10)));
    let bytes = request(Protocol::Udp, Family::V4, 4);
    assert_eq!((&bytes[16..18], u32_at(&bytes, 20)), (&[2, 17][..], Some(1 << 7)));
    assert!(bytes[24..].iter().all(|&byte| byte == 0));
}

#[test]
fn an_end_an_error_and_lost_answers_end_a_dump() {
    let none = |kind, content: &[u8]| read_all(&message(kind, 0, NUMBER, content), Protocol::Tcp).1;
    let done = Answer { is_done: true, ..Answer::default() };
    assert_eq!(none(KIND_DONE, &[]), Ok(done));
    assert_eq!(none(KIND_DONE, &0_u32.to_ne_bytes()), Ok(done));
    let refused = Answer { error: Some(2), ..done };
    assert_eq!(none(KIND_ERROR, &[&(-2_i32).to_ne_bytes()[..], &[0; 16]].concat()), Ok(refused));
    assert_eq!(none(KIND_DONE, &(-2_i32).to_ne_bytes()), Ok(refused));
    assert_eq!(none(KIND_ERROR, &[1]), Err(Malformed { at: 0 }));
    assert_eq!(none(KIND_OVERRUN, &[]), Ok(Answer { error: Some(ERROR_OVERRUN), ..done }));
    let behind = [message(KIND_DONE, 0, NUMBER, &[0; 4]), told(&web())].concat();
    assert_eq!(read_all(&behind, Protocol::Tcp), (vec![], Ok(done)));
}

#[test]
fn what_was_not_asked_for_is_passed_over() {
    let connected = message(KIND_BY_FAMILY, 0, NUMBER, &content(&web(), 1));
    let unbound = told(&Socket { port: 0, ..web() });
    let other = message(KIND_BY_FAMILY, 0, NUMBER + 1, &content(&web(), STATE_LISTEN));
    let mut local = content(&web(), STATE_LISTEN);
    local[0] = 1;
    let local = message(KIND_BY_FAMILY, 0, NUMBER, &local);
    let bytes = [connected, unbound, other, local, message(1, 0, NUMBER, &[]), told(&web())].concat();
    assert_eq!(read_all(&bytes, Protocol::Tcp), (vec![web()], Ok(Answer::default())));
}

#[test]
fn a_dump_that_was_interrupted_says_so() {
    let content = content(&web(), STATE_LISTEN);
    let bytes = message(KIND_BY_FAMILY, 2 | FLAG_INTERRUPTED, NUMBER, &content);
    let (sockets, answer) = read_all(&bytes, Protocol::Tcp);
    assert_eq!((sockets.len(), answer), (1, Ok(Answer { is_interrupted: true, ..Answer::default() })));
}

#[test]
fn lengths_that_cannot_be_are_refused_where_they_stand() {
    let good = told(&web());
    for length in [0, 3, 15, u32::MAX, u32::try_from(good.len()).expect("short") + 1] {
        let mut wrong = told(&web());
        wrong[0..4].copy_from_slice(&length.to_ne_bytes());
        let (sockets, answer) = read_all(&[good.clone(), wrong].concat(), Protocol::Tcp);
        assert_eq!((sockets.len(), answer), (1, Err(Malformed { at: good.len() })), "{length}");
    }
    let short = message(KIND_BY_FAMILY, 0, NUMBER, &[0; SOCKET_BYTES - 4]);
    assert_eq!(read_all(&short, Protocol::Tcp).1, Err(Malformed { at: 0 }));
    for length in [0_u16, 3, 200] {
        let mut wrong = content(&web(), STATE_LISTEN);
        wrong[SOCKET_BYTES..SOCKET_BYTES + 2].copy_from_slice(&length.to_ne_bytes());
        let wrong = message(KIND_BY_FAMILY, 0, NUMBER, &wrong);
        assert_eq!(read_all(&wrong, Protocol::Tcp), (vec![], Err(Malformed { at: 0 })), "{length}");
    }
}

fn any_socket(protocol: Protocol) -> impl Strategy<Value = Socket> {
    let address = prop_oneof![
        any::<[u8; 4]>().prop_map(|octets| IpAddr::V4(octets.into())),
        any::<[u8; 16]>().prop_map(|octets| IpAddr::V6(octets.into())),
    ];
    (address, 1_u16.., any::<u32>(), any::<u32>(), any::<bool>()).prop_map(move |(address, port, uid, inode, only)| {
        Socket { protocol, address, port, uid, inode: u64::from(inode), is_v6_only: only && address.is_ipv6() }
    })
}

#[test]
fn of_seventy_thousand_sockets_a_table_keeps_those_that_fit_and_counts_the_others() {
    let socket = |number: u32| {
        let address = IpAddr::V4(Ipv4Addr::from(0x7f00_0001 + number / 35_000));
        let port = u16::try_from(1 + number % 35_000).expect("it is below 35,001");
        Socket { protocol: Protocol::Udp, address, port, uid: 0, inode: u64::from(number) + 1, is_v6_only: false }
    };
    let mut table = Table::of(2_000);
    let mut datagrams = 0;
    // As full as those of the kernel.
    for first in (0..70_000).step_by(70) {
        let bytes: Vec<u8> = (first..first + 70).rev().flat_map(|number| told(&socket(number))).collect();
        let answer = read(&bytes, Protocol::Udp, NUMBER, |socket| table.take(socket));
        assert_eq!(answer, Ok(Answer::default()));
        datagrams += 1;
    }
    assert_eq!((table.len(), table.left_out(), datagrams), (2_000, 68_000, 1_000));
    assert!(table.sockets().all(|socket| socket.port <= 1_000), "the lowest are kept, of both addresses");
}

proptest! {
    #[test]
    fn sockets_are_read_as_they_were_told(sockets in vec(any_socket(Protocol::Udp), 0..20)) {
        let bytes: Vec<u8> = sockets.iter().flat_map(told).collect();
        prop_assert_eq!(read_all(&bytes, Protocol::Udp), (sockets, Ok(Answer::default())));
    }

    #[test]
    fn a_datagram_that_is_cut_gives_whole_sockets_alone(
        sockets in vec(any_socket(Protocol::Tcp), 1..8), cut in any::<prop::sample::Index>(),
    ) {
        let bytes: Vec<u8> = sockets.iter().flat_map(told).collect();
        let at = cut.index(bytes.len());
        let (found, answer) = read_all(&bytes[..at], Protocol::Tcp);
        prop_assert_eq!(&found[..], &sockets[..found.len()]);
        let whole: usize = sockets[..found.len()].iter().map(|socket| told(socket).len()).sum();
        let expected = if whole >= at { Ok(Answer::default()) } else { Err(Malformed { at: whole }) };
        prop_assert_eq!(answer, expected);
    }

    #[test]
    fn damaged_answers_never_panic_and_never_give_more_than_they_hold(
        sockets in vec(any_socket(Protocol::Tcp), 0..5), damage in vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        noise: Vec<u8>,
    ) {
        let mut bytes: Vec<u8> = sockets.iter().flat_map(told).chain(noise).collect();
        for (at, byte) in damage {
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
        }
        let (found, _) = read_all(&bytes, Protocol::Tcp);
        prop_assert!(found.len() <= bytes.len() / (HEAD_BYTES + SOCKET_BYTES));
        prop_assert!(found.iter().all(|socket| socket.port != 0));
    }
}
