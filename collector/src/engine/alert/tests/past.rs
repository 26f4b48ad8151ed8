//! Rules that look hours back, over a start: as if there had been none, as far as roll-ups know.

use super::*;

const HOUR: usize = 360;
const SLOT_MS: u64 = 300_000;
/// What a start finds as it came.
const FRAMES: usize = 60;

/// A line that remembers what a window would hold of it.
struct Kept {
    line: Line,
    frames: Vec<(u64, Arc<Reading>, f64)>,
}

impl Kept {
    fn new(rules: &str) -> Self {
        let mut line = Line::new(rules, MEMORY);
        // A collector counts from somewhere.
        line.ran = 100 * 3_600_000;
        line.told.clear();
        Self { line, frames: Vec::new() }
    }

    fn frames(&mut self, count: usize, value: f64) {
        for _ in 0..count {
            self.line.frame(&[value]);
            let (seq, reading) = self.line.latest.clone().expect("it came");
            self.frames.push((seq, reading, value));
        }
    }

    /// Killed and started: the newest frames are there as they came, and all others are rolled up.
    fn restart(&mut self, rules: &str) {
        self.line.restart_with(rules, false);
        self.line.alerts.await_past();
        let newest = self.frames.len().saturating_sub(FRAMES);
        for (seq, reading, _) in &self.frames[newest..] {
            self.line.alerts.remember(reading.mono, NODE, (FrameId::new(1, *seq), false), reading);
        }
    }

    fn tell_past(&mut self) {
        let older = &self.frames[..self.frames.len().saturating_sub(FRAMES)];
        let here: Vec<_> = older.iter().filter(|(.., value)| value.is_finite()).collect();
        let slot = |frames: &[&(u64, Arc<Reading>, f64)]| {
            let from = frames[0].1.mono.0 / SLOT_MS * SLOT_MS;
            let of = || frames.iter().map(|(.., value)| *value);
            Slot {
                from: MonoMs(from),
                to: MonoMs(from + SLOT_MS),
                min: of().fold(f64::INFINITY, f64::min),
                max: of().fold(f64::NEG_INFINITY, f64::max),
                mean: of().sum::<f64>() / frames.len() as f64,
                last: of().next_back().expect("it has some"),
                count: u32::try_from(frames.len()).expect("few"),
            }
        };
        let slots = here.chunk_by(|a, b| a.1.mono.0 / SLOT_MS == b.1.mono.0 / SLOT_MS).map(slot).collect();
        let metric = by_name("host_memory_used_ratio").expect("in the catalogue");
        let (source, subject) = (Source::Catalogued(metric.id), Arc::from("host"));
        let past = Past { node: NODE, source, subject, kind: metric.kind, step: metric.step, slots };
        let now = self.line.now().ran;
        self.line.alerts.past(now, STEP_MS, &past);
        self.line.alerts.end_past();
    }

    /// When what was told, by the frame of it.
    fn told_at(&self) -> Vec<(&'static str, i64)> {
        let told = self.line.told.iter().filter_map(|change| match change {
            AlertChange::Fired(alert, _) => Some(("fired", alert.fired?.wall.0)),
            AlertChange::Resolved(alert) => Some(("resolved", alert.resolved?.0.0)),
            _ => None,
        });
        told.collect()
    }
}

fn mean(more: &str) -> String {
    format!("[[rule]]\nname = \"mean\"\nwhen = 'avg(host_memory_used_ratio, 6h) > 80%'\nsummary = \"x\"\n{more}")
}

/// The same inputs without a start and with one behind each of these.
fn with_and_without(rules: &str, parts: &[(usize, f64)], starts: &[usize]) -> [Vec<(&'static str, i64)>; 2] {
    [false, true].map(|starts_anew| {
        let mut kept = Kept::new(rules);
        for (place, (count, value)) in parts.iter().enumerate() {
            kept.frames(*count, *value);
            if starts_anew && starts.contains(&place) {
                kept.restart(rules);
                kept.tell_past();
            }
        }
        kept.told_at()
    })
}

fn assert_near([without, with]: &[Vec<(&'static str, i64)>; 2]) {
    let words = |told: &[(&'static str, i64)]| told.iter().map(|(word, _)| *word).collect::<Vec<_>>();
    assert_eq!(words(without), words(with));
    for ((word, at), (_, other)) in without.iter().zip(with) {
        // An average of thousands has seven digits.
        assert!((at - other).abs() <= 20_000, "{word} at {at}, and with a start at {other}");
    }
}

#[test]
fn a_rule_over_six_hours_fires_and_ends_as_if_there_had_been_no_start() {
    // A twelfth that leaves the window moves its average: what is near its threshold comes and goes.
    let rule = mean("clear = '< 70%'\n");
    let parts = [(4 * HOUR, 0.6), (HOUR, 0.95), (2 * HOUR, 0.95), (HOUR, 0.95), (5 * HOUR, 0.5), (HOUR, 0.5)];
    for starts in [&[0][..], &[1], &[2], &[3], &[4], &[0, 1, 2, 3, 4]] {
        let told = with_and_without(&rule, &parts, starts);
        assert_eq!(told[0].iter().map(|(word, _)| *word).collect::<Vec<_>>(), ["fired", "resolved"]);
        assert_near(&told);
    }
}

#[test]
fn of_a_window_that_is_unmeasured_in_part_the_rest_counts() {
    let parts = [(2 * HOUR, 0.6), (2 * HOUR, f64::NAN), (HOUR, 0.95), (2 * HOUR, 0.95), (HOUR, f64::NAN), (HOUR, 0.6)];
    for starts in [&[0][..], &[1], &[2], &[3], &[4], &[1, 4]] {
        assert_near(&with_and_without(&mean("clear = '< 70%'\n"), &parts, starts));
    }
}

#[test]
fn until_the_past_is_told_a_rule_that_looks_far_back_neither_fires_nor_ends() {
    let mut kept = Kept::new(&mean(""));
    kept.frames(5 * HOUR, 0.5);
    kept.frames(FRAMES, 0.99);
    kept.restart(&mean(""));
    kept.frames(20, 0.99);
    assert_eq!(kept.told_at(), [], "the few minutes that are known are no six hours");
    kept.frames.truncate(kept.frames.len() - 20);
    kept.tell_past();
    kept.frames(20, 0.99);
    assert_eq!(kept.told_at(), []);

    let mut kept = Kept::new(&mean(""));
    kept.frames(5 * HOUR, 0.9);
    kept.frames(FRAMES, 0.1);
    assert_eq!(kept.told_at().len(), 1);
    kept.restart(&mean(""));
    kept.frames(20, 0.1);
    assert_eq!(kept.told_at().len(), 1, "nor are they its end");
    kept.frames.truncate(kept.frames.len() - 20);
    kept.tell_past();
    kept.frames(20, 0.1);
    assert_eq!(kept.told_at().len(), 1);
}

#[test]
fn what_is_absent_for_hours_is_told_once_whoever_starts_meanwhile() {
    let rules = "[[rule]]\nname = \"gone\"\nwhen = 'absent(host_memory_used_ratio, 6h)'\nsummary = \"x\"\n";
    let parts = [(HOUR, 0.5), (4 * HOUR, f64::NAN), (3 * HOUR, f64::NAN), (HOUR, f64::NAN), (1, 0.5)];
    for starts in [&[1][..], &[2], &[1, 2, 3]] {
        let [without, with] = with_and_without(rules, &parts, starts);
        let words = |told: &[(&'static str, i64)]| told.iter().map(|(word, _)| *word).collect::<Vec<_>>();
        assert_eq!((words(&without), words(&with)), (vec!["fired", "resolved"], vec!["fired", "resolved"]));
        // To a slot.
        assert!((without[0].1 - with[0].1).abs() <= 300_000 && without[1] == with[1], "{without:?} {with:?}");
    }
}

#[test]
fn a_node_that_was_silent_finds_its_past_with_its_next_frame() {
    let mut kept = Kept::new(&mean(""));
    kept.frames(5 * HOUR, 0.95);
    kept.line.told.clear();
    kept.line.state(NodeState::Down);
    kept.line.restart_with(&mean("for = \"1m\"\n"), false);
    kept.line.alerts.await_past();
    kept.tell_past();
    kept.line.wait(900_000);
    kept.line.state(NodeState::Up);
    kept.frames(30, 0.1);
    assert_eq!(kept.told_at(), [], "its hours count, and its alert goes on");
    let open: Vec<_> = kept.line.alerts.open().map(|alert| alert.value).collect();
    assert!(matches!(open[..], [Some(value)] if value > 0.9), "{open:?}");
}
