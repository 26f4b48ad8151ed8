//! Writes `tests/fuzz/seeds`: for each target a few inputs of the kind that real programs make.
//! A fuzzer finds the rest by itself; without these it would spend its minute on finding a checksum or a keyframe.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use dunlin_agent::spool::segment::{self, FILE_HEAD};
use dunlin_collector::block::{self, Column, Effort, Measure, Row, Stretch};
use dunlin_collector::ingest::Ingest;
use dunlin_collector::stock::KeptStock;
use dunlin_shared::codec::{Grouper, encode_delta, encode_key};
use dunlin_shared::frame::{BodyKind, Frame};
use dunlin_shared::id::{Epoch, FrameId, NodeId, Seq};
use dunlin_shared::inventory::{self, Change, Container, Inventory, Item, Stock, UnitState};
use dunlin_shared::metric::{Kind, MetricId, OpenMetric, Step, Unit, by_name};
use dunlin_shared::range::SeqRange;
use dunlin_shared::sample::{ABSENT, Sample, Subject, SubjectKind};
use dunlin_shared::time::{MonoMs, WallMs};
use dunlin_shared::wire::{
    AgentControl, CollectorControl, Config, FrameRange, Gap, GapReason, Goodbye, Held, Hello, Nack, Spooled,
    StopReason, Welcome, items,
};

const NODE: NodeId = NodeId::from_bytes([7; 16]);
const WALL: WallMs = WallMs(1_700_000_000_000);

fn main() -> io::Result<()> {
    let root = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/seeds"));
    let bodies = bodies();
    write(&root, "frame", &[("chain", bodies.iter().flat_map(|(_, body)| chunk(body)).collect())])?;
    write(&root, "message", &messages(&bodies))?;
    write(&root, "session", &sessions())?;
    write(&root, "spool", &spools(&bodies))?;
    write(&root, "csv", &tables())?;
    write(&root, "openmetrics", &expositions())?;
    write(&root, "dns", &answers())?;
    write(&root, "ports", &ports())?;
    write(&root, "process", &processes())?;
    write(&root, "engine", &engines())?;
    write(&root, "bus", &buses())?;
    write(&root, "host", &hosts())?;
    write(&root, "sight", &sights())?;
    write(&root, "certificate", &certificates())?;
    write(&root, "ingest", &ingests(&bodies))?;
    write(&root, "stock", &stocks())?;
    write(&root, "block", &blocks())?;
    write(&root, "rule", &rules())?;
    let agent = b"\0collectors = [\"collector.example.net:9737\", \"[2001:db8::1]:9737\"]\ninterval = \"10s\"\n\n[spool]\nram = \"512KiB\"\ndisk = \"1GiB\"\n";
    let collector = b"\x01state_dir = \"/var/lib/dunlin-collector\"\nquic_listen = \"[::]:9737\"\ninsecure_http = false\nretention.bytes = \"4GiB\"\nretention.age = \"48h\"\n";
    write(&root, "config", &[("agent", agent.to_vec()), ("collector", collector.to_vec())])
}

/// Rules with everything that they may have, as files and as single texts.
fn rules() -> Vec<Seed> {
    let whole = br#"[[rule]]
name = "memory-high"
enabled = true
when = 'host_memory_used_ratio > 90%'
for = "5m"
clear = '< 85%'
keep_firing_for = "2m"
severity = "critical"
where = { role = "basic-*" }
subject = "host"
summary = "{node} uses {value} of its memory, more than {threshold} for {for} ({label.role}) {{x}}"
summary_zh = "{node} uses {value}"
runbook = "https://wiki.example.net/memory"

[[rule]]
name = "disk-full"
when = """avg(fs_used_ratio, 5m) > 90% and \
  fs_available_bytes < 1GiB or absent(fs_used_ratio, 10m) unless node_state == maintenance"""
subject = ["fs:/var*", "fs:/srv"]
summary = "{severity} {rule}: {node} {subject} {name}"

[[rule]]
name = "away"
enabled = false
"#;
    let numbers = b"\x01rate(net_sent_bytes, 1m) > 0.9 * net_speed_bytes and abs(node_skew_seconds) - 250ms >= 5s";
    let counts =
        b"\x01count_over(node_state == down, 1h) >= 3 or changes(container_health, 1h) != 0 or x_a / (x_b + 1) < -5%";
    let end = b"\x02fs_used_ratio < 80% and host_load1 <= 4";
    let whole = [&b"\0"[..], whole].concat();
    vec![("whole", whole), ("numbers", numbers.to_vec()), ("counts", counts.to_vec()), ("end", end.to_vec())]
}

/// A stock that is told whole, and then by two changes; and as a database keeps it.
fn stocks() -> Vec<Seed> {
    let unit = |name: &str| {
        let result = "exit-code".into();
        Item::Unit(inventory::Unit { name: name.into(), state: UnitState::Failed, result, since: Some(WALL) })
    };
    let container = Container { name: "web".into(), is_told: true, image: "web:1".into(), ..Container::default() };
    let [one, two, three] = [
        Stock::of([unit("a.service"), Item::Container(Box::new(container.clone()))]),
        Stock::of([unit("a.service"), unit("b.service")]),
        Stock::of([Item::Container(Box::new(Container { exit_code: Some(1), ..container }))]),
    ];
    let change = |before: &Stock, after: &Stock| {
        let happened = after.happened_since(before, WALL, |_| true);
        Inventory::Change(Change { happened, ..after.change_from(before).expect("they differ") })
    };
    let told = [Inventory::Whole(one.to_whole(Vec::new())), change(&one, &two), change(&two, &three)];
    let kept = KeptStock::told(None, two, WALL).encode();
    vec![
        ("told", told.iter().flat_map(|told| chunk(&told.encode())).collect()),
        ("kept", [chunk(&kept), chunk(&change(&one, &three).encode())].concat()),
    ]
}

/// Columns that stay, move evenly, move as they like, follow from others and are gone for a while.
fn blocks() -> Vec<Seed> {
    let row = |n: u32| Row {
        time: WALL.plus(10_000 * i64::from(n)),
        epoch: Epoch(2),
        seq: Seq(u64::from(n)),
        mono: MonoMs(10_000 * u64::from(n)),
    };
    let one: Vec<i64> = (0..40).map(|n| n * n % 37 * (n % 5)).collect();
    let two = one.iter().map(|value| 1_000 - value).collect();
    let gone = one.iter().map(|value| if value % 7 == 3 { ABSENT } else { *value }).collect();
    let own = OpenMetric::new("x_queue", Unit::Count, Kind::Gauge, Step::Each(1)).expect("a good name");
    let fs = Subject::new(SubjectKind::Fs, "/srv").expect("a mount point");
    let column = |subject: &Subject, measure: Measure, values| Column { subject: subject.clone(), measure, values };
    let columns = vec![
        column(&Subject::HOST(), Measure::Catalogued(MetricId(1)), one.clone()),
        column(&Subject::HOST(), Measure::Catalogued(MetricId(3)), two),
        column(&Subject::HOST(), Measure::Open(own), gone),
        column(&fs, Measure::Catalogued(MetricId(120)), vec![66_053_021; 40]),
        column(&fs, Measure::Catalogued(MetricId(121)), (0..40).map(|n| 5_000 + 8 * n).collect()),
    ];
    let long = Stretch { rows: (0..40).map(row).collect(), columns };
    let empty = Stretch { rows: Vec::new(), columns: Vec::new() };
    vec![
        ("quick", block::encode(&long, Effort::Quick)),
        ("thorough", block::encode(&long, Effort::Thorough)),
        ("empty", block::encode(&empty, Effort::Quick)),
    ]
}

type Seed = (&'static str, Vec<u8>);

/// An authority, one that it vouches for, and a node, each before the one that signed it.
fn certificates() -> Vec<Seed> {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
    let key = || KeyPair::generate().expect("there is randomness");
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let (old, new) = (key(), key());
    let authority = params.self_signed(&old).expect("it signs").der().to_vec();
    let issuer = Issuer::new(params.clone(), old);
    let next = params.signed_by(&new, &issuer).expect("it signs").der().to_vec();
    let mut params = CertificateParams::default();
    let uri = format!("dunlin:node:{NODE}");
    params.subject_alt_names = vec![SanType::URI(uri.as_str().try_into().expect("a name"))];
    let node = params.signed_by(&key(), &issuer).expect("it signs").der().to_vec();
    let pair = |first: &[u8], second: &[u8]| {
        let len = u16::try_from(first.len()).expect("a certificate is short");
        [&len.to_le_bytes(), first, second].concat()
    };
    vec![
        ("authority", pair(&authority, &authority)),
        ("next", pair(&next, &authority)),
        ("node", pair(&node, &authority)),
    ]
}

fn write(root: &Path, target: &str, seeds: &[Seed]) -> io::Result<()> {
    let dir = root.join(target);
    fs::create_dir_all(&dir)?;
    seeds.iter().try_for_each(|(name, bytes)| fs::write(dir.join(name), bytes))
}

/// A keyframe, and deltas on it that change, add, remove and declare.
fn bodies() -> Vec<(BodyKind, Vec<u8>)> {
    let mut grouper = Grouper::default();
    let mut last = None;
    let mut bodies = Vec::new();
    for n in 0..5_u32 {
        let mut sample = Sample::new(MonoMs(10_000 * u64::from(n)), WALL.plus(10_000 * i64::from(n)));
        for disk in 0..4 + n / 2 {
            let subject = Subject::new(SubjectKind::Fs, &format!("/{disk}")).expect("a mount point");
            let metric = by_name("fs_used_bytes").expect("a catalogue metric");
            if (disk, n) != (1, 3) {
                sample.push(&subject, metric, f64::from(disk * 65_536 + n / 2 * 4_096));
            }
        }
        if n > 1 {
            let own = OpenMetric::new("x_queue", Unit::Count, Kind::Gauge, Step::Each(1)).expect("a good name");
            assert!(sample.push_open(&Subject::HOST(), &own, f64::from(n)), "there is room for one");
        }
        let (reading, _) = grouper.lay_out(&sample);
        let delta = last.as_ref().and_then(|last| encode_delta(last, &reading));
        bodies.push(match delta {
            Some(body) => (BodyKind::Delta { back: 1 }, body),
            None => (BodyKind::Key, encode_key(&reading)),
        });
        last = Some(reading);
    }
    bodies
}

/// Behind its length, as the target reads it.
fn chunk(body: &[u8]) -> Vec<u8> {
    [&u16::try_from(body.len()).expect("small").to_le_bytes()[..], body].concat()
}

fn frames(bodies: &[(BodyKind, Vec<u8>)]) -> Vec<Frame> {
    let frame = |(seq, (kind, body)): (u64, &(BodyKind, Vec<u8>))| Frame {
        id: FrameId::new(2, seq),
        kind: *kind,
        body: body.clone(),
    };
    (0..).zip(bodies).map(frame).collect()
}

fn messages(bodies: &[(BodyKind, Vec<u8>)]) -> Vec<Seed> {
    let range = SeqRange { first: Seq(3), last: Seq(300) };
    let acked = FrameRange { epoch: Epoch(2), range };
    let spooled = vec![Spooled { epoch: Epoch(1), range }, Spooled { epoch: Epoch(2), range }];
    let agent = [
        AgentControl::Hello(hello(spooled)),
        AgentControl::Heartbeat,
        AgentControl::Gap(Gap { epoch: Epoch(1), range, from: WALL, to: WALL, reason: GapReason::Damaged }),
        AgentControl::Goodbye(Goodbye { epoch: Epoch(2), next_seq: Seq(301), reason: StopReason::Restarting }),
    ];
    let config = Config { interval_ms: 0, backlog_gap_ms: 10 };
    let collector = [
        CollectorControl::Welcome(Welcome {
            wire: 1,
            collector_version: "0.1.0".into(),
            held: vec![Held { epoch: Epoch(1), ranges: vec![range] }],
            start_after_ms: 0,
            config,
            wall: WALL,
            next_authority: Vec::new(),
        }),
        CollectorControl::Ack(vec![acked]),
        CollectorControl::Nack(Nack { ranges: vec![acked], retry_after_ms: 5_000 }),
        CollectorControl::Config(config),
        CollectorControl::Drain { reconnect_after_ms: 1_000 },
        CollectorControl::Farewell,
    ];
    let data = frames(bodies).iter().flat_map(|frame| items(frame).expect("small")).collect::<Vec<_>>();
    vec![
        ("agent", [vec![0, 1], agent.iter().flat_map(AgentControl::encode).collect()].concat()),
        ("collector", [vec![1, 2], collector.iter().flat_map(CollectorControl::encode).collect()].concat()),
        ("items", [vec![2, 3], data].concat()),
    ]
}

fn hello(spooled: Vec<Spooled>) -> Hello {
    Hello {
        wire_min: 1,
        wire_max: 1,
        node: NODE,
        name: "a".into(),
        agent_version: "0.1.0".into(),
        boot_id: [3; 16],
        epoch: Epoch(2),
        next_seq: Seq(301),
        interval_ms: 10_000,
        mono: MonoMs(1),
        wall: WALL,
        spooled,
        ended: Vec::new(),
    }
}

/// Steps as the target reads them: the time that passed, the event's number, and what it takes.
fn sessions() -> Vec<Seed> {
    // Hello of epoch 5, Resumed, two live frames, both committed, a goodbye and that committed.
    let collector = [
        &[1][..],
        &[0, 0, 0, 5],
        &[0, 7, 0, 0, 0],
        &[10, 5, 1, 5, 0],
        &[10, 5, 1, 5, 1],
        &[0, 8, 5, 0, 1, 1],
        &[0, 4, 5, 2],
        &[0, 11, 1],
    ]
    .concat();
    // Connected, two samples, a Welcome, time for the backlog, an Ack, a stop.
    let agent = [
        &[0, 90][..],
        &[0, 0, 0, 1, 1],
        &[0, 7, 1, 1],
        &[250, 7, 1, 1],
        &[0, 2, 0, 0, 0, 0, 1, 1],
        &[251, 255, 255, 12, 1, 1],
        &[0, 4, 1, 5, 0, 1, 1, 1],
        &[0, 13, 1, 1, 1],
    ]
    .concat();
    vec![("collector", collector), ("agent", agent)]
}

fn spools(bodies: &[(BodyKind, Vec<u8>)]) -> Vec<Seed> {
    let mut file = FILE_HEAD.to_vec();
    for frame in frames(bodies) {
        segment::encode(&mut file, frame.id, frame.kind, frame.kind == BodyKind::Key, WALL, &frame.body);
    }
    let mut behind_damage = file.clone();
    behind_damage[FILE_HEAD.len() + 40] ^= 1;
    // From number 4: three records, of 1 and 2 and 3 bytes, then one byte changed.
    let built = vec![0, 8, 3, 0, 5, 1, 7, 1, 2, 0, 6, 2, 7, 7, 1, 3, 0, 7, 3, 7, 7, 7, 2, 50, 0, 4];
    vec![("file", [&[1], &file[..]].concat()), ("damaged", [&[1], &behind_damage[..]].concat()), ("built", built)]
}

fn answers() -> Vec<Seed> {
    let head = |flags: u8, answers: u8| vec![flags, 0, 0, answers];
    let address = [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 7];
    let alias = [0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 60, 0, 4, 1, b'b', 0xc0, 22];
    let none = [vec![0], vec![0, 3, 0]].concat();
    vec![
        ("address", [head(0, 2), address.to_vec(), address.to_vec()].concat()),
        ("alias", [head(0, 1), alias.to_vec()].concat()),
        ("none", none),
    ]
}

/// Lines of an export behind the choice that adds its head, and a whole file.
fn tables() -> Vec<Seed> {
    let lines = "2026-11-21T10:00:00.000Z,00000000-0000-7000-8000-000000000007,web,host,host_load1,count,gauge,0.25\r\n\
        2026-11-21T10:00:10.000Z,00000000-0000-7000-8000-000000000007,web,host,host_load1,count,gauge,0.26\r\n\
        2026-11-21T10:00:10.000Z,00000000-0000-7000-8000-000000000007,web,net:eth0,net_received_bytes,bytes,counter,2048\r\n\
        2026-11-21T10:00:10.000Z,,\"other, \"\"two\"\"\",host,x_queue_jobs,count,gauge,7\r\n";
    let whole = format!("\0time,node,name,subject,metric,unit,kind,value\r\n{lines}");
    vec![("lines", format!("\x01{lines}").into_bytes()), ("whole", whole.into_bytes())]
}

/// Lines of an export behind the choice that begins its first family, and a whole file.
fn expositions() -> Vec<Seed> {
    let sample = |name: &str, subject: &str, value: &str, at: &str| {
        let node = "00000000-0000-7000-8000-000000000007";
        format!("{name}{{node=\"{node}\",name=\"a\\\"b\\n\",subject=\"{subject}\"}} {value} {at}\n")
    };
    let load =
        sample("host_load1", "host", "0.25", "1795255200") + &sample("host_load1", "host", "0.26", "1795255210.5");
    let counter =
        "# TYPE net_received_bytes counter\n# UNIT net_received_bytes bytes\n# HELP net_received_bytes Received.\n";
    let net = sample("net_received_bytes_total", "net:eth0", "2048", "1795255210.5");
    let rest = format!("{load}{counter}{net}# EOF\n");
    let whole = format!("\0# TYPE host_load1 gauge\n# HELP host_load1 Load.\n{rest}");
    vec![("lines", format!("\x01{rest}").into_bytes()), ("whole", whole.into_bytes())]
}

/// A socket of each family with attributes, an end, and lines of both tables.
fn ports() -> Vec<Seed> {
    let socket = |family: u8, state: u8| {
        let mut content = vec![0; 72];
        (content[0], content[1], content[4]) = (family, state, 31);
        content.extend([5, 0, 11, 0, 1, 0, 0, 0]);
        content
    };
    let message = |kind: u8, content: &[u8]| [&[kind, 2][..], &chunk(content)].concat();
    let told = [message(20, &socket(2, 10)), message(20, &socket(10, 10)), message(3, &[0; 4])].concat();
    let tcp = "0: 0100007F:0277 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 11234 1\n1: 0100007F:0277 0100007F:0277 01 0:0 0:0 0 0 0 9\n";
    let udp = "9: 00000000000000000000000001000000:0035 00000000000000000000000000000000:0000 07 00000000:00000000 00:00000000 00000000 101 0 6 2\n";
    vec![
        ("netlink", [vec![2], told].concat()),
        ("tcp", [&b"\x04"[..], tcp.as_bytes()].concat()),
        ("udp", [&b"\x05"[..], udp.as_bytes()].concat()),
    ]
}

/// Files of processes and control groups, each behind the number that the target knows it by.
fn processes() -> Vec<Seed> {
    let mountinfo = b"\x0232 31 0:29 / /sys/fs/cgroup/cpu\\054cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct\n\
        36 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate\n";
    let owner = format!("\x034:memory:/docker/{0}\n0::/system.slice/docker-{0}.scope\n", "0123456789abcdef".repeat(4));
    let stat = b"\x0017 (a b) c) S 1 7 7 0 -1 4194560 9 8 7 6 250 50 3 2 20 0 12 0 2738677 313344 360 18446744073709551615 0\n";
    vec![
        ("stat", stat.to_vec()),
        ("python", b"\x01python3\0\0\0\0\0\0\0\0\0/usr/bin/python3\0-Wx\0-m\0celery\0-A\0".to_vec()),
        ("java", b"\x01java\0\0\0\0\0\0\0\0\0\0\0\0java\0-cp\0/a:/b\0-Da=b\0-jar\0/srv/shop.jar\0".to_vec()),
        ("title", b"\x01postgres\0\0\0\0\0\0\0\0postgres: 15/main: app orders 10.0.0.1(5) idle\0".to_vec()),
        ("mountinfo", mountinfo.to_vec()),
        ("owner", owner.into_bytes()),
        ("io", b"\x04rchar: 9\nread_bytes: 4096\nwrite_bytes: 8192\nUid:\t0\t33\t0\t0\n".to_vec()),
        ("usage", b"\x05usage_usec 5\n254:0 rbytes=1 wbytes=2\n8:0 Read 1\n8:0 Write 2\n".to_vec()),
    ]
}

/// What engines answer, each behind the number that the target knows it by.
fn engines() -> Vec<Seed> {
    let id = "42c68eb63c6ad5d3".repeat(4);
    let first = format!(r#"[{{"Id":"{id}","State":"running","Command":"a \"}}]\\","Labels":{{"x":"{{"}}}}, {{"I"#);
    let list = [chunk(first.as_bytes()), format!(r#"d":"{id}","Ports":[]}}]"#).into_bytes()].concat();
    let docker = format!(
        r#"{{"Id":"{id}","Name":"/web","RestartCount":2,"Image":"sha256:58","State":{{"Status":"running","ExitCode":0,
"OOMKilled":false,"StartedAt":"2026-11-21T18:06:04.085927295Z","FinishedAt":"0001-01-01T00:00:00Z","Health":{{"Status":"healthy"}}}},
"HostConfig":{{"NetworkMode":"default","RestartPolicy":{{"Name":"on-failure"}},"Memory":20971520,"NanoCpus":500000000,"CpuPeriod":0}},
"Config":{{"Env":["A=b"],"Image":"redis:7","Labels":{{"com.docker.compose.project":"shop","team":"a"}},"StopSignal":"SIGRTMIN+3"}},
"NetworkSettings":{{"Ports":{{"6379/tcp":[{{"HostIp":"::","HostPort":"16379"}}],"53/udp":null}},"Networks":{{"shop":{{}}}}}}}}"#
    );
    let podman = format!(
        r#"{{"Id":"{id}","State":{{"Status":"exited","ExitCode":137,"StartedAt":"2026-11-21T18:06:12.1Z"}},
"HostConfig":{{"NetworkMode":"host","CpuPeriod":50000,"CpuQuota":25000}},"Config":{{"Labels":null,"StopSignal":"15"}}}}"#
    );
    let event = |action: &str, attributes: &str| {
        format!(
            r#"{{"Type":"container","Action":"{action}","Actor":{{"ID":"{id}","Attributes":{{{attributes}}}}},"time":7,"timeNano":7123456789}}"#
        )
    };
    let behind = |number: u8, text: &str| [&[number][..], text.as_bytes()].concat();
    vec![
        ("list", [vec![0], list].concat()),
        ("docker", behind(1, &docker)),
        ("podman", behind(1, &podman)),
        ("killed", behind(2, &event("kill", r#""signal":"SIGTERM""#))),
        ("died", behind(2, &event("died", r#""containerExitCode":"3""#))),
        ("moment", behind(3, "2026-11-21T20:06:04.5+02:00")),
    ]
}

/// An error of the bus, an answer with a number in a variant, and two units.
fn buses() -> Vec<Seed> {
    let fields = [5, 1, b'u', 0, 9, 0, 0, 0, 8, 1, b'g', 0, 1, b'v', 0];
    let number = [&[1, b't', 0, 0, 0, 0, 0, 0][..], &1_700_000_000_000_000_u64.to_le_bytes()].concat();
    let error = b"l\x03\0\x01\0\0\0\0\x01\0\0\0\x17\0\0\0\x05\x01u\0\x09\0\0\0\x04\x01s\0\x06\0\0\0a.b.cd\0\0";
    vec![
        ("error", [&[0][..], error].concat()),
        ("number", [vec![1, 2], chunk(&fields), number].concat()),
        ("units", b"\x02\x09a.service\x05/a_2e\x06failed\x07b.mount\x02/b\x00".to_vec()),
    ]
}

/// Small files of a host, each behind the number that the target knows it by.
fn hosts() -> Vec<Seed> {
    let mounts = b"\x0027 1 254:0 / / rw,relatime shared:1 master:2 - ext4 /dev/vda rw\n\
        28 27 254:16 / /srv\\040a rw - xfs /dev/vdb ro\n35 27 0:40 / /mnt/share rw - nfs4 server:/export rw\n\
        36 27 0:41 /@ /home rw - btrfs /dev/vdc rw\n37 28 0:9 / /srv\\040a rw - proc proc rw\n";
    let counts = b"sockets: used 32\nTCP: inuse 2 orphan 0 tw 7 alloc 2 mem 38\nUDP: inuse 17 mem 91\n";
    let snmp = b"Tcp: RtoAlgorithm MaxConn CurrEstab RetransSegs OutRsts\nTcp: 1 -1 5 40 6\nUdp: InErrors RcvbufErrors\nUdp: 3 2\n";
    let device = b"Inter-|   Receive    |  Transmit\n face |bytes packets|bytes\n    lo: 1 1 0 0 0 0 0 0 1 1\n  eth0:7 1 0 0 0 0 0 0 12 1\n";
    let behind = |number: u8, text: &[u8]| [&[number][..], text].concat();
    vec![
        ("mounts", mounts.to_vec()),
        ("users", b"\x01\x21# people\nroot:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33::/:\n".to_vec()),
        ("memory", b"\x025746 452 0 5\n".to_vec()),
        ("in-use", behind(3, counts)),
        ("established", behind(3, snmp)),
        ("device", behind(3, device)),
        ("sockets", behind(4, counts)),
        ("losses", behind(4, snmp)),
    ]
}

/// A whole report, and lines of one.
fn sights() -> Vec<Seed> {
    let lines = "version\t0.1.0\nuser\t61234\ngroups\t61234\t998\ncapabilities\t80004\n\
        source\tpart\tworks\t0\t0\t0\tcpu\t\t\nsource\tengine\trefused\t0\t0\t1\t/run/docker.sock\tdocker\t\n\
        source\tcontrol groups\tpartly\t0\t0\t0\t\t\tcontrol groups 2: no service has numbers for memory\n\
        source\towners of ports\tpartly\t12\t60\t0\t\t\tit may not look\n";
    let whole = format!("\0dunlin-agent sight 1\nat\t1795270423456\nprocess\t812\t99887\n{lines}end\n");
    vec![("whole", whole.into_bytes()), ("lines", format!("\x01{}", lines.trim_end()).into_bytes())]
}

/// Operations as the target reads them.
fn ingests(bodies: &[(BodyKind, Vec<u8>)]) -> Vec<Seed> {
    let mut ops = vec![0, 0, 1, 0, 2, 200, 0];
    for (seq, (kind, body)) in (0..).zip(bodies) {
        let (number, back) = if *kind == BodyKind::Key { (1, vec![]) } else { (2, vec![1]) };
        ops.extend([&[2, 1, 2, seq, number][..], &back, &[u8::try_from(body.len()).expect("small")], body].concat());
        // After the second frame a commit and a new file, after the fourth a rollback.
        match seq {
            1 => ops.extend([13, 0]),
            3 => ops.extend([12, 0]),
            _ => {}
        }
    }
    ops.extend([9, 0, 1, 5, 5, 10, 0, 14, 0]);
    let mut ingest = Ingest::default();
    let node = ingest.enlist(NODE).expect("there is room");
    let told = ingest.hello(WALL, node, &hello(Vec::new()));
    assert!(told.is_ok(), "an honest hello");
    for frame in frames(bodies).into_iter().step_by(4) {
        let frame = Frame { kind: BodyKind::Inventory, ..frame };
        assert!(ingest.admit(WALL, node, dunlin_shared::wire::Lane::Live, frame).is_ok(), "an honest frame");
    }
    ingest.committed();
    vec![("operations", ops), ("snapshot", [vec![1], ingest.snapshot()].concat())]
}
