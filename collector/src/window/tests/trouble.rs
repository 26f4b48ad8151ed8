//! Files that cannot be read: what may pass costs nothing, and what does not pass costs itself alone.

use std::fs;

use super::*;
use crate::store::tests::leave_wal;
use crate::store::{self, Block, Builder, SealedName, StoreError};
use crate::window::merge::confirm;

/// As long as a file is waited for.
const PATIENCE: MonoMs = MonoMs(600_000);

/// What the disk does not give: in the place of the file is something that nobody can read as one.
struct Withheld {
    path: PathBuf,
    kept: PathBuf,
}

impl Withheld {
    fn new(path: &Path) -> Self {
        let kept = path.with_extension("kept");
        fs::rename(path, &kept).expect("renamed");
        fs::create_dir(path).expect("made");
        Self { path: path.to_path_buf(), kept }
    }

    fn give_back(self) {
        fs::remove_dir(&self.path).expect("removed");
        fs::rename(&self.kept, &self.path).expect("renamed");
    }
}

impl Rig {
    fn look_at(&mut self, now: MonoMs) {
        self.keeper.look_at(now).expect("nothing that ends it");
    }

    fn all_samples(&self) -> Vec<Vec<Line>> {
        (1..=NODES).map(|node| self.samples(node)).collect()
    }

    /// How many rows of a node a reader finds who tells the keeper what it meets.
    fn rows(&self, node: u32, (from, to): (WallMs, WallMs)) -> usize {
        let window = Window::new(self.state(), Arc::clone(&self.keeper.errand.word));
        let taken = Taken { wanted: &|_, _| true, skew_ms: 0, values_max: usize::MAX };
        let asked = Asked { node: NodeKey(node), from, to, taken, frames_max: usize::MAX };
        let found = window.stretches(&asked).expect("the rest is served");
        let rows = found.iter().flat_map(|stretch| &stretch.rows);
        rows.filter(|row| (from..=to).contains(&row.time)).count()
    }

    fn set_aside(&self) -> usize {
        let names = fs::read_dir(self.state()).expect("listed");
        names
            .filter(|entry| entry.as_ref().is_ok_and(|entry| entry.file_name().to_string_lossy().contains(".damaged-")))
            .count()
    }
}

const ALWAYS: (WallMs, WallMs) = (WallMs(0), WallMs(i64::MAX));

#[test]
fn a_journal_that_cannot_be_read_for_a_moment_is_sealed_a_moment_later() {
    let mut rig = Rig::new("");
    rig.write(0, 70);
    let before = rig.all_samples();
    let journals = rig.files().closed();
    let withheld = Withheld::new(journals[0].path());
    rig.look_at(MonoMs(0));
    assert!(rig.files().holds(Level::Full, journals[1].first()), "what comes behind it is sealed");
    assert_eq!(rig.health.sealed(), Pos(0), "and nothing counts as sealed beyond it");
    assert_eq!(rig.stats.window_failures.value(), 1);
    withheld.give_back();
    rig.look_at(MonoMs(5_000));
    assert_eq!(rig.health.sealed(), journals[1].last());
    assert_eq!((rig.told(), rig.set_aside()), (vec![], 0));
    assert_eq!(rig.all_samples(), before);
}

#[test]
fn a_journal_that_stays_unreadable_is_set_aside_and_what_waits_for_it_goes_on() {
    let mut rig = Rig::new("");
    rig.write(0, 70);
    let journals = rig.files().closed();
    let _withheld = Withheld::new(journals[0].path());
    rig.look_at(MonoMs(0));
    rig.look_at(MonoMs(PATIENCE.0 - 1));
    assert_eq!((rig.health.sealed(), rig.told()), (Pos(0), vec![]), "it may pass");
    rig.look_at(PATIENCE);
    assert_eq!(rig.told(), ["storage.damaged"]);
    assert_eq!((rig.health.sealed(), rig.set_aside()), (journals[1].last(), 1));
    rig.look_at(PATIENCE.plus(5_000));
    assert_eq!(rig.told(), Vec::<&str>::new());
}

#[test]
fn a_journal_that_cannot_be_folded_is_read_with_its_wal_once_it_has_waited() {
    let mut rig = Rig::new("");
    rig.write(0, 70);
    let before = rig.all_samples();
    let journals = rig.files().closed();
    leave_wal(journals[0].path());
    rig.look_at(MonoMs(0));
    assert!(!rig.files().holds(Level::Full, journals[1].first()), "what follows builds on it, and it is folded soon");
    rig.look_at(PATIENCE);
    assert!(rig.files().holds(Level::Full, journals[1].first()), "that was long enough");
    assert_eq!(rig.health.sealed(), Pos(0));
    rig.look_at(PATIENCE.plus(5_000));
    assert_eq!(rig.health.sealed(), journals[1].last());
    assert_eq!((rig.told(), rig.set_aside()), (vec![], 0), "nothing of it is damaged");
    assert_eq!(rig.all_samples(), before);
}

#[test]
fn where_nothing_can_be_read_nothing_is_set_aside() {
    let mut rig = Rig::new("");
    rig.write(0, 70);
    let before = rig.all_samples();
    let withheld: Vec<_> = rig.files().closed().iter().map(|journal| Withheld::new(journal.path())).collect();
    for minutes in [0, 10, 20] {
        rig.look_at(MonoMs(minutes * 60_000));
    }
    assert_eq!((rig.health.sealed(), rig.told(), rig.set_aside()), (Pos(0), vec![], 0));
    withheld.into_iter().for_each(Withheld::give_back);
    rig.look_at(MonoMs(1_300_000));
    assert_eq!(rig.all_samples(), before);
}

#[test]
fn a_part_that_cannot_be_read_for_a_moment_is_merged_later_and_kept() {
    let mut rig = Rig::new("");
    rig.write(0, 350);
    rig.keep();
    let part = rig.files().of(Level::Full).nth(3).expect("there are eleven").clone();
    let withheld = Withheld::new(part.path());
    rig.write(350, 60);
    rig.look_at(MonoMs(0));
    assert!(rig.files().of(Level::Full).all(|name| name.span == Span::FiveMinutes), "no hour lacks it");
    assert_eq!((rig.told(), rig.set_aside()), (vec![], 0));
    withheld.give_back();
    let before = rig.all_samples();
    rig.look_at(MonoMs(5_000));
    assert!(rig.files().of(Level::Full).any(|name| name.span == Span::Hour));
    assert_eq!((rig.told(), rig.set_aside()), (vec![], 0));
    assert_eq!(rig.all_samples(), before);
}

#[test]
fn what_was_read_wrongly_once_is_neither_left_out_nor_set_aside() {
    let mut rig = Rig::new("");
    rig.write(0, 70);
    rig.keep();
    let parts: Vec<SealedName> = rig.files().of(Level::Full).cloned().collect();
    let mut errand = Errand::default();
    confirm(&parts, &mut errand).expect("nothing was left out");
    errand.note(parts[0].path(), "a bit was wrong on its way");
    assert!(matches!(confirm(&parts, &mut errand), Err(StoreError::Unavailable { .. })), "it is to be merged again");
    execute(parts[0].path(), "UPDATE block SET body = zeroblob(length(body)) WHERE id = 4 << 16");
    errand.note(parts[0].path(), "a bit is wrong");
    confirm(&parts, &mut errand).expect("it is as damaged the second time");

    // What a reader suspects while it is merged, and is sound.
    let mut rig = Rig::new("");
    rig.write(0, 350);
    rig.keep();
    let part = rig.files().of(Level::Full).nth(3).expect("there are eleven").clone();
    rig.write(350, 60);
    rig.keeper.errand.word.suspect(part.path());
    rig.keep();
    assert!(!part.path().exists(), "it is part of an hour");
    assert_eq!((rig.told(), rig.set_aside()), (vec![], 0));
}

#[test]
fn a_damaged_row_of_an_open_journal_costs_what_builds_on_it_and_is_told_once() {
    let mut rig = Rig::new("");
    rig.write(0, 20);
    let whole = rig.rows(1, ALWAYS);
    assert_eq!(whole, 20);
    let journal = rig.files().unsealed_from(WallMs(0))[0].path().to_path_buf();
    // Of node 1, in the middle of its deltas: five Hellos come first, and a frame of each node in a tick.
    execute(
        &journal,
        "UPDATE record SET body = zeroblob(7) WHERE pos = (SELECT MAX(pos) FROM record WHERE node = 1 AND pos < 60)",
    );
    let left = rig.rows(1, ALWAYS);
    assert!((5..whole).contains(&left), "{left} of {whole}: what is in front of it is answered");
    assert_eq!(rig.rows(2, ALWAYS), whole, "others lost nothing");
    rig.look_at(MonoMs(0));
    assert_eq!((rig.told(), rig.set_aside()), (vec!["storage.damaged"], 0), "somebody may still write it");
    assert_eq!(rig.rows(1, ALWAYS), left);
    rig.look_at(MonoMs(5_000));
    assert_eq!(rig.told(), Vec::<&str>::new(), "it is told once");
    rig.write(30, 1);
    rig.log.checkpoint_if_due().expect("folded");
    rig.keep();
    assert_eq!((rig.told(), rig.set_aside()), (vec!["storage.damaged"], 1), "sealed, and kept aside");
    assert_eq!(rig.rows(1, ALWAYS), left + 1, "sealing changes no answer");
}

#[test]
fn a_journal_that_was_rotated_early_is_found_before_it_is_sealed_and_behind() {
    let mut rig = Rig::new("");
    rig.write(0, 12);
    rig.log.rotate(WallMs(T0 + 12 * TICK_MS), &Ingest::default().snapshot()).expect("rotate");
    rig.bases.clear();
    rig.write(12, 5);
    let range = (WallMs(T0 + 6 * TICK_MS), WallMs(T0 + 14 * TICK_MS));
    assert_eq!(rig.rows(1, range), 8, "both files are of one slot, and what is asked for begins within it");
    rig.keep();
    assert_eq!(rig.rows(1, range), 8);
}

#[test]
fn a_journal_that_outlives_its_slot_is_found_at_every_time_that_it_holds() {
    let mut rig = Rig::new("");
    rig.write(0, 10);
    rig.is_stuck = true;
    rig.write(10, 90);
    rig.is_stuck = false;
    rig.write(100, 40);
    let at = |tick: i64| WallMs(T0 + tick * TICK_MS);
    let counts = |rig: &Rig| -> Vec<usize> {
        [(0, 9), (35, 44), (70, 79), (90, 99), (100, 109)]
            .map(|(from, to)| rig.rows(1, (at(from), at(to).plus(TICK_MS - 1))))
            .to_vec()
    };
    assert_eq!(counts(&rig), [10; 5]);
    let before = rig.all_samples();
    rig.keep();
    let first = rig.files().of(Level::Full).next().expect("it is sealed").clone();
    assert_eq!((first.begins_s, first.ends_s()), (T0 / 1_000, T0 / 1_000 + 1_200), "it holds four slots");
    assert_eq!(counts(&rig), [10; 5]);
    assert_eq!(rig.all_samples(), before);
    for level in [Level::Full, Level::Mid] {
        assert!(rig.files().of(level).is_sorted_by_key(|name| (name.slot_s, name.first)), "slots do not go back");
    }
    // And once it is part of its hour.
    rig.write(140, 300);
    let before = rig.all_samples();
    rig.keep();
    assert!(rig.files().of(Level::Full).any(|name| name.span == Span::Hour));
    assert_eq!(counts(&rig), [10; 5]);
    assert_eq!(rig.all_samples(), before);
}

#[test]
fn sums_tell_what_is_not_as_it_was_written_and_depth_what_should_not_have_been() {
    let dir = Dir::new();
    let mut builder = Builder::begin(dir.path(), Level::Full, Span::FiveMinutes, 600).expect("begin");
    let (begins, ends) = (WallMs(600_000), WallMs(601_000));
    let body = vec![0xff; 40];
    let block = Block { node: NodeKey(1), part: 0, node_id: node_id(1), begins, ends, rows: 3, apart: None, body };
    builder.put_block(&block).expect("it has room");
    let name = builder.publish(Pos(1), Pos(9), WallMs(0)).expect("it is written");
    assert_eq!(verify(&name, Depth::Sums).expect("it is read"), None);
    assert!(verify(&name, Depth::Values).expect("it is read").is_some(), "it is no block");
    execute(name.path(), "UPDATE block SET rows = 4");
    assert!(verify(&name, Depth::Sums).expect("it is read").is_some_and(|what| what.contains("checksum")));
    let withheld = Withheld::new(name.path());
    assert!(matches!(verify(&name, Depth::Sums), Err(StoreError::Unavailable { .. })), "nothing is said of the file");
    withheld.give_back();
    store::remove_sealed(&name).expect("removed");
    assert_eq!(verify(&name, Depth::Sums).expect("nothing to find"), None);
}
