//! Network interfaces: counters from `/proc/net/dev`, state from `/sys/class/net`, and the speed of cards (`speed.rs`).
//!
//! Left out are the loopback, which has no other end; the host's ends of containers' and guests' interfaces, whose names
//! are drawn anew each time and whose numbers belong to those; and virtual ones that never carried a packet, such as the
//! tunnels that a kernel module brings along.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use dunlin_shared::metric::Metric;
use dunlin_shared::sample::{Sample, Subject, SubjectKind};
use dunlin_shared::time::MonoMs;

use super::failure::{Failures, SampleError};
use super::name::shown;
use super::source::Source;
use super::speed::Speeds;
use super::{float, metric};
use crate::clock::Clock;

/// 2,560 series.
const INTERFACES_MAX: usize = 256;
/// Whether there is a card behind an interface hardly ever changes.
const LOOK_EVERY_MS: u64 = 300_000;
/// Prefixes that engines draw names with, and how many letters and digits they draw at least.
const DRAWN: [&[u8]; 6] = [b"veth", b"cali", b"lxc", b"tap", b"vnet", b"cilium_"];
const DRAWN_BYTES_MIN: usize = 6;

const COUNTERS: [(usize, &Metric); 8] = [
    (0, metric("net_received_bytes")),
    (8, metric("net_sent_bytes")),
    (1, metric("net_received_packets")),
    (9, metric("net_sent_packets")),
    (2, metric("net_receive_errors")),
    (10, metric("net_send_errors")),
    (3, metric("net_receive_drops")),
    (11, metric("net_send_drops")),
];
const COLUMNS: usize = 12;
/// Two lines of names stand above the interfaces.
const HEAD_LINES: usize = 2;

#[derive(Debug)]
pub(super) struct Nets {
    speeds: Speeds,
    known: Vec<Known>,
    /// What was found in this tick.
    found: Vec<(Vec<u8>, [u64; COLUMNS])>,
    looked: Option<MonoMs>,
}

#[derive(Debug)]
struct Known {
    name: Vec<u8>,
    subject: Subject,
    is_physical: bool,
}

impl Nets {
    pub(super) fn new(root: &Path, clock: Clock) -> Self {
        Self { speeds: Speeds::new(root, clock), known: Vec::new(), found: Vec::new(), looked: None }
    }

    pub(super) fn sample(&mut self, source: &mut Source, now: MonoMs, sample: &mut Sample, failures: &mut Failures) {
        let outcome = self.read(source);
        failures.keep(outcome);
        if self.looked.is_none_or(|at| now.since(at) >= LOOK_EVERY_MS) {
            self.looked = Some(now);
            self.known.clear();
        }
        let found = std::mem::take(&mut self.found);
        let (mut count, mut told) = (0, Vec::new());
        for (name, columns) in &found {
            let Some(known) = self.known(count, name, source) else { continue };
            let never_used = columns[1] == 0 && columns[9] == 0;
            let is_physical = known.is_physical;
            count += 1;
            if never_used && !is_physical {
                continue;
            }
            if count > INTERFACES_MAX {
                failures.note(SampleError::TooMany { what: "interfaces", max: INTERFACES_MAX });
                break;
            }
            told.push((count - 1, columns));
        }
        self.known.truncate(count);
        let cards = self.known.iter().filter(|known| known.is_physical).map(|known| &*known.name);
        self.speeds.look(now, cards, failures);
        for (at, columns) in told {
            let known = &self.known[at];
            let speed = if known.is_physical { self.speeds.of(&known.name) } else { None };
            put(known, columns, speed, source, sample);
        }
        self.found = found;
        self.found.clear();
    }

    fn read(&mut self, source: &mut Source) -> Result<(), SampleError> {
        let text = source.read("proc/net/dev")?;
        let lines = text.bytes.split(|&byte| byte == b'\n').enumerate().skip(HEAD_LINES);
        for (number, line) in lines.filter(|(_, line)| !line.is_empty()) {
            let wrong = || text.malformed(number, &String::from_utf8_lossy(line));
            let colon = line.iter().position(|&byte| byte == b':').ok_or_else(wrong)?;
            let name = line[..colon].trim_ascii();
            if name == b"lo" || is_drawn(name) {
                continue;
            }
            let rest = std::str::from_utf8(&line[colon + 1..]).map_err(|_| wrong())?;
            let (mut words, mut columns) = (rest.split_ascii_whitespace(), [0; COLUMNS]);
            for column in &mut columns {
                *column = words.next().and_then(|word| word.parse().ok()).ok_or_else(wrong)?;
            }
            self.found.push((name.to_owned(), columns));
        }
        Ok(())
    }

    /// Interfaces keep their order; one that is new where another was is looked at anew.
    fn known(&mut self, at: usize, name: &[u8], source: &mut Source) -> Option<&Known> {
        if self.known.get(at).is_none_or(|known| known.name != name) {
            let known = Known::look(name, source)?;
            self.known.truncate(at);
            self.known.push(known);
        }
        self.known.get(at)
    }
}

impl Known {
    fn look(name: &[u8], source: &mut Source) -> Option<Self> {
        let subject = Subject::new(SubjectKind::Net, &shown(name))?;
        let is_physical = source.path(file(name, "device")).exists();
        Some(Self { name: name.to_owned(), subject, is_physical })
    }
}

fn put(known: &Known, columns: &[u64; COLUMNS], speed: Option<f64>, source: &mut Source, sample: &mut Sample) {
    let subject = &known.subject;
    for (column, metric) in COUNTERS {
        sample.push(subject, metric, float(columns[column]));
    }
    if let Some(up) = is_up(&known.name, source) {
        sample.push(subject, const { metric("net_up") }, f64::from(u8::from(up)));
    }
    if let Some(speed) = speed {
        sample.push(subject, const { metric("net_speed_bytes") }, speed);
    }
}

/// A tunnel cannot tell whether its other end is there: it is up when it was switched on.
fn is_up(name: &[u8], source: &mut Source) -> Option<bool> {
    match source.line(file(name, "operstate"))?.as_str() {
        "up" => Some(true),
        "unknown" => {
            let flags = source.line(file(name, "flags"))?;
            let flags = u32::from_str_radix(flags.trim_start_matches("0x"), 16).ok()?;
            Some(flags & 1 == 1)
        }
        _ => Some(false),
    }
}

fn file(name: &[u8], of: &str) -> PathBuf {
    Path::new("sys/class/net").join(OsStr::from_bytes(name)).join(of)
}

fn is_drawn(name: &[u8]) -> bool {
    DRAWN.iter().any(|prefix| {
        name.strip_prefix(*prefix)
            .is_some_and(|rest| rest.len() >= DRAWN_BYTES_MIN && rest.iter().all(u8::is_ascii_alphanumeric))
    })
}

#[cfg(test)]
mod tests {
    use dunlin_shared::time::WallMs;

    use super::*;
    use crate::sample::tree::{Tree, Values};

    const HEAD: &str = "Inter-|   Receive    |  Transmit\n face |bytes    packets errs|bytes\n";

    fn line(name: &str, packets: u64) -> String {
        format!("  {name}: {packets}00 {packets} 1 2 0 0 0 0 {packets}11 {packets} 3 4 0 0 0 0\n")
    }

    fn dev(names: &[(&str, u64)]) -> String {
        names.iter().fold(HEAD.to_owned(), |text, (name, packets)| text + &line(name, *packets))
    }

    fn nets(tree: &Tree) -> Nets {
        Nets::new(tree.path(), Clock::start())
    }

    fn take(nets: &mut Nets, tree: &Tree) -> (Values, Vec<String>) {
        let (mut sample, mut failures) = (Sample::new(MonoMs(0), WallMs(0)), Failures::default());
        nets.sample(&mut Source::new(tree.path()), MonoMs(0), &mut sample, &mut failures);
        (Values::of(&sample), failures.into_list().iter().map(|failure| failure.error.to_string()).collect())
    }

    #[test]
    fn counters_state_and_speed_of_a_recorded_host() {
        let tree = Tree::new(&[
            ("proc/net/dev", &dev(&[("lo", 9), ("eth0", 5), ("tun0", 7)])),
            ("sys/class/net/eth0/device/vendor", ""),
            ("sys/class/net/eth0/operstate", "up\n"),
            ("sys/class/net/eth0/speed", "10000\n"),
            ("sys/class/net/tun0/operstate", "unknown\n"),
            ("sys/class/net/tun0/flags", "0x1090\n"),
        ]);
        let mut nets = nets(&tree);
        // The thread that asks for speeds may be late on a busy machine.
        let taken = (0..100_000).map(|_| take(&mut nets, &tree));
        let mut taken = taken.filter(|(values, _)| values.at("net:eth0", "net_speed_bytes").is_some());
        let (values, _) = taken.next().expect("it answers");
        let names = ["received_bytes", "sent_bytes", "received_packets", "sent_packets"];
        assert_eq!(names.map(|name| values.at("net:eth0", &format!("net_{name}"))), [500.0, 511.0, 5.0, 5.0].map(Some));
        let names = ["receive_errors", "receive_drops", "send_errors", "send_drops"];
        assert_eq!(names.map(|name| values.at("net:eth0", &format!("net_{name}"))), [1.0, 2.0, 3.0, 4.0].map(Some));
        assert_eq!(values.at("net:eth0", "net_speed_bytes"), Some(1.25e9));
        assert_eq!((values.at("net:eth0", "net_up"), values.at("net:tun0", "net_up")), (Some(1.0), Some(0.0)));
        assert_eq!(values.subjects("net:"), ["net:eth0", "net:tun0"]);
    }

    #[test]
    fn interfaces_of_containers_come_and_go_without_rows() {
        let tree = Tree::new(&[("proc/net/dev", &dev(&[("veth12ab3cd", 5), ("veth0", 5), ("tap0", 5), ("sit0", 0)]))]);
        let mut nets = nets(&tree);
        assert_eq!(take(&mut nets, &tree).0.subjects("net:"), ["net:veth0", "net:tap0"]);
        tree.set("proc/net/dev", &dev(&[("cali0123456789a", 5), ("tap0", 6)]));
        let (values, said) = take(&mut nets, &tree);
        assert_eq!((values.subjects("net:"), said.len()), (vec!["net:tap0".to_owned()], 0));
        assert_eq!(values.at("net:tap0", "net_received_packets"), Some(6.0));
    }

    #[test]
    fn an_unplugged_card_is_reported_as_down() {
        let tree = Tree::new(&[
            ("proc/net/dev", &dev(&[("eth1", 0)])),
            ("sys/class/net/eth1/device/vendor", ""),
            ("sys/class/net/eth1/operstate", "down\n"),
            ("sys/class/net/eth1/speed", "-1\n"),
        ]);
        let (values, _) = take(&mut nets(&tree), &tree);
        assert_eq!((values.at("net:eth1", "net_up"), values.at("net:eth1", "net_speed_bytes")), (Some(0.0), None));
    }

    #[test]
    fn names_that_are_no_text_stay_apart() {
        let mut text = HEAD.as_bytes().to_vec();
        for byte in [0xfe, 0xff] {
            text.extend([b'e', byte]);
            text.extend(line("", 3).trim_start().bytes());
        }
        let tree = Tree::new(&[]);
        tree.set_bytes(b"proc/net/dev", &text);
        let (values, said) = take(&mut nets(&tree), &tree);
        assert!(said.is_empty(), "{said:?}");
        assert_eq!(values.subjects("net:"), ["net:e\\xfe", "net:e\\xff"]);
    }

    #[test]
    fn a_thousand_interfaces_are_reported_up_to_the_limit() {
        let names: Vec<String> = (0..1_000).map(|n| format!("vlan{n}")).collect();
        let all: Vec<_> = names.iter().map(|name| (name.as_str(), 1)).collect();
        let tree = Tree::new(&[("proc/net/dev", &dev(&all))]);
        let (values, said) = take(&mut nets(&tree), &tree);
        assert_eq!((values.subjects("net:").len(), said.len()), (INTERFACES_MAX, 1));
    }
}
