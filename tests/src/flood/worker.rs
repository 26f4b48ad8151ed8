//! A thread that floods until it is told to stop, and then says what it did.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Result, anyhow};

const LOOK_EVERY: Duration = Duration::from_millis(50);

#[derive(Debug)]
pub(super) struct Worker {
    end: Arc<End>,
    thread: JoinHandle<Result<String>>,
}

/// By it a flood is told that it is over.
#[derive(Debug, Default)]
pub(super) struct End(AtomicBool);

impl Worker {
    pub(super) fn start(name: &str, work: impl FnOnce(&End) -> Result<String> + Send + 'static) -> Result<Self> {
        let end = Arc::<End>::default();
        let own = Arc::clone(&end);
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || work(&own))?;
        Ok(Self { end, thread })
    }

    /// The same with a runtime of its own.
    pub(super) fn start_async<F>(name: &str, work: impl FnOnce(Arc<End>) -> F + Send + 'static) -> Result<Self>
    where
        F: Future<Output = Result<String>>,
    {
        let end = Arc::<End>::default();
        let own = Arc::clone(&end);
        let work = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(work(own))
        };
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(work)?;
        Ok(Self { end, thread })
    }

    /// Ends it; what it came to, in words.
    pub(super) fn stop(self) -> Result<String> {
        self.end.0.store(true, Relaxed);
        self.thread.join().map_err(|_| anyhow!("a flood panicked"))?
    }
}

impl End {
    pub(super) fn has_come(&self) -> bool {
        self.0.load(Relaxed)
    }

    pub(super) async fn comes(&self) {
        while !self.has_come() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}
