//! The pages say what is so: every command that one names is understood by its program, and the privacy page names
//! everything that the code can send.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use dunlin_agent::config::{Config, SCHEMA};
use dunlin_shared::inventory::{Container, Facts, Group, Place, Port, Protocol, Scope, Source, Unit, UnitState};
use dunlin_shared::metric::CATALOGUE;

const PROGRAMS: [&str; 3] = ["dunlin", "dunlin-agent", "dunlin-collector"];
/// `--help` wins over whatever is wrong with these.
const AGENT_COMMANDS: [&str; 4] = ["check", "once", "run", "seal"];
/// What stands before a command and starts it.
const BEFORE: [&str; 2] = ["sudo", "exec"];

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// README.md and what lies in docs, with their texts.
fn pages() -> Vec<(PathBuf, String)> {
    let docs = fs::read_dir(root().join("docs")).expect("there are documents").flatten().map(|entry| entry.path());
    let paths = docs.filter(|path| path.extension().is_some_and(|end| end == "md"));
    let paths = paths.chain([root().join("README.md"), root().join("README.zh-CN.md")]);
    paths.map(|path| (path.clone(), fs::read_to_string(path).expect("it is text"))).collect()
}

/// Lines of blocks for a shell, each whole, and what stands in single backticks.
fn commands(text: &str) -> Vec<String> {
    let (mut found, mut in_shell, mut in_code) = (Vec::new(), false, false);
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(kind) = line.trim_start().strip_prefix("```") {
            (in_shell, in_code) = (kind == "sh" && !in_code, !in_code);
        } else if in_shell {
            let mut whole = line.to_owned();
            while let Some(start) = whole.strip_suffix('\\') {
                whole = format!("{start} {}", lines.next().unwrap_or_default());
            }
            found.push(whole);
        } else if !in_code {
            found.extend(line.split('`').skip(1).step_by(2).map(str::to_owned));
        }
    }
    found
}

/// The words of each of our programs' calls in a line, up to where the shell's own signs begin.
fn calls(line: &str) -> Vec<Vec<String>> {
    let mut calls = Vec::new();
    for part in line.split(" #").next().unwrap_or_default().split(['|', ';', '&']) {
        let mut words: Vec<String> = words(part);
        let end = words.iter().position(|word| word.starts_with(['>', '<', '['])).unwrap_or(words.len());
        words.truncate(end);
        // What an engine runs in a container begins with its own word.
        let starts = |word: &String| PROGRAMS.contains(&word.as_str());
        let Some(at) = words.iter().position(starts) else { continue };
        let before = &words[..at];
        let is_run = |word: &String| BEFORE.contains(&word.as_str()) || word.contains('=');
        let is_exec = before.iter().any(|word| word == "exec");
        if words.len() > at + 1 && (is_exec || before.iter().all(is_run)) {
            let call = words.split_off(at);
            // `docker exec NAME COMMAND`: the name may be that of a program.
            let again = call[1..].iter().position(starts).filter(|_| is_exec).map_or(0, |more| more + 1);
            calls.push(call[again..].to_vec());
        }
    }
    calls
}

/// As a shell splits them, as far as quotes go.
fn words(part: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), String::new(), None);
    for sign in part.chars() {
        match (quote, sign) {
            (None, '\'' | '"') => quote = Some(sign),
            (None, '(') => quote = Some(')'),
            (Some(open), sign) if open == sign => quote = None,
            (None, ' ') => words.extend(Some(std::mem::take(&mut word)).filter(|word| !word.is_empty())),
            (_, sign) => word.push(sign),
        }
    }
    words.extend(Some(word).filter(|word| !word.is_empty()));
    words
}

/// Asks the program for help behind all of it: a word that it does not know is said before.
fn refusal(call: &[String]) -> Option<String> {
    let own = std::env::current_exe().expect("a test has a path");
    let binary = own.ancestors().nth(2).expect("cargo keeps tests in PROFILE/deps").join(&call[0]);
    let knows = call[0] != "dunlin-agent" || call[1].starts_with('-') || AGENT_COMMANDS.contains(&call[1].as_str());
    let output = Command::new(binary).args(&call[1..]).arg("--help").output().expect("it is built");
    (!output.status.success() || !knows).then(|| String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn every_command_of_a_page_is_understood_by_its_program() {
    let (mut asked, mut wrong) = (BTreeSet::new(), Vec::new());
    for (path, text) in pages() {
        for call in commands(&text).iter().flat_map(|line| calls(line)) {
            if asked.insert(call.clone())
                && let Some(said) = refusal(&call)
            {
                wrong.push(format!("{}: {}: {said}", path.display(), call.join(" ")));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(asked.len() > 60, "{}: the pages are not read", asked.len());
}

#[test]
fn commands_are_found_in_lines_as_people_write_them() {
    let found = |line: &str| calls(line).into_iter().map(|call| call.join(" ")).collect::<Vec<_>>();
    assert_eq!(found("sudo dunlin-agent check   # as root"), ["dunlin-agent check"]);
    assert_eq!(found("DUNLIN_URL=x dunlin nodes -o json > file"), ["dunlin nodes -o json"]);
    assert_eq!(found("docker exec dunlin-agent dunlin-agent check"), ["dunlin-agent check"]);
    assert_eq!(found("docker run -d --name dunlin-agent dunlin-agent"), [""; 0]);
    assert_eq!(found("dunlin-agent seal && dunlin nodes"), ["dunlin-agent seal", "dunlin nodes"]);
    assert_eq!(found("apt-get remove dunlin-agent"), [""; 0]);
    let call = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
    assert!(refusal(&call(&["dunlin-agent", "check", "--sealt"])).is_some());
    assert!(refusal(&call(&["dunlin-agent", "seel"])).is_some());
    assert!(refusal(&call(&["dunlin", "nodes", "--verbose"])).is_some());
    assert!(refusal(&call(&["dunlin-collector", "token", "make"])).is_some());
}

/// Where a page leads within the tree; what stands behind # is a place on that page.
fn links(text: &str) -> Vec<String> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
    let targets = targets.map(|(target, _)| target.split('#').next().unwrap_or_default().to_owned());
    targets.filter(|target| !target.is_empty() && !target.contains("://")).collect()
}

#[test]
fn every_link_of_a_page_leads_to_something() {
    let mut count = 0;
    for (path, text) in pages() {
        for link in links(&text) {
            count += 1;
            let target = path.parent().expect("a page lies somewhere").join(&link);
            assert!(target.exists(), "{}: {link} is not there", path.display());
        }
    }
    assert!(count > 40, "{count}: the pages are not read");
}

#[test]
fn an_image_of_a_machine_takes_its_token_from_where_its_recipes_put_it() {
    let file = |name: &str| fs::read_to_string(root().join("packaging/image/machine").join(name)).expect("it is there");
    let text = file("agent.toml");
    let config = Config::load(Some(("agent.toml", text.as_bytes())), &[], &[]).expect("it can be used");
    let place = config.join_token_file.expect("it names one").display().to_string();
    assert!(file("cloud-init.yaml").contains(&format!("- path: {place}\n")), "{place}");
    assert!(file("dunlin-join-token.service").contains(&format!("{place}\n")), "{place}");
    assert!(config.labels.contains_key("image"), "an image may carry its own labels");
}

/// The names of a shape's fields, those of what is in it included.
fn fields(shape: &dyn std::fmt::Debug) -> Vec<String> {
    let shown = format!("{shape:?}");
    let names = shown.split([' ', '{', '(']).filter_map(|word| word.strip_suffix(':'));
    names.filter(|name| name.chars().all(|sign| sign.is_ascii_lowercase() || sign == '_')).map(str::to_owned).collect()
}

#[test]
fn the_privacy_page_names_all_that_can_leave_a_host_and_the_key_that_switches_it_off() {
    let page = fs::read_to_string(root().join("docs/privacy.md")).expect("it is there");
    let place = Place { network: None, protocol: Protocol::Tcp, address: [0, 0, 0, 0].into(), port: 0 };
    let port = Port { place, scope: Scope::Any, process: None, container: None, user: None };
    let group = Group { name: "".into(), container: None, unit: None, user: None };
    let unit = Unit { name: "".into(), state: UnitState::Failed, result: "".into(), since: None };
    let source = Source { name: "".into(), is_working: true, says: "".into(), left_out: 0 };
    let shapes: [&dyn std::fmt::Debug; 6] = [&Facts::default(), &Container::default(), &port, &group, &unit, &source];
    let names: BTreeSet<String> = shapes.into_iter().flat_map(fields).collect();
    assert!(names.len() > 40, "{names:?}");
    let kinds = CATALOGUE.iter().map(|metric| metric.subject.as_str().to_owned());
    let keys = SCHEMA.iter().map(|key| key.path).filter(|path| path.starts_with("collect."));
    let keys = keys.chain(["name", "labels", "watch"]).map(str::to_owned);
    for name in names.into_iter().chain(kinds).chain(keys) {
        let is_named = page.split('`').skip(1).step_by(2).any(|span| span == name || span == format!("{name} = false"));
        assert!(is_named, "docs/privacy.md does not name `{name}`: say what it is and how it is switched off");
    }
}
