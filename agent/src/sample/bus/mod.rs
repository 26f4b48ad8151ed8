//! Failed systemd units, told by systemd over the system bus, on a thread of its own and from time to time.
//!
//! No helper program is run. A host without systemd or without a bus has none; a bus that does not answer costs its rows.

pub mod talk;
pub mod wire;

use std::io;
use std::path::{Path, PathBuf};

use dunlin_shared::inventory::{Item, Source as Seen, Stock, Unit};
use dunlin_shared::sample::{Sample, Subject, SubjectKind};
use dunlin_shared::time::MonoMs;

use super::failure::{Failures, SampleError};
use super::lane::{Alive, Lane};
use super::metric;
use crate::clock::Clock;
use crate::sight::{Kind, Seeing, State};

/// A unit that fails is told within so long. Asked at every tick, systemd would work more for us than we do.
const ASK_EVERY_MS: u64 = 30_000;
/// What the first tick waits, so that one sample on a terminal has them too.
const FIRST_MS: u64 = 300;
const SOCKET: &str = "run/dbus/system_bus_socket";
const SOURCE: &str = "systemd";
/// dbus-daemon hangs up without a word on a user that /etc/passwd does not name, as on those of `DynamicUser=`.
const STRANGER: &str = "failed units are not seen: the system bus hung up, as it does on a user that it does not know";

type Answer = io::Result<(Vec<Unit>, usize)>;

#[derive(Debug)]
pub(super) struct Bus {
    clock: Clock,
    socket: PathBuf,
    lane: Option<Lane<(), Answer>>,
    /// When it was asked last, and whether the answer is still to come.
    asked: Option<(MonoMs, bool)>,
    failed: Vec<Unit>,
    left_out: u32,
    says: String,
}

impl Bus {
    pub(super) fn new(root: &Path, clock: Clock) -> Self {
        let (failed, says) = (Vec::new(), String::new());
        Self { clock, socket: root.join(SOCKET), lane: None, asked: None, failed, left_out: 0, says }
    }

    /// Asks when it is time to, and tells what the last answer was.
    pub(super) fn sample(&mut self, now: MonoMs, sample: &mut Sample, stock: &mut Stock, failures: &mut Failures) {
        // There is no bus, or none any more.
        if !self.socket.exists() {
            (self.failed, self.says) = (Vec::new(), String::new());
            return;
        }
        let is_first = self.asked.is_none();
        if self.asked.is_none_or(|(at, is_awaited)| !is_awaited && now.since(at) >= ASK_EVERY_MS) {
            self.ask(now, failures);
        }
        self.hear(if is_first { FIRST_MS } else { 0 });
        if let Some((at, true)) = self.asked
            && now.since(at) >= ASK_EVERY_MS
        {
            self.says = String::from("the system bus does not answer");
        }
        for unit in &self.failed {
            if let Some(subject) = Subject::new(SubjectKind::Unit, &unit.name) {
                sample.push(&subject, const { metric("unit_failed") }, 1.0);
            }
            stock.put(Item::Unit(unit.clone()));
        }
        stock.put(Item::Source(Seen {
            name: SOURCE.into(),
            is_working: self.says.is_empty(),
            says: self.says.as_str().into(),
            left_out: self.left_out,
        }));
    }

    /// How well it answers.
    pub(super) fn seeing(&self) -> Seeing {
        if !self.socket.exists() {
            return Seeing::new(Kind::Units, State::Absent).says("no system bus");
        }
        let state = match self.says.as_str() {
            "" => State::Works,
            STRANGER => State::Refused,
            _ => State::Failed,
        };
        Seeing::new(Kind::Units, state).says(self.says.as_str())
    }

    /// No answer is awaited.
    pub(super) const fn is_settled(&self) -> bool {
        !matches!(self.asked, Some((_, true)))
    }

    fn ask(&mut self, now: MonoMs, failures: &mut Failures) {
        if self.lane.is_none() {
            let socket = self.socket.clone();
            let started = Lane::start("bus", 1, self.clock, &Alive::default(), move |()| talk::failed_units(&socket));
            self.lane = failures.keep(started.map_err(|source| SampleError::Thread { what: "asking systemd", source }));
        }
        let is_asked = self.lane.as_mut().is_some_and(|lane| lane.ask(()).is_some());
        self.asked = Some((now, is_asked));
    }

    fn hear(&mut self, wait_ms: u64) {
        let Some((at, true)) = self.asked else { return };
        let Some(lane) = &self.lane else { return };
        let Some(answered) = lane.wait(self.clock, self.clock.mono().plus(wait_ms)) else { return };
        self.asked = Some((at, false));
        match answered.answer {
            Ok((failed, left_out)) => {
                (self.failed, self.says) = (failed, String::new());
                self.left_out = u32::try_from(left_out).unwrap_or(u32::MAX);
            }
            Err(error) => self.says = says(&error),
        }
    }
}

fn says(error: &io::Error) -> String {
    let mut text = match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => String::from("the system bus does not answer"),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
            STRANGER.to_owned()
        }
        _ => format!("failed units are not seen: {error}"),
    };
    text.truncate(text.floor_char_boundary(dunlin_shared::limits::FACT_BYTES_MAX));
    text
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixListener;
    use std::thread;

    use dunlin_shared::inventory::{Key, UnitState};
    use dunlin_shared::time::WallMs;

    use super::*;
    use crate::sample::tree::Tree;

    /// A bus that lets everybody in and then says `after`.
    fn serve(tree: &Tree, after: &'static [u8]) -> thread::JoinHandle<()> {
        let listener = UnixListener::bind(tree.path().join(SOCKET)).expect("a socket");
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("it connects");
            let mut said = [0; 512];
            let got = stream.read(&mut said).expect("it speaks");
            assert!(said[..got].starts_with(b"\0AUTH EXTERNAL "), "{:?}", &said[..got]);
            stream.write_all(b"OK 0123\r\n").expect("it listens");
            stream.write_all(after).expect("it listens");
            // Until the other end has enough.
            while stream.read(&mut said).is_ok_and(|got| got > 0) {}
        })
    }

    fn sampled(bus: &mut Bus, now: u64) -> Stock {
        let (mut sample, mut stock) = (Sample::new(MonoMs(now), WallMs(0)), Stock::default());
        bus.sample(MonoMs(now), &mut sample, &mut stock, &mut Failures::default());
        stock
    }

    fn says(stock: &Stock) -> Option<String> {
        match stock.get(&Key::Source(SOURCE.into())) {
            Some(Item::Source(source)) => Some(source.says.to_string()),
            _ => None,
        }
    }

    #[test]
    fn a_host_without_a_bus_has_no_word_of_it() {
        let tree = Tree::new(&[]);
        assert!(sampled(&mut Bus::new(tree.path(), Clock::start()), 0).is_empty());
    }

    #[test]
    fn a_bus_that_speaks_nonsense_is_said_once_it_did() {
        let tree = Tree::new(&[("run/dbus/keep", "")]);
        let served = serve(&tree, b"this is no message of any bus");
        let mut bus = Bus::new(tree.path(), Clock::start());
        let mut said = says(&sampled(&mut bus, 0));
        while said.as_deref() == Some("") {
            said = says(&sampled(&mut bus, 0));
        }
        let said = said.expect("there is a bus");
        assert!(said.starts_with("failed units are not seen"), "{said}");
        served.join().expect("it ends when it is hung up on");
    }

    #[test]
    fn a_bus_that_hangs_up_is_said_with_what_would_mend_it() {
        let tree = Tree::new(&[("run/dbus/keep", "")]);
        let listener = UnixListener::bind(tree.path().join(SOCKET)).expect("a socket");
        let served = thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("it connects");
            let mut said = [0; 512];
            let got = stream.read(&mut said).expect("it speaks");
            stream.write_all(b"OK 0123\r\n").expect("it listens");
            got
        });
        let mut bus = Bus::new(tree.path(), Clock::start());
        let mut said = says(&sampled(&mut bus, 0));
        while said.as_deref() == Some("") {
            said = says(&sampled(&mut bus, 0));
        }
        assert!(said.as_deref().is_some_and(|said| said.contains("a user that it does not know")), "{said:?}");
        assert!(served.join().expect("it hangs up") > 0);
    }

    #[test]
    fn what_a_bus_said_is_told_until_it_says_something_else() {
        let tree = Tree::new(&[("run/dbus/system_bus_socket", "no socket, but there")]);
        let mut bus = Bus::new(tree.path(), Clock::start());
        bus.failed =
            vec![Unit { name: "a.service".into(), state: UnitState::Failed, result: "exit-code".into(), since: None }];
        bus.asked = Some((MonoMs(0), false));
        let stock = sampled(&mut bus, 10);
        assert!(stock.get(&Key::Unit("a.service".into())).is_some());
    }
}
