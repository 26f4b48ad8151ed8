//! The tarball on a host without dpkg, and what its installer makes of the unit for a systemd of ten years ago.

use std::fs;
use std::path::{Path, PathBuf};

use dunlin_tests::package::Built;
use dunlin_tests::scratch::Scratch;
use dunlin_tests::tool;

use crate::{Pair, VERSION};

/// CentOS 7, Alibaba Cloud Linux 3, Ubuntu 20.04, Debian 12.
const VERSIONS: [u32; 4] = [219, 239, 245, 252];

pub(crate) fn tarball() -> PathBuf {
    let packages = Built::find().and_then(|built| built.packed(VERSION)).expect("the packages are built");
    let mut files = fs::read_dir(packages).expect("it was made").flatten().map(|entry| entry.path());
    files.find(|path| path.to_string_lossy().ends_with(".tar.gz")).expect("there is one")
}

/// Below another root, with a `systemctl` that says it is of this version. What the installer said, and the unit.
fn fitted(scratch: &Scratch, version: &str, users: &str) -> (Result<String, String>, PathBuf) {
    let (root, tools) = (scratch.join(&format!("root-{version}")), scratch.join(&format!("bin-{version}")));
    for directory in ["etc", "usr"] {
        fs::create_dir_all(root.join(directory)).expect("it is writable");
    }
    fs::write(root.join("etc/passwd"), users).expect("it is writable");
    fs::create_dir_all(&tools).expect("it is writable");
    let path = format!("{}:/usr/bin:/bin", tools.display());
    let said = if version.is_empty() { "exit 127".to_owned() } else { format!("echo 'systemd {version} (test)'") };
    let fake = |name: &str, text: &str| {
        fs::write(tools.join(name), format!("#!/bin/sh\n{text}\n")).expect("it is writable");
        fs::set_permissions(tools.join(name), std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("it is ours");
    };
    fake("systemctl", &said);
    if users.is_empty() {
        fake("systemd-sysusers", "exit 1");
        fake("useradd", "exit 1");
    }
    let unpacked = scratch.join(&format!("dunlin-agent-{VERSION}-linux-amd64/install"));
    let mut command = tool::command("sh").expect("a shell");
    command.arg(unpacked).env("DUNLIN_ROOT", &root).env("PATH", path);
    let said = command.output().expect("it starts");
    let text = String::from_utf8_lossy(&said.stderr).into_owned();
    (if said.status.success() { Ok(text) } else { Err(text) }, root)
}

fn unpack(scratch: &Scratch) {
    tool::run("tar", &[Path::new("-xf"), &tarball(), Path::new("-C"), scratch.path()]).expect("it unpacks");
}

#[test]
fn the_unit_is_fitted_to_each_systemd_and_never_without_a_user() {
    let scratch = Scratch::new("tarball").expect("a directory");
    unpack(&scratch);
    let users = "root:x:0:0:root:/root:/bin/sh\ndunlin-agent:x:990:990::/:/usr/sbin/nologin\n";
    for version in VERSIONS {
        let (said, root) = fitted(&scratch, &version.to_string(), users);
        said.unwrap_or_else(|error| panic!("{version}: {error}"));
        let unit = fs::read_to_string(root.join("etc/systemd/system/dunlin-agent.service")).expect("it was written");
        let has = |line: &str| unit.lines().any(|one| one == line);
        assert!(has("User=dunlin-agent") && has("ExecStart=/usr/local/bin/dunlin-agent run"), "{version}: {unit}");
        let makes_users = version >= 235;
        for line in ["DynamicUser=yes", "StateDirectory=dunlin-agent", "ProtectSystem=strict"] {
            assert_eq!(has(line), makes_users, "{version}: {line}");
        }
        assert_eq!(has("ProtectSystem=full"), !makes_users, "{version}");
        assert_eq!(root.join("var/lib/dunlin-agent").is_dir(), !makes_users, "{version}");
        // An old systemd takes groups of system calls for none, and would let nothing pass.
        assert_eq!(unit.contains("SystemCallFilter="), version >= 239, "{version}");
        assert!(has(if version >= 231 { "MemoryMax=64M" } else { "MemoryLimit=64M" }), "{version}");
        assert!(has(if version >= 230 { "StartLimitIntervalSec=0" } else { "StartLimitInterval=0" }), "{version}");
        assert!(root.join("etc/systemd/system/multi-user.target.wants/dunlin-agent.service").is_symlink(), "{version}");
        assert!(root.join("etc/dunlin/agent.toml").is_file(), "{version}");
    }
}

#[test]
fn where_it_cannot_run_nothing_is_changed_and_one_line_says_why() {
    let scratch = Scratch::new("tarball").expect("a directory");
    unpack(&scratch);
    let (said, root) = fitted(&scratch, "252", "");
    let said = said.expect_err("there is no user");
    assert!(said.contains("not to be root") && !root.join("usr/local").exists(), "{said}");
    let users = "dunlin-agent:x:990:990::/:/usr/sbin/nologin\n";
    let (said, root) = fitted(&scratch, "208", users);
    assert!(said.expect_err("too old").contains("208") && !root.join("usr/local").exists());
    let (said, root) = fitted(&scratch, "", users);
    let said = said.expect("a host without systemd has the program all the same");
    assert!(said.contains("no systemd here") && root.join("usr/local/bin/dunlin-agent").is_file(), "{said}");
    assert!(!root.join("etc/systemd").exists());
}

/// What is fitted to a systemd of 219 has to do where nothing else is there: this host's runs it, as it stands.
#[test]
fn the_installer_brings_a_host_in_with_the_oldest_unit_and_with_its_own_and_takes_all_of_it_away() {
    let pair = Pair::with_collector();
    pair.web.put(&tarball(), "/root").expect("it is writable");
    pair.web.run("cd /root && tar -xf dunlin-agent-*.tar.gz").expect("it unpacks");
    let old = "mkdir /root/old && printf '#!/bin/sh\\n[ \"$1\" != --version ] || { echo systemd 219; exit; }\\nexec /bin/systemctl \"$@\"\\n' \
               >/root/old/systemctl && chmod 755 /root/old/systemctl";
    pair.web.run(old).expect("it is writable");
    let line = pair.invitation("").replace("dpkg -i dunlin-agent_*.deb", "./install");
    let install = |path: &str, line: &str| format!("cd /root/dunlin-agent-*/ && PATH={path}$PATH {line}");
    pair.web.run(&install("/root/old:", &line)).expect("it installs");
    let node = pair.wait_up();
    let id = pair.web.property("dunlin-agent", "MainPID").expect("a number");
    let user =
        pair.web.run(&format!("stat -c %U /proc/{id}; stat -c '%U %a %F' /var/lib/dunlin-agent")).expect("it runs");
    assert_eq!(user, "dunlin-agent\ndunlin-agent 700 directory\n");

    pair.web.run(&install("", "./install")).expect("it installs again");
    assert_eq!(pair.wait_up(), node, "the state went along");
    let said = pair.web.run("systemd-analyze verify dunlin-agent.service 2>&1 || true").expect("it judges");
    // The smallest Debian has no `man` to look for the page with.
    assert!(said.lines().all(|line| line.contains("Command 'man ")), "{said}");
    pair.web.run(&install("", "./install --remove")).expect("it goes");
    pair.web.run("test -e /etc/dunlin/agent.toml && test ! -e /usr/local/bin/dunlin-agent").expect("it keeps");
    pair.web.run(&install("", "./install --purge")).expect("it goes");
    let left = "find /etc /usr /lib /var/lib -iname '*dunlin*' ! -path '*/dpkg/*'";
    assert_eq!(pair.web.run(left).expect("a list"), "");
}
