//! What the collector was told of this epoch's inventory, and what is news beside it.
//!
//! Pure. The first telling of an epoch is whole, each one after it is the change; asked for it, the next is whole again.

use dunlin_shared::inventory::{Change, Happening, Inventory, Key, Stock};
use dunlin_shared::limits::HAPPENINGS_MAX;
use dunlin_shared::time::WallMs;

#[derive(Debug, Default)]
pub struct Told {
    stock: Stock,
    /// The collector has it.
    is_known: bool,
    has_begun: bool,
}

impl Told {
    /// What to tell of the stock as it is now, if anything. `happened` is what was seen of containers between two ticks;
    /// what else happened follows from the two stocks.
    pub fn news(&mut self, stock: Stock, happened: Vec<Happening>, wall: WallMs) -> Option<Inventory> {
        let is_followed = |key: &Key| !matches!(key, Key::Container(_));
        let mut all = happened;
        if self.has_begun {
            all.extend(stock.happened_since(&self.stock, wall, is_followed));
        }
        // The newest are of use longest.
        all.drain(..all.len().saturating_sub(HAPPENINGS_MAX));
        let told = if self.is_known {
            let change = stock.change_from(&self.stock);
            let same = || Change { before: stock.hash(), after: stock.hash(), ..Change::default() };
            let change = change.or_else(|| (!all.is_empty()).then(same));
            change.map(|change| Inventory::Change(Change { happened: all, ..change }))
        } else {
            Some(Inventory::Whole(stock.to_whole(all)))
        };
        *self = Self { stock, is_known: true, has_begun: true };
        told
    }

    /// The collector missed something, or another epoch began: the next telling is whole.
    pub const fn forget(&mut self) {
        self.is_known = false;
    }
}

#[cfg(test)]
mod tests {
    use dunlin_shared::inventory::{Item, Unit, UnitState, What};

    use super::*;

    fn failed(name: &str) -> Stock {
        let unit = Unit { name: name.into(), state: UnitState::Failed, result: "exit-code".into(), since: None };
        Stock::of([Item::Unit(unit)])
    }

    #[test]
    fn an_epoch_begins_with_the_whole_and_goes_on_with_changes() {
        let mut told = Told::default();
        let first = told.news(failed("a.service"), Vec::new(), WallMs(1));
        let Some(Inventory::Whole(whole)) = first else { panic!("{first:?}") };
        assert!(whole.items.len() == 1 && whole.happened.is_empty(), "what stood before the agent is no news");
        assert_eq!(told.news(failed("a.service"), Vec::new(), WallMs(2)), None);
        let next = told.news(failed("b.service"), Vec::new(), WallMs(3));
        let Some(Inventory::Change(change)) = next else { panic!("{next:?}") };
        let kinds: Vec<_> = change.happened.iter().map(|one| one.what.as_str()).collect();
        assert_eq!((change.gone.len(), change.items.len(), kinds), (1, 1, vec!["unit.recovered", "unit.failed"]));
    }

    #[test]
    fn asked_for_it_the_whole_is_told_with_what_happened_meanwhile() {
        let mut told = Told::default();
        told.news(failed("a.service"), Vec::new(), WallMs(1));
        told.forget();
        let next = told.news(Stock::default(), Vec::new(), WallMs(2));
        let Some(Inventory::Whole(whole)) = next else { panic!("{next:?}") };
        assert_eq!((whole.items.len(), whole.happened[0].what.as_str()), (0, "unit.recovered"));
    }

    #[test]
    fn what_happened_is_told_though_all_is_as_before() {
        let mut told = Told::default();
        told.news(Stock::default(), Vec::new(), WallMs(1));
        let killed = Happening { at: WallMs(2), key: None, what: What::HostOomKilled { count: 1 } };
        let next = told.news(Stock::default(), vec![killed.clone()], WallMs(2));
        let Some(Inventory::Change(change)) = next else { panic!("{next:?}") };
        assert!(change.before == change.after && change.happened == [killed], "{change:?}");
    }

    #[test]
    fn of_more_happenings_than_a_message_holds_the_newest_are_told() {
        let mut told = Told::default();
        let killed = |count| Happening { at: WallMs(2), key: None, what: What::HostOomKilled { count } };
        let next = told.news(Stock::default(), (0..300).map(killed).collect(), WallMs(2));
        let Some(Inventory::Whole(whole)) = next else { panic!("{next:?}") };
        assert_eq!((whole.happened.len(), &whole.happened[255]), (256, &killed(299)));
    }
}
