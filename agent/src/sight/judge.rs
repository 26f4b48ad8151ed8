//! From what the service saw to what a check says of it. Pure.
//!
//! How bad a source is: what failed is a warning. What is refused is none, because a default installation asks for no
//! privilege, and a warning that never goes away teaches people to look away; it is told with the lines that mend it.
//! It is a warning where the operator asked for it: a socket that the configuration names, a capability that was given
//! by half. What is absent or switched off is as it should be.

use super::mend::{Mend, mend};
use super::own::{DAC_READ_SEARCH, SYS_PTRACE};
use super::{Kind, Seeing, Sight, State};

/// What is to be said of one source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judged {
    pub what: String,
    pub text: String,
    pub state: State,
    pub is_bad: bool,
    pub mend: Option<Mend>,
}

#[must_use]
pub fn judge(sight: &Sight) -> Vec<Judged> {
    let mut all: Vec<Judged> = sight.sources.iter().map(|one| judged(one, sight)).collect();
    // Several sources lack the same lines: said once, and then where they stand.
    for at in 1..all.len() {
        let (before, rest) = all.split_at_mut(at);
        let Some(Mend { ways, .. }) = &mut rest[0].mend else { continue };
        let has_said = |one: &&Judged| one.mend.as_ref().is_some_and(|mend| !ways.is_empty() && mend.ways == *ways);
        if let Some(said) = before.iter().find(has_said) {
            let to = format!("the same lines as for: {}", said.what);
            *ways = vec![super::mend::Way { to, lines: Vec::new(), opens: String::new() }];
        }
    }
    all
}

fn judged(one: &Seeing, sight: &Sight) -> Judged {
    let is_bad = match one.state {
        State::Works | State::Off => false,
        State::Failed => true,
        State::Absent => one.is_asked,
        State::Refused | State::Partly => one.is_asked || is_given_by_half(one.kind, sight.own.capabilities),
    };
    Judged { what: what(one), text: text(one), state: one.state, is_bad, mend: mend(one, sight) }
}

/// Somebody wanted it, and the one capability does nothing without the other. That one alone has a use of its own.
fn is_given_by_half(kind: Kind, capabilities: u64) -> bool {
    let of_processes = matches!(kind, Kind::OpenFiles | Kind::ProcessIo | Kind::Owners);
    of_processes && capabilities & (SYS_PTRACE | DAC_READ_SEARCH) == SYS_PTRACE
}

fn what(one: &Seeing) -> String {
    match one.kind {
        Kind::Part => one.name.to_string(),
        Kind::Engine if one.name.is_empty() => String::from("container engines"),
        Kind::Engine => format!("engine at {}", one.name),
        Kind::Mounts if one.name.is_empty() => String::from("file systems behind permissions"),
        Kind::Mounts => String::from("file systems outside of the unit's sandbox"),
        Kind::OpenFiles => String::from("open files of processes"),
        Kind::ProcessIo => String::from("reads and writes of processes"),
        Kind::Networks => String::from("networks of containers"),
        Kind::Units => String::from("failed units, from systemd"),
        Kind::Uplink => String::from("what the service sends"),
        Kind::Processes | Kind::Cgroups | Kind::Containers | Kind::Ports | Kind::Owners => one.kind.as_str().to_owned(),
    }
}

fn text(one: &Seeing) -> String {
    let Seeing { kind, state, seen, of, says, .. } = one;
    let (noun, nouns) = match kind {
        Kind::Processes | Kind::OpenFiles | Kind::ProcessIo => ("process", "processes"),
        Kind::Cgroups => ("service", "services"),
        Kind::Engine | Kind::Containers => ("container", "containers"),
        Kind::Networks => ("network", "networks"),
        Kind::Ports => ("port", "ports"),
        Kind::Owners => ("holder", "holders"),
        Kind::Part | Kind::Mounts | Kind::Units | Kind::Uplink => ("", ""),
    };
    let word = match (state, kind) {
        (State::Works, Kind::Part) => "seen",
        (State::Works, _) => "works",
        (State::Partly, _) => "seen in part",
        (State::Refused, Kind::Engine) => "no permission",
        (State::Refused, _) => "the agent may not look",
        (State::Failed, _) => "failed",
        (State::Absent, _) => "none here",
        (State::Off, _) => "switched off in the configuration",
    };
    let counts = match (seen, of) {
        _ if noun.is_empty() || *state == State::Off => String::new(),
        (0, 0) => String::new(),
        (1, 1) => format!(": 1 {noun}"),
        (seen, of) if seen == of => format!(": {seen} {nouns}"),
        (seen, of) => format!(": {seen} of {of} {nouns}"),
    };
    let says = if says.is_empty() { String::new() } else { format!(": {says}") };
    let text = format!("{word}{counts}{says}");
    // What failed, and what is not there, says why in its own words.
    match state {
        State::Failed | State::Absent if !one.says.is_empty() => one.says.to_string(),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use dunlin_shared::time::WallMs;

    use super::*;
    use crate::sight::Own;

    fn found(sources: Vec<Seeing>, capabilities: u64) -> Vec<Judged> {
        judge(&Sight { at: WallMs(1), own: Own { capabilities, ..Own::default() }, sources })
    }

    #[test]
    fn only_what_failed_or_was_asked_for_is_a_warning() {
        for (state, is_asked, is_bad) in [
            (State::Works, true, false),
            (State::Off, false, false),
            (State::Absent, false, false),
            (State::Absent, true, true),
            (State::Refused, false, false),
            (State::Refused, true, true),
            (State::Partly, false, false),
            (State::Failed, false, true),
        ] {
            let one = Seeing { is_asked, ..Seeing::new(Kind::Engine, state) };
            assert_eq!(found(vec![one], 0)[0].is_bad, is_bad, "{state:?} {is_asked}");
        }
    }

    #[test]
    fn one_capability_without_the_other_was_meant_otherwise() {
        for (capabilities, is_bad) in [(0, false), (SYS_PTRACE, true), (DAC_READ_SEARCH, false)] {
            assert_eq!(found(vec![Seeing::counted(Kind::Owners, 1, 9)], capabilities)[0].is_bad, is_bad);
        }
        let both = SYS_PTRACE | DAC_READ_SEARCH;
        assert!(!found(vec![Seeing::counted(Kind::Owners, 8, 9)], both)[0].is_bad, "nothing more can be given");
        assert!(!found(vec![Seeing::new(Kind::Engine, State::Refused)], SYS_PTRACE)[0].is_bad);
    }

    #[test]
    fn a_source_is_told_with_its_counts_and_its_words() {
        let engine = |state, says: &str| Seeing::new(Kind::Engine, state).named("/run/docker.sock").says(says);
        for (one, told) in [
            (Seeing::new(Kind::Part, State::Works).named("cpu"), "cpu: seen"),
            (Seeing::counted(Kind::Owners, 12, 60), "owners of ports: seen in part: 12 of 60 holders"),
            (Seeing::counted(Kind::OpenFiles, 7, 7), "open files of processes: works: 7 processes"),
            (Seeing::new(Kind::Units, State::Off), "failed units, from systemd: switched off in the configuration"),
            (
                Seeing::new(Kind::Uplink, State::Works).says("streaming to c:9737"),
                "what the service sends: works: streaming to c:9737",
            ),
            (
                Seeing::new(Kind::Uplink, State::Failed).says("this node was revoked"),
                "what the service sends: this node was revoked",
            ),
            (engine(State::Refused, ""), "engine at /run/docker.sock: no permission"),
            (engine(State::Failed, "no answer"), "engine at /run/docker.sock: no answer"),
            (
                Seeing { seen: 3, of: 3, ..engine(State::Works, "docker, API 1.41") },
                "engine at /run/docker.sock: works: 3 containers: docker, API 1.41",
            ),
        ] {
            let found = found(vec![one], 0);
            assert_eq!(format!("{}: {}", found[0].what, found[0].text), told);
        }
    }

    #[test]
    fn the_same_lines_are_said_once() {
        let found = found(vec![Seeing::counted(Kind::ProcessIo, 1, 9), Seeing::counted(Kind::Owners, 1, 9)], 0);
        let ways = |at: usize| &found[at].mend.as_ref().expect("not whole").ways;
        assert_eq!((ways(0)[0].lines.len(), ways(1)[0].lines.len()), (3, 0));
        assert_eq!(ways(1)[0].to, "the same lines as for: reads and writes of processes");
    }
}
