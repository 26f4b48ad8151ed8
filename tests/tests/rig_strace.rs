//! Shows that syncs of a real program fail from its start, from a later call, and from a moment in its run.

use std::time::Duration;

use dunlin_tests::deadline::until;
use dunlin_tests::process::{Program, Running};
use dunlin_tests::scratch::Scratch;
use dunlin_tests::strace::{self, Fault, StraceError};

/// Far above what any step takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(20);

/// Says after each fsync what came of it. Perl's base is part of every Debian.
const SYNCER: &str = "use IO::Handle; $| = 1; open(my $file, '>', $ARGV[0]) or die; for (1..$ARGV[1]) { \
                      print $file->sync ? 'ok ' : $!{EIO} ? 'EIO ' : $!{ENOSYS} ? 'ENOSYS ' : 'other '; }";

fn syncer(scratch: &Scratch, rounds: &str) -> Program {
    Program::at("/usr/bin/perl").args(["-MErrno", "-e", SYNCER]).arg(scratch.join("file")).arg(rounds)
}

fn wait_for_words(running: &Running, from: usize, wanted: &str) -> usize {
    let found = until(wanted, LIMIT, || {
        let text = running.log_text();
        let later: Vec<&str> = text.split_inclusive(' ').skip(from).collect();
        (later.iter().filter(|word| **word == wanted).count() >= 3).then_some(from + later.len())
    });
    found.expect("the program goes on")
}

#[test]
fn syncs_fail_from_the_chosen_call_on() {
    let scratch = Scratch::new("strace-start").expect("the temporary directory is writable");
    let log = scratch.join("calls");
    let prefix = Fault::sync_eio().from_call(3).prefix(&log).expect("strace is here");
    let mut running = syncer(&scratch, "5").under(prefix).start().expect("perl is here");
    assert!(running.wait_exit(LIMIT).expect("it ends").success(), "the status is the program's own");
    assert_eq!(running.log_text(), "ok ok EIO EIO EIO ");
    // strace is no child of ours and may write its last line a moment later.
    until("strace's own account", LIMIT, || (strace::injected(&log) == 3).then_some(())).expect("three failed");
}

#[test]
fn fault_begins_and_ends_in_a_running_program() {
    let scratch = Scratch::new("strace-attach").expect("the temporary directory is writable");
    let mut running = syncer(&scratch, "1000000000").start().expect("perl is here");
    running.wait_log("ok ok ok ", LIMIT).expect("it begins well");
    assert!(!running.log_text().contains("EIO"));

    let injection = Fault::sync_eio().attach(running.pid()).expect("strace attaches");
    let words = wait_for_words(&running, 0, "EIO ");
    assert!(injection.injected() >= 3);
    injection.detach().expect("strace lets go");
    wait_for_words(&running, words, "ok ");
    let text = running.log_text();
    assert!(!text.contains("other"));
    assert!(text.matches("ENOSYS").count() <= 1, "only the call that was under way when strace let go");
}

#[test]
fn attaching_to_a_program_that_is_gone_says_so() {
    let mut gone = Program::at("/bin/true").start().expect("there is one");
    gone.wait_exit(LIMIT).expect("it ends");
    let error = Fault::sync_eio().attach(gone.pid()).expect_err("there is no such process");
    let StraceError::NotAttached { said, .. } = error else { panic!("{error}") };
    assert!(said.contains("No such process"), "{said}");
}

#[test]
fn detaching_after_the_program_ended_is_no_error() {
    let mut running = Program::at("/bin/sleep").arg("1000").start().expect("there is one");
    let injection = Fault::sync_eio().attach(running.pid()).expect("strace attaches");
    running.kill9().expect("it can be killed");
    injection.detach().expect("there is nothing to let go");
}
