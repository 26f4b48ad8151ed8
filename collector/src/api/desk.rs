//! Where files are read for a request: on threads that may block, so many at a time.
//!
//! A reading that is asked for and not wanted any more ends by itself: each is bounded in what it reads.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::problem::Problem;
use crate::store::{ControlReader, StoreError};
use crate::window::{Window, Word};

/// Two cores; reading is mostly decoding.
const AT_ONCE: usize = 4;
/// Readings of the window: each may hold a day of a node in memory.
const WINDOW_AT_ONCE: usize = 2;
/// Longer than that nobody waits for an answer.
const TURN_TIME: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct Desk {
    control: PathBuf,
    window: Window,
    turns: Arc<Semaphore>,
    window_turns: Arc<Semaphore>,
    /// Connections that are open and not in use.
    idle: Arc<Mutex<Vec<ControlReader>>>,
}

impl Desk {
    pub(super) fn new(state_dir: &Path, word: &Arc<Word>) -> Self {
        Self {
            control: state_dir.join("control.db"),
            window: Window::new(state_dir.join("window"), Arc::clone(word)),
            turns: Arc::new(Semaphore::new(AT_ONCE)),
            window_turns: Arc::new(Semaphore::new(WINDOW_AT_ONCE)),
            idle: Arc::default(),
        }
    }

    /// What `read` finds in `control.db`.
    pub(super) async fn control<T: Send + 'static>(
        &self,
        read: impl FnOnce(&ControlReader) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, Problem> {
        let (path, idle) = (self.control.clone(), Arc::clone(&self.idle));
        blocking(&self.turns, move || {
            let known = idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let reader = match known {
                Some(reader) => reader,
                None => ControlReader::open(&path)?,
            };
            let found = read(&reader)?;
            idle.lock().unwrap_or_else(PoisonError::into_inner).push(reader);
            Ok::<T, StoreError>(found)
        })
        .await
    }

    /// What `read` finds in the window.
    pub(super) async fn window<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Window) -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        let window = self.window.clone();
        blocking(&self.window_turns, move || read(&window)).await
    }

    /// The same for an answer of many turns, which waits for each as long as it takes: others come in between.
    pub(super) async fn window_in_turn<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Window) -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        let window = self.window.clone();
        let turn = Arc::clone(&self.window_turns).acquire_owned().await;
        let stopping = || Problem::unavailable("the collector is being stopped");
        in_turn(turn.map_err(|_| stopping())?, move || read(&window)).await
    }
}

async fn blocking<T: Send + 'static, E: Into<Problem> + Send + 'static>(
    turns: &Arc<Semaphore>,
    read: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, Problem> {
    let busy = || Problem::unavailable("too many others are being answered; try again in a second");
    let turn = tokio::time::timeout(TURN_TIME, Arc::clone(turns).acquire_owned()).await.map_err(|_| busy())?;
    in_turn(turn.map_err(|_| busy())?, read).await
}

async fn in_turn<T: Send + 'static, E: Into<Problem> + Send + 'static>(
    turn: OwnedSemaphorePermit,
    read: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, Problem> {
    let task = tokio::task::spawn_blocking(move || {
        let found = read();
        drop(turn);
        found
    });
    task.await.map_err(|_| Problem::unavailable("the collector is being stopped"))?.map_err(Into::into)
}
