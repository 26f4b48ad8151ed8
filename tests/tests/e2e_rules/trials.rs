//! `dunlin rules test` and `check`: no collector is asked, and none runs.

use super::*;

const BUSY: &str = "[[rule]]\nname = \"busy\"\nwhen = 'host_load1 > 8'\nfor = \"20s\"\nsummary = \"s\"\n";
const TRIAL: &str = "rules own.toml\nload 10s\n  a host host_load1 1x3 9x6 1\neval at 40s\n  pending busy a host\neval at 1m\n  firing busy a host\neval at 2m none\n";

#[test]
fn what_ships_does_what_its_trials_say() {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/rules");
    let files = fs::read_dir(dir).expect("they are there").map(|entry| entry.expect("an entry").path());
    let files: Vec<String> = files.map(|path| path.display().to_string()).collect();
    let arguments: Vec<&str> = ["rules", "test"].into_iter().chain(files.iter().map(String::as_str)).collect();
    let said = dunlin(&[], &arguments).well();
    assert_eq!(said.out.lines().filter(|line| line.starts_with("ok     ")).count(), files.len(), "{}", said.out);
    assert!(files.len() > 30, "{} trials", files.len());
}

#[test]
fn rules_beside_a_trial_are_tried_and_what_differs_is_told_with_its_line() {
    let scratch = Scratch::in_memory("trials").expect("a scratch directory");
    let write = |name: &str, text: &str| {
        fs::write(scratch.join(name), text).expect("it is writable");
        scratch.join(name).display().to_string()
    };
    write("own.toml", BUSY);
    let right = write("right.test", TRIAL);
    assert!(dunlin(&[], &["rules", "test", &right]).well().out.ends_with("right.test: 3 looks\n"));
    let differs = write("differs.test", &TRIAL.replace("eval at 1m\n  firing busy a host", "eval at 1m none"));
    let said = dunlin(&[], &["rules", "test", &right, &differs]);
    assert_eq!(said.code, 1, "{}{}", said.out, said.err);
    assert!(said.out.contains("differs.test:6: at 1m: and yet: firing busy a host"), "{}", said.out);
    for (name, text, says) in [
        ("wrong.test", "rules own.toml\neval at soon", "wrong.test:2: \"soon\" is no time"),
        ("missing.test", "rules other.toml\neval at 1m none", "other.toml cannot be read"),
    ] {
        let said = dunlin(&[], &["rules", "test", &write(name, text)]);
        assert!(said.code == 2 && said.err.contains(says), "{}{}", said.out, said.err);
    }
    write("own.toml", &BUSY.replace("load1", "lood1"));
    let said = dunlin(&[], &["rules", "test", &right]);
    assert!(said.code == 2 && said.err.contains("own.toml:3:9: "), "{}{}", said.out, said.err);
}

#[test]
fn a_file_of_rules_is_checked_with_what_ships() {
    let scratch = Scratch::in_memory("checks").expect("a scratch directory");
    let write = |name: &str, text: &str| {
        fs::write(scratch.join(name), text).expect("it is writable");
        scratch.join(name).display().to_string()
    };
    let off = "[[rule]]\nname = \"node-down\"\nenabled = false\n";
    let right = write("right.toml", &format!("{BUSY}{off}"));
    assert_eq!(dunlin(&[], &["rules", "check", &right]).well().out, "ok     1 rules in 1 files\n");
    let twice = dunlin(&[], &["rules", "check", &right, &write("twice.toml", BUSY)]);
    assert!(twice.code == 2 && twice.err.contains("two rules are named busy"), "{}{}", twice.out, twice.err);
    let missing = dunlin(&[], &["rules", "check", "/nonexistent.toml"]);
    assert!(missing.code == 2 && missing.err.contains("cannot be read"), "{}{}", missing.out, missing.err);
}
