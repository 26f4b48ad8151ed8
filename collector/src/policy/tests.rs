//! Orders on virtual time, by name of behaviour; what is found by an index against what is found by looking at all.

use dunlin_shared::id::{FrameId, NodeId};
use dunlin_shared::rule::{Pattern, Severity};
use proptest::prelude::*;

use super::decide::{KEPT, SILENCES_MAX};
use super::*;
use crate::registry::{Actor, Labels};

const T0: WallMs = WallMs(1_795_000_000_000);
const DAY_MS: i64 = 24 * 3_600_000;

/// An alert as somebody else owns it.
#[derive(Clone, Debug)]
struct Known {
    id: AlertId,
    rule: String,
    node: NodeId,
    labels: Labels,
    subject: String,
    severity: Severity,
}

impl Known {
    fn new(number: u64, rule: &str, subject: &str, env: &str) -> Self {
        let node = node(number);
        Self {
            id: AlertId::of(rule, Some(node), subject, FrameId::new(1, number)),
            rule: rule.to_owned(),
            node,
            labels: labels(&[("env", env), ("role", &format!("r{}", number % 7))]),
            subject: subject.to_owned(),
            severity: Severity::Warning,
        }
    }

    fn facts(&self) -> Facts<'_> {
        let Self { rule, node, labels, subject, severity, .. } = self;
        Facts { rule, node: Some(*node), labels, subject, severity: *severity }
    }
}

fn node(number: u64) -> NodeId {
    NodeId::v7(number, [7; 10])
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn on_rule(pattern: &str) -> Matchers {
    Matchers { rule: Some(Pattern::new(pattern)), ..Matchers::default() }
}

fn silence(matchers: Matchers, from: i64, to: i64) -> What {
    let (start, end) = (Some(T0.plus(from)), Some(T0.plus(to)));
    What::Silence(SilenceWish { matchers, reason: String::from("because"), start, end, weekly: None })
}

fn ann() -> Actor {
    Actor { name: String::from("ann"), token: None, from: None }
}

fn ask(policy: &mut Policy, now: i64, what: What) -> Decision {
    policy.decide(T0.plus(now), &ann(), what, |_| true)
}

fn made(policy: &mut Policy, now: i64, what: What) -> SilenceId {
    match ask(policy, now, what).answer {
        Ok(Answer::Silenced(id)) => id,
        other => panic!("{other:?}"),
    }
}

fn review(policy: &mut Policy, now: i64, alerts: &[Known]) -> Vec<(usize, Option<u64>)> {
    policy.look(T0.plus(now));
    let turned = policy.review(T0.plus(now), Reviewed::Touched, alerts.iter().map(|alert| (alert.id, alert.facts())));
    let place = |turned: Turned| alerts.iter().position(|alert| alert.id == turned.alert).expect("one of them");
    turned.into_iter().map(|turned| (place(turned), turned.to.map(|id| id.0))).collect()
}

#[test]
fn an_alert_is_told_once_when_a_silence_begins_and_once_when_the_last_one_ends() {
    let mut policy = Policy::default();
    let alerts = [Known::new(1, "disk-low", "fs:/", "prod"), Known::new(2, "cpu-busy", "host", "prod")];
    assert_eq!(policy.fired(T0, alerts[0].id, &alerts[0].facts()), None);
    made(&mut policy, 0, silence(on_rule("disk-*"), 10, 50));
    made(&mut policy, 0, silence(on_rule("*-low"), 40, 80));
    assert_eq!((review(&mut policy, 0, &alerts), policy.next_change()), (vec![], Some(T0.plus(10))));
    assert_eq!(review(&mut policy, 10, &alerts), [(0, Some(1))]);
    assert_eq!(review(&mut policy, 40, &alerts), [], "the oldest goes on");
    assert_eq!(review(&mut policy, 50, &alerts), [(0, Some(2))]);
    assert_eq!(policy.silenced(alerts[0].id), Some(SilenceId(2)));
    assert_eq!(review(&mut policy, 80, &alerts), [(0, None)]);
    assert_eq!((review(&mut policy, 90, &alerts), policy.next_change()), (vec![], None));
}

#[test]
fn an_alert_that_fires_under_a_silence_is_under_it_at_once() {
    let mut policy = Policy::default();
    let alerts = [Known::new(1, "disk-low", "fs:/", "prod")];
    let id = made(&mut policy, 0, silence(on_rule("disk-low"), 0, 50));
    assert_eq!(policy.fired(T0.plus(1), alerts[0].id, &alerts[0].facts()), Some(id));
    assert_eq!(review(&mut policy, 1, &alerts), []);
    policy.resolved(alerts[0].id);
    assert_eq!(policy.silenced(alerts[0].id), None);
    // Whoever asks of another moment than the one that was looked at is told of that one.
    assert_eq!(policy.silence_of(T0.plus(49), &alerts[0].facts()), Some(id));
    assert_eq!(policy.silence_of(T0.plus(50), &alerts[0].facts()), None);
}

#[test]
fn what_a_person_ends_is_over_at_once_and_for_good_though_the_clock_goes_back() {
    let mut policy = Policy::default();
    let alerts = [Known::new(1, "disk-low", "fs:/", "prod")];
    let id = made(&mut policy, 0, silence(on_rule("disk-low"), 0, 50));
    assert_eq!(review(&mut policy, 0, &alerts), [(0, Some(1))]);
    let expired = ask(&mut policy, 20, What::Expire(id));
    assert_eq!(expired.log.map(|done| (done.action, done.target)), Some(("silence.expire".into(), "s1".into())));
    assert_eq!(review(&mut policy, 20, &alerts), [(0, None)]);
    assert_eq!(review(&mut policy, 5, &alerts), []);
    let kept = policy.silence(id).expect("it is kept for the record");
    assert_eq!((kept.end, kept.ended_by.as_deref()), (Some(T0.plus(20)), Some("ann")));
    for what in
        [What::Expire(id), What::Edit { silence: id, edit: SilenceEdit { end: Some(Some(T0.plus(99))), reason: None } }]
    {
        assert!(matches!(ask(&mut policy, 21, what).answer, Err(Refused::Conflict(_))));
    }
    assert!(matches!(ask(&mut policy, 21, What::Expire(SilenceId(9))).answer, Err(Refused::NotFound(_))));
}

#[test]
fn a_clock_that_goes_back_opens_again_what_ended_by_the_clock() {
    let mut policy = Policy::default();
    let alerts = [Known::new(1, "disk-low", "fs:/", "prod")];
    made(&mut policy, 0, silence(on_rule("disk-low"), 0, 50));
    assert_eq!(review(&mut policy, 60, &alerts), []);
    assert_eq!(review(&mut policy, 40, &alerts), [(0, Some(1))]);
    assert_eq!(policy.next_change(), Some(T0.plus(50)));
}

#[test]
fn an_end_may_be_moved_either_way_and_a_reason_be_written_anew() {
    let mut policy = Policy::default();
    let id = made(&mut policy, 0, silence(on_rule("disk-low"), 0, 50));
    let edit = |end, reason: Option<&str>| What::Edit {
        silence: id,
        edit: SilenceEdit { end, reason: reason.map(str::to_owned) },
    };
    let moved = ask(&mut policy, 1, edit(Some(Some(T0.plus(900))), Some("it takes longer")));
    let said = moved.log.map(|done| done.detail).expect("a line");
    assert_eq!(said, "rule:disk-low until 2026-11-18T11:06:40.900Z: it takes longer");
    assert_eq!(policy.next_change(), Some(T0.plus(900)));
    for (edit, says) in [
        (edit(None, None), "nothing is to be another"),
        (edit(Some(None), None), "open-ended"),
        (edit(Some(Some(T0.plus(1))), None), "later end"),
        (edit(None, Some("")), "say why"),
    ] {
        let refused = ask(&mut policy, 1, edit);
        assert!(matches!(&refused.answer, Err(Refused::Invalid(why)) if why.contains(says)), "{:?}", refused.answer);
        assert!(refused.changes.is_empty() && refused.log.is_none());
    }
}

#[test]
fn only_what_fires_is_acknowledged_once_until_it_is_resolved_or_taken_back() {
    let mut policy = Policy::default();
    let alerts: Vec<_> = (0..4).map(|number| Known::new(number, "disk-low", "fs:/", "prod")).collect();
    let [first, second, third, gone] = [0, 1, 2, 3].map(|place: usize| alerts[place].id);
    let firing = |alert| alert != gone;
    let acknowledge = |alert| What::Acknowledge { alert, why: String::from("on it") };
    let ask = |policy: &mut Policy, what| policy.decide(T0, &ann(), what, firing);
    let one = ask(&mut policy, acknowledge(first));
    assert_eq!((one.answer, one.events[0].kind), (Ok(Answer::Done), "alert.acknowledged"));
    assert_eq!(policy.acknowledgement(first).map(|said| (said.by.as_str(), said.why.as_str())), Some(("ann", "on it")));
    for alert in [first, gone] {
        assert!(matches!(ask(&mut policy, acknowledge(alert)).answer, Err(Refused::Conflict(_))));
    }
    let chosen = String::from("rule:disk-low");
    let all = What::AcknowledgeAll { alerts: vec![first, second, second, third, gone], why: String::new(), chosen };
    let many = ask(&mut policy, all.clone());
    assert_eq!((many.answer, many.events.len()), (Ok(Answer::Acknowledged(2)), 2));
    assert_eq!(many.log.map(|done| (done.target, done.detail)), Some(("2 alerts".into(), "rule:disk-low".into())));
    let again = ask(&mut policy, all);
    assert!(again.answer == Ok(Answer::Acknowledged(0)) && again.log.is_none() && again.changes.is_empty());
    assert_eq!(ask(&mut policy, What::Unacknowledge(second)).events[0].kind, "alert.unacknowledged");
    assert!(matches!(ask(&mut policy, What::Unacknowledge(second)).answer, Err(Refused::Conflict(_))));
    policy.resolved(third);
    assert_eq!((policy.acknowledgement(second), policy.acknowledgement(third)), (None, None));
    let long = What::Acknowledge { alert: second, why: "w".repeat(REASON_BYTES_MAX + 1) };
    assert!(matches!(ask(&mut policy, long).answer, Err(Refused::Invalid(_))));
}

#[test]
fn what_is_over_is_kept_for_a_while_and_no_id_is_given_twice() {
    let mut policy = Policy::default();
    let count = i64::try_from(KEPT).expect("few") + 10;
    for number in 0..count {
        made(&mut policy, 0, silence(on_rule("disk-low"), 0, number + 1));
    }
    let lasting = made(&mut policy, 0, silence(on_rule("disk-low"), 0, 200 * DAY_MS));
    let dropped = policy.drop_oldest(T0.plus(count + 1));
    assert_eq!(dropped, (1..=10).rev().map(|number| Change::Silence(SilenceId(number), None)).collect::<Vec<_>>());
    assert_eq!(policy.drop_oldest(T0.plus(90 * DAY_MS)).len(), 0);
    assert_eq!(policy.drop_oldest(T0.plus(91 * DAY_MS)).len(), KEPT);
    assert_eq!(policy.silences().map(|(id, _)| id).collect::<Vec<_>>(), [lasting]);
    assert_eq!(policy.drop_oldest(T0.plus(400 * DAY_MS)).len(), 0, "it says which id is the next");
    assert_eq!(made(&mut policy, 400 * DAY_MS, silence(on_rule("a"), 0, 500 * DAY_MS)).0, lasting.0 + 1);
    assert_eq!(policy.drop_oldest(T0.plus(400 * DAY_MS)), [Change::Silence(lasting, None)]);
}

#[test]
fn there_are_no_more_than_so_many_and_those_that_are_over_do_not_count() {
    let mut policy = Policy::default();
    for _ in 0..SILENCES_MAX {
        made(&mut policy, 0, silence(on_rule("disk-low"), 0, 50));
    }
    let refused = ask(&mut policy, 0, silence(on_rule("disk-low"), 0, 50));
    assert!(matches!(refused.answer, Err(Refused::Conflict(why)) if why.contains("expire")));
    assert!(ask(&mut policy, 1, What::Expire(SilenceId(1))).answer.is_ok());
    made(&mut policy, 1, silence(on_rule("disk-low"), 0, 50));
}

#[test]
fn what_was_not_stored_is_taken_back_and_alerts_are_told() {
    let mut policy = Policy::default();
    let alerts = [Known::new(1, "disk-low", "fs:/", "prod")];
    made(&mut policy, 0, silence(on_rule("disk-low"), 0, 50));
    assert_eq!(policy.fired(T0, alerts[0].id, &alerts[0].facts()), Some(SilenceId(1)));
    let said = Acknowledgement { by: String::from("bob"), at: T0, why: String::new() };
    let stored = Policy::restore(T0, [], [(alerts[0].id, said.clone()), (Known::new(2, "a", "b", "c").id, said)], []);
    policy.read_anew(stored, |alert| alert == alerts[0].id);
    assert!(policy.is_touched());
    assert_eq!(review(&mut policy, 0, &alerts), [(0, None)]);
    assert_eq!(policy.acknowledged.len(), 1, "what is resolved meanwhile is not acknowledged");
}

fn pattern() -> impl Strategy<Value = Pattern> {
    prop_oneof![Just("a"), Just("b"), Just("a*"), Just("*"), Just("ab")].prop_map(Pattern::new)
}

fn matchers() -> impl Strategy<Value = Matchers> {
    let option = || prop::option::of(pattern());
    let severity = prop::option::weighted(0.2, Just(Severity::Warning));
    (option(), option(), option(), prop::option::weighted(0.3, 0u64..3), severity).prop_filter_map(
        "at least one",
        |(rule, subject, env, number, severity)| {
            let labels = env.map(|env| ("env".into(), env)).into_iter().collect();
            let matchers = Matchers { labels, rule, node: number.map(node), subject, severity };
            matchers.check().is_ok().then_some(matchers)
        },
    )
}

fn known() -> impl Strategy<Value = Known> {
    let word = || prop_oneof![Just("a"), Just("b"), Just("ab")];
    (0u64..3, word(), word(), word()).prop_map(|(number, rule, subject, env)| Known::new(number, rule, subject, env))
}

proptest! {
    /// Whatever is made, ended, edited and dropped, and however the clock goes: an alert is under the oldest silence that
    /// fits and is active, it was told of each change and of nothing else, and what was stored is all there is.
    #[test]
    fn an_alert_is_under_the_oldest_silence_that_fits_and_is_told_of_every_change(
        alerts in prop::collection::vec(known(), 1..6),
        steps in prop::collection::vec((0u8..6, matchers(), -3i64..12, 1u64..20, 1i64..30), 1..40),
    ) {
        let mut policy = Policy::default();
        let mut stored = BTreeMap::new();
        let mut told: HashMap<AlertId, u64> = HashMap::new();
        let mut alerts = alerts;
        alerts.sort_by_key(|alert| alert.id);
        alerts.dedup_by_key(|alert| alert.id);
        let mut now = 0;
        for (kind, matchers, later, id, length) in steps {
            now += later;
            let id = SilenceId(id);
            let weekly = || Some("Europe/Berlin; wed 12:07 1m".parse().expect("good"));
            let end = Some(T0.plus(now + length));
            let changes = match kind {
                0 | 1 => ask(&mut policy, now, silence(matchers, now + later, now + later + length)).changes,
                2 => {
                    let wish = SilenceWish { matchers, reason: String::from("r"), start: None, end: None, weekly: weekly() };
                    ask(&mut policy, now, What::Silence(wish)).changes
                }
                3 => ask(&mut policy, now, What::Expire(id)).changes,
                4 => ask(&mut policy, now, What::Edit { silence: id, edit: SilenceEdit { end: Some(end), reason: None } }).changes,
                _ => policy.drop_oldest(T0.plus(now)),
            };
            for change in changes {
                if let Change::Silence(id, silence) = change {
                    match silence {
                        Some(silence) => stored.insert(id, silence),
                        None => stored.remove(&id),
                    };
                }
            }
            for (place, to) in review(&mut policy, now, &alerts) {
                let before = match to {
                    Some(to) => told.insert(alerts[place].id, to),
                    None => told.remove(&alerts[place].id),
                };
                prop_assert_ne!(before, to);
            }
            for alert in &alerts {
                let fits = |(_, silence): &(&SilenceId, &Silence)| silence.matchers.fit(&alert.facts()) && silence.is_active(T0.plus(now));
                let plain = stored.iter().find(fits).map(|(id, _)| *id);
                prop_assert_eq!(policy.silence_of(T0.plus(now), &alert.facts()), plain);
                prop_assert_eq!(told.get(&alert.id).copied().map(SilenceId), plain);
            }
        }
        let again = Policy::restore(T0.plus(now), stored, [], []);
        let all = |policy: &Policy| policy.silences().map(|(id, silence)| (id, Arc::clone(silence))).collect::<Vec<_>>();
        prop_assert_eq!(all(&again), all(&policy));
        prop_assert_eq!(&again.due, &policy.due);
    }
}

/// Prints how long it takes to find the silence of each of 10,000 alerts among 1,000 silences.
#[test]
#[expect(clippy::disallowed_methods, reason = "it measures")]
fn ten_thousand_alerts_are_compared_with_a_thousand_silences() {
    let alerts: Vec<_> =
        (0..10_000).map(|number| Known::new(number, &format!("rule-{}", number % 40), "fs:/var", "prod")).collect();
    let with = |rule: String, node: Option<NodeId>| Matchers {
        labels: [("env".into(), Pattern::new("prod"))].into(),
        node,
        ..on_rule(&rule)
    };
    let kinds: [(&str, &dyn Fn(u64) -> Matchers); 3] = [
        ("a node and a rule each", &|number| with(format!("rule-{}", number % 40), Some(node(number)))),
        ("a rule each, which no alert has", &|number| with(format!("other-{number}"), None)),
        ("patterns alone, of which none fits", &|number| on_rule(&format!("*-{number}-*"))),
    ];
    for (what, matchers) in kinds {
        let mut policy = Policy::default();
        for number in 0..1_000 {
            made(&mut policy, 0, silence(matchers(number), 0, 1_000));
        }
        let began = std::time::Instant::now();
        let under = alerts.iter().filter(|alert| policy.silence_of(T0, &alert.facts()).is_some()).count();
        println!("1,000 silences on {what}: {under} of 10,000 alerts in {:?}", began.elapsed());
        assert_eq!(under, if what.starts_with("a node") { 1_000 } else { 0 });
        let began = std::time::Instant::now();
        made(&mut policy, 0, silence(on_rule("rule-1"), 0, 1_000));
        policy.touched = BTreeSet::from([SilenceId(1_001)]);
        let turned = policy.review(T0, Reviewed::Touched, alerts.iter().map(|alert| (alert.id, alert.facts())));
        println!("one more silence, and all are reviewed: {} in {:?}", turned.len(), began.elapsed());
        assert_eq!(turned.len(), 250);
    }
}
