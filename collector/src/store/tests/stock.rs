//! What stands on nodes: written with the position, read back, forgotten with its node.

use std::sync::Arc;

use dunlin_shared::id::{FrameId, NodeId};
use dunlin_shared::inventory::StockHash;

use super::super::{Control, ControlBatch, ControlReader, NewEvent, Ordered, StockRow, StockUpdate};
use super::{Dir, T0};
use crate::engine::{Noise, StockMark, StockState};
use crate::record::{NodeKey, Pos};
use crate::registry::{Admission, Change, Member};
use crate::stock::{Counts, StockBody};

const NODE: NodeKey = NodeKey(1);

fn open(dir: &Dir) -> Control {
    Control::open(&dir.path().join("control.db"), T0, 77).expect("it opens").0
}

fn update(mark: StockMark, noise: Option<Noise>, body: Option<&[u8]>) -> ControlBatch {
    let counts = Counts { containers: 6, containers_up: 5, processes: 4, ports: 3, ports_exposed: 2, units_failed: 1 };
    let body = body.map(|body| StockBody { bytes: Arc::from(body), counts });
    ControlBatch { stocks: vec![StockUpdate { node: NODE, mark, noise, body }], ..ControlBatch::default() }
}

fn mark(state: StockState) -> StockMark {
    StockMark::restored(state, Some(FrameId::new(u32::MAX, u64::MAX)), StockHash(u64::MAX), (true, T0))
}

#[test]
fn a_stock_is_written_once_with_its_position_and_reads_back() {
    let dir = Dir::new();
    let mut control = open(&dir);
    let node = control.ensure_node(NodeId::v7(1, [1; 10]), "a", T0).expect("added");
    assert_eq!((node, control.stock_body(NODE).expect("read")), (NODE, None));
    let first = ControlBatch { applied_pos: Pos(5), ..update(mark(StockState::Held), None, Some(b"items")) };
    assert!(control.apply(&first).expect("applied"));
    let noise = Some(Noise { since: T0.plus(1), count: u32::MAX });
    let lost = ControlBatch { applied_pos: Pos(6), ..update(mark(StockState::Lost), noise, None) };
    assert!(control.apply(&lost).expect("applied") && !control.apply(&first).expect("replayed"));
    assert_eq!(control.stocks().expect("read"), [StockRow { node: NODE, mark: mark(StockState::Lost), noise }]);
    assert_eq!(control.stock_body(NODE).expect("read").as_deref(), Some(&b"items"[..]), "what is not named stays");

    let reader = ControlReader::open(&dir.path().join("control.db")).expect("it opens");
    assert_eq!(reader.stock_body(NODE).expect("read").as_deref(), Some(&b"items"[..]));
    assert_eq!(reader.stock_counts(NODE).expect("read").map(|counts| counts.containers), Some(6));
    assert_eq!(reader.stock_counts(NodeKey(2)).expect("read"), None);
    let nothing = ControlBatch { applied_pos: Pos(7), ..update(StockMark::default(), None, None) };
    control.apply(&nothing).expect("applied");
    assert_eq!(control.stocks().expect("read")[0].mark, StockMark::default());
}

#[test]
fn a_node_that_is_forgotten_takes_its_stock_along_whatever_is_still_said_of_it() {
    let dir = Dir::new();
    let mut control = open(&dir);
    let id = NodeId::v7(1, [1; 10]);
    control.ensure_node(id, "a", T0).expect("added");
    let member = Member {
        key: None,
        name: String::new(),
        admission: Admission::Revoked,
        enrolled: T0,
        token: None,
        token_labels: Default::default(),
        operator_labels: Default::default(),
        is_ephemeral: false,
        maintenance: None,
        quarantined: Vec::new(),
        is_forgotten: true,
    };
    let batch = ControlBatch { applied_pos: Pos(5), ..update(mark(StockState::Held), None, Some(b"items")) };
    let ordered = Ordered { changes: vec![Change::Member(id, member)], ..Ordered::default() };
    assert!(control.apply_with(&batch, &ordered).expect("applied"));
    assert_eq!(control.stocks().expect("read"), []);
}

#[test]
fn the_last_events_of_a_node_are_found_among_all() {
    let dir = Dir::new();
    let mut control = open(&dir);
    let ids = [1, 2].map(|number| NodeId::v7(number, [1; 10]));
    let event = |number: usize| NewEvent {
        at: T0,
        kind: "node.up",
        node: (number % 3 < 2).then(|| ids[number % 3]),
        body: format!("{{\"n\":{number}}}"),
    };
    let ordered = Ordered { events: (0..30).map(event).collect(), ..Ordered::default() };
    control.apply_with(&ControlBatch::default(), &ordered).expect("stored");
    let reader = ControlReader::open(&dir.path().join("control.db")).expect("it opens");
    let bodies =
        |id| -> Vec<String> { reader.events_about(id, 3).expect("read").into_iter().map(|event| event.body).collect() };
    assert_eq!(bodies(ids[1]), ["{\"n\":28}", "{\"n\":25}", "{\"n\":22}"]);
    assert!(bodies(NodeId::v7(3, [1; 10])).is_empty());
}
