//! What is wrong around the programs is said plainly: in one line, with the right exit code, and never a panic.

mod documents;
mod files;
mod full;
mod identity;
mod refusals;

use std::time::Duration;

use dunlin_tests::process::{Program, Running};

/// Far above what any step takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(30);

/// Waits for the end of a program that should refuse to run; its exit code and what it said.
fn refused(program: Program) -> (i32, String) {
    let mut running = program.start().expect("it is built");
    let status = running.wait_exit(LIMIT).expect("it refuses to run");
    let said = running.log_text();
    assert!(!said.contains("panicked"), "{said}");
    (status.code().expect("it was not killed"), said)
}

/// Ends a program in good order.
fn stop(mut running: Running) -> String {
    let status = running.terminate(LIMIT).expect("it stops");
    let said = running.log_text();
    assert!(status.success() && !said.contains("panicked"), "{status}: {said}");
    said
}

fn program(name: &str) -> Program {
    Program::ours(name, name).expect("it is built").arg("run")
}
