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
    pipeline: mpsc::Sender<Input>,
    turns: Arc<Semaphore>,
}

#[derive(Debug)]
pub struct Order {
    pub actor: Actor,
    pub what: What,
    reply: oneshot::Sender<Result<Answer, Refused>>,
    _turn: OwnedSemaphorePermit,
}

impl Orders {
    #[must_use]
    pub fn new(pipeline: mpsc::Sender<Input>) -> Self {
        Self { pipeline, turns: Arc::new(Semaphore::new(UNDER_WAY_MAX)) }
    }

    /// Waits for its turn, and then until it is carried out and on disk, or refused.
    pub async fn ask(&self, actor: Actor, what: What) -> Result<Answer, Refused> {
        let turn = Arc::clone(&self.turns).acquire_owned().await.map_err(|_| Refused::Stopping)?;
        let (reply, answer) = oneshot::channel();
        let order = Order { actor, what, reply, _turn: turn };
        self.pipeline.send(Input::Order(order)).await.map_err(|_| Refused::Stopping)?;
        answer.await.map_err(|_| Refused::Stopping)?
    }
}

impl Order {
    /// Whoever asked may have gone; the order was carried out all the same.
    pub fn answer(self, answer: Result<Answer, Refused>) {
        self.reply.send(answer).ok();
    }
}
