//! Who a process is: its control group, and what its command line calls it. Either may wait in the kernel: a command line
//! lies in the memory of its process, which a file system that hangs may hold, and control groups are read under a lock.
//!
//! So a thread is asked, for all that are new at once. When it does not answer, it is left to that process, which has its
//! short name until then, and another takes the rest. Invariant: a tick waits `TICK_MS` for them at most, and for each
//! process once; `THREADS_MAX` threads wait at most. Below a recorded root nothing can hang, and no thread is needed.

use std::collections::VecDeque;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use super::command::called;
use super::reader::Reader;
use super::stat::NAME_BYTES;
use crate::clock::Clock;
use crate::sample::cgroup::{Owner, owner_of};
use crate::sample::lane::{Alive, Lane};
use crate::sample::name::shown;
use crate::sample::source::Source;

/// Either is a copy of memory: microseconds, and on a host that swaps milliseconds.
pub(super) const ANSWER_MS: u64 = 200;
/// What a tick waits for all of them.
const TICK_MS: u64 = 500;
/// Each takes some 20 KiB.
const THREADS_MAX: usize = 4;
/// Questions under way: one turn of the thread answers many.
const DEPTH: usize = 64;
/// Names of classes stand behind a class path, which may be long.
const TEXT_BYTES: usize = 32 * 1024;
const CGROUP_BYTES: usize = 4 * 1024;

#[derive(Clone, Copy, Debug)]
pub(super) struct Question {
    pub(super) pid: u32,
    /// The kernel's name of it.
    pub(super) name: [u8; NAME_BYTES],
    /// Its command line is wanted.
    pub(super) is_grouped: bool,
}

#[derive(Debug)]
pub(super) struct Who {
    pub(super) owner: Owner,
    /// None where nobody wants to know.
    pub(super) called: Option<Box<str>>,
    pub(super) is_interpreter: bool,
}

/// How a process is looked at: by the kernel, in a recorded tree, or by a test. The bytes are room for what is read.
pub(super) type Look = Arc<dyn Fn(&Question, &mut [u8]) -> Who + Send + Sync>;

pub(super) struct Asker {
    look: Look,
    /// None where nothing can hang.
    threads: Option<Threads>,
}

#[derive(Debug)]
struct Threads {
    clock: Clock,
    alive: Alive,
    lane: Option<Lane<Question, Who>>,
    /// Processes that do not answer, each with the thread that waits for it.
    hung: Vec<(u32, Lane<Question, Who>)>,
}

impl Asker {
    pub(super) fn of(root: &Path, clock: Clock) -> Self {
        let reader = Reader::open(&Source::new(root)).ok();
        let look = Arc::new(move |question: &Question, text: &mut [u8]| look(reader.as_ref(), question, text));
        if root == Path::new("/") { Self::patient(look, clock) } else { Self { look, threads: None } }
    }

    /// Of what may hang.
    pub(super) fn patient(look: Look, clock: Clock) -> Self {
        let threads = Threads { clock, alive: Alive::default(), lane: None, hung: Vec::new() };
        Self { look, threads: Some(threads) }
    }

    /// Tells those that answer, by their place among the questions.
    pub(super) fn ask(&mut self, questions: &[Question], tell: &mut dyn FnMut(usize, Who)) {
        match &mut self.threads {
            Some(threads) => threads.ask(&self.look, questions, tell),
            None if questions.is_empty() => {}
            None => {
                let mut text = vec![0; TEXT_BYTES];
                questions.iter().enumerate().for_each(|(at, question)| tell(at, (self.look)(question, &mut text)));
            }
        }
    }

    /// A process that does not answer.
    pub(super) fn hung(&self) -> Option<u32> {
        self.threads.as_ref()?.hung.first().map(|(pid, _)| *pid)
    }
}

impl Threads {
    fn ask(&mut self, look: &Look, questions: &[Question], tell: &mut dyn FnMut(usize, Who)) {
        // What has answered by now is no news, but its thread is free, and the process may be asked again.
        self.hung.retain(|(_, lane)| lane.poll().is_none());
        let end = self.clock.mono().plus(TICK_MS);
        let (mut next, mut waiting) = (0, VecDeque::new());
        loop {
            while let Some(question) = questions.get(next).filter(|_| waiting.len() < DEPTH) {
                waiting.extend(self.put(look, *question).then_some(next));
                next += 1;
            }
            let Some(&at) = waiting.front() else { return };
            let until = self.clock.mono().plus(ANSWER_MS).min(end);
            if let Some(answered) = self.lane.as_ref().and_then(|lane| lane.wait(self.clock, until)) {
                waiting.pop_front();
                tell(at, answered.answer);
                continue;
            }
            self.give_up(questions[at].pid);
            if self.clock.mono() >= end {
                return;
            }
            // The others are asked of another thread.
            waiting.clear();
            next = at + 1;
        }
    }

    /// Whether it was asked.
    fn put(&mut self, look: &Look, question: Question) -> bool {
        if self.hung.iter().any(|(pid, _)| *pid == question.pid) {
            return false;
        }
        if self.lane.is_none() && self.alive.count() < THREADS_MAX {
            let (look, mut text) = (Arc::clone(look), vec![0; TEXT_BYTES]);
            let reply = move |question| look(&question, &mut text);
            // Without a thread they have their short names; the next tick tries again.
            self.lane = Lane::start("processes", DEPTH, self.clock, &self.alive, reply).ok();
        }
        self.lane.as_mut().is_some_and(|lane| lane.ask(question).is_some())
    }

    /// Leaves the thread to the process that it waits for.
    fn give_up(&mut self, pid: u32) {
        if let Some(lane) = self.lane.take() {
            lane.take_back();
            self.hung.push((pid, lane));
        }
    }
}

impl fmt::Debug for Asker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asker").field("threads", &self.threads).finish_non_exhaustive()
    }
}

/// What ended meanwhile has neither a control group nor a command line left.
fn look(reader: Option<&Reader>, question: &Question, text: &mut [u8]) -> Who {
    let Question { pid, name, is_grouped } = question;
    let owner = owner_of(&String::from_utf8_lossy(read(reader, *pid, "cgroup", &mut text[..CGROUP_BYTES])));
    if !is_grouped {
        return Who { owner, called: None, is_interpreter: false };
    }
    let called = called(read(reader, *pid, "cmdline", text), name);
    let name = shown(called.script.unwrap_or(called.program));
    Who { owner, called: Some(name.into()), is_interpreter: called.is_interpreter }
}

fn read<'a>(reader: Option<&Reader>, pid: u32, file: &str, text: &'a mut [u8]) -> &'a [u8] {
    reader.and_then(|reader| reader.read(pid, file, text).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::{Condvar, Mutex};

    use super::*;

    /// Processes below ten answer once they are let.
    struct Gate(Arc<(Mutex<bool>, Condvar)>);

    impl Gate {
        fn new() -> (Self, Look) {
            let gate = Arc::new((Mutex::new(false), Condvar::new()));
            let at = Arc::clone(&gate);
            let look = Arc::new(move |question: &Question, _: &mut [u8]| {
                if question.pid < 10 {
                    let open = at.0.lock().expect("nobody panics with it");
                    drop(at.1.wait_while(open, |open| !*open).expect("nobody panics with it"));
                }
                Who { owner: Owner::Host, called: Some(format!("p{}", question.pid).into()), is_interpreter: false }
            });
            (Self(gate), look)
        }

        fn open(&self) {
            *self.0.0.lock().expect("nobody panics with it") = true;
            self.0.1.notify_all();
        }
    }

    fn told(asker: &mut Asker, pids: &[u32]) -> Vec<u32> {
        let questions: Vec<_> =
            pids.iter().map(|&pid| Question { pid, name: [0; NAME_BYTES], is_grouped: true }).collect();
        let mut told = BTreeMap::new();
        asker.ask(&questions, &mut |at, who| assert!(told.insert(pids[at], who.called).is_none()));
        assert!(told.iter().all(|(pid, called)| called.as_deref() == Some(&format!("p{pid}"))));
        told.into_keys().collect()
    }

    /// A busy machine may take an answer for late that is not: asked again it comes.
    fn all_told(asker: &mut Asker, pids: &[u32]) -> bool {
        let mut left = pids.to_vec();
        for _ in 0..100_000 {
            let told = told(asker, &left);
            left.retain(|pid| !told.contains(pid));
            if left.is_empty() {
                return true;
            }
            std::thread::yield_now();
        }
        false
    }

    #[test]
    fn a_process_that_does_not_answer_costs_nobody_else_and_a_tick_no_more_than_its_time() {
        let (gate, look) = Gate::new();
        let clock = Clock::start();
        let mut asker = Asker::patient(look, clock);
        let others: Vec<u32> = (100..400).collect();
        let began = clock.mono();
        assert!(!told(&mut asker, &[&others[..150], &[7], &others[150..]].concat()).contains(&7));
        assert!(clock.mono().since(began) >= ANSWER_MS, "it was waited for once");
        assert!(all_told(&mut asker, &others));
        // Known to hang, it is not asked again: whoever waited for it would wait for ever here.
        assert!(asker.hung().is_some());
        assert!((0..20).all(|_| told(&mut asker, &[7]).is_empty()));
        gate.open();
        assert!(all_told(&mut asker, &[7]));
        assert_eq!(told(&mut asker, &[]), [0; 0]);
    }

    #[test]
    fn no_more_threads_wait_than_may_and_they_come_back() {
        let (gate, look) = Gate::new();
        let mut asker = Asker::patient(look, Clock::start());
        let hanging: Vec<u32> = (1..10).collect();
        for _ in 0..10 {
            assert_eq!(told(&mut asker, &hanging), [0; 0]);
        }
        let threads = asker.threads.as_ref().expect("it is patient");
        assert_eq!((threads.alive.count(), threads.hung.len()), (THREADS_MAX, THREADS_MAX));
        assert_eq!(told(&mut asker, &[100]), [0; 0], "nobody is left to ask");
        gate.open();
        assert!(all_told(&mut asker, &[&hanging[..], &[100]].concat()));
        assert!(asker.hung().is_none());
    }
}
