//! What a service of little privilege writes of its sight, and what root is told of it by `check`.

use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use dunlin_tests::deadline;
use dunlin_tests::process::{Program, Running};
use dunlin_tests::scratch::Scratch;
use dunlin_tests::tool;
use serde_json::Value;

use crate::{LIMIT, agent_binary};

/// Nobody, as Debian numbers it, and a group that every Debian has.
const NOBODY: u32 = 65_534;
const DAEMON: (u32, &str) = (1, "daemon");

/// A host on which nobody runs the service, beside the socket of an engine that another group may use.
struct Host {
    scratch: Scratch,
    program: PathBuf,
    _engine: UnixListener,
}

impl Host {
    fn new() -> Self {
        let scratch = Scratch::new("sight").expect("a directory");
        // The directories of a build may be closed to others.
        let program = scratch.join("dunlin-agent");
        fs::copy(agent_binary(), &program).expect("it fits");
        let engine = UnixListener::bind(scratch.join("docker.sock")).expect("a socket");
        chown(scratch.join("docker.sock"), Some(0), Some(DAEMON.0)).expect("it is ours");
        fs::create_dir(scratch.join("state")).expect("it is writable");
        chown(scratch.join("state"), Some(NOBODY), Some(NOBODY)).expect("it is ours");
        for (path, mode) in [(scratch.path(), 0o755), (&scratch.join("docker.sock"), 0o660)] {
            fs::set_permissions(path, Permissions::from_mode(mode)).expect("it is ours");
        }
        Self { scratch, program, _engine: engine }
    }

    fn file(&self) -> PathBuf {
        self.scratch.join("state/sight")
    }

    fn arguments(&self) -> Vec<OsString> {
        let flag = |name: &str, value: &Path| [OsString::from(name), value.into()];
        let socket = flag("--collect-sockets", &self.scratch.join("docker.sock"));
        let state = flag("--state-dir", &self.scratch.join("state"));
        [state, socket, ["--collectors".into(), "127.0.0.1:9".into()]].concat()
    }

    fn service(&self) -> Running {
        let setpriv = tool::find("setpriv").expect("util-linux is there");
        let user = ["reuid", "regid"].map(|what| format!("--{what}={NOBODY}"));
        let words = ["--clear-groups", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"].map(OsString::from);
        let prefix = [vec![setpriv.into()], user.map(OsString::from).to_vec(), words.to_vec()].concat();
        let program = Program::at(&self.program).under(prefix).args(["run", "--interval", "1s"]);
        program.args(self.arguments()).log(self.scratch.join("log")).start().expect("it starts")
    }

    fn check(&self, more: &[&str]) -> (Option<i32>, String) {
        let mut command = Command::new(&self.program);
        let Output { status, stdout, .. } =
            command.arg("check").args(self.arguments()).args(more).output().expect("it starts");
        (status.code(), String::from_utf8(stdout).expect("it is text"))
    }

    /// Until the engine has refused.
    fn wait_told(&self, running: &Running) {
        deadline::until("the service tells what it sees", LIMIT, || {
            // A link that a test left there may lead to what has no end.
            let is_file = fs::symlink_metadata(self.file()).is_ok_and(|found| found.is_file());
            let told = is_file.then(|| fs::read_to_string(self.file()).ok()).flatten()?;
            told.contains("\trefused\t").then_some(())
        })
        .unwrap_or_else(|error| panic!("{error}: {}", running.log_text()));
    }
}

#[test]
fn root_is_told_what_the_service_cannot_see_and_the_lines_that_mend_it() {
    let host = Host::new();
    let (code, said) = host.check(&[]);
    assert!(said.contains("no service has told here"), "{code:?} {said}");
    let mut service = host.service();
    host.wait_told(&service);
    let mode = fs::metadata(host.file()).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let (code, said) = host.check(&[]);
    let pid = service.pid();
    for part in [
        &format!("  seen by: the service, process {pid}, as user {NOBODY} of groups {NOBODY}, without capabilities, "),
        "! engine at ",
        "docker.sock: no permission\n",
        &format!("dunlin-agent.service.d/{}.conf\n", DAEMON.1),
        &format!("          [Service]\n          SupplementaryGroups={}\n", DAEMON.1),
        &format!("the {} group is root on this host", DAEMON.1),
        "          sockets = [\"/run/dunlin-proxy/engine.sock\"]\n",
        "- reads and writes of processes: seen in part: ",
        "          AmbientCapabilities=CAP_SYS_PTRACE CAP_DAC_READ_SEARCH\n",
        "          CapabilityBoundingSet=CAP_SYS_PTRACE CAP_DAC_READ_SEARCH\n",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    // The engine was asked for by name; what no operator asked for is no warning.
    assert_eq!(code, Some(1), "{said}");
    let value: Value = serde_json::from_str(&host.check(&["--json"]).1).expect("it is JSON");
    let findings = value["findings"].as_array().expect("a list");
    let engine = findings.iter().find(|one| one["state"] == "refused").expect("it is shut");
    assert_eq!((&value["verdict"], &engine["verdict"]), (&"WARNING".into(), &"WARNING".into()), "{value}");

    assert!(service.terminate(LIMIT).expect("it stops").success(), "{}", service.log_text());
    let (code, said) = host.check(&[]);
    assert!(code == Some(1) && said.contains("that process has ended, and what follows is what it saw last"), "{said}");
}

#[test]
fn what_is_switched_off_is_no_warning_and_a_new_service_tells_anew() {
    let host = Host::new();
    let mut service = host.service();
    host.wait_told(&service);
    service.kill9().expect("it can be killed");
    let mut service = host.service();
    let pid = service.pid();
    deadline::until("the new one has told", LIMIT, || {
        host.check(&[]).1.contains(&format!("process {pid}, as user")).then_some(())
    })
    .expect("it tells");
    assert!(service.terminate(LIMIT).expect("it stops").success());
    fs::remove_file(host.file()).expect("it is there");
    let (_, said) = host.check(&["--collect-containers", "false", "--collect-ports", "false"]);
    assert!(said.contains("  container engines: switched off in the configuration\n"), "{said}");
    assert!(said.contains("  owners of ports: switched off in the configuration\n"), "{said}");
}

#[test]
fn a_report_that_somebody_else_wrote_is_not_believed_and_not_printed() {
    let host = Host::new();
    let whole = "dunlin-agent sight 1\nat\t1\nprocess\t1\t1\nsource\tengine\tfailed\t0\t0\t0\t\t\tEVIL\nend\n";
    for (bytes, word) in [
        (whole.replace("EVIL", "EVIL\u{1b}[2J").into_bytes(), "not as an agent writes it"),
        (whole.as_bytes()[..whole.len() - 3].to_vec(), "not whole"),
        (vec![b'E'; 1 << 20], "longer than what an agent writes"),
        (vec![0xff; 64], "not as an agent writes it"),
        (whole.replace("sight 1", "sight 7").into_bytes(), "of another version"),
    ] {
        fs::write(host.file(), bytes).expect("it is writable");
        let (code, said) = host.check(&[]);
        assert!(code == Some(1) && said.contains(word) && said.contains("\n  cpu: seen\n"), "{word}: {said}");
        assert!(!said.contains("EVIL") && !said.contains('\u{1b}'), "{said:?}");
    }
    fs::remove_file(host.file()).expect("it is there");
    std::os::unix::fs::symlink("/dev/zero", host.file()).expect("it is writable");
    let (code, said) = host.check(&[]);
    assert!(code == Some(1) && said.contains("is no file that an agent writes"), "{said}");
    // The service replaces whatever is there.
    let service = host.service();
    host.wait_told(&service);
    assert!(fs::symlink_metadata(host.file()).expect("it is there").is_file());
}
