//! So many connections from one address that are begun, prove the address when they are asked to, and go no further.
//!
//! Each begins anew a while later, so that there are as many all the time.

use std::collections::VecDeque;
use std::net::{SocketAddrV4, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::Result;
use dunlin_collector::shape::Event;

use super::ground::{FLOODER, Ground};
use super::initial::{self, ConnectionId, Forge, Reply};
use super::worker::{End, Worker};
use crate::random::Random;

const SEED: u64 = 20_000;
/// When each begins anew; the collector gives up within 5 s what it took up.
const AGAIN: Duration = Duration::from_secs(2);
/// First packets sent between two looks at what was answered.
const BATCH: usize = 16;

#[derive(Debug, Default)]
struct Counts {
    begun: u64,
    proven: u64,
    flights: u64,
    refused: u64,
}

struct Flood {
    socket: UdpSocket,
    target: SocketAddrV4,
    forge: Forge,
    random: Random,
    /// Which is due when, in that order.
    due: VecDeque<(Instant, u64)>,
    counts: Counts,
}

pub(super) fn start(ground: &Ground<'_>) -> Result<Worker> {
    let socket = ground.socket()?;
    socket.set_nonblocking(true)?;
    let now = Instant::now();
    let connections = ground.plan.half_open;
    let flood = Flood {
        socket,
        target: ground.target,
        forge: Forge::new()?,
        random: Random::new(SEED),
        due: (0..connections).map(|number| (now, number)).collect(),
        counts: Counts::default(),
    };
    Worker::start("half-open", move |end| flood.run(connections, end))
}

/// The network that it comes from.
pub(super) fn names(event: &Event, _: &Ground<'_>) -> bool {
    let names = |key: &str, value: &str| event.more.get(key).and_then(|said| said.as_str()) == Some(value);
    let [a, b, c, _] = FLOODER.octets();
    event.kind == "network.refused"
        && names("network", &format!("{a}.{b}.{c}.0/24"))
        && names("address", &FLOODER.to_string())
}

impl Flood {
    fn run(mut self, connections: u64, end: &End) -> Result<String> {
        while !end.has_come() {
            let began = self.begin()?;
            let heard = self.hear()?;
            if !began && !heard {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        let Counts { begun, proven, flights, refused } = self.counts;
        Ok(format!(
            "{connections} at a time; begun {begun} times, {proven} proved their address, {flights} were taken up, {refused} refused"
        ))
    }

    /// Those that are due; whether any was.
    fn begin(&mut self) -> Result<bool> {
        let now = Instant::now();
        let mut began = false;
        for _ in 0..BATCH {
            let Some((_, number)) = self.due.pop_front_if(|(at, _)| *at <= now) else { break };
            began = true;
            self.counts.begun += 1;
            let to = initial::id(&mut self.random);
            self.send(to, own(number), &[])?;
            self.due.push_back((now + AGAIN, number));
        }
        Ok(began)
    }

    fn hear(&mut self) -> Result<bool> {
        let mut buffer = [0; 2_048];
        let mut heard = false;
        for _ in 0..4 * BATCH {
            let Ok(len) = self.socket.recv(&mut buffer) else { break };
            heard = true;
            match initial::reply(&buffer[..len]) {
                Some((own, Reply::Retry { id, token })) => {
                    self.counts.proven += 1;
                    self.send(id, own, &token)?;
                }
                Some((_, Reply::Flight)) => self.counts.flights += 1,
                Some((_, Reply::Close)) => self.counts.refused += 1,
                None => {}
            }
        }
        Ok(heard)
    }

    /// What the kernel has no room for is as lost as on the way.
    fn send(&self, to: ConnectionId, own: ConnectionId, token: &[u8]) -> Result<()> {
        let datagram = self.forge.initial(to, own, token)?;
        self.socket.send_to(&datagram, self.target).ok();
        Ok(())
    }
}

const fn own(number: u64) -> ConnectionId {
    number.to_be_bytes()
}
