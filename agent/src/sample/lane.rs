//! A thread that is asked what may never be answered. It answers in order; whoever asked may stop waiting.
//!
//! A thread that the kernel holds cannot be ended: it stays until its question is answered, skips what was asked after
//! that and taken back, and ends when nobody holds its lane any more. How many live is counted, so that it can be bounded.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use dunlin_shared::time::MonoMs;

use crate::clock::Clock;

/// An answer needs a system call, a lock and a little formatting; the default of 2 MiB would be reserved in vain.
const STACK_BYTES: usize = 128 * 1024;

#[derive(Debug)]
pub(super) struct Lane<Q, A> {
    questions: SyncSender<(u64, Q)>,
    answers: Receiver<Answered<A>>,
    /// Questions below this number were taken back.
    first_wanted: Arc<AtomicU64>,
    next: u64,
}

#[derive(Debug)]
pub(super) struct Answered<A> {
    /// The question's.
    pub(super) number: u64,
    pub(super) answer: A,
    pub(super) took_ms: u64,
}

/// Threads of a kind that live, held by each of them.
#[derive(Clone, Debug, Default)]
pub(super) struct Alive(Arc<AtomicUsize>);

#[derive(Debug)]
struct Living(Arc<AtomicUsize>);

impl<Q: Send + 'static, A: Send + 'static> Lane<Q, A> {
    /// `depth` questions may be under way at once.
    pub(super) fn start(
        name: &str,
        depth: usize,
        clock: Clock,
        alive: &Alive,
        mut reply: impl FnMut(Q) -> A + Send + 'static,
    ) -> io::Result<Self> {
        let (questions, asked) = sync_channel::<(u64, Q)>(depth);
        let (answer, answers) = sync_channel(depth);
        let first_wanted = Arc::new(AtomicU64::new(0));
        let wanted = Arc::clone(&first_wanted);
        let living = alive.one_more();
        thread::Builder::new().name(name.to_owned()).stack_size(STACK_BYTES).spawn(move || {
            let _living = living;
            for (number, question) in asked {
                if number < wanted.load(Ordering::Acquire) {
                    continue;
                }
                let began = clock.mono();
                let answered = Answered { number, answer: reply(question), took_ms: clock.mono().since(began) };
                if answer.send(answered).is_err() {
                    break;
                }
            }
        })?;
        Ok(Self { questions, answers, first_wanted, next: 0 })
    }

    /// The number of the question; none when there is no room for it.
    pub(super) fn ask(&mut self, question: Q) -> Option<u64> {
        self.questions.try_send((self.next, question)).ok()?;
        self.next += 1;
        Some(self.next - 1)
    }

    /// The next answer, if it comes in time.
    pub(super) fn wait(&self, clock: Clock, until: MonoMs) -> Option<Answered<A>> {
        self.answers.recv_timeout(Duration::from_millis(until.since(clock.mono()))).ok()
    }

    /// The next answer, if it is there.
    pub(super) fn poll(&self) -> Option<Answered<A>> {
        self.answers.try_recv().ok()
    }

    /// Takes back every question; those that are being answered by now are answered nevertheless.
    pub(super) fn take_back(&self) {
        self.first_wanted.store(self.next, Ordering::Release);
    }
}

impl Alive {
    pub(super) fn count(&self) -> usize {
        self.0.load(Ordering::Acquire)
    }

    fn one_more(&self) -> Living {
        self.0.fetch_add(1, Ordering::AcqRel);
        Living(Arc::clone(&self.0))
    }
}

impl Drop for Living {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}
