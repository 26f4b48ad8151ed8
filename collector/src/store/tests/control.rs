//! `control.db`: keys, exactly-once, migration, damage.

use dunlin_shared::id::{Epoch, FrameId, NodeId, Seq};
use dunlin_shared::time::MonoMs;

use super::super::{
    AlertRow, AlertUpdate, Control, ControlBatch, ControlReader, GapRow, NewEvent, NewLogEntry, NodeUpdate, Ordered,
    StoreError,
};
use super::{Dir, T0, files};
use crate::engine::alert::{AlertId, AlertState, Now};
use crate::record::{NodeKey, Pos};
use crate::registry::{Actor, JoinWish, KeyHash, Labels, Luck, Role, SecretHash, TokenId, TokenWish, What};

fn gap_row(node: NodeKey) -> GapRow {
    GapRow {
        node,
        epoch: Epoch(2),
        first: Seq(u64::MAX - 1),
        last: None,
        count: None,
        from: T0,
        to: T0.plus(1),
        reason: "killed".to_owned(),
        at: T0,
    }
}

fn open(dir: &Dir) -> (Control, super::super::ControlOpened) {
    Control::open(&dir.path().join("control.db"), T0, 77).expect("it opens")
}

#[test]
fn a_node_keeps_its_key_and_no_other_gets_it() {
    let dir = Dir::new();
    let (mut control, opened) = open(&dir);
    assert!(opened.created && opened.applied_pos == Pos(0) && opened.incarnation == 77);
    let (a, b) = (NodeId::v7(1, [1; 10]), NodeId::v7(2, [2; 10]));
    assert_eq!(control.ensure_node(a, "a", T0).expect("added"), NodeKey(1));
    assert_eq!(control.ensure_nodes(&[(b, "b"), (a, "a"), (b, "b")], T0).expect("added"), [2, 1, 2].map(NodeKey));
    control.close().expect("close");
    let (mut control, opened) = Control::open(&dir.path().join("control.db"), T0, 78).expect("it opens");
    assert!(!opened.created && opened.incarnation == 77);
    assert_eq!(control.ensure_node(a, "other", T0).expect("known"), NodeKey(1));
    assert_eq!(control.nodes().expect("read").iter().map(|node| node.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
}

#[test]
fn a_batch_is_applied_once_however_often_it_is_replayed() {
    let dir = Dir::new();
    let (mut control, _) = open(&dir);
    let key = control.ensure_node(NodeId::v7(1, [1; 10]), "a", T0).expect("added");
    let mut update = NodeUpdate::of(key);
    update.state = Some(("up".to_owned(), T0.plus(5)));
    update.boot_id = Some([3; 16]);
    let batch =
        ControlBatch { applied_pos: Pos(10), nodes: vec![update], gaps: vec![gap_row(key)], ..ControlBatch::default() };
    assert!(control.apply(&batch).expect("applied"));
    assert!(!control.apply(&batch).expect("replayed"));
    let earlier = ControlBatch { applied_pos: Pos(9), ..batch.clone() };
    assert!(!control.apply(&earlier).expect("replayed"));
    assert_eq!(control.gaps(key).expect("read"), [gap_row(key)]);
    assert_eq!(control.applied_pos().expect("read"), Pos(10));
    let node = control.nodes().expect("read").remove(0);
    assert_eq!((node.state.as_str(), node.since, node.boot_id, node.epoch), ("up", T0.plus(5), Some([3; 16]), None));
    assert_eq!(node.name, "a", "what the update does not name stays");
}

#[test]
fn a_lost_database_gives_no_key_to_another_node() {
    let dir = Dir::new();
    let path = dir.path().join("control.db");
    let (mut control, _) = open(&dir);
    let known = NodeId::v7(1, [1; 10]);
    control.ensure_node(known, "a", T0).expect("added");
    control.close().expect("close");
    std::fs::write(&path, b"not a database at all, but long enough to be looked at").expect("written");
    let (mut control, opened) = open(&dir);
    assert!(opened.created && opened.set_aside.len() == 1 && opened.set_aside[0].exists(), "{opened:?}");
    control.restore_nodes(&[(NodeKey(5), known)], Some(NodeKey(9)), T0).expect("restored");
    assert_eq!(control.ensure_node(known, "a", T0).expect("known"), NodeKey(5));
    assert_eq!(control.ensure_node(NodeId::v7(2, [2; 10]), "b", T0).expect("added"), NodeKey(10));
}

#[test]
fn truncation_at_any_length_is_set_aside_and_said() {
    let dir = Dir::new();
    let path = dir.path().join("control.db");
    let (mut control, _) = open(&dir);
    control.ensure_node(NodeId::v7(1, [1; 10]), "a", T0).expect("added");
    control.close().expect("close");
    let whole = std::fs::read(&path).expect("read");
    for bytes in (0..whole.len()).step_by(511) {
        std::fs::write(&path, &whole[..bytes]).expect("written");
        let (control, opened) = open(&dir);
        assert!(opened.created && opened.set_aside.len() == 1, "{bytes} bytes: {opened:?}");
        assert_eq!(std::fs::read(&opened.set_aside[0]).expect("kept"), whole[..bytes]);
        control.close().expect("close");
    }
    assert!(files(dir.path(), ".db").len() == 1);
}

#[test]
fn a_database_of_a_newer_program_is_refused_with_both_versions() {
    let dir = Dir::new();
    let (control, _) = open(&dir);
    control.close().expect("close");
    let path = dir.path().join("control.db");
    rusqlite::Connection::open(&path).expect("opens").pragma_update(None, "user_version", 12).expect("set");
    let error = Control::open(&path, T0, 1).expect_err("newer");
    let StoreError::Newer { found: 12, known, .. } = error else { panic!("{error}") };
    let (newer, oldest) = (String::from("format 12"), format!("up to {known}"));
    assert!(error.to_string().contains(&newer) && error.to_string().contains(&oldest), "{error}");
}

#[test]
fn what_was_ordered_is_read_back_whole_and_is_not_bound_to_the_log() {
    let dir = Dir::new();
    let path = dir.path().join("control.db");
    let (mut control, _) = open(&dir);
    let mut registry = control.registry().expect("read");
    let wish = TokenWish {
        role: Role::Join,
        name: "fleet".to_owned(),
        uses: Some(9),
        expires: Some(T0.plus(1_000)),
        labels: Labels::from([("env".to_owned(), "prod".to_owned())]),
        needs_approval: true,
        per_hour: Some(3),
        is_ephemeral: true,
    };
    let luck = Luck { node: [3; 10], secret: [4; 20], secret_hash: SecretHash([5; 32]) };
    let mut ordered = Ordered::default();
    let join = JoinWish {
        key: KeyHash([6; 32]),
        token: Some(SecretHash([5; 32])),
        name: "\u{7}\"'; DROP TABLE member".to_owned(),
        version: String::new(),
    };
    for what in [What::CreateToken(wish), What::Join(join)] {
        let decision = registry.decide(T0, &luck, &Actor::collector(), what);
        assert!(decision.answer.is_ok(), "{:?}", decision.answer);
        ordered.changes.extend(decision.changes);
    }
    let node = registry.members().next().expect("one joined").0;
    for what in [
        What::Quarantine { node, boot_id: [8; 16], name: "clone".to_owned() },
        What::Maintain { node, until: Some(T0.plus(9)), reason: String::new() },
        What::Label { node, labels: [("tier".to_owned(), Some("1".to_owned()))].into() },
    ] {
        ordered.changes.extend(registry.decide(T0, &luck, &Actor::collector(), what).changes);
    }
    let event = NewEvent { at: T0, kind: "node.enrolled", node: Some(node), body: "{}".to_owned() };
    ordered.events = vec![event.clone(), event];
    ordered.log.push(NewLogEntry {
        at: T0,
        actor: "root".to_owned(),
        token: Some(TokenId(1)),
        from: String::new(),
        action: "token.create".to_owned(),
        target: "t1".to_owned(),
        detail: String::new(),
        refused: Some("it is full".to_owned()),
        times: 7,
    });
    registry.used(TokenId(1), T0.plus(3));
    ordered.used.push((TokenId(1), T0.plus(3)));
    assert!(!control.apply_with(&ControlBatch::default(), &ordered).expect("stored"), "no position moved");
    assert_eq!(control.newest_event().expect("read"), 2);
    let again = control.registry().expect("read");
    assert!(again.members().eq(registry.members()) && again.tokens().eq(registry.tokens()));
    control.close().expect("close");

    let reader = ControlReader::open(&path).expect("it opens");
    let ids = |after, limit| -> Vec<u64> {
        reader.events(after, limit).expect("read").iter().map(|event| event.id).collect()
    };
    assert_eq!((ids(0, 1), ids(1, 9), ids(2, 9)), (vec![1], vec![2], vec![]));
    assert_eq!(reader.earliest_event().expect("read"), Some(1));
    assert_eq!(reader.log(None, 9).expect("read").first().map(|row| row.entry.clone()), ordered.log.pop());
    assert!(reader.log(Some(1), 9).expect("read").is_empty());
}

/// Takes away what the formats after the sixth brought.
const AFTER_THE_SIXTH: &str = "ALTER TABLE node DROP COLUMN newest_epoch; ALTER TABLE node DROP COLUMN newest_seq;
    DROP TABLE alert; DROP TABLE silence; DROP TABLE acknowledgement; DROP TABLE silenced;
    DROP TABLE rule_set;
    ALTER TABLE meta DROP COLUMN ran_ms; ALTER TABLE meta DROP COLUMN ran_at;";

#[test]
fn the_first_format_is_brought_up_to_date() {
    let dir = Dir::new();
    let path = dir.path().join("control.db");
    let (mut control, _) = open(&dir);
    let key = control.ensure_node(NodeId::v7(1, [1; 10]), "a", T0).expect("added");
    control.close().expect("close");
    let raw = rusqlite::Connection::open(&path).expect("it opens");
    raw.execute_batch(&format!("{AFTER_THE_SIXTH} DROP TABLE member; DROP TABLE token; DROP TABLE event; DROP TABLE log; DROP TABLE stock;
         ALTER TABLE meta DROP COLUMN holds_strangers; ALTER TABLE meta DROP COLUMN mass_since; ALTER TABLE meta DROP COLUMN mass_left_ms;
         ALTER TABLE node DROP COLUMN is_retired; PRAGMA user_version = 1"))
        .expect("as it was");
    drop(raw);
    let (control, opened) = open(&dir);
    assert!(!opened.created && opened.set_aside.is_empty());
    assert_eq!(control.nodes().expect("read").first().map(|node| node.key), Some(key));
    assert_eq!(control.registry().expect("read").members().count(), 0);
}

#[test]
fn the_log_and_the_tokens_of_the_fourth_format_are_brought_up_to_date() {
    let dir = Dir::new();
    let path = dir.path().join("control.db");
    open(&dir).0.close().expect("close");
    let raw = rusqlite::Connection::open(&path).expect("it opens");
    raw.execute_batch(&format!(
        "{AFTER_THE_SIXTH} DROP TABLE stock; DROP INDEX event_by_node;
         ALTER TABLE log DROP COLUMN refused; ALTER TABLE log DROP COLUMN times; ALTER TABLE token DROP COLUMN last_used;
         INSERT INTO log VALUES (1, 5, 'collector', NULL, '', 'join.refused', '10.0.0.1', 'no token, 3 times'),
             (2, 6, 'root', NULL, '', 'token.create', 't1', 'join fleet');
         INSERT INTO token VALUES (1, 'viewer', 'v', zeroblob(32), 1, 'root', NULL, NULL, 0, '{{}}', 0, NULL, 1, 0, 0, 0);
         PRAGMA user_version = 4",
    ))
    .expect("as it was");
    drop(raw);
    let (control, opened) = open(&dir);
    assert!(!opened.created && opened.set_aside.is_empty(), "{opened:?}");
    assert_eq!(control.registry().expect("read").token(TokenId(1)).map(|token| token.last_used), Some(None));
    let log = ControlReader::open(&path).expect("it opens").log(None, 9).expect("read");
    let [done, refused] = log.as_slice() else { panic!("{log:?}") };
    assert_eq!((done.entry.refused.as_deref(), done.entry.times, done.entry.detail.as_str()), (None, 1, "join fleet"));
    assert_eq!((refused.entry.refused.as_deref(), refused.entry.detail.as_str()), (Some("no token, 3 times"), ""));
}

/// Takes away what the formats after the ninth brought.
const AFTER_THE_NINTH: &str = "ALTER TABLE alert DROP COLUMN over_ran;
    ALTER TABLE node DROP COLUMN newest_epoch; ALTER TABLE node DROP COLUMN newest_seq;";

#[test]
fn an_alert_of_the_ninth_format_stays_open_and_then_knows_since_when_it_is_over() {
    let dir = Dir::new();
    let path = dir.path().join("control.db");
    let (mut control, _) = open(&dir);
    let key = control.ensure_node(NodeId::v7(1, [1; 10]), "a", T0).expect("added");
    let now = Now { wall: T0, ran: MonoMs(9_000) };
    let row = AlertRow {
        id: AlertId::from_bytes([7; 10]),
        rule: "memory-high".to_owned(),
        node: None,
        subject: "host".to_owned(),
        severity: "warning".to_owned(),
        state: AlertState::Firing,
        began: now,
        fired: Some(now),
        resolved: None,
        value: Some(0.9),
        threshold: None,
        is_flapping: false,
        fires: vec![now.ran],
        over: None,
        words: "{}".to_owned(),
        top: String::new(),
    };
    let put = |control: &mut Control, row: &AlertRow, pos| {
        let alerts = vec![AlertUpdate::Put(Box::new(row.clone()))];
        let batch = ControlBatch { applied_pos: Pos(pos), alerts, ..ControlBatch::default() };
        assert!(control.apply(&batch).expect("applied"));
    };
    put(&mut control, &row, 1);
    control.close().expect("close");
    let raw = rusqlite::Connection::open(&path).expect("it opens");
    raw.execute_batch(&format!("{AFTER_THE_NINTH} PRAGMA user_version = 9")).expect("as it was");
    drop(raw);
    let (mut control, opened) = open(&dir);
    assert!(!opened.created && opened.set_aside.is_empty(), "{opened:?}");
    assert_eq!(control.open_alerts().expect("read"), std::slice::from_ref(&row));
    assert_eq!(control.nodes().expect("read")[0].newest, None);
    for (pos, over) in [(2, Some(MonoMs(12_000))), (3, None)] {
        let row = AlertRow { over, ..row.clone() };
        put(&mut control, &row, pos);
        assert_eq!(control.open_alerts().expect("read"), [row]);
    }
    let newest = Some(FrameId::new(3, 70));
    for (pos, update) in [(4, NodeUpdate { newest, ..NodeUpdate::of(key) }), (5, NodeUpdate::of(key))] {
        let batch = ControlBatch { applied_pos: Pos(pos), nodes: vec![update], ..ControlBatch::default() };
        assert!(control.apply(&batch).expect("applied"));
        assert_eq!(control.nodes().expect("read")[0].newest, newest);
    }
}

#[test]
fn events_go_by_their_age_from_the_oldest_on_and_the_newest_stays() {
    let dir = Dir::new();
    let (mut control, _) = open(&dir);
    let reader = ControlReader::open(&dir.path().join("control.db")).expect("it opens");
    const HOUR_MS: i64 = 3_600_000;
    // The clock was a year ahead for the second, and was set back by two hours behind the fourth.
    let at = [0, 365 * 24, 1, 3, 1, 4].map(|hours| T0.plus(hours * HOUR_MS));
    let events = at.map(|at| NewEvent { at, kind: "node.up", node: None, body: "{}".to_owned() });
    control
        .apply_with(&ControlBatch::default(), &Ordered { events: events.to_vec(), ..Ordered::default() })
        .expect("stored");
    let keep_ms = 24 * HOUR_MS.unsigned_abs();
    let mut left = |hours: i64| {
        control.drop_oldest(T0.plus(hours * HOUR_MS), keep_ms).expect("dropped");
        let ids: Vec<u64> = reader.events(0, 9).expect("read").iter().map(|event| event.id).collect();
        assert_eq!(reader.earliest_event().expect("read"), ids.first().copied());
        ids
    };
    assert_eq!(left(24), [1, 2, 3, 4, 5, 6], "just as old as they may be");
    assert_eq!(left(25), [3, 4, 5, 6]);
    assert_eq!(left(26), [4, 5, 6], "nothing goes from behind one that stays");
    assert_eq!(left(28), [6]);
    assert_eq!(left(24 * 365), [6], "it says which number is the next");
}
