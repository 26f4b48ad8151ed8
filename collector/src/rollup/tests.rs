//! Cells against the points that they are made of, and sheets there and back.

use dunlin_shared::metric::by_name;
use dunlin_shared::sample::SubjectKind;
use proptest::prelude::*;

use super::*;
use crate::points::fold;

const SLOT_MS: i64 = 300_000;

fn scale(metric: &str) -> Scale {
    let metric = by_name(metric).expect("it is in the catalogue");
    let about = About { name: metric.name, unit: metric.unit, kind: metric.kind, step: metric.step };
    Scale::of(&about)
}

fn points_of(values: &[(i64, f64)]) -> Vec<Point> {
    values.iter().map(|&(at, value)| (WallMs(at), Some(value))).collect()
}

/// As it comes back from a file.
fn kept(cell: &Cell, scale: Scale) -> Cell {
    let row = Row { node: NodeKey(1), subject: Subject::HOST(), cells: vec![(0, *cell)] };
    decode(&encode(&[row], scale), scale, |_, _| true).expect("it was written")[0].cells[0].1
}

/// Folding rounds to the sixth digit.
fn is_near(a: f64, b: f64, part: f64) -> bool {
    (a - b).abs() <= part * a.abs().max(b.abs()) + 1e-6
}

#[test]
fn constants_cost_next_to_nothing() {
    let cells: Vec<_> = (0..288).map(|slot| (slot, Cell { count: 30, ..Cell::one(2.0) })).collect();
    let rows: Vec<_> =
        (0..14).map(|node| Row { node: NodeKey(node), subject: Subject::HOST(), cells: cells.clone() }).collect();
    let bytes = encode(&rows, scale("host_cpu_cores"));
    assert!(bytes.len() < 200, "{} bytes for {} cells", bytes.len(), 288 * 14);
}

#[test]
fn only_the_rows_that_are_wanted_are_given() {
    let subject = |name: &str| Subject::new(SubjectKind::Fs, name).expect("a name");
    let row = |node, name: &str, value| Row {
        node: NodeKey(node),
        subject: subject(name),
        cells: vec![(7, Cell::one(value)), (9, Cell::one(value + 1.0))],
    };
    let rows = [row(1, "/", 0.5), row(1, "/var", 0.25), row(900_000, "/", 0.125)];
    let scale = scale("fs_used_ratio");
    let bytes = encode(&rows, scale);
    assert_eq!(decode(&bytes, scale, |_, _| true).expect("sound"), rows);
    let wanted = decode(&bytes, scale, |node, wanted| node == NodeKey(1) && *wanted == subject("/var"));
    assert_eq!(wanted.expect("sound"), rows[1..2]);
}

#[test]
fn rates_of_any_size_keep_thirteen_digits_and_their_order() {
    for value in [0.0, 1e-6, 0.3, 1.0, 12_345.678, 1e9, 3e18] {
        let cell = Cell { min: value, max: value * 2.0, mean: value * 1.5, last: value, count: 30 };
        let kept = kept(&cell, Scale::Rate);
        for (a, b) in [(cell.min, kept.min), (cell.max, kept.max), (cell.mean, kept.mean), (cell.last, kept.last)] {
            assert!(is_near(a, b, 1.0 / 4096.0), "{a} came back as {b}");
        }
        assert!(kept.min <= kept.mean && kept.mean <= kept.max);
    }
}

proptest! {
    #[test]
    fn a_roll_up_answers_as_folding_the_points_would(
        steps in prop::collection::vec((0i64..400_000, -1_000i64..1_000), 1..80),
        cut in 0usize..80,
    ) {
        let mut values: Vec<(i64, f64)> = steps.iter().map(|&(at, step)| (at * 10, step as f64 / 100.0)).collect();
        values.sort_by_key(|(at, _)| *at);
        let points_all = points_of(&values);
        let (first, second) = points_all.split_at(cut.min(values.len()));
        // Made in two parts, as of two files.
        let cells_all = together(vec![cells(first, SLOT_MS), cells(second, SLOT_MS)]);
        for how in [Fold::Min, Fold::Max, Fold::Mean, Fold::Last] {
            let folded = fold(&points_all, SLOT_MS, how);
            let rolled = points(&cells_all, SLOT_MS, how, (WallMs(i64::MIN), WallMs(i64::MAX)));
            // Folding has a gap for each slot that is empty, a roll-up one for all of them.
            let there = |points: &[Point]| points.iter().copied().filter(|(_, value)| value.is_some()).collect::<Vec<_>>();
            let (folded, rolled) = (there(&folded), there(&rolled));
            prop_assert_eq!(folded.len(), rolled.len());
            for ((at, a), (other, b)) in folded.iter().zip(&rolled) {
                prop_assert_eq!(at, other);
                prop_assert_eq!(a.is_some(), b.is_some());
                prop_assert!(is_near(a.unwrap_or(0.0), b.unwrap_or(0.0), 1e-6), "{:?} {:?}", a, b);
            }
        }
        let longer_all = longer(&cells_all, 12);
        let hourly = fold(&points_all, 12 * SLOT_MS, Fold::Mean);
        let of_cells = points(&longer_all, 12 * SLOT_MS, Fold::Mean, (WallMs(i64::MIN), WallMs(i64::MAX)));
        let there = |points: Vec<Point>| points.into_iter().filter(|(_, value)| value.is_some()).collect::<Vec<_>>();
        let (hourly, of_cells) = (there(hourly), there(of_cells));
        prop_assert_eq!(hourly.len(), of_cells.len());
        for (a, b) in hourly.iter().zip(&of_cells) {
            prop_assert!(is_near(a.1.unwrap_or(0.0), b.1.unwrap_or(0.0), 1e-6));
        }
    }

    #[test]
    fn a_sheet_of_gauges_comes_back_to_the_metrics_precision(
        rows in prop::collection::vec((0u32..5_000, prop::collection::vec((0i64..40, -5_000i64..5_000, 0i64..300, 0i64..300, 1u32..400), 0..30)), 0..8),
    ) {
        let scale = scale("host_load1");
        let mut rows: Vec<Row> = rows.into_iter().map(|(node, cells)| {
            let mut slot = 1_000_000;
            let cells = cells.into_iter().map(|(skip, min, spread, last, count)| {
                slot += 1 + skip / 20;
                let value = |steps: i64| steps as f64 / 100.0;
                let (max, last) = (min + spread, min + last.min(spread));
                (slot, Cell { min: value(min), max: value(max), mean: value(min) + value(spread) * 0.4, last: value(last), count })
            }).collect();
            Row { node: NodeKey(node), subject: Subject::HOST(), cells }
        }).collect();
        rows.sort_by_key(|row| row.node);
        let back = decode(&encode(&rows, scale), scale, |_, _| true).expect("it was written");
        prop_assert_eq!(rows.len(), back.len());
        for (row, back) in rows.iter().zip(&back) {
            prop_assert_eq!((row.node, row.cells.len()), (back.node, back.cells.len()));
            for ((slot, cell), (other, kept)) in row.cells.iter().zip(&back.cells) {
                prop_assert_eq!((slot, cell.count), (other, kept.count));
                prop_assert_eq!((cell.min, cell.max, cell.last), (kept.min, kept.max, kept.last));
                prop_assert!((cell.mean - kept.mean).abs() <= 0.01 / 16.0);
            }
        }
    }

    #[test]
    fn damaged_sheets_are_refused_or_read_and_never_more(bytes in prop::collection::vec(any::<u8>(), 0..200), cut in 0usize..300, flip in 0usize..300) {
        drop(decode(&bytes, Scale::Rate, |_, _| true));
        let cells = (0..20).map(|slot| (slot * slot, Cell { count: 30, ..Cell::one(slot as f64) })).collect();
        let row = Row { node: NodeKey(3), subject: Subject::HOST(), cells };
        let mut sheet = encode(&[row], Scale::Rate);
        drop(decode(&sheet[..cut.min(sheet.len())], Scale::Rate, |_, _| true));
        let at = flip % sheet.len();
        sheet[at] ^= 1 << (flip % 8);
        drop(decode(&sheet, Scale::Rate, |_, _| true));
    }
}
