//! What a rule is about, which follows from the names that it reads and, for those of the open name space, from its subjects.
//!
//! There is one alert for each subject, so a rule is about one kind of them; what a node has one of stands beside any.

use super::error::Fault;
use super::known::Known;
use super::pattern::Pattern;
use super::{Scope, Source, Term};
use crate::metric;
use crate::sample::SubjectKind;

/// What the names claim that were seen so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Claims {
    /// Of what there are many on a node, or what is of no node; with the name that said so.
    named: Option<(Scope, String)>,
    of_node: Option<String>,
    open: Option<String>,
}

impl Claims {
    pub(super) fn add(&mut self, term: &Term, at: usize) -> Result<(), Fault> {
        let name = name(&term.source);
        if matches!(term.source, Source::Open(_)) {
            self.open.get_or_insert_with(|| name.clone());
        } else if term.source.is_of_node() {
            self.of_node.get_or_insert_with(|| name.clone());
        } else {
            let scope = scope_of(&term.source);
            match &self.named {
                Some((other, first)) if *other != scope => return Err(apart(at, first, *other, &name, scope)),
                Some(_) => {}
                None => self.named = Some((scope, name.clone())),
            }
        }
        // What is of no node has nothing of a node beside it.
        let beside = self.of_node.as_ref().map(|first| (first, Scope::Node));
        let beside = beside.or(self.open.as_ref().map(|first| (first, Scope::Any)));
        match (&self.named, beside) {
            (Some((scope @ (Scope::Port | Scope::Fleet | Scope::Collector), first)), Some((other, its))) => {
                Err(apart(at, first, *scope, other, its))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn scope(&self, subjects: &[Pattern]) -> Scope {
        match (&self.named, &self.open, &self.of_node) {
            (Some((scope, _)), ..) => *scope,
            (None, Some(_), of_node) => of_subjects(subjects).unwrap_or(match of_node {
                Some(_) => Scope::Node,
                None => Scope::Any,
            }),
            (None, None, _) => Scope::Node,
        }
    }
}

pub(super) fn name(source: &Source) -> String {
    match source {
        Source::Catalogued(id) => metric::by_id(*id).map_or("", |metric| metric.name).to_owned(),
        Source::Open(name) => name.to_string(),
        Source::Known(known) => known.as_str().to_owned(),
    }
}

fn scope_of(source: &Source) -> Scope {
    match source {
        Source::Catalogued(id) => metric::by_id(*id).map_or(Scope::Any, |metric| Scope::Kind(metric.subject)),
        Source::Open(_) => Scope::Any,
        Source::Known(known) => Known::scope(*known),
    }
}

fn apart(at: usize, first: &str, one: Scope, second: &str, other: Scope) -> Fault {
    let (one, other) = (about(one), about(other));
    Fault::new(at, format!("{first} is of {one} and {second} of {other}; a rule is about one of them"))
}

pub(super) const fn about(scope: Scope) -> &'static str {
    match scope {
        Scope::Node => "the node",
        Scope::Kind(kind) => match kind {
            SubjectKind::Host | SubjectKind::Agent => "the node",
            SubjectKind::Fs => "each file system",
            SubjectKind::Disk => "each disk",
            SubjectKind::Net => "each network interface",
            SubjectKind::Container => "each container",
            SubjectKind::Process => "each group of processes",
            SubjectKind::Unit => "each unit",
            SubjectKind::Service => "each service",
        },
        Scope::Any => "each subject that has it",
        Scope::Port => "each port",
        Scope::Fleet => "all nodes together",
        Scope::Collector => "the collector",
    }
}

/// The one kind that all begin with.
fn of_subjects(subjects: &[Pattern]) -> Option<Scope> {
    let mut kinds = subjects.iter().map(|subject| kind_of(subject.as_str()));
    let first = kinds.next()??;
    kinds.all(|kind| kind == Some(first)).then_some(first)
}

/// What a written subject is one of. One that the node has one of is the node.
pub(super) fn kind_of(subject: &str) -> Option<Scope> {
    let (kind, name) = match subject.split_once(':') {
        Some((kind, name)) => (kind, Some(name)),
        None => (subject, None),
    };
    if kind == "port" {
        return name.filter(|name| !name.is_empty()).map(|_| Scope::Port);
    }
    let kind = SubjectKind::ALL.into_iter().find(|known| known.as_str() == kind)?;
    match name {
        None if kind.is_single() => Some(Scope::Node),
        Some(name) if !kind.is_single() && !name.is_empty() => Some(Scope::Kind(kind)),
        _ => None,
    }
}
