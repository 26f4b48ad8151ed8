//! An agent whose loop does not turn any more, and what systemd hears of one whose loop does.

use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;

use dunlin_tests::process::{Program, Running, ended_by};
use dunlin_tests::scratch::Scratch;
use dunlin_tests::site::with_files;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::Signal;

use crate::{LIMIT, agent_binary};

/// Half of it without a turn is an end: far above a tick, and short for a test.
const WATCHDOG_US: &str = "20000000";

/// An agent that systemd started, with systemd's end of it.
struct Service {
    listener: UnixDatagram,
    running: Running,
    _scratch: Scratch,
}

impl Service {
    /// `pipe`: in the place of the load there is a pipe. Whoever opens it to read waits for whoever writes.
    fn start(has_pipe: bool) -> Self {
        let scratch = Scratch::in_memory("wedged").expect("a directory");
        let listener = UnixDatagram::bind(scratch.join("notify")).expect("it is writable");
        listener.set_read_timeout(Some(LIMIT)).expect("it is a socket");
        let pipe: PathBuf = scratch.join("pipe");
        mknodat(CWD, &pipe, FileType::Fifo, Mode::RWXU, 0).expect("it is writable");
        let mut program = Program::at(agent_binary());
        if has_pipe {
            program = program.under(with_files(&[(&pipe, "/proc/loadavg")]).expect("a mount namespace"));
        }
        let program = program.env("NOTIFY_SOCKET", scratch.join("notify")).env("WATCHDOG_USEC", WATCHDOG_US);
        let program = program.arg("run").arg("--state-dir").arg(scratch.join("state"));
        let running = program.args(["--collectors", "127.0.0.1:9"]).log(scratch.join("log")).start();
        Self { listener, running: running.expect("it starts"), _scratch: scratch }
    }

    /// The next word, but for how it stands: that is told whenever it changes.
    fn hears(&self, word: &[u8]) {
        let mut bytes = [0; 1_024];
        loop {
            let heard = self.listener.recv(&mut bytes).map(|count| &bytes[..count]);
            if heard.as_ref().is_ok_and(|heard| heard.starts_with(b"STATUS=")) {
                continue;
            }
            assert!(heard.as_ref().is_ok_and(|heard| heard == &word), "{heard:?}: {}", self.running.log_text());
            return;
        }
    }
}

#[test]
fn systemd_hears_that_the_agent_has_started_and_that_its_loop_turns() {
    let mut service = Service::start(false);
    service.hears(b"READY=1");
    (0..3).for_each(|_| service.hears(b"WATCHDOG=1"));
    assert!(service.running.terminate(LIMIT).expect("it stops").success(), "{}", service.running.log_text());
}

#[test]
fn an_agent_whose_tick_never_ends_ends_itself_with_a_word() {
    let mut service = Service::start(true);
    service.hears(b"READY=1");
    let status = service.running.wait_exit(LIMIT).expect("it ends");
    let said = service.running.log_text();
    assert!(ended_by(status, Signal::ABORT), "{status}: {said}");
    assert!(said.contains("the agent's loop does not turn any more: the process ends, to be started anew"), "{said}");
}
