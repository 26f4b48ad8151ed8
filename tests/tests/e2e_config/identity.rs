//! The agent's identity as a person meets it: which file is wrong and what to do, sealing, and reading the
//! configuration again. An agent that cannot connect stays up and says so: systemd has nothing to loop on.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use dunlin_tests::pki::{Authority, Identity, node_ids};
use dunlin_tests::process::{Program, Running};
use dunlin_tests::scratch::Scratch;
use rustix::process::Signal;

use crate::{LIMIT, program, stop};

/// Nobody answers there.
const NOBODY: &str = "127.0.0.1:1";

fn agent(state: &Path) -> Running {
    let program = program("dunlin-agent").arg("--state-dir").arg(state).args(["--collectors", NOBODY]);
    program.start().expect("it is built")
}

fn seal(state: &Path) -> (i32, String) {
    let program = Program::ours("dunlin-agent", "dunlin-agent").expect("it is built");
    let mut running = program.arg("seal").arg("--state-dir").arg(state).start().expect("it is built");
    let status = running.wait_exit(LIMIT).expect("it ends");
    (status.code().expect("it was not killed"), running.log_text())
}

fn member(state: &Path) {
    let authority = Authority::new().expect("an authority");
    let node = authority.node(node_ids(1, 0)[0]).expect("a certificate").identity();
    node.write(state, authority.ca_der(), "node").expect("it is writable");
}

#[test]
fn missing_or_useless_identity_of_an_agent_is_named_by_its_file_with_what_to_do() {
    let authority = Authority::new().expect("an authority");
    let node = authority.node(node_ids(1, 0)[0]).expect("a certificate").identity();
    let nobody = authority.client_of(&[]).expect("a certificate");
    type Spoil = fn(&Path);
    let cases: &[(&Identity, Spoil, &[&str])] = &[
        (&node, |state| fs::remove_dir_all(state).expect("it is there"), &["not enrolled", "join token"]),
        (
            &node,
            |state| fs::remove_file(state.join("node.key")).expect("it is there"),
            &["node.key is missing", "seal"],
        ),
        (&node, |state| fs::write(state.join("node.key"), "x").expect("writable"), &["node.key is damaged", "seal"]),
        (
            &node,
            |state| fs::set_permissions(state.join("node.key"), fs::Permissions::from_mode(0o644)).expect("ours"),
            &["node.key can be read by others", "chmod 600 "],
        ),
        (
            &node,
            |state| fs::write(state.join("ca.pem"), "x").expect("writable"),
            &["ca.pem is damaged", "no certificate", "join token"],
        ),
        (&nobody, |_| {}, &["node.pem names no node", "with the same key"]),
    ];
    for (identity, spoil, words) in cases {
        let scratch = Scratch::new("identity").expect("a directory");
        let state = scratch.join("state");
        identity.write(&state, authority.ca_der(), "node").expect("it is writable");
        spoil(&state);
        let mut running = agent(&state);
        running.wait_log(words[0], LIMIT).expect("it says so");
        let said = stop(running);
        let line = said.lines().find(|line| line.contains(words[0])).expect("it was said");
        assert!(words.iter().all(|word| line.contains(word)), "{words:?}: {said}");
    }
}

#[test]
fn a_sealed_host_has_no_identity_and_a_running_one_is_not_sealed() {
    let scratch = Scratch::new("seal").expect("a directory");
    let state = scratch.join("state");
    member(&state);
    let mut running = agent(&state);
    running.wait_log("started", LIMIT).expect("it starts");
    let (code, said) = seal(&state);
    assert!(code == 1 && said.contains("an agent runs on this state directory"), "{code}: {said}");
    let mut second = agent(&state);
    let status = second.wait_exit(LIMIT).expect("it refuses");
    let said = second.log_text();
    assert!(status.code() == Some(1) && said.contains(&format!("as process {}", running.pid())), "{said}");
    stop(running);
    let (code, said) = seal(&state);
    assert_eq!(code, 0, "{said}");
    for name in ["node.key", "node.pem", "ca.pem", "epoch"] {
        assert!(said.contains(&format!("removed {}\n", state.join(name).display())), "{said}");
    }
    let left: Vec<_> = fs::read_dir(&state).expect("it is there").flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(left, ["lock"]);
    let (code, said) = seal(&state);
    assert!(code == 0 && said.contains("nothing to remove"), "{code}: {said}");
}

#[test]
fn a_configuration_that_is_read_again_is_taken_whole_or_not_at_all() {
    let scratch = Scratch::new("reload").expect("a directory");
    let (state, file) = (scratch.join("state"), scratch.join("agent.toml"));
    member(&state);
    let write = |text: String| fs::write(&file, text).expect("it is writable");
    write(format!("collectors = [\"{NOBODY}\"]\n"));
    let program = program("dunlin-agent").arg("--config").arg(&file).arg("--state-dir").arg(&state);
    let mut running = program.start().expect("it is built");
    running.wait_log("started", LIMIT).expect("it starts");
    write(format!("collectors = [\"{NOBODY}\"]\nlabells = {{ env = \"prod\" }}\n"));
    running.signal(Signal::HUP).expect("it runs");
    running.wait_log("the configuration stays as it was: ", LIMIT).expect("it says why");
    running.wait_log(":2:1: unknown table [labells]; did you mean [labels]?", LIMIT).expect("and where");
    write(String::from("collectors = [\"127.0.0.1:2\"]\nlabels = { env = \"prod\" }\n[spool]\nram = \"1MiB\"\n"));
    running.signal(Signal::HUP).expect("it runs");
    running.wait_log("these keys wait for the next start: spool.ram", LIMIT).expect("it is taken over");
    running.wait_log("127.0.0.1:2", LIMIT).expect("the other collector is tried");
    stop(running);
}
