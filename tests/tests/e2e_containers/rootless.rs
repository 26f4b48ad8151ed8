//! A rootless Podman, whose directory is shut to the agent: an engine that refuses, told with the lines that mend it.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, Permissions};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _, chown};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use dunlin_tests::deadline::until;
use dunlin_tests::process::{Program, Running};
use dunlin_tests::scratch::Scratch;
use dunlin_tests::tool;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::{LIMIT, binary};

/// As Debian numbers it: a user who is neither root nor the engine's.
const DAEMON: u32 = 1;

/// A Podman of a user who stands in no list, as one of a directory service would be.
struct Rootless {
    user: u32,
    scratch: Scratch,
    service: Running,
}

impl Rootless {
    fn start() -> Self {
        let user = 60_000 + std::process::id() % 5_000;
        let scratch = Scratch::new("rootless").expect("a directory");
        fs::set_permissions(scratch.path(), Permissions::from_mode(0o755)).expect("it is ours");
        let home = scratch.join("home");
        let runtime = PathBuf::from(format!("/run/user/{user}"));
        fs::create_dir_all("/run/user").expect("it is there, or can be made");
        for directory in [&home, &runtime, &runtime.join("podman")] {
            DirBuilder::new().mode(0o700).create(directory).expect("it can be made");
            chown(directory, Some(user), Some(user)).expect("it is ours");
        }
        let place = |name: &str| home.join(name).display().to_string();
        let program = Program::at(tool::find("podman").expect("podman is there"))
            .under(as_user(user, &[]))
            .env("HOME", &home)
            .env("XDG_RUNTIME_DIR", &runtime)
            .args([format!("--root={}", place("data")), format!("--runroot={}", place("exec"))])
            .args(["--runtime=/usr/sbin/runc", "--cgroup-manager=cgroupfs", "--storage-driver=vfs"])
            .args(["system", "service", "--time=0", &format!("unix://{}", socket(user).display())]);
        let service = program.log(scratch.join("log")).start().expect("it starts");
        let rootless = Self { user, scratch, service };
        until("an engine that listens", LIMIT, || UnixStream::connect(socket(user)).ok())
            .unwrap_or_else(|error| panic!("{error}: {}", rootless.service.log_text()));
        rootless
    }

    /// The agent's program where every user may start it.
    fn agent(&self) -> PathBuf {
        let program = self.scratch.join("dunlin-agent");
        fs::copy(binary("dunlin-agent"), &program).expect("it fits");
        program
    }
}

impl Drop for Rootless {
    fn drop(&mut self) {
        let runtime = PathBuf::from(format!("/run/user/{}", self.user));
        // What keeps its namespace stays when the service ends.
        let pause = fs::read_to_string(runtime.join("libpod/tmp/pause.pid")).ok();
        let ended = self.service.terminate(LIMIT);
        let pause = pause.and_then(|text| Pid::from_raw(text.trim().parse().ok()?));
        let killed = pause.map_or(Ok(()), |pause| kill_process(pause, Signal::KILL));
        let removed = fs::remove_dir_all(&runtime);
        if let (Err(_), ..) | (_, Err(_), _) | (.., Err(_)) = (&ended, &killed, &removed) {
            tracing::warn!(?ended, ?killed, ?removed, "a rootless engine did not end in order");
        }
    }
}

fn socket(user: u32) -> PathBuf {
    format!("/run/user/{user}/podman/podman.sock").into()
}

fn as_user(user: u32, more: &[&str]) -> Vec<OsString> {
    let setpriv = tool::find("setpriv").expect("util-linux is there");
    let ids = [format!("--reuid={user}"), format!("--regid={user}"), "--clear-groups".into()];
    let words = ids.into_iter().chain(more.iter().map(|word| (*word).to_owned()));
    std::iter::once(setpriv.into()).chain(words.map(OsString::from)).collect()
}

#[test]
fn an_engine_behind_a_directory_that_is_shut_is_refused_and_told_with_what_mends_it() {
    let rootless = Rootless::start();
    let (program, state) = (rootless.agent(), rootless.scratch.join("state"));
    fs::create_dir(&state).expect("it can be made");
    chown(&state, Some(DAEMON), Some(DAEMON)).expect("it is ours");
    let socket = socket(rootless.user).display().to_string();
    let words = ["--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"];
    let service = Program::at(&program).under(as_user(DAEMON, &words)).args(["run", "--interval", "1s"]);
    let service = service.args(["--collectors", "127.0.0.1:9", "--state-dir"]).arg(&state);
    let service = service.log(rootless.scratch.join("agent.log")).start().expect("it starts");
    let refused = format!("source\tengine\trefused\t0\t0\t0\t{socket}\t");
    until("a word of the engine", LIMIT, || {
        fs::read_to_string(state.join("sight")).ok()?.contains(&refused).then_some(())
    })
    .unwrap_or_else(|error| panic!("{error}: {}", service.log_text()));

    let said = said(&program, &["check", "--collectors", "127.0.0.1:9", "--state-dir", &state.display().to_string()]);
    let user = rootless.user;
    for part in [
        format!("- engine at {socket}: no permission\n"),
        format!("          User={user}\n          Group=dunlin-proxy\n"),
        "          ProtectHome=read-only\n".into(),
        format!("          server engine unix@{socket}\n"),
        format!("/run/dunlin-proxy-{user}/engine.sock"),
        "          SupplementaryGroups=dunlin-proxy\n".into(),
    ] {
        assert!(said.contains(&part), "{part}: {said}");
    }
    // Whoever may look finds an engine that works.
    let name = format!("podman of user {user}");
    until("an engine that works", LIMIT, || {
        let told: Value = serde_json::from_str(&self::said(&program, &["once", "--json"])).expect("it is JSON");
        let sources = told["sources"].as_array().expect("a list");
        sources.iter().any(|one| one["name"] == *name && one["working"] == true).then_some(())
    })
    .expect("root may look");
}

fn said(program: &Path, words: &[&str]) -> String {
    let output = Command::new(program).args(words).output().expect("it starts");
    String::from_utf8(output.stdout).expect("it is text")
}
