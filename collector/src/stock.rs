//! What stands on a node, as `control.db` keeps it: its items, and since when each of them stands so.
//!
//! Pure. What is read back is judged like anything from outside: bytes that make no sense are none of ours, and lead
//! to no stock at all. A time is that of receipt; whoever stands as before keeps his.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use dunlin_shared::inventory::{Change, Container, Engine, Happening, Item, Key, Mismatch, Source, Stock};
use dunlin_shared::limits::{ITEMS_MAX, STOCK_BYTES_MAX};
use dunlin_shared::time::WallMs;
use serde::{Deserialize, Serialize};

/// A stock that is full, ten bytes of time beside each item, and what says how many there are.
const BODY_BYTES_MAX: usize = STOCK_BYTES_MAX + 10 * ITEMS_MAX + 16;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeptStock {
    stock: Stock,
    since: BTreeMap<Key, WallMs>,
}

/// How much stands on a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub containers: u32,
    pub containers_up: u32,
    pub processes: u32,
    pub ports: u32,
    pub ports_exposed: u32,
    pub units_failed: u32,
}

/// What is written of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StockBody {
    pub bytes: Arc<[u8]>,
    pub counts: Counts,
}

/// As it is stored. What has shipped is never edited: another layout is a further variant.
#[derive(Serialize, Deserialize)]
enum Body {
    V1(Vec<(i64, Item)>),
}

impl KeptStock {
    /// All of it as it was told then. What stands as it did before stands since then.
    #[must_use]
    pub fn told(before: Option<&Self>, stock: Stock, at: WallMs) -> Self {
        let since = |item: &Item| {
            let key = item.key();
            let since = before.and_then(|before| before.since_if_so(&key, item)).unwrap_or(at);
            (key, since)
        };
        let since = stock.items().map(since).collect();
        Self { stock, since }
    }

    /// Applied in any case, so that it comes as near to what is so as it can. Refused, it is not what the node has.
    pub fn apply(&mut self, change: Change, at: WallMs) -> Result<(), Mismatch> {
        let builds = change.before == self.stock.hash();
        for key in &change.gone {
            self.stock.remove(key);
            self.since.remove(key);
        }
        for item in change.items {
            let key = item.key();
            let since = self.since_if_so(&key, &item).unwrap_or(at);
            self.put(key, item, since);
        }
        if builds && self.stock.hash() == change.after { Ok(()) } else { Err(Mismatch) }
    }

    /// What happened until it is told whole again. A container whose engine nobody asks by then, or that is known by
    /// its id alone before or after, neither went nor came: a host that boots starts its agent before its engines.
    #[must_use]
    pub fn happened_until(&self, after: &Stock, at: WallMs) -> Vec<Happening> {
        let (ids_before, ids_after) = (by_id(&self.stock), by_id(after));
        let is_asked = |one: &Container| is_asked(one.engine, &self.stock, after);
        let is_other = |one: &Container, ids: &HashMap<&str, bool>| ids.get(&*one.id) == Some(&!one.is_told);
        after.happened_since(&self.stock, at, |key| match (self.stock.get(key), after.get(key)) {
            (Some(Item::Container(gone)), None) => (!gone.is_told || is_asked(gone)) && !is_other(gone, &ids_after),
            (None, Some(Item::Container(new))) => !is_other(new, &ids_before),
            _ => true,
        })
    }

    #[must_use]
    pub const fn stock(&self) -> &Stock {
        &self.stock
    }

    #[must_use]
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for item in self.stock.items() {
            match item {
                Item::Container(container) => {
                    counts.containers += 1;
                    counts.containers_up += u32::from(container.is_up());
                }
                Item::Port(port) => {
                    counts.ports += 1;
                    counts.ports_exposed += u32::from(port.scope.is_exposed());
                }
                Item::Group(_) => counts.processes += 1,
                Item::Unit(_) => counts.units_failed += 1,
                Item::Source(_) => {}
            }
        }
        counts
    }

    #[must_use]
    pub fn body(&self) -> StockBody {
        StockBody { bytes: self.encode().into(), counts: self.counts() }
    }

    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let since = |item: &Item| self.since.get(&item.key()).map_or(0, |since| since.0);
        let body = Body::V1(self.stock.items().map(|item| (since(item), item.clone())).collect());
        postcard::to_stdvec(&body).expect("plain data serialises into a growing buffer")
    }

    /// `None` for what this version did not write.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut kept = Self::default();
        for (since, item) in items(bytes)? {
            let key = item.key();
            kept.put(key, item, since);
        }
        Some(kept)
    }

    /// What finds no room takes what stood in its place along.
    fn put(&mut self, key: Key, item: Item, since: WallMs) {
        if self.stock.put(item) {
            self.since.insert(key, since);
        } else {
            self.since.remove(&key);
        }
    }

    /// Since when it stands so, when it does.
    fn since_if_so(&self, key: &Key, after: &Item) -> Option<WallMs> {
        let is_so = match (self.stock.get(key)?, after) {
            (Item::Container(before), Item::Container(after)) => before.state == after.state && before.id == after.id,
            _ => true,
        };
        self.since.get(key).copied().filter(|_| is_so)
    }
}

/// Whether all engines of the kind are asked that were, so that a container which is not told is gone. A container does
/// not say which of several is its own. A source's first word is its engine's: `docker`, `podman of user 1000`,
/// `docker at /run/dunlin-proxy/engine.sock`.
fn is_asked(engine: Engine, before: &Stock, after: &Stock) -> bool {
    let of_engine = |stock| sources(stock).filter(move |one| one.name.split(' ').next() == Some(engine.as_str()));
    let mut now = of_engine(after).peekable();
    now.peek().is_some()
        && now.all(|one| one.is_working)
        && of_engine(before).all(|one| after.get(&Key::Source(one.name.clone())).is_some())
}

fn sources(stock: &Stock) -> impl Iterator<Item = &Source> {
    stock.items().filter_map(|item| match item {
        Item::Source(source) => Some(source),
        _ => None,
    })
}

/// Whether the containers of a stock are told by their engines, by id.
fn by_id(stock: &Stock) -> HashMap<&str, bool> {
    let mut told = HashMap::new();
    for item in stock.items() {
        if let Item::Container(one) = item {
            told.insert(&*one.id, one.is_told);
        }
    }
    told
}

/// The items alone, sorted by key, for whoever only shows them. `None` for what this version did not write.
#[must_use]
pub fn items(bytes: &[u8]) -> Option<Vec<(WallMs, Item)>> {
    if bytes.len() > BODY_BYTES_MAX {
        return None;
    }
    let (Body::V1(items), rest) = postcard::take_from_bytes(bytes).ok()?;
    let is_ours = rest.is_empty() && items.len() <= ITEMS_MAX;
    is_ours.then(|| items.into_iter().map(|(since, item)| (WallMs(since), item)).collect())
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use dunlin_shared::inventory::{ContainerState, Place, Port, Protocol, Scope};
    use dunlin_shared::limits::PORTS_MAX;
    use proptest::prelude::*;

    use super::*;

    fn port(number: u16, process: &str) -> Item {
        let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let place = Place { network: None, protocol: Protocol::Tcp, address, port: number };
        let process = Some(process.into());
        Item::Port(Port { place, scope: Scope::Loopback, process, container: None, user: None })
    }

    fn container(id: &str, state: ContainerState) -> Item {
        let container = Container { name: "web".into(), id: id.into(), state, ..Container::default() };
        Item::Container(Box::new(container))
    }

    fn since(kept: &KeptStock) -> Vec<i64> {
        items(&kept.encode()).expect("ours").into_iter().map(|(since, _)| since.0).collect()
    }

    #[test]
    fn what_stands_as_before_keeps_its_time_and_a_container_that_does_not_gets_a_new_one() {
        let first = Stock::of([container("a", ContainerState::Running), port(1, "sshd")]);
        let kept = KeptStock::told(None, first, WallMs(10));
        let later = Stock::of([container("a", ContainerState::Exited), port(1, "sshd"), port(2, "cron")]);
        let mut kept = KeptStock::told(Some(&kept), later, WallMs(20));
        assert_eq!(since(&kept), [20, 10, 20]);
        let mut next = kept.stock().clone();
        next.remove(&port(2, "").key());
        next.put(container("b", ContainerState::Exited));
        next.put(port(1, "other"));
        let change = next.change_from(kept.stock()).expect("they differ");
        assert_eq!(kept.apply(change, WallMs(30)), Ok(()));
        assert_eq!(since(&kept), [30, 10]);
    }

    #[test]
    fn what_does_not_build_on_it_is_refused_and_brings_it_nearer() {
        let mut kept = KeptStock::told(None, Stock::of([port(1, "a"), port(2, "b")]), WallMs(1));
        let (one, two) = (Stock::of([port(1, "a"), port(3, "c")]), Stock::of([port(3, "c"), port(4, "d")]));
        let change = two.change_from(&one).expect("they differ");
        assert_eq!(kept.apply(change, WallMs(2)), Err(Mismatch));
        assert_eq!(kept.stock(), &Stock::of([port(2, "b"), port(4, "d")]));
        let mut lied = kept.clone();
        let change = Change { before: lied.stock().hash(), gone: vec![port(2, "").key()], ..Change::default() };
        assert_eq!(lied.apply(change, WallMs(3)), Err(Mismatch), "it leads elsewhere");
    }

    #[test]
    fn a_container_is_gone_only_when_its_engine_was_asked_and_new_only_when_it_was_not_known_by_its_id() {
        let of = |name: &str, is_told| {
            let (name, engine) = (name.into(), Engine::Docker);
            Item::Container(Box::new(Container { name, id: "a".into(), engine, is_told, ..Container::default() }))
        };
        let source = |name: &str, is_working| {
            Item::Source(Source { name: name.into(), is_working, says: "".into(), left_out: 0 })
        };
        let happened = |before: &[Item], after: &[Item]| -> Vec<&str> {
            let before = KeptStock::told(None, Stock::of(before.to_vec()), WallMs(1));
            let happened = before.happened_until(&Stock::of(after.to_vec()), WallMs(2));
            happened.iter().map(|one| one.what.as_str()).collect()
        };
        let (web, short) = (of("web", true), of("0123456789ab", false));
        let (working, shut) = (source("docker", true), source("docker", false));
        assert_eq!(happened(std::slice::from_ref(&web), std::slice::from_ref(&working)), ["container.removed"]);
        assert_eq!(happened(&[web.clone(), working.clone()], &[]), [""; 0], "no engine is there yet");
        assert_eq!(happened(std::slice::from_ref(&web), &[source("podman", true), shut.clone()]), [""; 0]);
        assert_eq!(happened(std::slice::from_ref(&web), &[short.clone(), shut]), [""; 0], "it is the same one");
        assert_eq!(happened(std::slice::from_ref(&short), &[web.clone(), working]), [""; 0]);
        assert_eq!(happened(std::slice::from_ref(&short), &[]), ["container.removed"]);
        assert_eq!(happened(&[], &[web]), ["container.created", "container.started"]);
    }

    #[test]
    fn by_the_first_word_of_a_source_it_is_known_whose_containers_it_tells() {
        let name = |name: &str| -> Box<str> { name.into() };
        let web = Container { name: name("web"), engine: Engine::Docker, is_told: true, ..Container::default() };
        let web = Item::Container(Box::new(web));
        let source = |text: &str, is_working| {
            Item::Source(Source { name: name(text), is_working, says: "".into(), left_out: 0 })
        };
        let is_removed = |before: &[&str], after: &[(&str, bool)]| {
            let before = before.iter().map(|text| source(text, true)).chain([web.clone()]);
            let before = KeptStock::told(None, Stock::of(before), WallMs(1));
            let after = Stock::of(after.iter().map(|(text, is_working)| source(text, *is_working)));
            !before.happened_until(&after, WallMs(2)).is_empty()
        };
        let proxy = "docker at /run/dunlin-proxy/engine.sock";
        assert!(is_removed(&[proxy], &[(proxy, true)]));
        assert!(!is_removed(&[], &[("podman at /run/docker.sock", true)]), "a path is no word of its own");
        let two = ["docker", "docker of user 1000"];
        assert!(is_removed(&two, &[(two[0], true), (two[1], true)]));
        assert!(!is_removed(&two, &[(two[0], true), (two[1], false)]), "it may be one of those that nobody tells now");
        assert!(!is_removed(&two, &[(two[0], true)]), "its user is not there yet");
    }

    #[test]
    fn a_stock_at_its_limits_is_kept_and_counted() {
        let ports = (0..PORTS_MAX).map(|number| port(u16::try_from(number).expect("few"), &"p".repeat(255)));
        let kept = KeptStock::told(None, Stock::of(ports), WallMs(i64::MAX));
        let bytes = kept.encode();
        assert!(bytes.len() > STOCK_BYTES_MAX / 2 && bytes.len() <= BODY_BYTES_MAX, "{}", bytes.len());
        assert_eq!(KeptStock::decode(&bytes).as_ref(), Some(&kept));
        assert_eq!(kept.counts(), Counts { ports: PORTS_MAX, ..Counts::default() });
        let many = vec![(0i64, port(1, "")); ITEMS_MAX + 1];
        assert!(items(&postcard::to_stdvec(&Body::V1(many)).expect("encoded")).is_none());
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            if let Some(kept) = KeptStock::decode(&bytes) {
                prop_assert_eq!(KeptStock::decode(&kept.encode()), Some(kept));
            }
        }

        #[test]
        fn what_is_kept_is_what_is_told_and_reads_back(
            steps in prop::collection::vec((0u16..20, any::<bool>(), 0i64..100), 0..60),
        ) {
            let (mut kept, mut stock) = (KeptStock::default(), Stock::default());
            for (number, is_there, at) in steps {
                let mut next = stock.clone();
                if is_there { next.put(port(number, "p")); } else { next.remove(&port(number, "").key()); }
                if let Some(change) = next.change_from(&stock) {
                    prop_assert_eq!(kept.apply(change, WallMs(at)), Ok(()));
                }
                prop_assert_eq!(kept.stock(), &next);
                prop_assert_eq!(KeptStock::decode(&kept.encode()), Some(kept.clone()));
                stock = next;
            }
        }
    }
}
