//! An image of a host, and its clones: of a sealed one each is a node of its own, and of one that is not sealed the clone
//! is kept out and told why.

use std::fs;
use std::path::Path;

use dunlin_tests::process::Program;

use super::{Host, LIMIT, Site};

const SEALED: Option<i32> = Some(0);
const CRITICAL: Option<i32> = Some(2);

impl Site {
    /// One of the agent's commands on a state directory, as the builder of an image runs it.
    fn build(&self, state: &Path, words: &[&str], token: Option<&Path>) -> (Option<i32>, String) {
        let program = Program::ours("dunlin-agent", "dunlin-agent").expect("it is built");
        let mut program = program.args(words.iter().copied()).arg("--state-dir").arg(state);
        if let Some(token) = token {
            program = program.arg("--join-token-file").arg(token);
        }
        let mut running = program.start().expect("it starts");
        let status = running.wait_exit(LIMIT).expect("it ends");
        (status.code(), running.log_text())
    }

    /// A host that became a node, and what it is called there.
    fn golden(&self) -> (Host, String) {
        let token = self.token(&["--uses", "1"]);
        let host = self.host("golden", (1, 1), Some(&token));
        let id = self.up("golden", &host);
        (host, id)
    }
}

#[test]
fn three_clones_of_one_sealed_image_are_three_nodes_and_wait_for_a_person_when_their_token_was_baked() {
    let site = Site::start();
    let (mut golden, id) = site.golden();
    let seal = |words: &[&str]| site.build(&golden.state, words, None);
    let (code, said) = seal(&["seal"]);
    assert!(code == Some(1) && said.contains("stop the agent first"), "{said}");
    let (code, said) = seal(&["check", "--sealed"]);
    assert!(code == CRITICAL && said.contains("it runs here; stop it"), "{said}");
    golden.stop();
    let (code, said) = site.build(&golden.state, &["check", "--sealed"], None);
    assert!(code == CRITICAL && said.contains("node.key is left; run: dunlin-agent seal"), "{said}");
    for _ in 0..2 {
        let (code, said) = site.build(&golden.state, &["seal"], None);
        assert_eq!(code, Some(0), "{said}");
        let (code, said) = site.build(&golden.state, &["check", "--sealed"], None);
        assert_eq!(code, SEALED, "{said}");
    }
    let token = site.token(&["--approve", "--uses", "3", "--label", "image=web"]);
    let (code, said) = site.build(&golden.state, &["check", "--sealed"], Some(&token));
    assert!(code == CRITICAL && said.contains("whoever has this image can join by it"), "{said}");
    let (code, said) = site.build(&golden.state, &["check", "--sealed", "--baked-token"], Some(&token));
    assert_eq!(code, SEALED, "{said}");

    let names = ["clone-2", "clone-3", "clone-4"];
    let clones: Vec<Host> = (2..5)
        .zip(names)
        .map(|(number, name)| {
            golden.copied_to(&site, name);
            site.host(name, (number, number), Some(&token))
        })
        .collect();
    let hosts: Vec<&Host> = clones.iter().collect();
    let count = |nodes: &[serde_json::Value], state: &str| nodes.iter().filter(|node| node["state"] == state).count();
    site.wait("three that wait", &hosts, |nodes| (count(nodes, "pending") == 3).then_some(()));
    site.done(&["approve", "--pending", "--label", "image=web"]);
    site.wait("three that are up", &hosts, |nodes| (count(nodes, "up") == 3).then_some(()));
    let nodes = site.nodes();
    assert_eq!(nodes.len(), 4, "{nodes:#?}");
    let of_clones = nodes.iter().filter(|node| node["id"] != id.as_str());
    assert!(of_clones.clone().all(|node| names.iter().any(|name| node["name"] == *name)), "{nodes:#?}");
    assert!(of_clones.clone().all(|node| node["labels"]["image"] == "web"), "{nodes:#?}");
    assert_eq!(site.events("node.enrolled"), 4);
    assert_eq!(site.events("node.quarantined"), 0);
}

#[test]
fn a_clone_of_an_image_that_was_not_sealed_is_kept_out_and_its_check_says_why() {
    let site = Site::start();
    let (golden, id) = site.golden();
    golden.copied_to(&site, "clone");
    let elsewhere = site.wired();
    // The image has a machine-id as well, so that the clone does not know that it is one.
    let mut clone = site.host_beyond(&elsewhere, "clone", (2, 1), None);
    clone.wait_log("another machine is this node already");
    assert_eq!(site.events("node.quarantined"), 1);
    let node = &site.nodes()[0];
    assert_eq!((&node["id"], &node["name"]), (&id.as_str().into(), &"golden".into()), "the first is what it was");
    assert_eq!(node["quarantined"][0]["name"], "clone", "{node:#}");
    let told = || fs::read_to_string(clone.state.join("sight")).is_ok_and(|text| text.contains("another machine"));
    dunlin_tests::deadline::until("the service tells it", LIMIT, || told().then_some(())).expect("it does");
    let (code, said) = site.build(&clone.state, &["check", "--alive"], None);
    assert!(code == Some(0) && said.contains("another machine is this node already"), "{said}");
    assert!(said.contains("`dunlin-agent seal` and a join token make it a node of its own"), "{said}");

    // Which is what it takes.
    clone.stop();
    let (code, said) = site.build(&clone.state, &["seal"], None);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(site.build(&clone.state, &["check", "--sealed"], None).0, SEALED);
    let token = site.token(&["--uses", "1"]);
    let clone = site.host_beyond(&elsewhere, "clone", (2, 1), Some(&token));
    assert_ne!(site.up("clone", &clone), id);
}
