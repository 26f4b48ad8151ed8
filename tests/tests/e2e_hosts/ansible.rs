//! The Ansible role on a fresh host: package and tarball, settings and drop-ins, twice without a change.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use dunlin_tests::host::Host;
use dunlin_tests::scratch::Scratch;
use dunlin_tests::tool;
use serde_json::{Value, json};

use crate::tarball::tarball;
use crate::{LIMIT, Pair, VERSION, package};

/// Plays the role with these settings, and gives how many tasks changed something.
fn play(host: &Host, scratch: &Scratch, settings: &Value) -> u32 {
    let site = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../packaging/ansible/site.yml"));
    // Ansible speaks to what it takes for ssh: its last word is what the host's shell is to do.
    let way_in = host.way_in().expect("it runs");
    let ssh = format!("#!/bin/sh\nfor last; do :; done\nexec {way_in} /bin/sh -c \"$last\"\n");
    fs::write(scratch.join("ssh"), ssh).expect("it is writable");
    fs::set_permissions(scratch.join("ssh"), Permissions::from_mode(0o755)).expect("it is ours");
    let mut command = tool::command("ansible-playbook").expect("it is there");
    command.arg("-i").arg("web-1,").arg(site).arg("-e").arg(settings.to_string());
    command.args(["-e", "ansible_python_interpreter=/usr/bin/python3", "-e", "{\"ansible_become\": false}"]);
    command.env("ANSIBLE_SSH_EXECUTABLE", scratch.join("ssh")).env("ANSIBLE_SSH_ARGS", "");
    command.env("ANSIBLE_SSH_TRANSFER_METHOD", "piped").env("ANSIBLE_PIPELINING", "true");
    command.env("ANSIBLE_HOME", scratch.path()).env("ANSIBLE_LOCAL_TEMP", scratch.join("tmp")).env("LC_ALL", "C.UTF-8");
    let said = tool::finish(&mut command).unwrap_or_else(|error| panic!("{error}\n{}", host.journal()));
    let changed =
        said.lines().rev().find_map(|line| line.split("changed=").nth(1)?.split_whitespace().next()?.parse().ok());
    changed.unwrap_or_else(|| panic!("no recap: {said}"))
}

fn with(settings: &Value, more: Value) -> Value {
    let mut all = settings.clone();
    let (Some(all_of), Value::Object(more)) = (all.as_object_mut(), more) else { panic!("settings are objects") };
    all_of.extend(more);
    all
}

#[test]
fn the_role_brings_a_host_in_changes_what_differs_and_nothing_when_it_is_played_again() {
    let pair = Pair::with_collector();
    let scratch = Scratch::new("ansible").expect("a directory");
    let token = || pair.collector.run("dunlin-collector token create --role join --uses 1 --ttl 1h").expect("a token");
    let base = json!({ "dunlin_agent_collectors": ["10.97.1.1:9737"], "dunlin_agent_interval": "1s" });
    let first = with(
        &base,
        json!({
            "dunlin_agent_package": package("dunlin-agent", VERSION),
            "dunlin_agent_join_token": token().trim(),
            "dunlin_agent_labels": { "env": "test" },
            "dunlin_agent_drop_ins": ["processes"],
        }),
    );
    assert!(play(&pair.web, &scratch, &first) > 0);
    let node = pair.wait_up();
    // What a host says of itself comes behind its Hello.
    let labelled = pair.web.wait("its labels", LIMIT, || (pair.nodes()?[0]["labels"]["env"] == "test").then_some(()));
    labelled.unwrap_or_else(|error| panic!("{error}: {:?}", pair.nodes()));
    let powers = pair.web.property("dunlin-agent", "AmbientCapabilities").expect("a list");
    assert!(powers.contains("cap_sys_ptrace"), "{powers}");
    assert_eq!(play(&pair.web, &scratch, &first), 0, "nothing differs");

    let other = with(&base, json!({ "dunlin_agent_package": package("dunlin-agent", VERSION) }));
    assert!(play(&pair.web, &scratch, &other) > 0);
    assert_eq!(pair.wait_up(), node);
    assert_eq!(pair.web.property("dunlin-agent", "AmbientCapabilities").expect("a list"), "", "it is off again");

    pair.web.run("dpkg -P dunlin-agent").expect("it goes");
    pair.collector.run(&format!("dunlin forget {node}")).expect("it is hidden");
    let unpacked = with(&base, json!({ "dunlin_agent_tarball": tarball(), "dunlin_agent_join_token": token().trim() }));
    assert!(play(&pair.web, &scratch, &unpacked) > 0);
    assert_ne!(pair.wait_up(), node, "it was purged");
    assert_eq!(play(&pair.web, &scratch, &unpacked), 0, "nothing differs");
}
