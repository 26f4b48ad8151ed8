//! The text of a trial, read line by line.
//!
//! ```text
//! rules standard                        # or a file beside this one
//! node web-1 role=basic-server          # a node and its labels
//! load 10s                              # from here on indented: NODE SUBJECT METRIC VALUES, one a frame
//!   web-1 fs:/var fs_used_ratio 0.80+0.01x20 _x3 0.5
//! state 5m web-1 down
//! inventory 2m web-1 container:db container_state=exited
//! gone 4m web-1 container:db
//! fleet 1m fleet_nodes_missing=40
//! collector 1m collector_commit_seconds=2.5
//! maintenance 3m web-1 on
//! eval at 4m                            # indented below: pending or firing, RULE NODE SUBJECT; and nothing else is open
//!   firing disk-low web-1 fs:/var
//! eval at 10m none
//! ```

use std::collections::BTreeMap;

use dunlin_shared::config::{parse_duration_ms, parse_size_bytes};
use dunlin_shared::rule::Known;

use crate::engine::NodeState;

/// Frames that one text may load for a series: a day at ten seconds.
const FRAMES_MAX: usize = 8_640;
const TIME_MS_MAX: u64 = 7 * 86_400_000;

#[derive(Clone, Debug, Default)]
pub(super) struct Script {
    pub(super) rules: String,
    pub(super) rules_line: usize,
    pub(super) nodes: BTreeMap<String, BTreeMap<String, String>>,
    pub(super) step_ms: u64,
    pub(super) series: Vec<Loaded>,
    /// In the order of time; of one time in the order of the text.
    pub(super) acts: Vec<(u64, Act)>,
    pub(super) looks: Vec<Look>,
}

/// The values of one series, a frame each; `None` for a frame without one.
#[derive(Clone, Debug)]
pub(super) struct Loaded {
    pub(super) line: usize,
    pub(super) node: String,
    pub(super) subject: String,
    pub(super) metric: String,
    pub(super) values: Vec<Option<f64>>,
}

#[derive(Clone, Debug)]
pub(super) enum Act {
    State(String, NodeState),
    Maintenance(String, bool),
    Inventory(String, String, Vec<(Known, f64)>),
    Gone(String, String),
    Whole(&'static str, Vec<(Known, f64)>),
}

#[derive(Clone, Debug)]
pub(super) struct Look {
    pub(super) line: usize,
    pub(super) at_ms: u64,
    /// `STATE RULE NODE SUBJECT`, or `STATE RULE SUBJECT` for the fleet and the collector.
    pub(super) open: Vec<(usize, String)>,
}

/// What indented lines belong to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Within {
    Nothing,
    Load,
    Look,
}

impl Script {
    pub(super) fn read(file: &str, text: &str) -> Result<Self, String> {
        let mut script = Self { step_ms: 10_000, ..Self::default() };
        let mut within = Within::Nothing;
        for (line, raw) in (1..).zip(text.lines()) {
            let said = raw.split(" #").next().unwrap_or_default();
            let words: Vec<&str> = said.split_whitespace().collect();
            if words.is_empty() || words[0].starts_with('#') {
                continue;
            }
            let is_within = said.starts_with([' ', '\t']);
            script.take(line, &words, is_within, &mut within).map_err(|wrong| format!("{file}:{line}: {wrong}"))?;
        }
        if script.rules.is_empty() {
            return Err(format!("{file}: it names no rules; write \"rules standard\", or \"rules FILE\""));
        }
        script.acts.sort_by_key(|(at, _)| *at);
        script.looks.sort_by_key(|look| look.at_ms);
        Ok(script)
    }

    fn take(&mut self, line: usize, words: &[&str], is_within: bool, within: &mut Within) -> Result<(), String> {
        match (is_within, *within, words) {
            (true, Within::Load, [node, subject, metric, values @ ..]) if !values.is_empty() => {
                let values = values.iter().map(|word| read_values(word)).collect::<Result<Vec<_>, _>>()?.concat();
                if values.len() > FRAMES_MAX {
                    return Err(format!("{} values are too many; the limit is {FRAMES_MAX}", values.len()));
                }
                let (node, subject, metric) = ((*node).to_owned(), (*subject).to_owned(), (*metric).to_owned());
                self.nodes.entry(node.clone()).or_default();
                self.series.push(Loaded { line, node, subject, metric, values });
            }
            (true, Within::Load, _) => return Err("write NODE SUBJECT METRIC VALUES".to_owned()),
            (true, Within::Look, [state @ ("pending" | "firing"), rest @ ..]) if (2..=3).contains(&rest.len()) => {
                let open = &mut self.looks.last_mut().ok_or("no \"eval at\" stands above it")?.open;
                open.push((line, format!("{state} {}", rest.join(" "))));
            }
            (true, Within::Look, _) => return Err("write pending or firing, then RULE NODE SUBJECT".to_owned()),
            (true, Within::Nothing, _) => return Err("it is indented below nothing".to_owned()),
            (false, ..) => {
                *within = Within::Nothing;
                self.statement(line, words, within)?;
            }
        }
        Ok(())
    }

    fn statement(&mut self, line: usize, words: &[&str], within: &mut Within) -> Result<(), String> {
        match words {
            ["rules", which] => (self.rules, self.rules_line) = ((*which).to_owned(), line),
            ["node", name, labels @ ..] => {
                let label = |word: &&str| {
                    let (key, value) = word.split_once('=').ok_or(format!("{word:?} is no label; write KEY=VALUE"))?;
                    Ok::<_, String>((key.to_owned(), value.to_owned()))
                };
                let labels = labels.iter().map(label).collect::<Result<_, _>>()?;
                self.nodes.insert((*name).to_owned(), labels);
            }
            ["load", step] => {
                self.step_ms = time(step)?.max(1_000);
                *within = Within::Load;
            }
            ["state", at, node, state] => {
                let state = NodeState::parse(state).ok_or(format!("{state:?} is no state of a node"))?;
                self.acts.push((time(at)?, Act::State((*node).to_owned(), state)));
            }
            ["maintenance", at, node, on @ ("on" | "off")] => {
                self.acts.push((time(at)?, Act::Maintenance((*node).to_owned(), *on == "on")));
            }
            ["inventory", at, node, subject, known @ ..] if !known.is_empty() => {
                let act = Act::Inventory((*node).to_owned(), (*subject).to_owned(), read_known(known)?);
                self.acts.push((time(at)?, act));
            }
            ["gone", at, node, subject] => {
                self.acts.push((time(at)?, Act::Gone((*node).to_owned(), (*subject).to_owned())));
            }
            ["fleet", at, known @ ..] => self.acts.push((time(at)?, Act::Whole("fleet", read_known(known)?))),
            ["collector", at, known @ ..] => self.acts.push((time(at)?, Act::Whole("collector", read_known(known)?))),
            ["eval", "at", at, rest @ ..] => {
                let at_ms = time(at)?;
                match rest {
                    [] => *within = Within::Look,
                    ["none"] => {}
                    _ => return Err("write \"eval at TIME\", or \"eval at TIME none\"".to_owned()),
                }
                self.looks.push(Look { line, at_ms, open: Vec::new() });
            }
            [first, ..] => {
                let known = "rules, node, load, state, maintenance, inventory, gone, fleet, collector, eval at";
                return Err(format!(
                    "{first:?} is no statement, or what follows it is not what it takes; there are {known}"
                ));
            }
            [] => {}
        }
        Ok(())
    }
}

fn time(text: &str) -> Result<u64, String> {
    // `1m30s` is the sum of its parts.
    let mut total = 0u64;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let unit = rest[digits..].bytes().take_while(u8::is_ascii_alphabetic).count();
        let (part, behind) = rest.split_at(digits + unit);
        let ms = parse_duration_ms(part).filter(|_| digits > 0 && unit > 0);
        total += ms.ok_or_else(|| format!("{text:?} is no time; write for example 90s, 5m or 1m30s"))?;
        rest = behind;
    }
    if total <= TIME_MS_MAX { Ok(total) } else { Err(format!("{text:?} is too long; the limit is 7d")) }
}

fn read_known(words: &[&str]) -> Result<Vec<(Known, f64)>, String> {
    let one = |word: &&str| {
        let (name, value) = word.split_once('=').ok_or(format!("{word:?} says nothing; write NAME=VALUE"))?;
        let known = Known::parse(name).ok_or(format!("{name:?} is nothing that the collector knows by itself"))?;
        let place = known.words().iter().position(|known| *known == value);
        let place = place.and_then(|place| u32::try_from(place).ok()).map(f64::from);
        let value = place.or_else(|| number(value)).ok_or(format!("{value:?} is no value of {name}"))?;
        Ok((known, value))
    };
    words.iter().map(one).collect()
}

/// `0.5`, `0.5x6`, `0.8+0.01x20` (the first and what is added each time), `100-2x5`, `_`, `_x3`.
fn read_values(word: &str) -> Result<Vec<Option<f64>>, String> {
    let wrong = || format!("{word:?} is no value; write for example 0.5, 0.5x6, 0.8+0.01x20, 1.5GiBx3 or _x2");
    let (what, count) = match word.rsplit_once('x') {
        Some((what, count)) => (what, count.parse::<usize>().map_err(|_| wrong())?),
        None => (word, 1),
    };
    if count > FRAMES_MAX {
        return Err(format!("{count} values are too many; the limit is {FRAMES_MAX}"));
    }
    if what == "_" {
        return Ok(vec![None; count]);
    }
    // A sign in front belongs to the number.
    let behind = what.char_indices().skip(1).find(|(_, c)| matches!(c, '+' | '-'));
    let (first, step) = match behind {
        Some((at, _)) => (&what[..at], number(&what[at..]).ok_or_else(wrong)?),
        None => (what, 0.0),
    };
    let first = number(first).ok_or_else(wrong)?;
    #[expect(clippy::cast_precision_loss, reason = "a number of frames")]
    let value = |place: usize| Some(step.mul_add(place as f64, first));
    Ok((0..count).map(value).collect())
}

fn number(text: &str) -> Option<f64> {
    let (sign, digits) = match text.as_bytes().first()? {
        b'-' => (-1.0, &text[1..]),
        b'+' => (1.0, &text[1..]),
        _ => (1.0, text),
    };
    let unit = digits.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(digits.len());
    let (digits, unit) = digits.split_at(unit);
    let scale = if unit.is_empty() { 1.0 } else { bytes_of(unit)? };
    let number: f64 = digits.parse().ok()?;
    number.is_finite().then_some(sign * number * scale)
}

fn bytes_of(unit: &str) -> Option<f64> {
    #[expect(clippy::cast_precision_loss, reason = "a unit of bytes")]
    parse_size_bytes(&format!("1{unit}")).map(|bytes| bytes as f64)
}
