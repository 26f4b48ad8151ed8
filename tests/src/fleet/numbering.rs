//! Which frame of a simulated agent is which: its facts, what it told of its inventory, a tick's sample.
//!
//! Frame 0 holds the facts. Each tick makes one frame, and one in front of it when there is something to tell. What a
//! collector asks for is told as well, so an agent notes what it told; the rest follows from the host.

use super::load::Host;

/// What one agent told of its inventory in one epoch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Numbering {
    /// Frame and tick, both rising.
    told: Vec<(u64, u64)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    Facts,
    /// What stands at a tick.
    Told(u64),
    /// What is measured at a tick.
    Sampled(u64),
}

impl Numbering {
    /// Of frames and ticks as `told` gives them. `None` when no agent can have told them so.
    #[must_use]
    pub fn checked(told: &[(u64, u64)]) -> Option<Self> {
        let mut numbering = Self::default();
        for &(seq, tick) in told {
            let is_next = seq > numbering.told.last().map_or(0, |(last, _)| *last) && numbering.tick_at(seq) == tick;
            is_next.then(|| numbering.told.push((seq, tick)))?;
        }
        Some(numbering)
    }

    #[must_use]
    pub fn told(&self) -> &[(u64, u64)] {
        &self.told
    }

    /// A tick made the frames from `first` to before `next`: a sample, and before it one that tells.
    pub fn note_tick(&mut self, first: u64, next: u64) {
        assert!((1..=2).contains(&(next - first)), "a tick makes one frame or two, not {first} to {next}");
        if next - first == 2 {
            self.told.push((first, self.tick_at(first)));
        }
    }

    /// What a frame below `next` holds; from there on, what it would hold if nobody asked for more.
    #[must_use]
    pub fn content(&self, seq: u64, next: u64, host: &Host) -> Content {
        if seq == 0 {
            return Content::Facts;
        }
        if seq < next {
            let is_told = self.told.binary_search_by_key(&seq, |(told, _)| *told);
            return is_told.map_or_else(|_| Content::Sampled(self.tick_at(seq)), |at| Content::Told(self.told[at].1));
        }
        let (mut at, mut tick) = (next, self.tick_at(next));
        loop {
            if tells(host, tick) {
                if at == seq {
                    return Content::Told(tick);
                }
                at += 1;
            }
            if at == seq {
                return Content::Sampled(tick);
            }
            (at, tick) = (at + 1, tick + 1);
        }
    }

    /// The tick whose first frame that is, or whose sample.
    fn tick_at(&self, seq: u64) -> u64 {
        let told = self.told.partition_point(|(told, _)| *told < seq) as u64;
        seq.saturating_sub(1 + told)
    }
}

/// Whether something stands otherwise than a tick before.
fn tells(host: &Host, tick: u64) -> bool {
    tick.checked_sub(1).is_none_or(|before| host.stock(before).hash() != host.stock(tick).hash())
}

#[cfg(test)]
mod tests {
    use dunlin_shared::id::Epoch;

    use super::*;
    use crate::fleet::load::Load;

    #[test]
    fn what_was_noted_is_what_is_expected_and_asking_moves_the_rest() {
        let host = Load::made_up(1, 150).host(3, Epoch(1));
        let (mut numbering, mut next, mut expected) = (Numbering::default(), 1, vec![Content::Facts]);
        for tick in 0..300 {
            let first = next;
            // At this tick the collector asked.
            if tells(&host, tick) || tick == 100 {
                expected.push(Content::Told(tick));
                next += 1;
            }
            expected.push(Content::Sampled(tick));
            next += 1;
            numbering.note_tick(first, next);
        }
        let content = |numbering: &Numbering, next| {
            (0..expected.len() as u64).map(|seq| numbering.content(seq, next, &host)).collect::<Vec<_>>()
        };
        assert_eq!(content(&numbering, next), expected);
        assert!(numbering.told().len() > 3, "{numbering:?}");
        assert_eq!(Numbering::checked(numbering.told()), Some(numbering.clone()));
        // What an agent wrote down before it was killed goes on by itself.
        let (at, next) =
            numbering.told().iter().find(|(_, tick)| *tick == 100).map(|(seq, _)| (*seq, seq + 2)).expect("asked");
        let noted: Vec<_> = numbering.told().iter().copied().filter(|(seq, _)| *seq <= at).collect();
        let killed = Numbering::checked(&noted).expect("they rise");
        assert_eq!(content(&killed, next), expected);
    }

    #[test]
    fn what_no_agent_can_have_told_is_none() {
        for told in [&[(0, 0)][..], &[(2, 0)], &[(1, 0), (3, 2)], &[(1, 0), (1, 0)], &[(5, 4), (4, 3)]] {
            assert_eq!(Numbering::checked(told), None, "{told:?}");
        }
        assert!(Numbering::checked(&[(1, 0), (3, 1)]).is_some());
    }
}
