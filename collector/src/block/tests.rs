//! Blocks: what goes in comes out, whatever is in it; and what is damaged is refused or misread, never worse.

use dunlin_shared::metric::{Kind, Step, Unit};
use dunlin_shared::sample::{ABSENT, SubjectKind};
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// Even rows, as an agent with a steady clock makes them.
fn even_rows(count: u32) -> Vec<Row> {
    let row = |n: u32| Row {
        time: WallMs(1_750_000_000_123 + 10_000 * i64::from(n)),
        epoch: Epoch(7),
        seq: Seq(4_711 + u64::from(n)),
        mono: MonoMs(86_400_000 + 10_000 * u64::from(n)),
    };
    (0..count).map(row).collect()
}

fn column(subject: &str, metric: u16, values: Vec<i64>) -> Column {
    let subject = Subject::parse(subject).expect("a subject");
    Column { subject, measure: Measure::Catalogued(MetricId(metric)), values }
}

/// Numbers without a pattern, the same in each run.
fn noise(seed: u64) -> impl FnMut(i64) -> i64 {
    let mut state = seed * 2 + 1;
    move |below| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33).cast_signed() % below
    }
}

fn counter(rows: u32, seed: u64, most: i64) -> Vec<i64> {
    let (mut noise, mut sum) = (noise(seed), 1_000_000);
    let mut next = || {
        sum += noise(most);
        sum
    };
    (0..rows).map(|_| next()).collect()
}

/// A host with something of everything: still, lively, leaning on each other, gone for a while.
fn host(rows: u32) -> Stretch {
    let (user, system) = (counter(rows, 1, 300), counter(rows, 2, 90));
    let idle: Vec<i64> = (0..).zip(user.iter().zip(&system)).map(|(n, (a, b))| 9_000_000 + 2_000 * n - a - b).collect();
    let mut used = counter(rows, 3, 40);
    used.iter_mut().skip(3).step_by(7).for_each(|value| *value = ABSENT);
    let len = rows as usize;
    let columns = vec![
        column("host", 1, user),
        column("host", 2, system),
        column("host", 3, idle),
        column("host", 5, vec![0; len]),
        column("fs:/var", 120, vec![66_053_021; len]),
        column("fs:/var", 121, used),
        column("process:mysqld", 220, vec![ABSENT; len]),
        column("process:mysqld", 221, counter(rows, 4, 12)),
    ];
    Stretch { rows: even_rows(rows), columns }
}

fn encode_both(stretch: &Stretch) -> [Vec<u8>; 2] {
    [Effort::Quick, Effort::Thorough].map(|effort| encode(stretch, effort))
}

#[test]
fn a_host_comes_back_from_either_effort() {
    for rows in [0, 1, 2, 30, 360] {
        let stretch = host(rows);
        for bytes in encode_both(&stretch) {
            assert_eq!(decode(&bytes).as_ref(), Ok(&stretch), "{rows} rows");
        }
    }
}

#[test]
fn what_stays_as_it_is_costs_next_to_nothing() {
    let still = |columns: u16| {
        let column = |n: u16| column(&format!("process:p{}", n / 5), 220 + n % 5, vec![i64::from(n % 5); 360]);
        let stretch = Stretch { rows: even_rows(360), columns: (0..columns).map(column).collect() };
        encode(&stretch, Effort::Thorough).len()
    };
    let each = (still(150) - still(100)) / 50;
    assert!(each <= 1, "{each} bytes for each further column, name included");
    let rows = |count: u32| encode(&Stretch { rows: even_rows(count), columns: Vec::new() }, Effort::Thorough).len();
    assert!(rows(3_600) <= rows(30) + 4, "{} bytes for an hour of even rows", rows(3_600));
}

#[test]
fn what_follows_from_other_columns_is_free() {
    let len = |metrics: &[u16]| {
        let mut stretch = host(360);
        stretch.columns.retain(|column| metrics.iter().any(|&id| column.measure == Measure::Catalogued(MetricId(id))));
        encode(&stretch, Effort::Thorough).len()
    };
    let (beside, alone) = (len(&[1, 2, 3]) - len(&[1, 2]), len(&[3]) - len(&[]));
    assert!(beside <= 32, "idle time took {beside} bytes beside what it follows from");
    assert!(alone >= 200, "idle time is no less than {alone} bytes by itself");
}

#[test]
fn another_version_is_named() {
    let mut bytes = encode(&host(2), Effort::Quick);
    bytes[0] = 9;
    assert_eq!(decode(&bytes), Err(BlockError::Version(9)));
    assert_eq!(decode(&[]), Err(BlockError::Truncated));
}

#[test]
fn bytes_behind_the_block_are_refused() {
    for rows in [0, 30] {
        let mut bytes = encode(&host(rows), Effort::Quick);
        bytes.push(0);
        assert_eq!(decode(&bytes), Err(BlockError::Leftover(1)));
    }
}

/// A block that is on someone's disk stays readable: these bytes never change while the version is 1.
#[test]
fn frozen_bytes_are_written_and_read() {
    let mut stretch = host(4);
    let own = OpenMetric::new("x_queue", Unit::Count, Kind::Gauge, Step::Per(10)).expect("a good name");
    let values = vec![5, ABSENT, -5, 1 << 60];
    stretch.columns.push(Column { subject: Subject::HOST(), measure: Measure::Open(own), values });
    let bytes = encode(&stretch, Effort::Thorough);
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, FROZEN);
    assert_eq!(decode(&bytes), Ok(stretch));
}

const FROZEN: &str = concat!(
    "0134f96a0bba106e3dae17107dafc699d7ca3cec70510a39916449f719c3a2b7faa80960d184278d0960aafd6fa9b338",
    "50d5a4ea899fea67cf6760000813db3ee7f71826ce08ef3f8d79a5c522b55034698f6aebfbd10cd9f3a9f50d638571eb",
    "61415116cf71795db0e268cc66873e5392f140000000000a",
);

fn subjects() -> impl Strategy<Value = Subject> {
    prop_oneof![
        Just(Subject::HOST()),
        Just(Subject::AGENT()),
        "[a-c/é]{1,4}".prop_map(|name| Subject::new(SubjectKind::Fs, &name).expect("short")),
        "\\PC{1,9}".prop_map(|name| Subject::new(SubjectKind::Process, &name).expect("short")),
    ]
}

fn measures() -> impl Strategy<Value = Measure> {
    let open = ("x_[a-z]{1,3}", any::<bool>(), 1..=u32::MAX).prop_map(|(name, per, size)| {
        let step = if per { Step::Per(size) } else { Step::Each(size) };
        let kind = if per { Kind::Gauge } else { Kind::Counter };
        Measure::Open(OpenMetric::new(&name, Unit::Hertz, kind, step).expect("a good name"))
    });
    prop_oneof![
        8 => (1..12_u16).prop_map(|id| Measure::Catalogued(MetricId(id))),
        1 => any::<u16>().prop_map(|id| Measure::Catalogued(MetricId(id))),
        1 => open,
    ]
}

/// From still to wild: steps of a size that is the column's own, with a gap here and there.
fn values(rows: usize) -> impl Strategy<Value = Vec<i64>> {
    let steps = (0..64_u32).prop_flat_map(move |bits| {
        let step = prop_oneof![6 => any::<i64>().prop_map(move |by| by >> bits), 1 => Just(0), 1 => Just(ABSENT)];
        vec(step, rows)
    });
    let walk = (any::<i64>(), steps).prop_map(|(first, steps)| {
        let mut sum = first;
        let walk = steps.into_iter().map(|by| {
            sum = sum.wrapping_add(if by == ABSENT { 0 } else { by });
            if by == ABSENT { ABSENT } else { sum }
        });
        walk.collect()
    });
    prop_oneof![3 => walk, 1 => vec(any::<i64>(), rows), 1 => (any::<i64>()).prop_map(move |value| vec![value; rows])]
}

fn rows(count: usize) -> impl Strategy<Value = Vec<Row>> {
    let wild = (any::<i64>(), any::<u32>(), any::<u64>(), any::<u64>()).prop_map(|(time, epoch, seq, mono)| Row {
        time: WallMs(time),
        epoch: Epoch(epoch),
        seq: Seq(seq),
        mono: MonoMs(mono),
    });
    let even = even_rows(u32::try_from(count).expect("a few"));
    prop_oneof![2 => Just(even), 1 => vec(wild, count)]
}

fn stretches() -> impl Strategy<Value = Stretch> {
    (0..40_usize, 0..14_usize).prop_flat_map(|(count, columns)| {
        let column = (subjects(), measures(), values(count));
        let column = column.prop_map(|(subject, measure, values)| Column { subject, measure, values });
        (rows(count), vec(column, columns)).prop_map(|(rows, columns)| Stretch { rows, columns })
    })
}

proptest! {
    #[test]
    fn any_stretch_comes_back(stretch in stretches()) {
        for bytes in encode_both(&stretch) {
            let back = decode(&bytes);
            prop_assert_eq!(back.as_ref(), Ok(&stretch));
        }
    }

    #[test]
    fn some_columns_are_those_of_all(stretch in stretches(), pick: u64) {
        let bytes = encode(&stretch, Effort::Thorough);
        let mut asked = 0;
        let some = decode_some(&bytes, |_, _| {
            asked += 1;
            pick >> (asked % 64) & 1 == 1
        });
        let mut at = 0;
        let mut left = stretch.clone();
        left.columns.retain(|_| {
            at += 1;
            pick >> (at % 64) & 1 == 1
        });
        prop_assert_eq!(some, Ok(left));
        prop_assert_eq!(asked, stretch.columns.len());
    }

    #[test]
    fn damage_never_panics(stretch in stretches(), at: prop::sample::Index, bit in 0..8_u32, cut: prop::sample::Index) {
        let bytes = encode(&stretch, Effort::Quick);
        let mut flipped = bytes.clone();
        flipped[at.index(bytes.len())] ^= 1 << bit;
        if let Ok(read) = decode(&flipped) {
            prop_assert!(read.fits());
            prop_assert!(read.columns.iter().all(|column| column.values.len() == read.rows.len()));
        }
        prop_assert!(decode(&bytes[..cut.index(bytes.len())]).is_err(), "what is missing is missed");
    }

    #[test]
    fn noise_never_panics(bytes in vec(any::<u8>(), 0..300)) {
        decode(&[&[VERSION, 40][..], &bytes].concat()).ok();
    }
}
