//! Plays a text against alerts, second by second, and looks when it says so.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use dunlin_shared::id::{FrameId, NodeId};
use dunlin_shared::metric::{Kind, MetricRef, OpenMetric, Step, Unit, by_name};
use dunlin_shared::rule::{Known, Rule, Scope};
use dunlin_shared::sample::{ABSENT, Layout, Reading, Series, Subject};
use dunlin_shared::time::{MonoMs, WallMs};

use super::script::{Act, Loaded, Script};
use crate::engine::alert::{Alerts, Now};
use crate::engine::{InventoryRows, NodeState};
use crate::record::NodeKey;

/// The collector tells how it bears up as often.
const LOAD_MS: u64 = 10_000;

struct Player<'a> {
    script: &'a Script,
    alerts: Alerts,
    keys: BTreeMap<&'a str, NodeKey>,
    names: BTreeMap<NodeKey, &'a str>,
    layouts: BTreeMap<&'a str, (Arc<Layout>, Vec<&'a Loaded>)>,
    states: BTreeMap<&'a str, NodeState>,
    in_maintenance: BTreeSet<&'a str>,
    inventories: BTreeMap<&'a str, BTreeMap<(&'a str, Known), f64>>,
    whole: BTreeMap<(&'static str, Known), f64>,
    ran: u64,
    acts: usize,
}

/// What was otherwise than said.
pub(super) fn play(file: &str, script: &Script, rules: Vec<Arc<Rule>>) -> Result<Vec<String>, String> {
    let mut player = Player::new(file, script, rules)?;
    let mut differences = Vec::new();
    for look in &script.looks {
        player.until(file, look.at_ms)?;
        let open = player.open();
        let wanted: BTreeSet<&str> = look.open.iter().map(|(_, open)| open.as_str()).collect();
        for (line, missing) in look.open.iter().filter(|(_, wanted)| !open.contains(wanted)) {
            differences.push(format!("{file}:{line}: at {}: not so: {missing}", clock(look.at_ms)));
        }
        for more in open.iter().filter(|open| !wanted.contains(open.as_str())) {
            differences.push(format!("{file}:{}: at {}: and yet: {more}", look.line, clock(look.at_ms)));
        }
    }
    Ok(differences)
}

impl<'a> Player<'a> {
    fn new(file: &str, script: &'a Script, rules: Vec<Arc<Rule>>) -> Result<Self, String> {
        let mut player = Self {
            script,
            alerts: Alerts::default(),
            keys: (1..).zip(script.nodes.keys()).map(|(key, name)| (name.as_str(), NodeKey(key))).collect(),
            names: (1..).zip(script.nodes.keys()).map(|(key, name)| (NodeKey(key), name.as_str())).collect(),
            layouts: BTreeMap::new(),
            states: BTreeMap::new(),
            in_maintenance: BTreeSet::new(),
            inventories: BTreeMap::new(),
            whole: BTreeMap::new(),
            ran: 0,
            acts: 0,
        };
        let now = player.now();
        drop(player.alerts.set_rules(now, rules));
        for (name, labels) in &script.nodes {
            let key = player.keys[name.as_str()];
            let id = NodeId::v7(key.0.into(), [0; 10]);
            drop(player.alerts.introduce(now, key, id, &Arc::new(labels.clone())));
            player.states.insert(name, NodeState::Up);
            drop(player.alerts.state(now, key, NodeState::Up));
            player.layouts.insert(name, layout(file, script.series.iter().filter(|one| one.node == *name))?);
        }
        player.act(file)?;
        player.frames();
        Ok(player)
    }

    const fn now(&self) -> Now {
        Now { wall: WallMs(self.ran.cast_signed()), ran: MonoMs(self.ran) }
    }

    fn until(&mut self, file: &str, at_ms: u64) -> Result<(), String> {
        while self.ran < at_ms {
            self.ran = (self.ran + 1_000).min(at_ms);
            let now = self.now();
            drop(self.alerts.tick(now));
            self.act(file)?;
            if self.ran.is_multiple_of(self.script.step_ms) {
                self.frames();
            }
            if self.ran.is_multiple_of(LOAD_MS) {
                self.tell_whole();
            }
        }
        Ok(())
    }

    /// Whoever is heard sends a frame, though it held nothing.
    fn frames(&mut self) {
        let (now, place) = (self.now(), self.ran / self.script.step_ms);
        for (name, (layout, series)) in &self.layouts {
            if !self.states[name].is_heard() {
                continue;
            }
            let value = |(loaded, series): (&&Loaded, &Series)| {
                let at = usize::try_from(place).ok()?;
                let value = (*loaded.values.get(at)?)?;
                layout.describe(series.metric)?.3.quantise(value)
            };
            let values = series.iter().zip(&layout.series).map(|pair| value(pair).unwrap_or(ABSENT)).collect();
            let reading = Reading { mono: now.ran, wall: now.wall, layout: Arc::clone(layout), values };
            let id = FrameId::new(1, place);
            drop(self.alerts.frame(now, self.keys[name], id, &Arc::new(reading)));
        }
    }

    fn act(&mut self, file: &str) -> Result<(), String> {
        while let Some((_, act)) = self.script.acts.get(self.acts).filter(|(at, _)| *at <= self.ran) {
            self.acts += 1;
            match act {
                Act::State(node, state) => {
                    self.states.insert(self.known(file, node)?, *state);
                    self.show(node);
                }
                Act::Maintenance(node, is_on) => {
                    let name = self.known(file, node)?;
                    if *is_on {
                        self.in_maintenance.insert(name)
                    } else {
                        self.in_maintenance.remove(name.to_owned().as_str())
                    };
                    self.show(node);
                }
                Act::Inventory(node, subject, rows) => {
                    let name = self.known(file, node)?;
                    let held = self.inventories.entry(name).or_default();
                    held.extend(rows.iter().map(|(known, value)| ((subject.as_str(), *known), *value)));
                    self.stand(node);
                }
                Act::Gone(node, subject) => {
                    let name = self.known(file, node)?;
                    self.inventories.entry(name).or_default().retain(|(held, _), _| held != subject);
                    self.stand(node);
                }
                Act::Whole(subject, rows) => {
                    self.whole.extend(rows.iter().map(|(known, value)| ((*subject, *known), *value)));
                    self.tell_whole();
                }
            }
        }
        Ok(())
    }

    fn known(&self, file: &str, node: &str) -> Result<&'a str, String> {
        let found = self.script.nodes.get_key_value(node).map(|(name, _)| name.as_str());
        found.ok_or_else(|| format!("{file}: there is no node {node:?}; write \"node {node}\" first"))
    }

    fn show(&mut self, node: &str) {
        let state = if self.in_maintenance.contains(node) { NodeState::Maintenance } else { self.states[node] };
        let now = self.now();
        drop(self.alerts.state(now, self.keys[node], state));
    }

    fn stand(&mut self, node: &str) {
        let now = self.now();
        let mut rows: InventoryRows = Vec::new();
        for ((subject, known), value) in &self.inventories[node] {
            if *known == Known::NodeSkewSeconds {
                drop(self.alerts.skew(now, self.keys[node], *value));
            } else if known.scope() != Scope::Node && (*known != Known::PortExposed || *value > 0.0) {
                rows.push(((*subject).into(), *known, *value));
            }
        }
        drop(self.alerts.inventory(now, self.keys[node], rows));
    }

    fn tell_whole(&mut self) {
        let rows: Vec<_> = self.whole.iter().map(|((subject, known), value)| (*subject, *known, *value)).collect();
        let now = self.now();
        drop(self.alerts.whole(now, &rows));
    }

    fn open(&self) -> BTreeSet<String> {
        let written = |alert: &crate::engine::alert::Alert| {
            let (state, rule, subject) = (alert.state.as_str(), &alert.rule.name, &alert.subject);
            match alert.node.and_then(|node| self.names.get(&node)) {
                Some(node) => format!("{state} {rule} {node} {subject}"),
                None => format!("{state} {rule} {subject}"),
            }
        };
        self.alerts.open().map(written).collect()
    }
}

fn layout<'a>(file: &str, series: impl Iterator<Item = &'a Loaded>) -> Result<(Arc<Layout>, Vec<&'a Loaded>), String> {
    let mut layout = Layout::default();
    let mut all = Vec::new();
    for loaded in series {
        let wrong = |what: String| format!("{file}:{}: {what}", loaded.line);
        let subject = Subject::parse(&loaded.subject)
            .ok_or_else(|| wrong(format!("{:?} is no subject; write for example host or fs:/var", loaded.subject)))?;
        let metric = match by_name(&loaded.metric) {
            Some(metric) if metric.subject == subject.kind => MetricRef::catalogued(metric.id),
            Some(metric) => return Err(wrong(format!("{} is about {}", metric.name, metric.subject.example()))),
            None => {
                let own = OpenMetric::new(&loaded.metric, Unit::Count, Kind::Gauge, Step::Per(1_000));
                let own = own.map_err(|_| wrong(format!("{:?} is no metric", loaded.metric)))?;
                layout.open.push(own);
                u8::try_from(layout.open.len() - 1)
                    .map(MetricRef::open)
                    .map_err(|_| wrong("too many x_ metrics".to_owned()))?
            }
        };
        let place = layout.subjects.iter().position(|known| *known == subject).unwrap_or_else(|| {
            layout.subjects.push(subject);
            layout.subjects.len() - 1
        });
        let subject = u16::try_from(place).map_err(|_| wrong("too many subjects".to_owned()))?;
        layout.series.push(Series { subject, metric });
        all.push(loaded);
    }
    Ok((Arc::new(layout), all))
}

fn clock(ms: u64) -> String {
    let (minutes, seconds) = (ms / 60_000, ms / 1_000 % 60);
    if seconds == 0 { format!("{minutes}m") } else { format!("{minutes}m{seconds}s") }
}
