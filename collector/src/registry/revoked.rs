//! Whom people shut out, as a list that outlives `control.db`, and what follows when the two differ.
//!
//! An id that was shut out stays out for good. A key stays out with a revoked node; that of a forgotten
//! node is free, so whoever came back by a token under another id is never held to an old line.

use std::collections::BTreeMap;

use dunlin_shared::id::NodeId;
use dunlin_shared::time::WallMs;

use super::{Admission, Answer, Change, Decision, Done, Happened, KeyHash, Member, Registry};

/// One node, and when it was shut out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Revocation {
    pub at: WallMs,
    pub node: NodeId,
    /// `None` when nobody knew it.
    pub key: Option<KeyHash>,
    /// Its key may join again, with a token.
    pub is_forgotten: bool,
}

impl Registry {
    /// Everybody that a list has to name. An ephemeral node that was forgotten most likely went by itself:
    /// nobody shut it out.
    pub fn revoked(&self, now: WallMs) -> impl Iterator<Item = Revocation> {
        let shut =
            |member: &Member| member.admission == Admission::Revoked && !(member.is_forgotten && member.is_ephemeral);
        self.members
            .iter()
            .filter(move |(_, member)| shut(member))
            .map(move |(node, member)| Revocation::of(now, *node, member))
    }

    /// Shuts out whom the list names and this does not know as shut out. What is known stays as it is.
    pub fn merge_revoked(&mut self, list: &[Revocation]) -> Decision {
        let mut work = Decision {
            answer: Ok(Answer::Done),
            changes: Vec::new(),
            events: Vec::new(),
            log: None,
            evicted: Vec::new(),
        };
        for line in settled(list).into_values() {
            match self.members.get(&line.node) {
                Some(known) if known.admission == Admission::Revoked && (known.is_forgotten || !line.is_forgotten) => {
                    continue;
                }
                Some(known) => {
                    let mut member = known.clone();
                    member.key = member.key.or(line.key);
                    self.shut(&mut work, line, member);
                }
                None => self.shut(&mut work, line, line.member()),
            }
        }
        let count = work.events.len();
        if count > 0 {
            let detail = String::from("named in the file of revocations, and not known as revoked");
            work.log = Some(Done::new("node.revoke", format!("{count} nodes"), detail));
        }
        work
    }

    fn shut(&mut self, work: &mut Decision, line: Revocation, mut member: Member) {
        member.is_forgotten |= line.is_forgotten;
        if !member.is_forgotten
            && let Some(other) =
                line.key.and_then(|key| self.by_key.get(&key)).copied().filter(|other| *other != line.node)
            && let Some(bearer) = self.members.get(&other)
        {
            // Who joined by the key after it was revoked had been forgotten first: the key is free.
            member.is_forgotten = bearer.enrolled > line.at;
            if !member.is_forgotten && bearer.admission != Admission::Revoked {
                let bearer = bearer.clone();
                self.keep_out(work, other, bearer);
            }
        }
        self.keep_out(work, line.node, member);
    }

    fn keep_out(&mut self, work: &mut Decision, node: NodeId, mut member: Member) {
        member.admission = Admission::Revoked;
        let why = String::from("named in the file of revocations");
        work.events.push(Happened {
            kind: "node.revoked",
            node,
            detail: vec![("name", member.name.clone()), ("why", why)],
        });
        work.changes.push(Change::Member(node, member.clone()));
        self.put_member(node, member);
    }
}

impl Revocation {
    /// What a list says of a member that is shut out.
    #[must_use]
    pub fn of(at: WallMs, node: NodeId, member: &Member) -> Self {
        Self { at, node, key: member.key, is_forgotten: member.is_forgotten }
    }

    /// All that is known of it.
    fn member(&self) -> Member {
        Member {
            is_forgotten: self.is_forgotten,
            ..Member::new(self.key, self.node.to_string(), Admission::Revoked, self.at)
        }
    }
}

/// What the lines come to, node by node: to be forgotten is final.
fn settled(list: &[Revocation]) -> BTreeMap<NodeId, Revocation> {
    let mut settled = BTreeMap::<NodeId, Revocation>::new();
    for line in list {
        let said = settled.entry(line.node).or_insert(*line);
        said.is_forgotten |= line.is_forgotten;
        said.key = said.key.or(line.key);
    }
    settled
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const T0: WallMs = WallMs(1_700_000_000_000);
    const A: NodeId = NodeId::from_bytes([1; 16]);
    const B: NodeId = NodeId::from_bytes([2; 16]);
    const KEY: KeyHash = KeyHash([7; 32]);

    fn line(at_ms: i64, node: NodeId, is_forgotten: bool) -> Revocation {
        Revocation { at: T0.plus(at_ms), node, key: Some(KEY), is_forgotten }
    }

    fn approved(at_ms: i64) -> Member {
        Member::new(Some(KEY), String::from("web-1"), Admission::Approved, T0.plus(at_ms))
    }

    fn admission(registry: &Registry, node: NodeId) -> Option<Admission> {
        registry.member(node).map(|member| member.admission)
    }

    #[test]
    fn a_node_that_an_old_copy_takes_for_approved_is_out_and_so_is_its_key() {
        let mut registry = Registry::restore([(A, approved(0))], [], false);
        let merged = registry.merge_revoked(&[line(5, A, false)]);
        assert_eq!((merged.changes.len(), merged.events.len()), (1, 1));
        assert_eq!(admission(&registry, A), Some(Admission::Revoked));
        assert_eq!(registry.by_key.get(&KEY), Some(&A));
        let again = registry.merge_revoked(&[line(5, A, false)]);
        assert!(again.changes.is_empty() && again.log.is_none(), "once is enough");
    }

    #[test]
    fn a_node_that_nobody_knows_any_more_is_out_with_its_key() {
        let mut registry = Registry::default();
        let merged = registry.merge_revoked(&[line(5, A, false)]);
        assert_eq!(merged.log.map(|done| done.target), Some(String::from("1 nodes")));
        assert_eq!(admission(&registry, A), Some(Admission::Revoked));
        assert_eq!(registry.by_key.get(&KEY), Some(&A), "its key joins no more");
    }

    #[test]
    fn the_key_of_a_forgotten_node_is_free_for_whoever_came_back_by_a_token() {
        let mut lost = Registry::default();
        lost.merge_revoked(&[line(5, A, true)]);
        assert!(lost.by_key.is_empty() && lost.member(A).is_some_and(|member| member.is_forgotten));
        // And where it is known that it came back, whatever became of the line that it was forgotten.
        for lines in [vec![line(5, A, false), line(6, A, true)], vec![line(5, A, false)]] {
            let mut registry = Registry::restore([(B, approved(9))], [], false);
            registry.merge_revoked(&lines);
            assert_eq!(admission(&registry, A), Some(Admission::Revoked));
            assert_eq!(admission(&registry, B), Some(Admission::Approved));
            assert_eq!(registry.by_key.get(&KEY), Some(&B));
        }
    }

    #[test]
    fn a_key_that_was_revoked_under_another_id_is_out_under_the_one_that_it_had_before() {
        let mut registry = Registry::restore([(A, approved(0))], [], false);
        registry.merge_revoked(&[line(5, B, false)]);
        assert_eq!([A, B].map(|node| admission(&registry, node)), [Some(Admission::Revoked); 2]);
    }

    proptest! {
        /// Whatever the list says: everybody on it is out, nobody else of another key is, and a list of
        /// whom the registry then holds as revoked changes nothing more.
        #[test]
        fn all_that_are_named_are_out_and_no_others(
            lines in prop::collection::vec((0u8..6, 0u8..6, any::<bool>(), 0i64..20), 0..20),
            members in prop::collection::btree_map(0u8..6, (0u8..6, 0i64..20), 0..6),
        ) {
            let id = |number: u8| NodeId::from_bytes([number; 16]);
            let members = members.into_iter().map(|(number, (key, at))| {
                (id(number), Member { key: Some(KeyHash([key; 32])), ..approved(at) })
            });
            let mut registry = Registry::restore(members, [], false);
            let lines: Vec<_> = lines.into_iter().map(|(node, key, is_forgotten, at)| Revocation {
                at: T0.plus(at), node: id(node), key: Some(KeyHash([key; 32])), is_forgotten,
            }).collect();
            let before: Vec<_> = registry.members().map(|(node, member)| (node, member.key)).collect();
            registry.merge_revoked(&lines);
            for line in &lines {
                prop_assert_eq!(admission(&registry, line.node), Some(Admission::Revoked));
            }
            for (node, key) in before {
                if lines.iter().all(|line| line.node != node && line.key != key) {
                    prop_assert_eq!(admission(&registry, node), Some(Admission::Approved));
                }
            }
            let all: Vec<_> = registry.revoked(T0).collect();
            prop_assert!(registry.merge_revoked(&lines).changes.is_empty());
            prop_assert!(registry.merge_revoked(&all).changes.is_empty());
        }
    }
}
