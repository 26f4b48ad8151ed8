//! Alerts on virtual time: rules as an operator writes them, frames as agents send them.

mod past;

use dunlin_shared::metric::{MetricRef, by_name};
use dunlin_shared::rule::file::parse;
use dunlin_shared::sample::{ABSENT, Layout, Series, Subject};
use dunlin_shared::time::WallMs;
use proptest::prelude::*;

use super::*;

const NODE: NodeKey = NodeKey(1);
const STEP_MS: u64 = 10_000;

/// One node, its rules, and what was told of them.
struct Line {
    alerts: Alerts,
    ran: u64,
    seq: u64,
    told: Vec<AlertChange>,
    layout: Arc<Layout>,
    state: NodeState,
    /// When what is resolved fired, as rows have it.
    fires: Vec<(Box<str>, Arc<str>, Vec<MonoMs>)>,
    /// The latest, as the log has it.
    latest: Option<(u64, Arc<Reading>)>,
}

impl Line {
    fn new(rules: &str, series: &[(&str, &str)]) -> Self {
        let mut line = Self {
            alerts: Alerts::default(),
            ran: 0,
            seq: 0,
            told: Vec::new(),
            layout: layout(series),
            state: NodeState::Up,
            fires: Vec::new(),
            latest: None,
        };
        line.rules(rules);
        line.told.extend(line.alerts.introduce(line.now(), NODE, id(), &labels()));
        line.state(NodeState::Up);
        line
    }

    fn rules(&mut self, text: &str) {
        let rules = parse("rules.toml", text).unwrap_or_else(|errors| panic!("{errors:?}"));
        let now = self.now();
        self.told.extend(self.alerts.set_rules(now, rules.into_iter().map(Arc::new)));
    }

    fn now(&self) -> Now {
        Now { wall: WallMs(1_700_000_000_000 + self.ran.cast_signed()), ran: MonoMs(self.ran) }
    }

    fn state(&mut self, state: NodeState) {
        let now = self.now();
        self.state = state;
        self.told.extend(self.alerts.state(now, NODE, state));
    }

    /// Killed and started again: what `control.db` holds goes on, and the rules may be others.
    fn restart(&mut self, rules: &str) {
        self.restart_with(rules, true);
    }

    fn restart_with(&mut self, rules: &str, has_latest: bool) {
        let before = std::mem::take(&mut self.alerts);
        for change in &self.told {
            if let AlertChange::Resolved(alert) = change {
                self.fires.push((alert.rule.name.clone(), Arc::clone(&alert.subject), alert.fires().to_vec()));
            }
        }
        let (now, rules) = (self.now(), parse("rules.toml", rules).unwrap_or_else(|errors| panic!("{errors:?}")));
        drop(self.alerts.set_rules(now, rules.into_iter().map(Arc::new)));
        let (state, is_retired, skew_seconds) = (Some(self.state), false, None);
        let newest = self.latest.as_ref().map(|(seq, _)| FrameId::new(1, *seq));
        let restored = RestoredNode { id: id(), labels: labels(), state, is_retired, newest, skew_seconds };
        self.alerts.restore_node(NODE, restored);
        for alert in before.open() {
            let Some((_, rule)) = self.alerts.rules.by_name(&alert.rule.name) else {
                // As an orphan.
                end(alert.clone(), now, Resolution::RuleRemoved, &mut self.told);
                continue;
            };
            let row = (alert.id, Arc::clone(rule), alert.node, Arc::clone(&alert.subject));
            let shown = (alert.value, alert.threshold, alert.is_flapping);
            let going_on = (alert.fires().to_vec(), alert.over());
            let restored = Alert::restored(row, (alert.state, alert.began, alert.fired), shown, going_on);
            self.alerts.restore(now.ran, restored);
        }
        for (rule, subject, fires) in &self.fires {
            self.alerts.restore_fires(rule, Some(NODE), subject, fires.clone());
        }
        self.told.extend(self.alerts.resume(now));
        if let Some((seq, reading)) = self.latest.as_ref().filter(|_| has_latest) {
            self.alerts.remember(reading.mono, NODE, (FrameId::new(1, *seq), false), reading);
        }
    }

    /// The next frame, ten seconds later. What is no number is not there.
    fn frame(&mut self, values: &[f64]) {
        self.wait(STEP_MS);
        self.seq += 1;
        let steps = |(value, series): (&f64, &Series)| {
            let (_, _, _, step) = self.layout.describe(series.metric).expect("it is known");
            step.quantise(*value).unwrap_or(ABSENT)
        };
        let values = values.iter().zip(&self.layout.series).map(steps).collect();
        let reading = Reading { mono: MonoMs(self.ran), wall: WallMs(0), layout: Arc::clone(&self.layout), values };
        let (now, reading) = (self.now(), Arc::new(reading));
        self.told.extend(self.alerts.frame(now, NODE, FrameId::new(1, self.seq), &reading));
        self.latest = Some((self.seq, reading));
    }

    fn wait(&mut self, ms: u64) {
        let until = self.ran + ms;
        while self.ran < until {
            self.ran = (self.ran + 1_000).min(until);
            let now = self.now();
            self.told.extend(self.alerts.tick(now));
        }
    }

    /// What was told since it was asked last, in a word each.
    fn told(&mut self) -> Vec<String> {
        let word = |change: &AlertChange| match change {
            AlertChange::Pending(alert) => format!("pending {}", alert.subject),
            AlertChange::Dropped(_) => "dropped".to_owned(),
            AlertChange::Fired(alert, _) => format!("fired {}", alert.subject),
            AlertChange::Flaps(_) => "flaps".to_owned(),
            AlertChange::Turned(alert) if alert.over().is_some() => format!("over {}", alert.subject),
            AlertChange::Turned(alert) => format!("on {}", alert.subject),
            AlertChange::Resolved(alert) => {
                format!("resolved {} {}", alert.subject, alert.resolved.expect("it says why").1.as_str())
            }
            AlertChange::Reworded(_) => "reworded".to_owned(),
        };
        std::mem::take(&mut self.told).iter().map(word).collect()
    }
}

fn id() -> NodeId {
    NodeId::v7(1, [7; 10])
}

fn labels() -> Arc<BTreeMap<String, String>> {
    Arc::new(BTreeMap::from([("role".to_owned(), "db".to_owned())]))
}

fn layout(series: &[(&str, &str)]) -> Arc<Layout> {
    let mut layout = Layout::default();
    for (subject, metric) in series {
        let subject = Subject::parse(subject).expect("a subject");
        let place = layout.subjects.iter().position(|known| *known == subject).unwrap_or_else(|| {
            layout.subjects.push(subject);
            layout.subjects.len() - 1
        });
        let metric = MetricRef::catalogued(by_name(metric).expect("in the catalogue").id);
        layout.series.push(Series { subject: u16::try_from(place).expect("few"), metric });
    }
    Arc::new(layout)
}

const MEMORY: &[(&str, &str)] = &[("host", "host_memory_used_ratio")];

fn memory(more: &str) -> String {
    format!("[[rule]]\nname = \"memory-high\"\nwhen = 'host_memory_used_ratio > 90%'\nsummary = \"x\"\n{more}\n")
}

#[test]
fn an_alert_waits_fires_and_stays_until_it_is_below_its_own_threshold() {
    let mut line = Line::new(&memory("for = \"1m\"\nclear = '< 85%'"), MEMORY);
    line.frame(&[0.9]);
    assert_eq!(line.told(), [""; 0], "just at the threshold");
    line.frame(&[0.95]);
    assert_eq!(line.told(), ["pending host"]);
    (0..5).for_each(|_| line.frame(&[0.95]));
    assert_eq!(line.told(), [""; 0]);
    line.frame(&[0.95]);
    assert_eq!(line.told(), ["fired host"], "it held for a minute");
    line.frame(&[0.86]);
    line.frame(&[0.85]);
    assert_eq!(line.told(), [""; 0], "not clear yet");
    line.frame(&[0.84]);
    assert_eq!(line.told(), ["resolved host recovered"]);
    line.frame(&[0.95]);
    line.frame(&[0.5]);
    assert_eq!(line.told(), ["pending host", "dropped"], "what did not hold for long enough is told to nobody");
}

#[test]
fn it_keeps_firing_for_as_long_as_its_rule_says() {
    let mut line = Line::new(&memory("keep_firing_for = \"1m\""), MEMORY);
    line.frame(&[0.95]);
    assert_eq!(line.told(), ["fired host"]);
    (0..5).for_each(|_| line.frame(&[0.1]));
    line.frame(&[0.95]);
    (0..6).for_each(|_| line.frame(&[0.1]));
    assert_eq!(line.told(), ["over host", "on host", "over host"], "for whoever starts anew; nobody is told");
    line.frame(&[0.1]);
    assert_eq!(line.told(), ["resolved host recovered"]);
}

#[test]
fn one_that_comes_and_goes_is_told_once_and_stays_until_it_is_quiet() {
    let mut line = Line::new(&memory(""), MEMORY);
    for _ in 0..20 {
        line.frame(&[0.95]);
        line.frame(&[0.5]);
    }
    let mut told = line.told();
    told.retain(|told| !told.starts_with("over") && !told.starts_with("on"));
    let fired = told.iter().filter(|told| *told == "fired host").count();
    let resolved = told.iter().filter(|told| told.starts_with("resolved")).count();
    assert_eq!((fired, resolved), (5, 4), "{told:?}");
    assert_eq!(told.last().map(String::as_str), Some("flaps"));
    for _ in 0..90 {
        line.frame(&[0.5]);
    }
    assert_eq!(line.told(), ["resolved host recovered"]);
    line.frame(&[0.95]);
    line.frame(&[0.5]);
    assert_eq!(line.told(), ["fired host", "resolved host recovered"], "it begins anew");
}

#[test]
fn what_is_not_measured_any_more_is_gone_after_a_while() {
    let mut line = Line::new(&memory("for = \"30s\""), MEMORY);
    line.frame(&[0.95]);
    line.frame(&[f64::NAN]);
    (0..3).for_each(|_| line.frame(&[0.95]));
    assert_eq!(line.told(), ["pending host", "fired host"], "one value that is missing changes nothing");
    (0..29).for_each(|_| line.frame(&[f64::NAN]));
    assert_eq!(line.told(), [""; 0]);
    line.frame(&[f64::NAN]);
    assert_eq!(line.told(), ["resolved host gone"]);
}

#[test]
fn each_subject_has_its_own_and_one_that_vanishes_takes_it_along() {
    let rule = "[[rule]]\nname = \"disk\"\nwhen = 'fs_used_ratio > 90%'\nsubject = \"fs:/v*\"\nsummary = \"x\"\n";
    let mut line =
        Line::new(rule, &[("fs:/var", "fs_used_ratio"), ("fs:/srv", "fs_used_ratio"), ("fs:/vol", "fs_used_ratio")]);
    line.frame(&[0.95, 0.95, 0.5]);
    line.frame(&[0.95, 0.95, 0.95]);
    assert_eq!(line.told(), ["fired fs:/var", "fired fs:/vol"]);
    line.layout = layout(&[("fs:/var", "fs_used_ratio")]);
    (0..29).for_each(|_| line.frame(&[0.95]));
    assert_eq!(line.told(), [""; 0]);
    line.frame(&[0.95]);
    assert_eq!(line.told(), ["resolved fs:/vol gone"]);
}

#[test]
fn alerts_of_a_node_that_is_down_or_in_maintenance_are_held_back() {
    let mut line = Line::new(&memory(""), MEMORY);
    line.state(NodeState::Maintenance);
    line.frame(&[0.5]);
    line.frame(&[0.95]);
    assert_eq!(line.told(), [""; 0]);
    line.state(NodeState::Up);
    line.frame(&[0.95]);
    assert_eq!(line.told(), ["fired host"]);
    line.state(NodeState::Down);
    line.wait(600_000);
    assert_eq!(line.told(), [""; 0], "nobody knows better");
    line.state(NodeState::Up);
    line.frame(&[f64::NAN]);
    line.frame(&[0.5]);
    assert_eq!(line.told(), ["resolved host recovered"]);
    line.frame(&[0.95]);
    line.state(NodeState::Revoked);
    assert_eq!(line.told(), ["fired host", "resolved host node_gone"]);
}

#[test]
fn a_node_that_is_down_or_stopped_is_told_without_a_frame() {
    let rules = "[[rule]]\nname = \"node-down\"\nwhen = 'node_state == down'\nsummary = \"x\"\n
        [[rule]]\nname = \"node-stopped\"\nwhen = 'node_state == stopped'\nfor = \"10m\"\nsummary = \"x\"\n";
    let mut line = Line::new(rules, MEMORY);
    line.state(NodeState::Down);
    assert_eq!(line.told(), ["fired host"]);
    line.state(NodeState::Up);
    assert_eq!(line.told(), ["resolved host recovered"]);
    line.state(NodeState::Stopped);
    line.wait(599_000);
    assert_eq!(line.told(), ["pending host"]);
    line.wait(1_000);
    assert_eq!(line.told(), ["fired host"]);
}

const STATES: &str = "[[rule]]\nname = \"node-down\"\nwhen = 'node_state == down'\nsummary = \"x\"\n
    [[rule]]\nname = \"node-stopped\"\nwhen = 'node_state == stopped'\nfor = \"10m\"\nsummary = \"x\"\n";

#[test]
fn a_restart_tells_nothing_again_and_what_was_open_ends_once() {
    let mut line = Line::new(STATES, MEMORY);
    line.state(NodeState::Down);
    let fired: Vec<_> = line.alerts.open().map(|alert| alert.id).collect();
    assert_eq!(line.told(), ["fired host"]);
    line.restart(STATES);
    line.wait(60_000);
    assert_eq!(line.alerts.open().map(|alert| alert.id).collect::<Vec<_>>(), fired, "it is the same");
    line.state(NodeState::Up);
    assert_eq!(line.told(), ["resolved host recovered"]);
    line.state(NodeState::Stopped);
    line.wait(400_000);
    line.restart(STATES);
    line.wait(199_000);
    assert_eq!(line.told(), ["pending host"]);
    line.wait(1_000);
    assert_eq!(line.told(), ["fired host"], "after ten minutes in all");
    line.restart(&memory(""));
    assert_eq!(line.told(), ["resolved host rule_removed"]);
    line.restart(STATES);
    assert_eq!(line.told(), ["pending host"], "a rule that is new is told of what is");
}

#[test]
fn what_stands_on_a_node_is_no_news_after_a_restart() {
    let rules = "[[rule]]\nname = \"exposed\"\nwhen = 'port_exposed == 1'\nsummary = \"x\"\n";
    let mut line = Line::new(rules, MEMORY);
    line.frame(&[0.5]);
    let rows = vec![("port:tcp:0.0.0.0:3306".into(), Known::PortExposed, 1.0)];
    let now = line.now();
    line.told.extend(line.alerts.inventory(now, NODE, rows.clone()));
    assert_eq!(line.told(), ["fired port:tcp:0.0.0.0:3306"]);
    line.restart(rules);
    line.told.extend(line.alerts.inventory(now, NODE, rows));
    line.frame(&[0.5]);
    assert_eq!(line.told(), [""; 0]);
    line.told.extend(line.alerts.inventory(now, NODE, Vec::new()));
    assert_eq!(line.told(), ["resolved port:tcp:0.0.0.0:3306 gone"]);
}

#[test]
fn a_node_that_is_taken_for_gone_raises_nothing_until_it_is_heard_again() {
    let mut line = Line::new(STATES, MEMORY);
    line.state(NodeState::Down);
    let now = line.now();
    line.told.extend(line.alerts.retire(now, NODE));
    assert_eq!(line.told(), ["fired host", "resolved host node_gone"]);
    line.rules(&STATES.replace("10m", "20m"));
    assert_eq!(line.told(), [""; 0]);
    line.state(NodeState::Up);
    line.state(NodeState::Down);
    assert_eq!(line.told(), ["fired host"]);
}

#[test]
fn a_group_of_frames_shares_one_layout_with_what_is_bound_to_it() {
    let mut line = Line::new(&memory(""), MEMORY);
    line.frame(&[0.5]);
    line.layout = layout(MEMORY);
    line.frame(&[0.5]);
    let bound = line.alerts.books[1].as_ref().and_then(|book| book.bound.as_ref()).expect("a rule reads it");
    assert!(Arc::ptr_eq(&bound.layout, &line.layout), "the one before would be kept for nothing");
}

#[test]
fn functions_over_time_know_resets_and_what_is_absent() {
    let rules = "[[rule]]\nname = \"oom\"\nwhen = 'delta(host_oom_kills, 2m) > 0'\nsummary = \"x\"\n
        [[rule]]\nname = \"no-psi\"\nwhen = 'absent(host_pressure_memory_some_seconds, 1m)'\nsummary = \"x\"\n";
    let mut line = Line::new(rules, &[("host", "host_oom_kills"), ("host", "host_pressure_memory_some_seconds")]);
    for _ in 0..30 {
        line.frame(&[7.0, 1.0]);
    }
    assert_eq!(line.told(), [""; 0], "what was counted before it was first seen is no growth");
    line.frame(&[8.0, f64::NAN]);
    assert_eq!(line.told(), ["fired host"]);
    for _ in 0..14 {
        line.frame(&[8.0, f64::NAN]);
    }
    assert_eq!(line.told(), ["fired host", "resolved host recovered"]);
    line.frame(&[3.0, 0.0]);
    assert_eq!(line.told(), ["resolved host recovered", "fired host"], "it fell, and so began anew");
}

#[test]
fn an_alert_stays_the_same_through_edits_that_do_not_concern_it_and_ends_with_its_rule() {
    let mut line = Line::new(&memory(""), MEMORY);
    line.frame(&[0.95]);
    let id = line.alerts.open().next().expect("it is open").id;
    line.told.clear();
    line.rules(&memory("severity = \"critical\""));
    assert_eq!(line.told(), ["reworded"]);
    line.rules(&memory("severity = \"critical\"\nfor = \"1m\""));
    assert_eq!(line.told(), [""; 0], "it holds under the new rule as well");
    assert_eq!(line.alerts.open().next().map(|alert| alert.id), Some(id));
    let stricter = memory("").replace("90%", "97%");
    line.rules(&stricter);
    assert_eq!(line.told(), ["resolved host recovered"]);
    line.frame(&[0.98]);
    line.rules(&memory("where = { role = \"web\" }"));
    assert_eq!(line.told(), ["fired host", "resolved host rule_changed"]);
    line.rules(&memory(""));
    line.frame(&[0.98]);
    line.rules("");
    assert_eq!(line.told(), ["fired host", "resolved host rule_removed"]);
    line.frame(&[0.98]);
    assert_eq!(line.told(), [""; 0]);
}

#[test]
fn what_stands_on_a_node_is_judged_as_it_is_told() {
    let rules = "[[rule]]\nname = \"exposed\"\nwhen = 'port_exposed == 1'\nsubject = \"port:tcp:*:3306\"\nsummary = \"x\"\n
        [[rule]]\nname = \"down\"\nwhen = 'container_state == exited and container_stop_asked == 0'\nfor = \"20s\"\nsummary = \"x\"\n";
    let mut line = Line::new(rules, MEMORY);
    line.frame(&[0.5]);
    let port = ("port:tcp:0.0.0.0:3306".into(), Known::PortExposed, 1.0);
    let web: Arc<str> = "container:web".into();
    let down = vec![(Arc::clone(&web), Known::ContainerState, 4.0), (web, Known::ContainerStopAsked, 0.0)];
    let rows = [down, vec![port, ("port:tcp:0.0.0.0:80".into(), Known::PortExposed, 1.0)]].concat();
    let now = line.now();
    line.told.extend(line.alerts.inventory(now, NODE, rows.clone()));
    assert_eq!(line.told(), ["pending container:web", "fired port:tcp:0.0.0.0:3306"]);
    line.frame(&[0.5]);
    line.frame(&[0.5]);
    assert_eq!(line.told(), ["fired container:web"]);
    let now = line.now();
    line.told.extend(line.alerts.inventory(now, NODE, rows[..2].to_vec()));
    assert_eq!(line.told(), ["resolved port:tcp:0.0.0.0:3306 gone"]);
}

#[test]
fn the_culprit_is_copied_when_it_fires() {
    let series = [
        ("host", "host_memory_used_ratio"),
        ("process:a", "process_cpu_seconds"),
        ("process:a", "process_memory_bytes"),
        ("process:b", "process_cpu_seconds"),
        ("process:b", "process_read_bytes"),
        ("process:b", "process_written_bytes"),
    ];
    let mut line = Line::new(&memory(""), &series);
    line.frame(&[0.5, 10.0, 1e6, 5.0, 0.0, 0.0]);
    line.frame(&[0.95, 12.0, 2e8, 20.0, 40_960.0, 81_920.0]);
    let [AlertChange::Fired(alert, top)] = &line.told[..] else { panic!("it fires") };
    assert_eq!(top.cpu, [("process:b".into(), 1.5), ("process:a".into(), 0.2)]);
    assert_eq!(top.memory.len(), 1);
    assert_eq!(top.disk, [("process:b".into(), 12_288.0)]);
    assert_eq!((alert.value, alert.threshold), (Some(0.95), Some(0.9)));
}

#[test]
fn what_is_pending_says_what_was_compared() {
    let mut line = Line::new(&memory("for = \"20s\""), MEMORY);
    line.frame(&[0.95]);
    let [AlertChange::Pending(alert)] = &line.told[..] else { panic!("it begins") };
    assert_eq!((alert.value, alert.threshold), (Some(0.95), Some(0.9)));
}

/// What is told, with its name and its times.
type Told = (&'static str, AlertId, Option<Now>, Option<Now>, Option<(WallMs, Resolution)>, Option<MonoMs>);

fn with_times(told: &[AlertChange]) -> Vec<Told> {
    let line = |change: &AlertChange| {
        let (word, alert) = match change {
            AlertChange::Dropped(id) => return ("dropped", *id, None, None, None, None),
            AlertChange::Pending(alert) => ("pending", alert),
            AlertChange::Fired(alert, _) => ("fired", alert),
            AlertChange::Flaps(alert) => ("flaps", alert),
            AlertChange::Turned(alert) => ("turned", alert),
            AlertChange::Resolved(alert) => ("resolved", alert),
            AlertChange::Reworded(alert) => ("reworded", alert),
        };
        (word, alert.id, Some(alert.began), alert.fired, alert.resolved, alert.over())
    };
    told.iter().map(line).collect()
}

/// What a person or a host may do.
#[derive(Clone, Debug)]
enum Act {
    Frame(f64),
    Wait(u64),
    State(NodeState),
    Rules(usize),
    Restart,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        12 => prop_oneof![Just(0.5), Just(0.87), Just(0.95), Just(f64::NAN)].prop_map(Act::Frame),
        1 => (0u64..400_000).prop_map(Act::Wait),
        2 => prop_oneof![
            Just(NodeState::Up), Just(NodeState::Down), Just(NodeState::Maintenance), Just(NodeState::Unknown),
            Just(NodeState::Stopped), Just(NodeState::Revoked)
        ].prop_map(Act::State),
        1 => (0usize..5).prop_map(Act::Rules),
        1 => Just(Act::Restart),
    ]
}

/// What goes on for a while, each in its own way, and what is of a node's state.
const LASTING: &str = "[[rule]]\nname = \"waits\"\nwhen = 'host_memory_used_ratio > 90%'\nfor = \"25s\"\nsummary = \"x\"\n
    [[rule]]\nname = \"goes-on\"\nwhen = 'host_memory_used_ratio > 90%'\nkeep_firing_for = \"70s\"\nsummary = \"x\"\n
    [[rule]]\nname = \"clears\"\nwhen = 'host_memory_used_ratio > 90%'\nclear = '< 85%'\nkeep_firing_for = \"25s\"\nsummary = \"x\"\n
    [[rule]]\nname = \"down\"\nwhen = 'node_state == down'\nfor = \"13s\"\nkeep_firing_for = \"37s\"\nsummary = \"x\"\n";

proptest! {
    #[test]
    fn a_restart_at_any_moment_changes_neither_what_is_told_nor_when(
        acts in prop::collection::vec(act(), 1..80),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 1..4),
    ) {
        let cuts: Vec<_> = cuts.iter().map(|cut| cut.index(acts.len())).collect();
        let run = |restarts: bool| {
            let mut line = Line::new(LASTING, MEMORY);
            for (place, act) in acts.iter().enumerate() {
                match act {
                    // Who starts anew waits for what is not measured as if it had been a moment ago.
                    Act::Frame(value) if value.is_nan() => line.wait(STEP_MS),
                    Act::Frame(value) => line.frame(&[*value]),
                    Act::Wait(ms) => line.wait(ms % 60_000),
                    Act::State(state) => line.state(*state),
                    Act::Rules(_) | Act::Restart => {}
                }
                if restarts && cuts.contains(&place) {
                    line.restart(LASTING);
                }
            }
            line
        };
        prop_assert_eq!(with_times(&run(true).told), with_times(&run(false).told));
    }

    #[test]
    fn every_firing_has_one_resolved_and_the_same_acts_lead_to_the_same_alerts(acts in prop::collection::vec(act(), 0..120)) {
        let sets = [
            memory(""), memory("for = \"20s\"\nclear = '< 85%'"), String::new(), memory("keep_firing_for = \"1m\""),
            "[[rule]]\nname = \"memory-high\"\nwhen = 'node_state == down'\nfor = \"30s\"\nsummary = \"x\"\n".to_owned(),
        ];
        let run = || {
            let mut line = Line::new(&sets[0], MEMORY);
            let mut rules = 0;
            for act in &acts {
                match act {
                    Act::Frame(value) => line.frame(&[*value]),
                    Act::Wait(ms) => line.wait(*ms),
                    Act::State(state) => line.state(*state),
                    Act::Rules(set) => { rules = *set; line.rules(&sets[rules]); }
                    Act::Restart => line.restart(&sets[rules]),
                }
            }
            line
        };
        let (mut line, again) = (run(), run());
        prop_assert_eq!(&line.told, &again.told);
        line.rules("");
        let mut open = std::collections::HashSet::new();
        let mut pending = std::collections::HashSet::new();
        for change in &line.told {
            match change {
                AlertChange::Pending(alert) => prop_assert!(pending.insert(alert.id)),
                AlertChange::Dropped(id) => prop_assert!(pending.remove(id)),
                AlertChange::Fired(alert, _) => { pending.remove(&alert.id); prop_assert!(open.insert(alert.id), "two firings in a row"); }
                AlertChange::Flaps(alert) | AlertChange::Turned(alert) | AlertChange::Reworded(alert) => prop_assert!(open.contains(&alert.id) || pending.contains(&alert.id)),
                AlertChange::Resolved(alert) => prop_assert!(open.remove(&alert.id), "it was not open"),
            }
        }
        prop_assert!(open.is_empty() && pending.is_empty(), "{open:?} {pending:?}");
        prop_assert_eq!(line.alerts.open().count(), 0);
    }
}
