//! Which datagrams are looked at at all, before anything is decoded or allocated for them: those that bear an id of ours
//! always, first packets of connections at a rate, the rest hardly. Pure.
//!
//! Networks that have nodes have a budget of their own, so that a flood from addresses that anybody can forge keeps no node
//! out that comes back. What is left unread costs nobody an answer; it is counted, and told as a flood.

use std::collections::HashMap;

use dunlin_shared::limits::{FIRST_PACKETS_BURST, FIRST_PACKETS_PER_S, STRAY_PACKETS_PER_S};
use dunlin_shared::session::pace::Bucket;
use dunlin_shared::time::MonoMs;

use super::admission::Prefix;

/// What a packet of a connection begins with, and what it means when it has a long head.
const LONG: u8 = 0x80;
const TYPE: u8 = 0x30;
const INITIAL: u8 = 0x00;
const QUIC_1: [u8; 4] = [0, 0, 0, 1];
/// As long as ids of ours are.
pub(super) const ID_BYTES: usize = 8;

/// First packets that are left unread in a second, for it to be a flood: far above what is lost when a fleet starts.
const FLOOD_PER_S: u64 = 1_000;
const WINDOW_MS: u64 = 1_000;
/// A flood is over when there was none for so long.
const CALM_MS: u64 = 30_000;
/// While it goes on it is told again when it has doubled.
const TELL_AGAIN: u64 = 2;
/// Networks with nodes that are remembered. A rack or an office each.
const KNOWN_MAX: usize = 8_192;

/// What the first bytes of a datagram say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// It is for a connection, as far as its id tells.
    Ours,
    /// It begins a connection, and comes back to where it was sent.
    Returning,
    /// It begins a connection, or asks for a version.
    First,
    /// Of nothing that we know.
    Stray,
}

#[derive(Debug)]
pub(super) struct Doorstep {
    known: Bucket,
    unknown: Bucket,
    returning: Bucket,
    stray: Bucket,
    /// Networks that nodes came from, and when last.
    networks: HashMap<Prefix, MonoMs>,
    window: Window,
    flood: Option<Flood>,
    /// Since it was asked last.
    unread: u64,
}

/// First packets of one second.
#[derive(Clone, Copy, Debug, Default)]
struct Window {
    began: Option<MonoMs>,
    seen: u64,
    unread: u64,
    /// If more than half came from one network, it is this one.
    candidate: Option<(Prefix, u64)>,
}

#[derive(Clone, Copy, Debug)]
struct Flood {
    began: MonoMs,
    seen: u64,
    peak: u64,
    told: u64,
    last: MonoMs,
}

/// What the feed is to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum News {
    Flooded { per_second: u64, unread: u64, network: Option<Prefix> },
    Over { seconds: u64, count: u64, peak: u64 },
}

/// `is_ours` judges an id that is as long as ours are.
pub(super) fn kind(datagram: &[u8], is_ours: impl FnOnce(&[u8; ID_BYTES]) -> bool) -> Kind {
    let Some((&first, rest)) = datagram.split_first() else { return Kind::Stray };
    if first & LONG == 0 {
        let is_ours = rest.first_chunk::<ID_BYTES>().is_some_and(is_ours);
        return if is_ours { Kind::Ours } else { Kind::Stray };
    }
    let Some((version, rest)) = rest.split_first_chunk::<4>() else { return Kind::Stray };
    let Some((&len, rest)) = rest.split_first() else { return Kind::Stray };
    let is_ours = usize::from(len) == ID_BYTES && rest.first_chunk::<ID_BYTES>().is_some_and(is_ours);
    match (*version == QUIC_1, first & TYPE == INITIAL) {
        (true, true) if is_ours => Kind::Returning,
        (true, false) if is_ours => Kind::Ours,
        // QUIC knows no connection by it, and answers nothing.
        (true, false) => Kind::Stray,
        (true, true) | (false, _) => Kind::First,
    }
}

impl Doorstep {
    pub(super) fn new(now: MonoMs) -> Self {
        let first = || Bucket::new(now, FIRST_PACKETS_BURST, FIRST_PACKETS_PER_S);
        Self {
            known: first(),
            unknown: first(),
            returning: first(),
            stray: Bucket::new(now, STRAY_PACKETS_PER_S, STRAY_PACKETS_PER_S),
            networks: HashMap::new(),
            window: Window::default(),
            flood: None,
            unread: 0,
        }
    }

    /// A node came from there.
    pub(super) fn welcome(&mut self, now: MonoMs, network: Prefix) {
        if self.networks.len() >= KNOWN_MAX && !self.networks.contains_key(&network) {
            let oldest = self.networks.iter().min_by_key(|(_, at)| **at).map(|(network, _)| *network);
            oldest.and_then(|oldest| self.networks.remove(&oldest));
        }
        self.networks.insert(network, now);
    }

    /// Whether it is looked at. `has_room` is whether one more that begins something can wait.
    pub(super) fn admits(&mut self, now: MonoMs, kind: Kind, network: Prefix, has_room: bool) -> bool {
        let bucket = match kind {
            Kind::Ours => return true,
            Kind::Stray => return has_room && self.stray.take(now),
            Kind::Returning => &mut self.returning,
            Kind::First if self.networks.contains_key(&network) => &mut self.known,
            Kind::First => &mut self.unknown,
        };
        let is_read = has_room && bucket.take(now);
        self.window.count(now, network, is_read);
        self.unread += u64::from(!is_read);
        is_read
    }

    /// So many that it admitted waited too long, and are not looked at either.
    pub(super) const fn gave_up(&mut self, count: u64) {
        self.unread += count;
    }

    /// First packets that were not looked at since it was asked last.
    pub(super) const fn take_unread(&mut self) -> u64 {
        std::mem::replace(&mut self.unread, 0)
    }

    /// When it wants to be looked at, apart from when something comes.
    pub(super) fn next(&self) -> Option<MonoMs> {
        let window = self.window.began.filter(|_| self.window.unread > 0).map(|began| began.plus(WINDOW_MS));
        let flood = self.flood.map(|flood| flood.last.plus(CALM_MS));
        [window, flood].into_iter().flatten().min()
    }

    /// What there is to tell now, if anything.
    pub(super) fn take_news(&mut self, now: MonoMs) -> Option<News> {
        if self.window.began.is_some_and(|began| now >= began.plus(WINDOW_MS)) {
            let window = std::mem::take(&mut self.window);
            if let Some(news) = self.close(now, window) {
                return Some(news);
            }
        }
        let over = self.flood.take_if(|flood| now >= flood.last.plus(CALM_MS))?;
        let seconds = over.last.since(over.began).div_ceil(1_000);
        Some(News::Over { seconds, count: over.seen, peak: over.peak })
    }

    fn close(&mut self, now: MonoMs, window: Window) -> Option<News> {
        if window.unread < FLOOD_PER_S {
            return None;
        }
        // A turn of the driver may be longer than a second on a machine that does other things.
        let began = window.began.unwrap_or(now);
        let per_second = window.seen * 1_000 / now.since(began).max(WINDOW_MS);
        let flood = self.flood.get_or_insert(Flood { began, seen: 0, peak: 0, told: 0, last: now });
        flood.seen += window.seen;
        flood.peak = flood.peak.max(per_second);
        flood.last = now;
        if per_second < flood.told * TELL_AGAIN || per_second == 0 {
            return None;
        }
        flood.told = per_second;
        Some(News::Flooded { per_second, unread: window.unread, network: window.majority() })
    }
}

impl Window {
    fn count(&mut self, now: MonoMs, network: Prefix, is_read: bool) {
        self.began.get_or_insert(now);
        self.seen += 1;
        self.unread += u64::from(!is_read);
        self.candidate = match self.candidate {
            Some((candidate, weight)) if candidate == network => Some((candidate, weight + 1)),
            Some((candidate, weight)) if weight > 1 => Some((candidate, weight - 1)),
            _ => Some((network, 1)),
        };
    }

    /// Whoever leads by so much sent most of it.
    fn majority(&self) -> Option<Prefix> {
        self.candidate.filter(|(_, weight)| weight * 2 >= self.seen).map(|(network, _)| network)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const OURS: [u8; ID_BYTES] = [9; ID_BYTES];

    fn network(n: u64) -> Prefix {
        let [.., high, middle, low] = n.to_be_bytes();
        Prefix::of(Ipv4Addr::new(10 + high, middle, low, 1).into())
    }

    fn of(bytes: &[u8]) -> Kind {
        kind(bytes, |id| *id == OURS)
    }

    #[test]
    fn what_a_datagram_is_stands_in_its_first_bytes() {
        let long = |first: u8, version: [u8; 4], id: &[u8]| {
            [&[first][..], &version, &[u8::try_from(id.len()).expect("short")], id, &[0; 40]].concat()
        };
        assert_eq!(of(&[&[0x41][..], &OURS, &[0; 20]].concat()), Kind::Ours);
        assert_eq!(of(&[&[0x41][..], &[1; 8], &[0; 20]].concat()), Kind::Stray);
        assert_eq!(of(&long(0xc0, QUIC_1, &OURS)), Kind::Returning);
        assert_eq!(of(&long(0xc0, QUIC_1, &[1; 8])), Kind::First);
        assert_eq!(of(&long(0xc3, QUIC_1, &[9; 20])), Kind::First, "an id of another length is none of ours");
        assert_eq!(of(&long(0xe0, QUIC_1, &OURS)), Kind::Ours, "the rest of a handshake");
        assert_eq!(of(&long(0xe0, QUIC_1, &[1; 8])), Kind::Stray);
        assert_eq!(of(&long(0xe0, [0x1a; 4], &[1; 8])), Kind::First, "a version that is to be negotiated");
        for short in 0..14 {
            assert_ne!(of(&long(0xc0, QUIC_1, &OURS)[..short]), Kind::Returning, "{short} bytes");
        }
    }

    #[test]
    fn a_flood_of_forged_addresses_takes_nothing_from_networks_with_nodes_and_from_connections() {
        let mut doorstep = Doorstep::new(MonoMs(0));
        doorstep.welcome(MonoMs(0), network(0));
        let read = (0..50_000).filter(|n| doorstep.admits(MonoMs(n / 50), Kind::First, network(1 + n), true)).count();
        assert!((10_000..15_100).contains(&read), "{read}");
        let now = MonoMs(1_000);
        assert!(doorstep.admits(now, Kind::First, network(0), true), "a node that comes back");
        assert!(doorstep.admits(now, Kind::Returning, network(77), true), "one that proved its address");
        assert!(doorstep.admits(now, Kind::Ours, network(78), false));
        assert!(!doorstep.admits(now, Kind::First, network(0), false), "nobody waits where there is no room");
    }

    #[test]
    fn a_flood_is_told_when_it_begins_when_it_doubles_and_when_it_is_over() {
        let mut doorstep = Doorstep::new(MonoMs(0));
        let mut news = Vec::new();
        let mut rates = vec![2_000; 3];
        rates.extend([50_000; 60]);
        rates.extend([120_000; 2]);
        for (second, rate) in rates.iter().enumerate() {
            for n in 0..*rate {
                let at = MonoMs(second as u64 * 1_000 + n * 1_000 / rate);
                doorstep.admits(at, Kind::First, network(n), true);
            }
            news.extend(doorstep.take_news(MonoMs((second as u64 + 1) * 1_000)));
        }
        let rates: Vec<_> = news
            .iter()
            .map(|news| match news {
                News::Flooded { per_second, network, .. } => (*per_second, *network),
                News::Over { .. } => panic!("it goes on"),
            })
            .collect();
        assert_eq!(rates, [(50_000, None), (120_000, None)]);
        let end = doorstep.next().expect("it waits for the end");
        assert_eq!(doorstep.take_news(MonoMs(end.0 - 1)), None);
        let over = doorstep.take_news(end);
        assert_eq!(over, Some(News::Over { seconds: 62, count: 60 * 50_000 + 2 * 120_000, peak: 120_000 }));
        assert_eq!((doorstep.next(), doorstep.take_news(MonoMs(u64::MAX))), (None, None));
    }

    #[test]
    fn a_network_that_sends_most_of_a_flood_is_named() {
        let mut doorstep = Doorstep::new(MonoMs(0));
        for n in 0..20_000 {
            let from = if n % 5 == 0 { network(n) } else { network(3) };
            doorstep.admits(MonoMs(n / 20), Kind::First, from, true);
        }
        let news = doorstep.take_news(MonoMs(1_000));
        assert!(matches!(news, Some(News::Flooded { network: Some(named), .. }) if named == network(3)), "{news:?}");
    }

    #[test]
    fn a_fleet_that_starts_at_once_is_no_flood() {
        let mut doorstep = Doorstep::new(MonoMs(0));
        let read = (0..10_000).filter(|n| doorstep.admits(MonoMs(n / 50), Kind::First, network(1), true)).count();
        assert_eq!((read, doorstep.take_news(MonoMs(5_000))), (10_000, None));
    }

    #[test]
    fn many_networks_do_not_fill_the_memory() {
        let mut doorstep = Doorstep::new(MonoMs(0));
        (0..10_000).for_each(|n| doorstep.welcome(MonoMs(n), network(n)));
        assert_eq!(doorstep.networks.len(), KNOWN_MAX);
        assert!(doorstep.networks.contains_key(&network(9_999)) && !doorstep.networks.contains_key(&network(0)));
    }
}
