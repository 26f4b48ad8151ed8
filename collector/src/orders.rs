//! The way to the one owner of `control.db`: whoever wants a change asks here, and is answered once it
//! is on disk.
//!
//! Only so many wait at once; the others wait for their turn, so that a flood of orders never holds up
//! the log.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::pipeline::Input;
use crate::policy;
use crate::registry::{Actor, Answer, Refused, What};
use crate::rules;
use crate::store::NewEvent;

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
    pub asked: Asked,
}

#[derive(Debug)]
pub enum Asked {
    /// About nodes and tokens.
    Registry(What, Ticket<Answer>),
    /// About alerts.
    Policy(policy::What, Ticket<policy::Answer>),
    /// Other rules.
    Rules(Box<rules::Order>, Ticket<()>),
}

/// By it whoever asked is answered.
#[derive(Debug)]
pub struct Ticket<A> {
    reply: oneshot::Sender<Result<A, Refused>>,
    _turn: OwnedSemaphorePermit,
}

impl Orders {
    #[must_use]
    pub fn new(pipeline: &mpsc::Sender<Input>) -> Self {
        Self { pipeline: pipeline.downgrade(), turns: Arc::new(Semaphore::new(UNDER_WAY_MAX)) }
    }

    /// Waits for its turn, and then until it is carried out and on disk, or refused.
    pub async fn ask(&self, actor: Actor, what: What) -> Result<Answer, Refused> {
        self.send(actor, |ticket| Asked::Registry(what, ticket)).await
    }

    /// The same of what people say about alerts.
    pub async fn say(&self, actor: Actor, what: policy::What) -> Result<policy::Answer, Refused> {
        self.send(actor, |ticket| Asked::Policy(what, ticket)).await
    }

    /// Other rules.
    pub async fn rule(&self, actor: Actor, order: rules::Order) -> Result<(), Refused> {
        self.send(actor, |ticket| Asked::Rules(Box::new(order), ticket)).await
    }

    /// Something for the feed, that is nobody's order. A collector that stops tells nothing any more.
    pub async fn tell(&self, event: NewEvent) {
        if let Some(pipeline) = self.pipeline.upgrade() {
            pipeline.send(Input::Told(event)).await.ok();
        }
    }

    async fn send<A>(&self, actor: Actor, asked: impl FnOnce(Ticket<A>) -> Asked) -> Result<A, Refused> {
        let turn = Arc::clone(&self.turns).acquire_owned().await.map_err(|_| Refused::Stopping)?;
        let (reply, answer) = oneshot::channel();
        let order = Order { actor, asked: asked(Ticket { reply, _turn: turn }) };
        let pipeline = self.pipeline.upgrade().ok_or(Refused::Stopping)?;
        pipeline.send(Input::Order(order)).await.map_err(|_| Refused::Stopping)?;
        drop(pipeline);
        answer.await.map_err(|_| Refused::Stopping)?
    }
}

impl<A> Ticket<A> {
    /// Whoever asked may have gone; the order was carried out all the same.
    pub fn answer(self, answer: Result<A, Refused>) {
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
            let Asked::Registry(What::Note { action, .. }, ticket) = order.asked else { panic!("a note") };
            ticket.answer(Err(Refused::Conflict(action)));
        }
        let Some(Input::Order(last)) = queue.recv().await else { panic!("its turn came") };
        let Asked::Registry(_, ticket) = last.asked else { panic!("a note") };
        ticket.answer(Ok(Answer::Done));
        for (number, answer) in asked.into_iter().enumerate() {
            let answer = answer.await.expect("it does not panic");
            assert!(answer == Err(Refused::Conflict(number.to_string())) || answer == Ok(Answer::Done));
        }
    }
}
