//! Random runs against a plain map: pushes, acknowledgements, overflow, restarts, torn and damaged
//! files, disks that fail. After every step each frame is held, acknowledged or within a gap.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Op {
    Push { count: usize, inventory: bool, ends_group: bool },
    Acknowledge { from: prop::sample::Index, count: u64 },
    AcknowledgeGaps,
    Fault(bool),
    Stop,
    Crash(Option<Harm>),
}

#[derive(Clone, Debug)]
enum Harm {
    Tear(prop::sample::Index),
    Flip { file: prop::sample::Index, at: prop::sample::Index, bit: u8 },
}

struct Expected {
    made: Made,
    is_acknowledged: bool,
    /// The last record of the newest file: a crash may tear it, and nothing tells that from damage.
    may_vanish: bool,
}

struct Model {
    dir: TempDir,
    spool: Spool,
    source: Source,
    frames: BTreeMap<FrameId, Expected>,
    ram_bytes: usize,
    disk_bytes: Option<u64>,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let index = any::<prop::sample::Index>;
    let harm = prop_oneof![
        index().prop_map(Harm::Tear),
        (index(), index(), 0u8..8).prop_map(|(file, at, bit)| Harm::Flip { file, at, bit }),
    ];
    let op = prop_oneof![
        8 => (1usize..60, any::<bool>(), any::<bool>())
            .prop_map(|(count, inventory, ends_group)| Op::Push { count, inventory, ends_group }),
        6 => (index(), 1u64..90).prop_map(|(from, count)| Op::Acknowledge { from, count }),
        1 => Just(Op::AcknowledgeGaps),
        1 => any::<bool>().prop_map(Op::Fault),
        1 => Just(Op::Stop),
        3 => prop::option::of(harm).prop_map(Op::Crash),
    ];
    prop::collection::vec(op, 1..40)
}

impl Model {
    fn new(ram_bytes: usize, disk_bytes: Option<u64>) -> Self {
        let dir = TempDir::new();
        let (spool, _) = Spool::open(&dir.spool(), ram_bytes, disk_bytes);
        Self { dir, spool, source: Source::new(1), frames: BTreeMap::new(), ram_bytes, disk_bytes }
    }

    fn apply(&mut self, op: &Op) {
        match op {
            Op::Push { count, inventory, ends_group } => {
                for n in 0..*count {
                    let made = if *inventory && n == 1 { self.source.inventory(90) } else { self.source.next() };
                    if self.spool.push(&made.frame, made.wall, made.begins).must_begin {
                        self.source.end_group();
                    }
                    self.frames.insert(made.frame.id, Expected { made, is_acknowledged: false, may_vanish: false });
                }
                if *ends_group {
                    self.source.end_group();
                }
            }
            Op::Acknowledge { from, count } => {
                let Some(&id) = self.frames.keys().nth(from.index(self.frames.len().max(1))) else { return };
                self.acknowledge(id.epoch, range(id.seq.0, id.seq.0 + count));
            }
            Op::AcknowledgeGaps => {
                for gap in self.spool.gaps().to_vec() {
                    self.acknowledge(gap.epoch, gap.range);
                }
            }
            Op::Fault(fault) => self.spool.disk.as_mut().expect("it was opened").fault = *fault,
            Op::Stop => self.stop(),
            // What a disk that failed did not take is lost with the process.
            Op::Crash(_) if self.disk_bytes.is_none() || self.spool.is_disk_failing() => self.stop(),
            Op::Crash(harm) => {
                if let Some(harm) = harm {
                    self.harm(harm);
                }
                self.restart();
            }
        }
    }

    fn acknowledge(&mut self, epoch: Epoch, range: SeqRange) {
        self.spool.acknowledge(epoch, range);
        let ids = FrameId { epoch, seq: range.first }..=FrameId { epoch, seq: range.last };
        self.frames.range_mut(ids).for_each(|(_, expected)| expected.is_acknowledged = true);
    }

    fn stop(&mut self) {
        self.spool.disk.as_mut().expect("it was opened").fault = false;
        self.spool.park(&self.dir.spool()).expect("the directory can be written");
        self.restart();
    }

    fn restart(&mut self) {
        let (spool, recovered) = Spool::open(&self.dir.spool(), self.ram_bytes, self.disk_bytes);
        assert!(recovered.epoch_max <= Some(Epoch(self.source.epoch)));
        self.spool = spool;
        self.source = Source::new(self.source.epoch + 1);
    }

    fn harm(&mut self, harm: &Harm) {
        let files = self.dir.segments();
        let Some(newest) = files.last() else { return };
        let bytes = fs::read(newest).expect("the file is there");
        let Some(last) = segment::scan(&bytes).records.pop() else { return };
        let (path, harmed) = match harm {
            Harm::Tear(at) => {
                let most = last.body.len() + segment::HEAD_BYTES;
                (newest, bytes[..bytes.len() - 1 - at.index(most)].to_vec())
            }
            Harm::Flip { file, at, bit } => {
                let path = &files[file.index(files.len())];
                let mut bytes = fs::read(path).expect("the file is there");
                let at = at.index(bytes.len());
                bytes[at] ^= 1 << bit;
                (path, bytes)
            }
        };
        fs::write(path, harmed).expect("it can be written");
        if path == newest {
            self.frames.get_mut(&last.id).expect("only what was pushed is written").may_vanish = true;
        }
    }

    fn check(&self) {
        let gaps = self.spool.gaps();
        for (id, expected) in &self.frames {
            let is_held = self.spool.unacknowledged(id.epoch).contains(id.seq);
            let covers = |gap: &&Gap| gap.epoch == id.epoch && gap.range.first <= id.seq && id.seq <= gap.range.last;
            let places = usize::from(is_held) + gaps.iter().filter(covers).count();
            assert!(places <= 1, "{id} is in {places} places");
            assert!(places == 1 || expected.is_acknowledged || expected.may_vanish, "{id} is nowhere");
        }
        let is_known = |id: FrameId| self.frames.contains_key(&id);
        for spooled in self.spool.spooled() {
            assert!(is_known(FrameId { epoch: spooled.epoch, seq: spooled.range.first }));
            assert!(is_known(FrameId { epoch: spooled.epoch, seq: spooled.range.last }));
        }
        assert!(self.spool.len_bytes() <= self.ram_bytes + self.spool.loaded.as_ref().map_or(0, Group::bytes));
        assert!(self.disk_bytes.is_none_or(|most| self.spool.disk_bytes() <= most));
        let on_disk: u64 = self.dir.segments().iter().map(|path| fs::metadata(path).map_or(0, |meta| meta.len())).sum();
        assert!(on_disk >= self.spool.disk_bytes(), "the bytes are counted");
    }
}

fn run(ops: &[Op], ram_bytes: usize, disk_bytes: Option<u64>) {
    let mut model = Model::new(ram_bytes, disk_bytes);
    for op in ops {
        model.apply(op);
        model.check();
    }
    let made: Vec<Made> = model.frames.into_values().map(|expected| expected.made).collect();
    assert_rekeys(&mut model.spool, &made);
    assert!(
        !model.spool.take_notes().iter().any(|note| matches!(note, Note::Undecodable { .. } | Note::Foreign { .. }))
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(160))]

    #[test]
    fn a_disk_ring_accounts_for_every_frame(ops in ops(), small: bool) {
        run(&ops, if small { 3_000 } else { 40_000 }, Some(if small { 16_000 } else { 1 << 20 }));
    }

    #[test]
    fn a_ram_ring_that_is_parked_accounts_for_every_frame(ops in ops(), small: bool) {
        run(&ops, if small { 4_000 } else { 1 << 20 }, None);
    }
}
