//! The way to other rules: prepared here, one change after the other, and then decided and stored by the pipeline.
//!
//! Reading ten thousand rules takes a second, in which the pipeline would follow no record: it is handed a whole book that
//! was made beside it, and takes that only as the one behind its own.

use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;
use dunlin_shared::time::WallMs;
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;
use tracing::{info, warn};

use super::files::files;
use super::{Difference, NamedSet, RuleBook};
use crate::orders::Orders;
use crate::registry::{Actor, Refused};

/// Another book, and what it takes to keep it.
#[derive(Clone, Debug)]
pub struct Order {
    pub book: Arc<RuleBook>,
    pub difference: Difference,
    /// The set that is put, or deleted where it has none; `None` when files are others.
    pub set: Option<(String, Option<Arc<NamedSet>>)>,
}

/// Why a set was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotTaken {
    /// Every line of what is wrong, each with its place.
    Wrong(Vec<String>),
    Refused(Refused),
}

#[derive(Clone, Debug)]
pub struct RulesInForce {
    book: Arc<ArcSwap<RuleBook>>,
    orders: Orders,
    /// A book follows one book: who prepares another has it alone.
    turn: Arc<Mutex<()>>,
}

impl RulesInForce {
    #[must_use]
    pub fn new(book: Arc<ArcSwap<RuleBook>>, orders: Orders) -> Self {
        Self { book, orders, turn: Arc::default() }
    }

    #[must_use]
    pub fn book(&self) -> Arc<RuleBook> {
        self.book.load_full()
    }

    /// What a set would change.
    pub async fn compare(&self, actor: &Actor, name: &str, text: String, now: WallMs) -> Result<Difference, NotTaken> {
        Ok(self.prepare(actor, name, text, now).await?.difference)
    }

    /// Takes a set whole or not at all. With the answer it counts, and is on disk.
    pub async fn put(&self, actor: Actor, name: &str, text: String, now: WallMs) -> Result<Difference, NotTaken> {
        let _turn = self.turn.lock().await;
        let order = self.prepare(&actor, name, text, now).await?;
        let difference = order.difference.clone();
        self.orders.rule(actor, order).await.map_err(NotTaken::Refused)?;
        Ok(difference)
    }

    pub async fn delete(&self, actor: Actor, name: &str) -> Result<Difference, NotTaken> {
        let _turn = self.turn.lock().await;
        let (before, set) = (self.book(), name.to_owned());
        let made = blocking(move || {
            let book = Arc::new(before.without(&set)?);
            let difference = Difference::between(&before, &book);
            Some(Order { book, difference, set: Some((set, None)) })
        });
        let missing = || NotTaken::Refused(Refused::NotFound(format!("set of rules {name:?}")));
        let order = made.await.map_err(NotTaken::Refused)?.ok_or_else(missing)?;
        let difference = order.difference.clone();
        self.orders.rule(actor, order).await.map_err(NotTaken::Refused)?;
        Ok(difference)
    }

    /// Reads the directory again. What is wrong there leaves all rules as they are.
    pub async fn read_again(&self, dir: &Path) {
        let _turn = self.turn.lock().await;
        let (before, dir) = (self.book(), dir.to_owned());
        let read = blocking(move || {
            let book = Arc::new(before.with_files(files(&dir).map_err(|line| vec![line])?)?);
            let difference = Difference::between(&before, &book);
            Ok::<_, Vec<String>>(Order { book, difference, set: None })
        });
        let order = match read.await {
            Ok(Ok(order)) => order,
            Ok(Err(lines)) => return lines.iter().for_each(|line| warn!("the rules stay as they were: {line}")),
            Err(refused) => return warn!("the rules stay as they were: {refused}"),
        };
        let (rules, changes) = (order.book.rules.len(), order.difference.counts());
        match self.orders.rule(Actor::collector(), order).await {
            Ok(()) => info!(rules, changes, "the rules were read again"),
            Err(refused) => warn!("the rules stay as they were: {refused}"),
        }
    }

    async fn prepare(&self, actor: &Actor, name: &str, text: String, now: WallMs) -> Result<Order, NotTaken> {
        let (before, name) = (self.book(), name.to_owned());
        let set = NamedSet { text: text.into(), by: actor.name.clone(), at: now };
        let made = blocking(move || {
            let book = Arc::new(before.put(&name, set)?);
            let difference = Difference::between(&before, &book);
            let set = book.sets.get(&name).map(Arc::clone);
            Ok(Order { book, difference, set: Some((name, set)) })
        });
        made.await.map_err(NotTaken::Refused)?.map_err(NotTaken::Wrong)
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Refused> {
    spawn_blocking(work).await.map_err(|_| Refused::Stopping)
}
