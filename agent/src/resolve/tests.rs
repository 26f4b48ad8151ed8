//! The resolver against small real DNS servers on loopback, over UDP and TCP.
//! All servers of a test share one port, because a resolv.conf names no ports, and differ in 127.0.0.x.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::net::{TcpListener, TcpStream, UdpSocket as Udp};

use super::exchange::{read_message, write_message};
use super::message::tests::{Record, a, aaaa, cname, name, reply};
use super::*;

const TRUNCATED: u16 = 0x0200;
const SERVFAIL: u16 = 2;
const NXDOMAIN: u16 = 3;
const V4: u8 = 1;

/// What a server was asked. `name` is in lower case.
struct Asked {
    query: Vec<u8>,
    name: String,
    record_type: u8,
    over_tcp: bool,
}

/// What it sends, in order; over TCP only the first.
enum Reply {
    Message(Vec<u8>),
    /// Sent from another socket than the one that was asked.
    FromStranger(Vec<u8>),
}

impl Asked {
    fn new(query: Vec<u8>, over_tcp: bool) -> Self {
        let mut labels = Vec::new();
        let mut at = 12;
        while query[at] != 0 {
            let end = at + 1 + usize::from(query[at]);
            labels.push(String::from_utf8_lossy(&query[at + 1..end]).to_lowercase());
            at = end;
        }
        let record_type = query[at + 2];
        Self { query, name: labels.join("."), record_type, over_tcp }
    }

    /// Of the records only those that belong to the question: aliases and its family.
    fn answer(&self, flags: u16, records: &[Record]) -> Reply {
        let fitting = |record: &&Record| [5, u16::from(self.record_type)].contains(&record.1);
        let fitting: Vec<_> = records.iter().filter(fitting).cloned().collect();
        Reply::Message(reply(&self.query, flags, &fitting))
    }
}

type Behaviour = Arc<dyn Fn(&Asked) -> Vec<Reply> + Send + Sync>;

/// A root directory with the files of a test, and the servers' common port.
struct Rig {
    root: PathBuf,
    port: u16,
}

impl Rig {
    /// The first server is 127.0.0.1, the next 127.0.0.2, and so on; `None` is one where nothing listens.
    async fn new(servers: Vec<Option<Behaviour>>, options: &str) -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("dunlin-resolve-{}-{number}", std::process::id());
        let root = std::env::temp_dir().join(name);
        fs::create_dir_all(root.join("etc")).expect("a temporary directory");
        let count = servers.len();
        let (port, sockets) = bind_all(count).await;
        for (behaviour, (udp, tcp)) in servers.into_iter().zip(sockets) {
            if let Some(behaviour) = behaviour {
                tokio::spawn(serve_udp(udp, Arc::clone(&behaviour)));
                tokio::spawn(serve_tcp(tcp, behaviour));
            }
        }
        let mut conf = format!("options {options}\n");
        for server in 1..=count {
            conf += &format!("nameserver 127.0.0.{server}\n");
        }
        let rig = Self { root, port };
        rig.write("resolv.conf", &conf);
        rig
    }

    async fn one(behaviour: impl Fn(&Asked) -> Vec<Reply> + Send + Sync + 'static) -> Self {
        Self::new(vec![Some(Arc::new(behaviour))], "timeout:5 attempts:1").await
    }

    fn write(&self, file: &str, text: &str) {
        fs::write(self.root.join("etc").join(file), text).expect("a writable directory");
    }

    fn add(&self, line: &str) {
        let path = self.root.join("etc/resolv.conf");
        let conf = fs::read_to_string(&path).expect("written before");
        fs::write(path, conf + line).expect("a writable directory");
    }

    /// The addresses as text, sorted, because their order depends on the routes of the machine.
    async fn resolve(&self, target: &str) -> Result<Vec<String>, ResolveError> {
        let resolver = Resolver::with_port(&self.root, counting_entropy, self.port);
        let found = resolver.resolve(target, 9737).await?;
        let mut texts: Vec<_> = found.iter().map(ToString::to_string).collect();
        texts.sort();
        Ok(texts)
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.root) {
            eprintln!("{} stays behind: {error}", self.root.display());
        }
    }
}

/// Different each time, and the same in each run of a test, which has a thread of its own.
fn counting_entropy() -> Option<u64> {
    thread_local!(static COUNT: Cell<u64> = const { Cell::new(0) });
    COUNT.set(COUNT.get() + 1);
    Some(COUNT.get().wrapping_mul(0x9E37_79B9_7F4A_7C15))
}

async fn bind_all(count: usize) -> (u16, Vec<(Udp, TcpListener)>) {
    // A port that is free on the first address may be taken on another, so a few are tried.
    'port: for _ in 0..50 {
        let mut port = 0;
        let mut sockets = Vec::new();
        for last in 1..=count {
            let ip = format!("127.0.0.{last}");
            let Ok(udp) = Udp::bind(format!("{ip}:{port}").parse::<SocketAddr>().expect("legal")).await else {
                continue 'port;
            };
            let address = udp.local_addr().expect("bound");
            let Ok(tcp) = TcpListener::bind(address).await else {
                continue 'port;
            };
            port = address.port();
            sockets.push((udp, tcp));
        }
        return (port, sockets);
    }
    panic!("no port is free on {count} loopback addresses");
}

async fn serve_udp(socket: Udp, behaviour: Behaviour) {
    let stranger = Udp::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
    let mut buffer = vec![0; 2048];
    loop {
        let (len, client) = socket.recv_from(&mut buffer).await.expect("a question");
        for reply in behaviour(&Asked::new(buffer[..len].to_vec(), false)) {
            let (from, message) = match &reply {
                Reply::Message(message) => (&socket, message),
                Reply::FromStranger(message) => (&stranger, message),
            };
            from.send_to(message, client).await.expect("sent");
        }
    }
}

async fn serve_tcp(listener: TcpListener, behaviour: Behaviour) {
    loop {
        let (stream, _) = listener.accept().await.expect("a client");
        serve_stream(&stream, &behaviour).await;
    }
}

async fn serve_stream(stream: &TcpStream, behaviour: &Behaviour) {
    let query = read_message(stream).await.expect("a question");
    if let Some(Reply::Message(message)) = behaviour(&Asked::new(query, true)).first() {
        write_message(stream, message).await.expect("sent");
    }
}

fn silent() -> Option<Behaviour> {
    Some(Arc::new(|_| Vec::new()))
}

fn fixed(flags: u16, records: Vec<Record>) -> Option<Behaviour> {
    Some(Arc::new(move |asked| vec![asked.answer(flags, &records)]))
}

#[tokio::test]
async fn literal_addresses_need_no_files_and_no_server() {
    let resolver = Resolver::new("/nonexistent", counting_entropy);
    for (target, want) in [("1.2.3.4:80", "1.2.3.4:80"), ("[::1]", "[::1]:9737")] {
        let found = resolver.resolve(target, 9737).await.expect(target);
        assert_eq!(found, [want.parse::<SocketAddr>().expect("legal")]);
    }
    let error = resolver.resolve("a..b", 9737).await.expect_err("illegal");
    assert!(matches!(error, ResolveError::Target { .. }), "{error}");
}

#[tokio::test]
async fn localhost_is_loopback_whatever_the_hosts_file_says() {
    let rig = Rig::one(|asked| vec![asked.answer(0, &[a("localhost", 9)])]).await;
    rig.write("hosts", "10.0.0.9 localhost a.localhost\n");
    for target in ["localhost", "a.LOCALHOST."] {
        let found = rig.resolve(target).await.expect(target);
        assert_eq!(found, ["127.0.0.1:9737", "[::1]:9737"]);
    }
}

#[tokio::test]
async fn hosts_file_comes_before_dns_and_is_read_anew() {
    let rig = Rig::one(|asked| vec![asked.answer(0, &[a("h.example", 1)])]).await;
    assert_eq!(rig.resolve("h.example").await.expect("by DNS"), ["127.1.2.1:9737"]);
    rig.write("hosts", "127.9.9.9 h.example h\n");
    assert_eq!(rig.resolve("H.example:1").await.expect("by file"), ["127.9.9.9:1"]);
    rig.write("hosts", "");
    assert_eq!(rig.resolve("h.example").await.expect("by DNS"), ["127.1.2.1:9737"]);
}

#[tokio::test]
async fn both_families_are_given_and_one_alone_is_enough() {
    let rig = Rig::one(|asked| {
        let records = match asked.name.as_str() {
            "both.example" => vec![a("both.example", 1), aaaa("both.example", 2)],
            "four.example" => vec![a("four.example", 1)],
            _ => vec![aaaa("six.example", 2)],
        };
        vec![asked.answer(0, &records)]
    })
    .await;
    let found = rig.resolve("both.example").await.expect("both");
    assert_eq!(found, ["127.1.2.1:9737", "[fd00::2]:9737"]);
    let found = rig.resolve("four.example").await.expect("IPv4");
    assert_eq!(found, ["127.1.2.1:9737"]);
    let found = rig.resolve("six.example").await.expect("IPv6");
    assert_eq!(found, ["[fd00::2]:9737"]);
}

#[tokio::test]
async fn family_that_fails_or_stays_silent_does_not_cost_the_other() {
    let rig = Rig::one(|asked| match (asked.record_type, asked.name.as_str()) {
        (V4, owner) => vec![asked.answer(0, &[a(owner, 1)])],
        (_, "fails.example") => vec![asked.answer(SERVFAIL, &[])],
        _ => vec![],
    })
    .await;
    for target in ["fails.example", "silent.example"] {
        let found = rig.resolve(target).await.expect(target);
        assert_eq!(found, ["127.1.2.1:9737"], "{target}");
    }
}

#[tokio::test]
async fn unknown_name_and_name_without_address_are_told_apart() {
    let rig = Rig::one(|asked| {
        let flags = if asked.name == "no.example" { NXDOMAIN } else { 0 };
        vec![asked.answer(flags, &[])]
    })
    .await;
    let error = rig.resolve("no.example").await.expect_err("NXDOMAIN");
    assert!(matches!(error, ResolveError::NoSuchName { .. }), "{error}");
    let server = format!("127.0.0.1:{}", rig.port);
    let text = error.to_string();
    assert!(text.contains("no.example") && text.contains(&server), "{text}");
    let error = rig.resolve("bare.example").await.expect_err("no data");
    assert!(matches!(error, ResolveError::NoAddress { .. }), "{error}");
}

#[tokio::test]
async fn aliases_are_followed_by_new_questions_up_to_a_bound() {
    let rig = Rig::one(|asked| {
        let records = match asked.name.as_str() {
            "one.example" => vec![cname("one.example", "two.example")],
            "two.example" => vec![cname("two.example", "three.example"), a("three.example", 3)],
            // Each question leads to a new name.
            owner => vec![cname(owner, &format!("x{owner}"))],
        };
        vec![asked.answer(0, &records)]
    })
    .await;
    let found = rig.resolve("one.example").await.expect("an address");
    assert_eq!(found, ["127.1.2.3:9737"]);
    let error = rig.resolve("endless.example").await.expect_err("endless");
    assert!(matches!(error, ResolveError::AliasChain { .. }), "{error}");
}

#[tokio::test]
async fn truncated_answer_is_asked_again_over_tcp() {
    let rig = Rig::one(|asked| {
        let many: Vec<_> = (0..100).map(|n| a("big.example", n)).collect();
        vec![match asked.over_tcp {
            true => asked.answer(0, &many),
            false => asked.answer(TRUNCATED, &many[..1]),
        }]
    })
    .await;
    let found = rig.resolve("big.example").await.expect("over TCP");
    assert_eq!(found.len(), 32);
}

#[tokio::test]
async fn overlong_answer_over_tcp_is_refused_before_it_is_read() {
    let rig = Rig::one(|asked| match asked.over_tcp {
        true => vec![Reply::Message(vec![0; 16 * 1024 + 1])],
        false => vec![asked.answer(TRUNCATED, &[])],
    })
    .await;
    let error = rig.resolve("big.example").await.expect_err("too long");
    assert!(error.to_string().contains("more than 16384 bytes"), "{error}");
}

#[tokio::test]
async fn next_server_is_asked_when_the_first_is_dead_silent_or_failing() {
    let garbage: Behaviour = Arc::new(|asked| {
        let mut message = reply(&asked.query, 0, &[]);
        message[7] = 9;
        vec![Reply::Message(message)]
    });
    for first in [None, silent(), fixed(SERVFAIL, vec![]), Some(garbage)] {
        let good = fixed(0, vec![a("h.example", 1)]);
        let rig = Rig::new(vec![first, good], "timeout:1 attempts:3").await;
        let found = rig.resolve("h.example").await.expect("the second answers");
        assert_eq!(found, ["127.1.2.1:9737"]);
    }
}

#[tokio::test]
async fn error_names_each_server_and_what_it_did() {
    let servers = vec![None, silent(), fixed(SERVFAIL, vec![])];
    let rig = Rig::new(servers, "timeout:1 attempts:1").await;
    let text = rig.resolve("h.example").await.expect_err("none answers").to_string();
    let port = rig.port;
    for part in [
        "h.example".to_owned(),
        format!("127.0.0.1:{port} could not be asked"),
        format!("127.0.0.2:{port} did not answer in time"),
        format!("127.0.0.3:{port} answered SERVFAIL"),
    ] {
        assert!(text.contains(&part), "{part} is not in: {text}");
    }
}

#[tokio::test]
async fn deadline_ends_the_lookup_before_timeouts_and_attempts_do() {
    let rig = Rig::new(vec![silent(), silent()], "").await;
    let server = |last: u8| SocketAddr::from(([127, 0, 0, last], rig.port));
    let lookup = Lookup {
        servers: vec![server(1), server(2)],
        attempts: 5,
        timeout: Duration::from_secs(30),
        deadline: deadline_in(Duration::from_millis(100)),
        entropy: counting_entropy,
    };
    let names = vec![name("h.one.example"), name("h.example")];
    let run = tokio::time::timeout(Duration::from_secs(10), lookup.run(names));
    let error = run.await.expect("the deadline ends it").expect_err("nobody answers");
    let text = error.to_string();
    assert!(text.contains(&server(1).to_string()), "{text}");
}

#[tokio::test]
async fn forged_answers_are_ignored() {
    let rig = Rig::one(|asked| {
        let lie = reply(&asked.query, 0, &[a("h.example", 66)]);
        let mut wrong_id = lie.clone();
        wrong_id[0] ^= 0xFF;
        let mut wrong_name = lie.clone();
        wrong_name[13] = b'x';
        vec![
            Reply::FromStranger(lie),
            Reply::Message(wrong_id),
            Reply::Message(wrong_name),
            Reply::Message(vec![]),
            asked.answer(0, &[a("h.example", 1)]),
        ]
    })
    .await;
    let found = rig.resolve("h.example").await.expect("the true answer");
    assert_eq!(found, ["127.1.2.1:9737"]);
}

#[tokio::test]
async fn ids_and_case_differ_from_question_to_question() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    let rig = Rig::one(move |asked| {
        log.lock().expect("no panic before").push(asked.query.clone());
        vec![asked.answer(0, &[a("a-really-long-name.example", 1)])]
    })
    .await;
    for _ in 0..2 {
        rig.resolve("a-really-long-name.example").await.expect("an address");
    }
    let seen = seen.lock().expect("no panic before");
    assert_eq!(seen.len(), 4);
    for (index, one) in seen.iter().enumerate() {
        for two in &seen[index + 1..] {
            assert_ne!(one[..2], two[..2], "the id");
            assert_ne!(one[12..40], two[12..40], "the name's case");
        }
    }
}

#[tokio::test]
async fn server_that_changes_the_case_is_asked_without_mixed_case() {
    let rig = Rig::one(|asked| {
        let mut query = asked.query.clone();
        query[12..].make_ascii_lowercase();
        vec![Reply::Message(reply(
            &query,
            0,
            &match asked.record_type {
                V4 => vec![a("lower.example", 1)],
                _ => vec![],
            },
        ))]
    })
    .await;
    let found = rig.resolve("lower.example").await.expect("an address");
    assert_eq!(found, ["127.1.2.1:9737"]);
}

#[tokio::test]
async fn second_attempt_goes_without_mixed_case() {
    let rig = Rig::new(
        vec![Some(Arc::new(|asked: &Asked| {
            let mixed = asked.query[12..].iter().any(u8::is_ascii_uppercase);
            let answer = asked.answer(0, &[a("drops-mixed-case.example", 1)]);
            if mixed { vec![] } else { vec![answer] }
        }))],
        "timeout:1 attempts:3",
    )
    .await;
    let found = rig.resolve("drops-mixed-case.example").await.expect("an address");
    assert_eq!(found, ["127.1.2.1:9737"]);
}

#[tokio::test]
async fn search_domains_apply_by_ndots_and_not_behind_a_final_dot() {
    let rig = Rig::one(|asked| match asked.name.as_str() {
        "h.two.example" | "x.h" => vec![asked.answer(0, &[a(&asked.name, 1)])],
        _ => vec![asked.answer(NXDOMAIN, &[])],
    })
    .await;
    rig.add("search one.example two.example\n");
    assert_eq!(rig.resolve("h").await.expect("by search"), ["127.1.2.1:9737"]);
    assert_eq!(rig.resolve("x.h").await.expect("as it is"), ["127.1.2.1:9737"]);
    let text = rig.resolve("g").await.expect_err("nowhere").to_string();
    assert!(text.contains("g.one.example, g.two.example, g ("), "{text}");
    let text = rig.resolve("h.").await.expect_err("rooted").to_string();
    assert!(text.contains("no such name: h ("), "{text}");
}

#[tokio::test]
async fn rotation_spreads_questions_over_the_servers() {
    let counts: Vec<_> = (0..2).map(|_| Arc::new(AtomicUsize::new(0))).collect();
    let servers = counts
        .iter()
        .map(|count| {
            let count = Arc::clone(count);
            let behaviour: Behaviour = Arc::new(move |asked: &Asked| {
                count.fetch_add(1, Ordering::Relaxed);
                vec![asked.answer(0, &[a("h.example", 1)])]
            });
            Some(behaviour)
        })
        .collect();
    let rig = Rig::new(servers, "rotate").await;
    for _ in 0..16 {
        rig.resolve("h.example").await.expect("an address");
    }
    let counts: Vec<_> = counts.iter().map(|c| c.load(Ordering::Relaxed)).collect();
    assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
}

#[tokio::test]
async fn missing_entropy_is_an_error_and_no_question_is_asked() {
    let rig = Rig::one(|asked| vec![asked.answer(0, &[a("h.example", 1)])]).await;
    let resolver = Resolver::with_port(&rig.root, || None, rig.port);
    let error = resolver.resolve("h.example", 1).await.expect_err("no entropy");
    assert!(matches!(error, ResolveError::Entropy), "{error}");
}

#[tokio::test]
async fn missing_resolv_conf_means_the_server_on_this_host() {
    let rig = Rig::one(|asked| vec![asked.answer(0, &[a("h.example", 1)])]).await;
    fs::remove_file(rig.root.join("etc/resolv.conf")).expect("it is there");
    assert_eq!(rig.resolve("h.example").await.expect("by 127.0.0.1"), ["127.1.2.1:9737"]);
}

#[test]
fn scoped_nameserver_takes_its_interface_by_name_or_number() {
    let root = std::env::temp_dir().join(format!("dunlin-resolve-scope-{}", std::process::id()));
    let interface = root.join("sys/class/net/eth7");
    fs::create_dir_all(&interface).expect("a temporary directory");
    fs::write(interface.join("ifindex"), "7\n").expect("a writable directory");
    let resolver = Resolver::new(&root, counting_entropy);
    let servers = |text: &str| resolver.servers(&Conf::parse(text));
    let found = servers("nameserver fe80::1%eth7\nnameserver fe80::2%3\nnameserver fe80::3%no\n");
    let texts: Vec<_> = found.expect("two servers").iter().map(ToString::to_string).collect();
    assert_eq!(texts, ["[fe80::1%7]:53", "[fe80::2%3]:53"]);
    for scope in ["no", "../../sys/class/net/eth7", ".."] {
        let error = servers(&format!("nameserver fe80::1%{scope}")).expect_err("unknown");
        assert!(matches!(error, ResolveError::NoServer { .. }), "{error}");
    }
    fs::remove_dir_all(root).expect("it is there");
}

#[test]
fn families_take_turns_and_unreachable_addresses_go_last() {
    let ips = ["fd00::1", "fd00::2", "10.0.0.1", "10.0.0.2", "10.0.0.3"];
    let ips: Vec<IpAddr> = ips.iter().map(|ip| ip.parse().expect("legal")).collect();
    let order = |has_route: fn(SocketAddr) -> bool| -> Vec<String> {
        let ordered = in_order(ips.clone(), 1, has_route);
        ordered.iter().map(|address| address.ip().to_string()).collect()
    };
    let all = ["fd00::1", "10.0.0.1", "fd00::2", "10.0.0.2", "10.0.0.3"];
    assert_eq!(order(|_| true), all);
    assert_eq!(order(|_| false), all);
    let only_v4 = ["10.0.0.1", "10.0.0.2", "10.0.0.3", "fd00::1", "fd00::2"];
    assert_eq!(order(|address| address.is_ipv4()), only_v4);
}

#[test]
fn system_entropy_differs_from_call_to_call() {
    let draws: Vec<_> = (0..4).map(|_| system_entropy()).collect();
    assert!(draws.iter().all(Option::is_some));
    assert!(draws.windows(2).all(|pair| pair[0] != pair[1]), "{draws:?}");
}

#[test]
fn candidates_too_long_for_dns_are_left_out() {
    let long = format!("{}b", "a.".repeat(120));
    let conf = Conf::parse("search a-long-domain.example\noptions ndots:15\n");
    assert_eq!(candidates(name(&long), false, &conf), [name(&long)]);
}
