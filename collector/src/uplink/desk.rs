//! What connections ask of the registry: carried there by tasks, so that the driver never waits.
//!
//! Only so many are under way. A join that finds no room is told to come again; of what is merely told,
//! the next occasion tells it again.

use std::net::IpAddr;
use std::sync::Arc;

use tokio::sync::Semaphore;
use tracing::{debug, warn};

use super::mailbox::Slip;
use crate::orders::Orders;
use crate::registry::{Actor, JoinWish, Refused, What};
use crate::store::NewEvent;

/// Joins that wait for the registry. It answers hundreds in a second.
const JOINS_MAX: usize = 128;
const TOLD_MAX: usize = 64;

#[derive(Debug)]
pub(super) struct Desk {
    orders: Orders,
    joins: Arc<Semaphore>,
    told: Arc<Semaphore>,
}

impl Desk {
    pub(super) fn new(orders: Orders) -> Self {
        Self { orders, joins: Arc::new(Semaphore::new(JOINS_MAX)), told: Arc::new(Semaphore::new(TOLD_MAX)) }
    }

    /// Whether there was room; then the slip is filled in some time.
    pub(super) fn ask_join(&self, from: IpAddr, wish: JoinWish, slip: Arc<Slip>) -> bool {
        let Ok(turn) = Arc::clone(&self.joins).try_acquire_owned() else { return false };
        let orders = self.orders.clone();
        let actor = Actor { name: wish.name.clone(), token: None, from: Some(from) };
        tokio::spawn(async move {
            let answer = orders.ask(actor, What::Join(wish)).await;
            drop(turn);
            slip.fill(answer);
        });
        true
    }

    /// Something for the feed.
    pub(super) fn tell_event(&self, event: NewEvent) {
        let Ok(turn) = Arc::clone(&self.told).try_acquire_owned() else {
            return debug!(kind = event.kind, "the feed is too busy to be told of something");
        };
        let orders = self.orders.clone();
        tokio::spawn(async move {
            orders.tell(event).await;
            drop(turn);
        });
    }

    pub(super) fn tell(&self, from: Option<IpAddr>, what: What) {
        let Ok(turn) = Arc::clone(&self.told).try_acquire_owned() else {
            return debug!("the registry is too busy to be told of something");
        };
        let orders = self.orders.clone();
        let actor = Actor { from, ..Actor::collector() };
        tokio::spawn(async move {
            match orders.ask(actor, what).await {
                Ok(_) | Err(Refused::Stopping) => {}
                // It is known already, or of no interest any more.
                Err(refused @ (Refused::NotFound(_) | Refused::Conflict(_) | Refused::Invalid(_))) => {
                    debug!("the registry has no use for what it was told: {refused}");
                }
                Err(refused) => warn!("the registry could not be told of something: {refused}"),
            }
            drop(turn);
        });
    }
}
