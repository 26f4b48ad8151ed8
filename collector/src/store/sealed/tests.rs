//! Sealed files there and back, and what of them survives damage.

use std::fs;

use super::*;
use crate::record::Pos;
use crate::store::StoreError;
use crate::store::tests::{Dir, execute};

fn block(node: u32, part: u16) -> Block {
    let (begins, ends) = (WallMs(1_000 * i64::from(node)), WallMs(9_000_000));
    let body = (0..u32::from(part) * 700 + 40 * node).map(|n| (n * 31 % 251) as u8).collect();
    let apart = (node % 2 == 1).then(|| vec![7; 3]);
    Block { node: NodeKey(node), part, node_id: NodeId::v7(node.into(), [3; 10]), begins, ends, rows: 30, apart, body }
}

fn sheet(measure: u32, part: u32) -> Sheet {
    let (begins, ends) = (WallMs(600_000), WallMs(900_000));
    let body = vec![5; 900];
    Sheet { measure, part, first: NodeKey(part * 10), last: NodeKey(part * 10 + 9), begins, ends, body }
}

fn full(dir: &Dir, nodes: u32) -> SealedName {
    let mut builder = Builder::begin(dir.path(), Level::Full, Span::FiveMinutes, 600).expect("begin");
    assert!(builder.is_empty());
    for node in 0..nodes {
        for part in 0..2 {
            builder.put_block(&block(node, part)).expect("it has room");
        }
    }
    builder.publish(Pos(1), Pos(99), WallMs(5)).expect("it is written")
}

fn open(name: &SealedName) -> Sealed {
    Sealed::open(name).expect("it opens").expect("it is there")
}

#[test]
fn blocks_are_found_by_node_and_come_in_order() {
    let dir = Dir::new();
    let name = full(&dir, 100);
    assert_eq!(name.begins_s, 0, "the earliest of all");
    assert!(!dir.path().join("full.new").exists());
    let file = open(&name);
    let of_7: Vec<_> =
        file.blocks_of(NodeKey(7)).expect("read").into_iter().map(|block| block.expect("sound")).collect();
    assert_eq!(of_7, [block(7, 0), block(7, 1)]);
    assert!(file.blocks_of(NodeKey(100)).expect("read").is_empty());
    let all: Vec<_> = file.blocks().map(|block| block.expect("sound")).collect();
    assert_eq!(all.len(), 200);
    assert!(all.is_sorted_by_key(|block| (block.node, block.part)));
}

#[test]
fn sheets_are_found_by_measure_and_nodes() {
    let dir = Dir::new();
    let mut builder = Builder::begin(dir.path(), Level::Mid, Span::Hour, 600).expect("begin");
    for measure in [3, 9, 40_000] {
        for part in 0..5 {
            builder.put_sheet(&sheet(measure, part)).expect("it has room");
        }
    }
    builder.declare(40_000, b"what").expect("it has room");
    let file = open(&builder.publish(Pos(1), Pos(2), WallMs(5)).expect("it is written"));
    assert_eq!(file.measures().expect("read"), [3, 9, 40_000]);
    assert_eq!(file.declared().expect("read"), [(40_000, b"what".to_vec())]);
    let found = file.sheets_of(9, (NodeKey(15), NodeKey(22))).expect("read");
    assert_eq!(found.into_iter().map(|sheet| sheet.expect("sound")).collect::<Vec<_>>(), [sheet(9, 1), sheet(9, 2)]);
    assert_eq!(file.sheets_of_measure(3).count(), 5);
    assert_eq!(file.sheets().count(), 15);
}

#[test]
fn a_damaged_row_costs_itself() {
    let dir = Dir::new();
    let name = full(&dir, 20);
    execute(name.path(), "UPDATE block SET body = zeroblob(length(body)) WHERE id = (5 << 16) + 1");
    let file = open(&name);
    let of_5 = file.blocks_of(NodeKey(5)).expect("read");
    assert!(of_5[0].is_ok() && matches!(&of_5[1], Err(StoreError::Damaged { .. })), "{of_5:?}");
    assert_eq!(file.blocks().filter(Result::is_err).count(), 1);
    assert_eq!(file.blocks().filter(Result::is_ok).count(), 39);
}

#[test]
fn what_is_no_sealed_file_or_a_later_one_is_told_apart() {
    let dir = Dir::new();
    let name = full(&dir, 3);
    execute(name.path(), "PRAGMA user_version = 9; UPDATE meta SET format = 9");
    assert!(matches!(Sealed::open(&name), Err(StoreError::Newer { found: 9, .. })));
    execute(name.path(), "UPDATE meta SET format = 1");
    assert!(matches!(Sealed::open(&name), Err(StoreError::Damaged { .. })));
    fs::write(name.path(), b"nothing of ours").expect("written");
    assert!(matches!(Sealed::open(&name), Err(StoreError::Damaged { .. })));
    fs::remove_file(name.path()).expect("removed");
    assert!(Sealed::open(&name).expect("not an error").is_none());
}

#[test]
fn an_attempt_that_came_to_nothing_is_in_nobodys_way() {
    let dir = Dir::new();
    let mut builder = Builder::begin(dir.path(), Level::Full, Span::FiveMinutes, 600).expect("begin");
    builder.put_block(&block(1, 0)).expect("it has room");
    drop(builder);
    assert!(dir.path().join("full.new").exists());
    let name = full(&dir, 2);
    assert_eq!(open(&name).blocks().count(), 4);
    let builder = Builder::begin(dir.path(), Level::Full, Span::FiveMinutes, 900).expect("begin");
    drop(builder);
    discard(dir.path(), Level::Full).expect("it can be removed");
    assert!(!dir.path().join("full.new").exists());
}
