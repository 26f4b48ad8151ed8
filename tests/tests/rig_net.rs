//! Shows that namespaces, loss, cuts, NAT and counters of the rig are real, with plain datagrams.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::time::Duration;

use dunlin_tests::deadline::until;
use dunlin_tests::firewall::{self, Loss, Way};
use dunlin_tests::http;
use dunlin_tests::netns::{Counters, Namespace};
use dunlin_tests::process::Program;
use dunlin_tests::topology::{AGENT, COLLECTOR, Direct, FAR_COLLECTOR, Natted, ROUTER};
use quinn::udp::{Transmit, UdpSocketState};

/// Far above what any step takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(20);

fn bind(namespace: &Namespace, address: Ipv4Addr, port: u16) -> UdpSocket {
    let bound = namespace.enter(|| UdpSocket::bind((address, port))).expect("the namespace is there");
    let socket = bound.expect("the address is the namespace's own");
    socket.set_read_timeout(Some(LIMIT)).expect("a socket takes a timeout");
    socket
}

fn receive(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut buffer = [0; 2048];
    let (len, from) = socket.recv_from(&mut buffer).expect("a datagram comes within the limit");
    (buffer[..len].to_vec(), from)
}

fn send(socket: &UdpSocket, bytes: &[u8], to: SocketAddr) {
    assert_eq!(socket.send_to(bytes, to).expect("the link is up"), bytes.len());
}

#[test]
fn counters_count_a_datagram_exactly() {
    let net = Direct::new().expect("the rig makes a network");
    let (agent, collector) = (bind(&net.agent, AGENT, 0), bind(&net.collector, COLLECTOR, 9737));
    assert_eq!(net.agent_counters().expect("the wire counts"), Counters::default());
    send(&agent, &[7; 100], (COLLECTOR, 9737).into());
    assert_eq!(receive(&collector).0, [7; 100]);
    // Ethernet 14, IPv4 20, UDP 8.
    let expected = Counters { tx_bytes: 142, tx_packets: 1, ..Counters::default() };
    assert_eq!(net.agent_counters().expect("the wire counts"), expected);
}

#[test]
fn datagrams_sent_in_bulk_are_counted_one_by_one() {
    let net = Direct::new().expect("the rig makes a network");
    let (agent, collector) = (bind(&net.agent, AGENT, 0), bind(&net.collector, COLLECTOR, 9737));
    let state = UdpSocketState::new((&agent).into()).expect("the kernel takes quinn's options");
    assert!(state.max_gso_segments() >= 4, "this kernel sends in bulk, or the test shows nothing");
    let (destination, contents) = ((COLLECTOR, 9737).into(), [9; 400]);
    let bulk = Transmit { destination, ecn: None, contents: &contents, segment_size: Some(100), src_ip: None };
    state.send((&agent).into(), &bulk).expect("the link is up");
    for _ in 0..4 {
        assert_eq!(receive(&collector).0.len(), 100);
    }
    let counters = net.agent_counters().expect("the wire counts");
    assert_eq!((counters.tx_packets, counters.tx_bytes), (4, 4 * 142));
}

#[test]
fn random_loss_has_its_rate_over_10_000_packets() {
    const BATCH: u64 = 100;
    let net = Direct::new().expect("the rig makes a network");
    let (agent, collector) = (bind(&net.agent, AGENT, 0), bind(&net.collector, COLLECTOR, 9737));
    collector.set_nonblocking(true).expect("a socket can be non-blocking");
    firewall::lose(&net.collector, Way::In, Loss::Random { probability: 0.1 }).expect("iptables works");
    let (mut sent, mut received) = (0, 0);
    while sent < 10_000 {
        for _ in 0..BATCH {
            send(&agent, &[0; 32], (COLLECTOR, 9737).into());
        }
        sent += BATCH;
        // Each batch is accounted for whole, so that no socket buffer adds a loss of its own.
        until("every packet of the batch", LIMIT, || {
            while collector.recv(&mut [0; 64]).is_ok() {
                received += 1;
            }
            let lost = firewall::dropped(&net.collector, Way::In).expect("iptables works");
            (received + lost == sent).then_some(())
        })
        .expect("a packet is received or dropped");
    }
    let lost = firewall::dropped(&net.collector, Way::In).expect("iptables works");
    eprintln!("lost {lost} of {sent}");
    // Seven standard deviations of 30 each way: chance fails this once in 10^11 runs.
    assert!((790..=1_210).contains(&lost), "lost {lost} of {sent}");
    assert_eq!(received, sent - lost);
}

#[test]
fn every_nth_packet_is_lost_and_clear_ends_it() {
    let net = Direct::new().expect("the rig makes a network");
    let (agent, collector) = (bind(&net.agent, AGENT, 0), bind(&net.collector, COLLECTOR, 9737));
    firewall::lose(&net.collector, Way::In, Loss::Every { n: 3 }).expect("iptables works");
    for number in 0..9 {
        send(&agent, &[number], (COLLECTOR, 9737).into());
    }
    let got: Vec<u8> = (0..6).map(|_| receive(&collector).0[0]).collect();
    assert_eq!(got, [1, 2, 4, 5, 7, 8]);
    firewall::clear(&net.collector).expect("iptables works");
    for number in 0..9 {
        send(&agent, &[number], (COLLECTOR, 9737).into());
    }
    let got: Vec<u8> = (0..9).map(|_| receive(&collector).0[0]).collect();
    assert_eq!(got, [0, 1, 2, 3, 4, 5, 6, 7, 8]);
}

#[test]
fn cut_swallows_packets_in_silence_and_heal_lets_them_pass() {
    let net = Direct::new().expect("the rig makes a network");
    let (agent, collector) = (bind(&net.agent, AGENT, 5000), bind(&net.collector, COLLECTOR, 9737));
    net.cut().expect("the wire can be cut");
    send(&agent, b"lost", (COLLECTOR, 9737).into());
    send(&collector, b"lost", (AGENT, 5000).into());
    for namespace in [&net.agent, &net.collector] {
        until("the drop", LIMIT, || (firewall::dropped(namespace, Way::In).ok()? == 1).then_some(()))
            .expect("the packet arrives and is dropped");
    }
    net.heal().expect("the wire can be healed");
    send(&agent, b"heard", (COLLECTOR, 9737).into());
    send(&collector, b"heard", (AGENT, 5000).into());
    assert_eq!(receive(&collector).0, b"heard");
    assert_eq!(receive(&agent).0, b"heard");
}

#[test]
fn unplugged_agent_gets_an_error_and_replugged_sends_again() {
    let direct = Direct::new().expect("the rig makes a network");
    let natted = Natted::new().expect("the rig makes a network");
    let unplug_and_heal =
        |agent: &Namespace, collector: &Namespace, to: Ipv4Addr, unplug: &dyn Fn(), heal: &dyn Fn()| {
            let (agent, collector) = (bind(agent, AGENT, 0), bind(collector, to, 9737));
            unplug();
            agent.send_to(b"lost", (to, 9737)).expect_err("there is no route");
            heal();
            send(&agent, b"heard", (to, 9737).into());
            assert_eq!(receive(&collector).0, b"heard");
        };
    let done = "the link obeys";
    unplug_and_heal(&direct.agent, &direct.collector, COLLECTOR, &|| direct.unplug().expect(done), &|| {
        direct.heal().expect(done);
    });
    unplug_and_heal(&natted.agent, &natted.collector, FAR_COLLECTOR, &|| natted.unplug().expect(done), &|| {
        natted.heal().expect(done);
    });
}

#[test]
fn nat_rebinding_changes_the_port_that_the_collector_sees() {
    let net = Natted::new().expect("the rig makes a network");
    let (agent, collector) = (bind(&net.agent, AGENT, 0), bind(&net.collector, FAR_COLLECTOR, 9737));
    send(&agent, b"one", (FAR_COLLECTOR, 9737).into());
    let (_, before) = receive(&collector);
    assert_eq!(before.ip(), ROUTER);
    assert!(net.ports().contains(&before.port()), "{before}");
    send(&collector, b"answer", before);
    assert_eq!(receive(&agent).0, b"answer");

    net.rebind().expect("the router rebinds");
    send(&collector, b"lost", before);
    send(&agent, b"two", (FAR_COLLECTOR, 9737).into());
    let (_, after) = receive(&collector);
    assert_eq!(after.ip(), ROUTER);
    assert!(net.ports().contains(&after.port()) && !net.ports().contains(&before.port()), "{before} then {after}");
    send(&collector, b"lost", before);
    send(&collector, b"again", after);
    assert_eq!(receive(&agent).0, b"again");
    // No answer of the router came back either, or this would fail with "connection refused".
    send(&collector, b"and on", after);
    assert_eq!(receive(&agent).0, b"and on");

    net.cut().expect("the router can be cut");
    send(&agent, b"lost", (FAR_COLLECTOR, 9737).into());
    until("the drop", LIMIT, || (firewall::dropped(&net.router, Way::Through).ok()? == 1).then_some(()))
        .expect("the packet reaches the router and is dropped");
    net.heal().expect("the router can be healed");
    send(&agent, b"three", (FAR_COLLECTOR, 9737).into());
    assert_eq!(receive(&collector), (b"three".to_vec(), after));
}

#[test]
fn programs_run_and_answer_inside_a_namespace() {
    let namespace = Namespace::new("program").expect("the rig makes a namespace");
    let mut running = Program::at("/bin/sh")
        .args(["-c", "cat /proc/self/net/dev; echo end"])
        .inside(&namespace)
        .start()
        .expect("a shell");
    running.wait_log("end\n", LIMIT).expect("it ends by saying so");
    let devices: Vec<String> =
        running.log_text().lines().filter(|line| line.contains(": ")).map(str::to_owned).collect();
    assert!(devices.len() == 1 && devices[0].trim_start().starts_with("lo:"), "{devices:?}");

    let listener = namespace.enter(|| std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
    let listener = listener.expect("the namespace is there").expect("it has a loopback of its own");
    let address = listener.local_addr().expect("it is bound");
    let outside = http::get(address, "/-/ready", LIMIT).expect_err("the port is open in the namespace alone");
    assert!(matches!(outside, http::HttpError::Io { .. }), "{outside}");
    namespace
        .enter(|| std::net::TcpStream::connect(address))
        .expect("the namespace is there")
        .expect("it is open here");
}

#[test]
fn namespaces_go_when_a_test_fails_and_leftovers_of_killed_tests_go_later() {
    let name = std::thread::spawn(|| {
        let namespace = Namespace::new("failing").expect("the rig makes a namespace");
        std::panic::panic_any(namespace.name().to_owned());
    })
    .join()
    .expect_err("it panics with the name");
    let name = name.downcast::<String>().expect("it panics with the name");
    assert!(!Path::new("/run/netns").join(*name).exists());

    // Its maker is a shell that has ended, not the tests that run beside this one and clean up as well.
    let script = "n=dunlin-rig-$$-0-orphan; PATH=$PATH:/usr/sbin:/sbin ip netns add $n && printf $n";
    let mut maker = Program::at("/bin/sh").args(["-c", script]).start().expect("there is a shell");
    assert!(maker.wait_exit(LIMIT).expect("it ends").success(), "{}", maker.log_text());
    let orphan = maker.log_text();
    let own = std::env::current_exe().expect("a test has a path");
    let other = Program::at(own).args(["--exact", "every_nth_packet_is_lost_and_clear_ends_it"]);
    let mut other = other.start().expect("this very program can be started again");
    let status = other.wait_exit(LIMIT).expect("it ends");
    assert!(status.success(), "{}", other.log_text());
    // Another test that cleans up at the same time may be the one to finish.
    until("the end of the orphan", LIMIT, || (!Path::new("/run/netns").join(&orphan).exists()).then_some(()))
        .expect("someone removes it");
}
