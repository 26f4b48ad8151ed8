//! The consumers that the documents show, killed at random and beside a collector that restarts: nothing is missed, and
//! nothing but what was under way is told twice.

use std::collections::HashSet;

use dunlin_tests::tool;
use rustix::process::Signal;

use super::*;

/// How often each is killed.
const KILLS: usize = 6;
/// Of either kind in between.
const ROUNDS: usize = 6;
const KIND: &str = "node.maintenance*";

#[test]
fn the_consumer_in_python_is_killed_at_random_and_misses_nothing() {
    follow("python3", "follow.py");
}

#[test]
fn the_consumer_in_shell_is_killed_at_random_and_misses_nothing() {
    for needed in ["curl", "jq"] {
        tool::find(needed).expect("tests/scripts/prepare installs it");
    }
    follow("sh", "follow.sh");
}

fn follow(interpreter: &str, script: &str) {
    let mut site = Site::start("");
    let follower = Follower::new(&site, interpreter, script);
    let mut happened = 0;
    for kill in 0..KILLS {
        let mut running = follower.start(&site);
        for _ in 0..ROUNDS {
            happen(&site, &mut happened);
        }
        if kill == KILLS / 2 {
            // It waits for the collector, which is back.
            site.restart();
            happen(&site, &mut happened);
        }
        // Somewhere behind the first of them, and before it is idle or not.
        site.wait("it tells of some", || (follower.seen().len() * 2 > happened).then_some(()));
        running.kill9().expect("it runs");
    }
    let mut running = follower.start(&site);
    let all = events(&site);
    assert_eq!(all.len(), happened);
    let is_whole = || follower.seen().last().is_some_and(|last| Some(last) == all.last()).then_some(());
    until("it tells of the last", LIMIT, is_whole).unwrap_or_else(|error| panic!("{error}; {}", follower.log()));
    assert!(running.terminate(LIMIT).is_ok(), "{}", follower.log());

    let seen = follower.seen();
    let mut known = HashSet::new();
    let once: Vec<String> = seen.iter().filter(|cursor| known.insert((*cursor).clone())).cloned().collect();
    assert_eq!(once, all, "each, in its order");
    assert!(seen.len() - once.len() <= KILLS, "what was under way may be told twice: {}", seen.len() - once.len());

    // A collector that was put back to a copy begins another life; so does this one to a cursor of another.
    fs::write(follower.cursor(), "zz-3\n").expect("it is writable");
    let mut running = follower.start(&site);
    let again = || (follower.seen().len() >= seen.len() + all.len()).then_some(());
    until("it begins anew", LIMIT, again).unwrap_or_else(|error| panic!("{error}; {}", follower.log()));
    assert!(follower.log().contains("lost"), "{}", follower.log());
    running.signal(Signal::TERM).expect("it runs");
    running.wait_exit(LIMIT).expect("it ends");

    // A token that is refused is for a person, and not to be tried again for ever.
    fs::write(follower.token(), "dunlin-api.AAAAAAAAAAAAAAAAAAAAAAAAAAA\n").expect("it is writable");
    let mut refused = follower.start(&site);
    let status = refused.wait_exit(LIMIT).expect("it gives up");
    assert!(status.code() == Some(1) && follower.log().contains("out of date"), "{}", follower.log());
}

/// Two events of one node.
fn happen(site: &Site, happened: &mut usize) {
    let node = site.node.to_string();
    for arguments in [["drain", node.as_str(), "--for=1h"], ["drain", node.as_str(), "--end"]] {
        let said = site.dunlin(&arguments);
        assert_eq!(said.code, 0, "{}", said.err);
        *happened += 1;
    }
}

/// The cursors of what is to be told.
fn events(site: &Site) -> Vec<String> {
    let said = site.dunlin(&["-o", "json", "events", "--kind", KIND]);
    said.out.lines().filter_map(cursor).collect()
}

fn cursor(line: &str) -> Option<String> {
    let event: Value = serde_json::from_str(line).ok()?;
    event["cursor"].as_str().map(str::to_owned)
}

/// A consumer and its state.
struct Follower {
    program: PathBuf,
    script: PathBuf,
    dir: PathBuf,
}

impl Follower {
    fn new(site: &Site, interpreter: &str, script: &str) -> Self {
        let dir = site.scratch.join("follower");
        fs::create_dir(&dir).expect("it is writable");
        let program = tool::find(interpreter).expect("tests/scripts/prepare installs it");
        let script = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/consume")).join(script);
        let follower = Self { program, script, dir };
        site.wait("the token of the first start", || fs::copy(site.admin_token(), follower.token()).ok());
        follower
    }

    fn start(&self, site: &Site) -> Running {
        let program = Program::at(&self.program).inside(&site.namespace).log(self.dir.join("log"));
        let program = program.env("DUNLIN_URL", format!("http://{HTTP}")).env("DUNLIN_TOKEN_FILE", self.token());
        let program = program.env("TMPDIR", &self.dir);
        program.arg(&self.script).arg(self.cursor()).arg(KIND).start().expect("it starts")
    }

    fn cursor(&self) -> PathBuf {
        self.dir.join("cursor")
    }

    fn token(&self) -> PathBuf {
        self.dir.join("token")
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    /// The cursors of what it told.
    fn seen(&self) -> Vec<String> {
        self.log().lines().filter_map(cursor).collect()
    }
}
