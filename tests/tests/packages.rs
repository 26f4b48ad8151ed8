//! The Debian packages as they are built: the same bytes twice, nothing in them that should not be, and
//! units that give a service no more than it needs.

use std::fs;
use std::path::{Path, PathBuf};

use dunlin_agent::watchdog::Pulse;
use dunlin_tests::scratch::Scratch;
use dunlin_tests::tool;

/// What `systemd-analyze security` may come to; Debian's node exporter has 9.2.
const EXPOSURE_MAX: [(&str, f64); 2] = [("dunlin-agent", 2.0), ("dunlin-collector", 1.5)];

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// The directory of this test's profile, and the static agent that `make agent` builds beside it.
fn built() -> (PathBuf, PathBuf) {
    let own = std::env::current_exe().expect("a test has a path");
    let profile = own.ancestors().nth(2).expect("cargo keeps tests in TARGET/PROFILE/deps").to_owned();
    let target = profile.parent().expect("a profile has a target directory");
    let agent = target.join(format!("{}-unknown-linux-gnu/agent/dunlin-agent", std::env::consts::ARCH));
    assert!(agent.is_file(), "{} is not built; run: make agent", agent.display());
    (profile, agent)
}

/// The packages by name, built into a directory.
fn build(into: &Path) -> Vec<(String, PathBuf)> {
    let (profile, agent) = built();
    let mut command = tool::command("bash").expect("bash is there");
    command.arg(root().join("packaging/deb/build")).arg(agent).arg(profile).arg(into);
    tool::finish(&mut command).expect("the packages are built");
    let mut packages: Vec<_> = fs::read_dir(into)
        .expect("it is there")
        .map(|entry| entry.expect("it can be read").path())
        .map(|path| (path.file_name().expect("a file").to_string_lossy().into_owned(), path))
        .collect();
    packages.sort();
    packages
}

fn said(package: &Path, what: &str) -> String {
    let mut command = tool::command("dpkg-deb").expect("dpkg is there");
    tool::finish(command.arg(what).arg(package)).expect("it is a package")
}

#[test]
fn packages_are_built_to_the_same_bytes_twice() {
    let scratch = Scratch::new("packages").expect("a directory");
    let (first, second) = (build(&scratch.join("a")), build(&scratch.join("b")));
    assert_eq!(first.len(), 2, "{first:?}");
    for ((name, one), (other, two)) in first.iter().zip(&second) {
        assert_eq!(name, other);
        let same = fs::read(one).expect("it is there") == fs::read(two).expect("it is there");
        assert!(same, "{name} differs from itself");
    }
}

#[test]
fn packages_hold_what_they_say_and_nothing_else() {
    let scratch = Scratch::new("packages").expect("a directory");
    for (name, path) in build(scratch.path()) {
        let package = name.split('_').next().expect("NAME_VERSION_ARCH");
        let list = said(&path, "-c");
        let files: Vec<_> = list.lines().filter(|line| !line.starts_with('d')).collect();
        let short = package.trim_start_matches("dunlin-");
        for (mode, file) in [
            ("-rwxr-xr-x", format!("./usr/bin/{package}")),
            ("-rw-r--r--", format!("./etc/dunlin/{short}.toml")),
            ("-rw-r--r--", format!("./lib/systemd/system/{package}.service")),
            ("-rw-r--r--", format!("./usr/share/doc/{package}/copyright")),
        ] {
            let is_it = |line: &&&str| line.starts_with(mode) && line.ends_with(&format!(" {file}"));
            assert!(files.iter().find(is_it).is_some_and(|line| line.contains("root/root")), "{file} in\n{list}");
        }
        let others = files.iter().filter(|line| !line.contains(short) && !line.ends_with("/usr/bin/dunlin"));
        assert_eq!(others.count(), 0, "{list}");
        let about = said(&path, "-I");
        assert!(about.contains(concat!("Version: ", env!("CARGO_PKG_VERSION"))), "{about}");
        assert_eq!(about.contains("Depends:"), package != "dunlin-agent", "the agent needs nothing: {about}");
    }
}

#[test]
fn units_give_their_services_no_more_than_they_need() {
    for (name, most) in EXPOSURE_MAX {
        let unit = root().join(format!("systemd/{name}.service"));
        let mut command = tool::command("systemd-analyze").expect("systemd is there");
        command.args(["security", "--offline=yes", "--no-pager"]).arg(unit);
        let text = tool::finish(&mut command).expect("systemd reads the unit");
        let line = text.lines().find(|line| line.contains("Overall exposure level")).expect("a verdict");
        let level = line.split(": ").nth(1).and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok());
        assert!(level.is_some_and(|level| level <= most), "{line}; at most {most} is promised");
    }
}

#[test]
fn the_agent_tells_systemd_that_it_lives_and_has_the_first_word_when_it_does_not() {
    let unit = fs::read_to_string(root().join("systemd/dunlin-agent.service")).expect("it is there");
    let of = |key: &str| unit.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    assert_eq!(of("Type"), Some("notify"));
    let minutes = of("WatchdogSec").and_then(|value| value.strip_suffix("min")).and_then(|text| text.parse().ok());
    let patience_ms = minutes.map(|minutes: u64| minutes * 60_000);
    let own_ms = Pulse::new(patience_ms).wedged_ms();
    assert_eq!(own_ms, Pulse::new(None).wedged_ms(), "the unit does not shorten it");
    assert!(patience_ms.is_some_and(|patience_ms| own_ms * 2 <= patience_ms), "{own_ms} of {patience_ms:?}");
}

#[test]
fn the_demo_shows_a_fleet_of_one_and_leaves_nothing_behind() {
    let (profile, _) = built();
    let scratch = Scratch::new("demo").expect("a directory");
    let mut command = tool::command("bash").expect("bash is there");
    command.arg(root().join("packaging/demo")).arg(profile).arg("0").env("TMPDIR", scratch.path());
    let said = tool::finish(&mut command).expect("the demo runs");
    assert!(said.contains("1 node, 1 up") && said.contains("This host is watched"), "{said}");
    assert_eq!(fs::read_dir(scratch.path()).expect("it is there").count(), 0, "it removes what it made");
}
