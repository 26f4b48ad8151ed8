//! The way to the one owner of `control.db`: whoever wants a change asks here, and is answered once it
//! is on disk.
//!
//! Only so many wait at once; the others wait for their turn, so that a flood of orders never holds up
//! the log.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::pipeline::Input;
use crate::registry::{Actor, Answer, Refused, What};

/// Orders on their way. Half of the pipeline's queue, so that the log always finds room.
const UNDER_WAY_MAX: usize = 32;

#[derive(Clone, Debug)]
pub struct Orders {
    /// Only the log keeps the pipeline going: who may still order does not hold up its end.
    pipeline: mpsc::WeakSender<Input>,
    turns: Arc<Semaphore>,
}

#[derive(Debug)]
pub struct Order {
    pub actor: Actor,
    pub what: What,
    pub ticket: Ticket,
}

/// By it whoever asked is answered.
#[derive(Debug)]
pub struct Ticket {
    reply: oneshot::Sender<Result<Answer, Refused>>,
    _turn: OwnedSemaphorePermit,
}

impl Orders {
    #[must_use]
    pub fn new(pipeline: &mpsc::Sender<Input>) -> Self {
        Self { pipeline: pipeline.downgrade(), turns: Arc::new(Semaphore::new(UNDER_WAY_MAX)) }
    }

    /// Waits for its turn, and then until it is carried out and on disk, or refused.
    pub async fn ask(&self, actor: Actor, what: What) -> Result<Answer, Refused> {
        let turn = Arc::clone(&self.turns).acquire_owned().await.map_err(|_| Refused::Stopping)?;
        let (reply, answer) = oneshot::channel();
        let order = Order { actor, what, ticket: Ticket { reply, _turn: turn } };
        let pipeline = self.pipeline.upgrade().ok_or(Refused::Stopping)?;
        pipeline.send(Input::Order(order)).await.map_err(|_| Refused::Stopping)?;
        drop(pipeline);
        answer.await.map_err(|_| Refused::Stopping)?
    }
}

impl Ticket {
    /// Whoever asked may have gone; the order was carried out all the same.
    pub fn answer(self, answer: Result<Answer, Refused>) {
        self.reply.send(answer).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_order_that_nobody_takes_is_told_that_the_collector_stops() {
        let (pipeline, queue) = mpsc::channel(1);
        let orders = Orders::new(&pipeline);
        drop((pipeline, queue));
        let note = What::Note { action: String::new(), target: String::new() };
        assert_eq!(orders.ask(Actor::collector(), note).await, Err(Refused::Stopping));
    }

    #[tokio::test]
    async fn only_so_many_are_under_way_and_each_gets_its_own_answer() {
        let (pipeline, mut queue) = mpsc::channel(2 * UNDER_WAY_MAX);
        let orders = Orders::new(&pipeline);
        let ask = |number: usize| {
            let orders = orders.clone();
            let note = What::Note { action: number.to_string(), target: String::new() };
            tokio::spawn(async move { orders.ask(Actor::collector(), note).await })
        };
        let asked: Vec<_> = (0..UNDER_WAY_MAX + 1).map(ask).collect();
        let mut waiting = Vec::new();
        for _ in 0..UNDER_WAY_MAX {
            let Some(Input::Order(order)) = queue.recv().await else { panic!("an order comes") };
            waiting.push(order);
        }
        assert!(queue.try_recv().is_err(), "one waits for its turn");
        for order in waiting.drain(..) {
            let What::Note { action, .. } = order.what else { panic!("a note") };
            order.ticket.answer(Err(Refused::Conflict(action)));
        }
        let Some(Input::Order(last)) = queue.recv().await else { panic!("its turn came") };
        last.ticket.answer(Ok(Answer::Done));
        for (number, answer) in asked.into_iter().enumerate() {
            let answer = answer.await.expect("it does not panic");
            assert!(answer == Err(Refused::Conflict(number.to_string())) || answer == Ok(Answer::Done));
        }
    }
}
