//! What nodes tell of their inventory, through the real pipeline onto a real disk.

mod happened;

use dunlin_shared::frame::{BodyKind, Frame};
use dunlin_shared::id::{Epoch, FrameId};
use dunlin_shared::inventory::{Change, Inventory, Item, Place, Port, Protocol, Scope};
use dunlin_shared::wire::Lane;

use super::*;
use crate::engine::{Restored, StockState};
use crate::record::{Pos, Record};
use crate::store::tests::execute;

const AT: WallMs = WallMs(1_800_000_000_000);

/// A collector's pipeline without its thread.
struct Line {
    pipeline: Pipeline,
    pos: Pos,
}

impl Line {
    fn start(dir: &Path) -> Self {
        let clock = Clock::start();
        let (control, opened) = Control::open(&dir.join("control.db"), clock.wall(), 7).expect("it opens");
        let (rows, stocks) = (control.nodes().expect("read"), control.stocks().expect("read"));
        let stock = |node| stocks.iter().find(|row| row.node == node).map(|row| (row.mark, row.noise));
        let restored = |row: &NodeRow| Restored { stock: stock(row.key), ..Restored::of(row.key, row.last_seen) };
        let engine = Engine::restore(opened.applied_pos, rows.iter().map(restored));
        let (revoked, _) = Revoked::open(dir).expect("it opens");
        let told = (Arc::default(), Arc::default(), clock);
        let pipeline = Pipeline::new(engine, (control, revoked), &rows, told).expect("read");
        Self { pipeline, pos: opened.applied_pos }
    }

    fn put(&mut self, event: Event) {
        self.pos = self.pos.next();
        let record = Record { at: AT, event };
        self.pipeline.apply(Logged { pos: Some(self.pos), record, reading: None }).expect("nothing is damaged");
    }

    fn hello(&mut self, node: u32) {
        let session = SessionStart {
            node: id(node),
            name: format!("web-{node}"),
            agent_version: String::new(),
            boot_id: [0; 16],
            epoch: Epoch(1),
            interval_ms: 10_000,
            skew_ms: 0,
            before: None,
        };
        self.put(Event::Hello { node: NodeKey(node), session });
    }

    fn tell(&mut self, node: u32, seq: u64, inventory: &Inventory) {
        let frame = Frame { id: FrameId::new(1, seq), kind: BodyKind::Inventory, body: inventory.encode() };
        self.put(Event::Frame { node: NodeKey(node), lane: Lane::Live, frame });
    }

    fn asked(&self) -> Vec<NodeId> {
        self.pipeline.outlets().gate.take_asked().into_iter().collect()
    }

    fn kept(&self, node: u32) -> Option<Stock> {
        let body = self.pipeline.control.stock_body(NodeKey(node)).expect("read")?;
        KeptStock::decode(&body).map(|kept| kept.stock().clone())
    }

    fn state(&self, node: u32) -> StockState {
        self.pipeline.engine.stock(NodeKey(node)).0.state
    }
}

fn id(node: u32) -> NodeId {
    NodeId::v7(node.into(), [1; 10])
}

fn ports(numbers: impl IntoIterator<Item = u16>) -> Stock {
    Stock::of(numbers.into_iter().map(|number| {
        let address = std::net::Ipv4Addr::UNSPECIFIED.into();
        let place = Place { network: None, protocol: Protocol::Tcp, address, port: number };
        let process = Some("redis-server".into());
        Item::Port(Port { place, scope: Scope::Any, process, container: None, user: Some("redis".into()) })
    }))
}

fn whole(stock: &Stock) -> Inventory {
    Inventory::Whole(stock.to_whole(Vec::new()))
}

fn change(before: &Stock, after: &Stock) -> Change {
    let happened = after.happened_since(before, AT, |_| true);
    Change { happened, ..after.change_from(before).expect("they differ") }
}

#[test]
fn what_a_node_tells_is_on_disk_with_its_events_and_position() {
    let dir = Dir::new();
    let mut line = Line::start(dir.path());
    let (one, two) = (ports([22]), ports([22, 6_379]));
    line.hello(1);
    line.tell(1, 1, &whole(&one));
    line.tell(1, 2, &Inventory::Change(change(&one, &two)));
    line.pipeline.write().expect("written");
    assert_eq!((line.kept(1), line.asked()), (Some(two), vec![]));
    let reader = ControlReader::open(&dir.path().join("control.db")).expect("it opens");
    let events = reader.events_about(id(1), 9).expect("read");
    let opened: serde_json::Value = serde_json::from_str(&events[0].body).expect("JSON");
    assert_eq!((events[0].kind.as_str(), &opened["port"]), ("port.opened", &serde_json::json!(6_379)));
    assert_eq!(opened["name"], "web-1");
    let counts = reader.stock_counts(NodeKey(1)).expect("read").expect("there are some");
    assert_eq!((counts.ports, counts.ports_exposed, counts.containers), (2, 2, 0));
    assert_eq!(line.pipeline.control.applied_pos().expect("read"), line.pos);
}

#[test]
fn a_row_that_is_lost_is_asked_for_when_the_session_begins_and_told_again() {
    let dir = Dir::new();
    let mut line = Line::start(dir.path());
    let (one, two) = (ports([22]), ports([22, 80]));
    line.hello(1);
    line.tell(1, 1, &whole(&one));
    line.pipeline.write().expect("written");
    drop(line);
    execute(&dir.path().join("control.db"), "DELETE FROM stock");

    let mut line = Line::start(dir.path());
    line.put(Event::Started);
    assert_eq!(line.asked(), [], "nobody is connected");
    line.hello(1);
    assert_eq!(line.asked(), [id(1)]);
    line.tell(1, 5, &Inventory::Change(change(&one, &two)));
    assert_eq!((line.asked(), line.kept(1)), (vec![], None), "it is asked once");
    line.tell(1, 6, &whole(&two));
    line.pipeline.write().expect("written");
    assert_eq!((line.kept(1), line.state(1)), (Some(two), StockState::Held));
}

#[test]
fn a_body_that_makes_no_sense_is_no_stock_and_a_hash_that_lies_is_found() {
    let dir = Dir::new();
    let mut line = Line::start(dir.path());
    let (one, two) = (ports([22]), ports([22, 80]));
    line.hello(1);
    line.tell(1, 1, &whole(&one));
    line.pipeline.write().expect("written");
    execute(&dir.path().join("control.db"), "UPDATE stock SET body = x'ff00ff'");
    line.tell(1, 2, &Inventory::Change(change(&one, &two)));
    assert_eq!((line.asked(), line.state(1)), (vec![id(1)], StockState::Lost));
    line.tell(1, 3, &whole(&two));
    line.tell(1, 4, &Inventory::Change(Change { gone: Vec::new(), ..change(&two, &one) }));
    assert_eq!((line.asked(), line.state(1)), (vec![id(1)], StockState::Lost));
    line.pipeline.write().expect("written");
    assert_eq!(line.pipeline.control.stocks().expect("read")[0].mark.state, StockState::Lost, "a restart knows it");
}

#[test]
fn a_fleet_that_tells_all_at_once_is_written_in_parts() {
    const NODES: u32 = 3_000;
    let dir = Dir::new();
    let mut line = Line::start(dir.path());
    (1..=NODES).for_each(|node| line.hello(node));
    line.pipeline.write().expect("written");
    let before = line.pipeline.control.applied_pos().expect("read");
    let stock = ports(1_000..1_060);
    for node in 1..=NODES {
        line.tell(node, 1, &whole(&stock));
    }
    let reached = line.pipeline.control.applied_pos().expect("read");
    assert!(before < reached && reached < line.pos, "{before:?} {reached:?} {:?}", line.pos);
    line.pipeline.write().expect("written");
    assert_eq!(line.kept(NODES), Some(stock));
    let bytes = line.pipeline.control.size_bytes() / u64::from(NODES);
    assert!(bytes < 16_384, "{bytes} bytes a node, the WAL included");
}

#[test]
fn what_a_full_disk_could_not_take_is_there_when_it_has_space() {
    let disk = Disk::new(8_192);
    let mut line = Line::start(disk.path());
    (1..=50).for_each(|node| line.hello(node));
    line.pipeline.write().expect("written");
    let filler = disk.fill();
    let stock = ports(1_000..1_400);
    for node in 1..=50 {
        line.tell(node, 1, &whole(&stock));
        line.pipeline.write().expect("it is put off");
    }
    assert_eq!(line.kept(50), None);
    std::fs::remove_file(filler).expect("it is there");
    line.pipeline.write().expect("written");
    assert!((1..=50).all(|node| line.kept(node).as_ref() == Some(&stock)));
}
