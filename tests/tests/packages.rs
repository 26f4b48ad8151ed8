//! The Debian packages as they are built: the same bytes twice, nothing in them that should not be, and
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

/// From the command to live numbers, once the programs are built.
const DEMO_WITHIN: Duration = Duration::from_secs(60);

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

fn built() -> Built {
    Built::find().expect("it is built")
}

/// The packages by name, built into a directory.
fn build(into: &Path) -> Vec<(String, PathBuf)> {
    built().pack(into).expect("the packages are built");
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
    let scratch = Scratch::new("packages").expect("a directory");
    for (name, path) in build(scratch.path()) {
        let package = name.split('_').next().expect("NAME_VERSION_ARCH");
        let list = said(&path, "-c");
        let files: Vec<_> = list.lines().filter(|line| !line.starts_with('d')).collect();
        let short = package.trim_start_matches("dunlin-");
        // People speak to the collector by `dunlin`.
        let program = if package == "dunlin-collector" { "dunlin" } else { package };
        for (mode, file) in [
            ("-rwxr-xr-x", format!("./usr/bin/{package}")),
            ("-rwxr-xr-x", format!("./usr/bin/{program}")),
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
