//! The packages as they are built: the same bytes twice, small, as Debian wants them, nothing in them that should not be, and
//! units that give a service no more than it needs.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use dunlin_agent::watchdog::Pulse;
use dunlin_tests::package::Built;
use dunlin_tests::scratch::Scratch;
use dunlin_tests::tool;

/// What `systemd-analyze security` may come to; Debian's node exporter has 9.2.
const EXPOSURE_MAX: [(&str, f64); 2] = [("dunlin-agent", 2.0), ("dunlin-collector", 1.5)];

/// The agent's package, and what it takes of a host.
const PACKAGE_BYTES_MAX: u64 = 2_500_000;
const INSTALLED_BYTES_MAX: u64 = 6_000_000;

/// From the command to live numbers, once the programs are built.
const DEMO_WITHIN: Duration = Duration::from_secs(60);

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

fn built() -> Built {
    Built::find().expect("it is built")
}

/// What is built into a directory, by name.
fn build(into: &Path) -> Vec<(String, PathBuf)> {
    built().pack(into).expect("the packages are built");
    listed(into)
}

fn listed(directory: &Path) -> Vec<(String, PathBuf)> {
    let mut files: Vec<_> = fs::read_dir(directory)
        .expect("it is there")
        .map(|entry| entry.expect("it can be read").path())
        .map(|path| (path.file_name().expect("a file").to_string_lossy().into_owned(), path))
        .collect();
    files.sort();
    files
}

/// The Debian packages among what other tests may have built already.
fn packages() -> Vec<(String, PathBuf)> {
    let kept = built().packed(env!("CARGO_PKG_VERSION")).expect("the packages are built");
    let packages: Vec<_> = listed(&kept).into_iter().filter(|(name, _)| name.ends_with(".deb")).collect();
    assert_eq!(packages.len(), 3, "{packages:?}");
    packages
}

fn said(package: &Path, what: &str) -> String {
    let mut command = tool::command("dpkg-deb").expect("dpkg is there");
    tool::finish(command.arg(what).arg(package)).expect("it is a package")
}

#[test]
fn packages_are_built_to_the_same_bytes_twice_and_their_checksums_are_theirs() {
    let scratch = Scratch::new("packages").expect("a directory");
    let (first, second) = (build(&scratch.join("a")), build(&scratch.join("b")));
    assert_eq!(first.len(), 5, "three packages, a tarball and checksums: {first:?}");
    for ((name, one), (other, two)) in first.iter().zip(&second) {
        assert_eq!(name, other);
        let same = fs::read(one).expect("it is there") == fs::read(two).expect("it is there");
        assert!(same, "{name} differs from itself");
    }
    let mut command = tool::command("sha256sum").expect("it is there");
    let checked = tool::finish(command.args(["--check", "SHA256SUMS"]).current_dir(scratch.join("a")));
    assert_eq!(checked.expect("they are right").lines().count(), 4);
}

/// What is overridden has its reason beside it, in packaging/deb.
#[test]
fn packages_are_as_debian_wants_them() {
    for (name, path) in packages() {
        let mut command = tool::command("lintian").expect("it is there");
        let said = tool::finish(command.args(["--fail-on", "error,warning", "--allow-root"]).arg(&path));
        said.unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

#[test]
fn the_agents_package_is_as_small_as_is_promised() {
    let (_, path) =
        packages().into_iter().find(|(name, _)| name.starts_with("dunlin-agent_")).expect("one is the agent's");
    let bytes = fs::metadata(&path).expect("it is there").len();
    let about = said(&path, "-I");
    let installed = about.lines().find_map(|line| line.trim().strip_prefix("Installed-Size: ")?.parse::<u64>().ok());
    let installed_bytes = installed.expect("a number") * 1_024;
    println!("agent: package {bytes} bytes, installed {installed_bytes} bytes");
    assert!(bytes <= PACKAGE_BYTES_MAX && installed_bytes <= INSTALLED_BYTES_MAX, "{bytes}, {installed_bytes}");
}

#[test]
fn a_program_that_was_not_built_is_named_and_there_is_no_package() {
    let scratch = Scratch::new("packages").expect("a directory");
    let built = built();
    for missing in ["dunlin-collector", "dunlin"] {
        let (programs, out) = (scratch.join(missing), scratch.join(&format!("{missing}-out")));
        fs::create_dir(&programs).expect("it is writable");
        for name in ["dunlin-collector", "dunlin"].into_iter().filter(|name| *name != missing) {
            std::os::unix::fs::symlink(built.programs.join(name), programs.join(name)).expect("it is writable");
        }
        let half = Built { programs: programs.clone(), ..built.clone() };
        let said = half.pack(&out).expect_err("it is not whole").to_string();
        assert!(said.contains(&format!("build: {} is missing", programs.join(missing).display())), "{said}");
        assert!(!out.exists(), "nothing is left half done");
    }
}

#[test]
fn packages_hold_what_they_say_and_nothing_else() {
    let (program, text) = ("-rwxr-xr-x", "-rw-r--r--");
    for (name, path) in packages() {
        let package = name.split('_').next().expect("NAME_VERSION_ARCH");
        let list = said(&path, "-c");
        let files: Vec<_> = list.lines().filter(|line| !line.starts_with('d')).collect();
        let expected = match package {
            "dunlin-agent" => vec![
                (program, "usr/bin/dunlin-agent"),
                (program, "usr/lib/dunlin/agent-setup"),
                (text, "lib/systemd/system/dunlin-agent.service"),
                (text, "usr/share/dunlin-agent/agent.toml"),
                (text, "usr/share/dunlin-agent/processes.conf"),
                (text, "usr/share/dunlin-agent/docker.conf"),
                (text, "usr/share/man/man8/dunlin-agent.8.gz"),
            ],
            "dunlin-cli" => vec![
                (program, "usr/bin/dunlin"),
                (text, "usr/share/bash-completion/completions/dunlin"),
                (text, "usr/share/man/man1/dunlin-alerts.1.gz"),
            ],
            _ => vec![
                (program, "usr/bin/dunlin-collector"),
                (text, "etc/dunlin/collector.toml"),
                (text, "lib/systemd/system/dunlin-collector.service"),
                (text, "usr/lib/sysctl.d/60-dunlin-collector.conf"),
                (text, "usr/share/dunlin-collector/rules/standard.toml"),
                (text, "usr/share/man/man1/dunlin-collector-invite.1.gz"),
                (text, "usr/share/zsh/vendor-completions/_dunlin-collector"),
                (text, "usr/share/doc/dunlin-collector/rules.md.gz"),
            ],
        };
        let copyright = format!("usr/share/doc/{package}/copyright");
        for (mode, file) in expected.into_iter().chain([(text, &*copyright)]) {
            let is_it = |line: &&&str| line.starts_with(mode) && line.ends_with(&format!(" ./{file}"));
            assert!(files.iter().find(is_it).is_some_and(|line| line.contains("root/root")), "{file} in\n{list}");
        }
        let programs = files.iter().filter(|line| line.starts_with(program)).count();
        assert_eq!(programs, if package == "dunlin-agent" { 2 } else { 1 }, "{list}");
        let about = said(&path, "-I");
        assert!(about.contains(concat!("Version: ", env!("CARGO_PKG_VERSION"))), "{about}");
        assert_eq!(about.contains("Depends:"), package != "dunlin-agent", "the agent needs nothing: {about}");
    }
}

/// Pages are made of what programs know; the agent's is written, and is to know as much.
#[test]
fn the_agents_manual_has_each_of_its_commands() {
    let manual = fs::read_to_string(root().join("packaging/agent/dunlin-agent.8")).expect("it is there");
    let mut command = tool::command(&built().programs.join("dunlin-agent").to_string_lossy()).expect("it is built");
    let help = tool::finish(command.arg("--help")).expect("it helps");
    let commands: Vec<&str> =
        help.lines().filter_map(|line| line.strip_prefix("  dunlin-agent ")?.split(' ').next()).collect();
    assert!(commands.len() > 4, "{help}");
    for word in commands {
        assert!(manual.contains(&format!("dunlin-agent {word}")) || manual.contains(&format!(".B {word}\n")), "{word}");
    }
}

/// The type of an ELF file of 64 bits, and those of its segments.
fn elf(path: &Path) -> (u16, Vec<u32>) {
    let bytes = fs::read(path).expect("it is there");
    let at = |from: u64, len: u64| -> u64 {
        let from = usize::try_from(from).expect("a file fits into memory");
        let field = &bytes[from..from + usize::try_from(len).expect("a field is short")];
        field.iter().rev().fold(0, |sum, &byte| sum << 8 | u64::from(byte))
    };
    assert_eq!(bytes[..6], *b"\x7fELF\x02\x01", "{} is no ELF file of 64 bits, the lowest byte first", path.display());
    // Program headers: where the first is, how long each is, how many they are.
    let (first, each, count) = (at(32, 8), at(54, 2), at(56, 2));
    let kind = |n| u32::try_from(at(first + n * each, 4)).expect("it has four bytes");
    (u16::try_from(at(16, 2)).expect("it has two bytes"), (0..count).map(kind).collect())
}

#[test]
fn the_agent_needs_no_libraries_and_no_loader_and_may_lie_anywhere_in_memory() {
    const ET_DYN: u16 = 3;
    const PT_LOAD: u32 = 1;
    const PT_DYNAMIC: u32 = 2;
    const PT_INTERP: u32 = 3;
    let Built { agent, programs } = built();
    let (kind, segments) = elf(&agent);
    assert_eq!(kind, ET_DYN, "{} is not position independent", agent.display());
    assert!(!segments.contains(&PT_INTERP), "{} asks for a loader", agent.display());
    assert!([PT_LOAD, PT_DYNAMIC].iter().all(|kind| segments.contains(kind)), "{segments:?}");
    let (kind, segments) = elf(&programs.join("dunlin-agent"));
    assert!(kind == ET_DYN && segments.contains(&PT_INTERP), "the ordinary build does: {segments:?}");
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
    let scratch = Scratch::new("demo").expect("a directory");
    let mut command = tool::command("bash").expect("bash is there");
    command.arg(root().join("packaging/demo")).arg(built().programs).arg("0").env("TMPDIR", scratch.path());
    let began = Instant::now();
    let said = tool::finish(&mut command).expect("the demo runs");
    // It ends as soon as it has shown them.
    let took = began.elapsed();
    assert!(took < DEMO_WITHIN, "{took:?}");
    assert!(said.contains("1 node, 1 up") && said.contains("This host is watched"), "{said}");
    assert_eq!(fs::read_dir(scratch.path()).expect("it is there").count(), 0, "it removes what it made");
}
