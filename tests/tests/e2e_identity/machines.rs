//! One identity on two machines, and two machines that look like one.

use dunlin_tests::site::QUIC_PORT;

use super::Site;

#[test]
fn a_disk_that_is_copied_to_another_machine_makes_another_node() {
    let site = Site::start();
    let token = site.token(&[]);
    let first = site.host("first", (1, 1), Some(&token));
    let id = site.up("first", &first);
    first.copied_to(&site, "copy");
    let elsewhere = site.wired();
    let copy = site.host_beyond(&elsewhere, "copy", (2, 2), Some(&token));
    assert_ne!(site.up("copy", &copy), id);
    assert_eq!(site.up("first", &first), id, "the first is what it was");
}

#[test]
fn without_a_token_a_copied_disk_says_what_it_needs_and_disturbs_nobody() {
    let site = Site::start();
    let token = site.token(&[]);
    let first = site.host("first", (1, 1), Some(&token));
    let id = site.up("first", &first);
    first.copied_to(&site, "copy");
    let elsewhere = site.wired();
    let mut copy = site.host_beyond(&elsewhere, "copy", (2, 2), None);
    copy.wait_log("token");
    assert_eq!(site.up("first", &first), id);
    assert_eq!(site.nodes().len(), 1);
}

#[test]
fn two_machines_with_one_machine_id_enrol_as_two_nodes() {
    let site = Site::start();
    let token = site.token(&[]);
    let (a, b) = (site.host("a", (1, 7), Some(&token)), site.host("b", (2, 7), Some(&token)));
    assert_ne!(site.up("a", &a), site.up("b", &b));
}

#[test]
fn two_machines_with_one_machine_id_and_one_name_are_told_apart_by_their_ids() {
    let site = Site::start();
    let token = site.token(&[]);
    let collector = format!("127.0.0.1:{QUIC_PORT}");
    let start = |place, boot| site.host_of((place, "twin"), (boot, 7), Some(&token), &collector);
    let (a, b) = (start("a", 1), start("b", 2));
    let ids = site.wait("both are up", &[&a, &b], |nodes| {
        let up: Vec<_> = nodes.iter().filter(|node| node["name"] == "twin" && node["state"] == "up").collect();
        (up.len() == 2).then(|| up.iter().filter_map(|node| Some(node["id"].as_str()?.to_owned())).collect::<Vec<_>>())
    });
    assert_ne!(ids[0], ids[1]);
    let table = site.done(&["nodes"]);
    for id in &ids {
        let line = table.lines().find(|line| line.ends_with(id.as_str()));
        assert!(line.is_some_and(|line| line.starts_with("twin ")), "{table}");
        assert!(site.done(&["node", id]).contains(id.as_str()));
    }
    // Whatever is meant for one of them is done to neither.
    for order in
        [&["node", "twin"][..], &["revoke", "twin"], &["drain", "twin", "--for", "1h"], &["label", "twin", "x=y"]]
    {
        let said = site.dunlin(order).expect_err("which of them?").to_string();
        assert!(said.contains("exit status: 1") && said.contains("2 nodes have the name"), "{said}");
        assert!(ids.iter().all(|id| said.contains(id.as_str())), "{said}");
    }
    assert!(site.nodes().iter().all(|node| node["state"] == "up" && node["labels"]["x"].is_null()));
    site.done(&["revoke", &ids[0]]);
    site.wait("one of them is out", &[&a, &b], |nodes| {
        let state = |id: &String| nodes.iter().find(|node| node["id"] == id.as_str()).map(|node| node["state"].clone());
        (state(&ids[0])? == "revoked" && state(&ids[1])? == "up").then_some(())
    });
}

#[test]
fn of_two_machines_with_one_identity_the_later_is_kept_out_until_it_is_adopted() {
    let site = Site::start();
    let token = site.token(&[]);
    let mut first = site.host("first", (1, 7), Some(&token));
    let id = site.up("first", &first);
    first.copied_to(&site, "clone");
    // The same machine-id: the disk does not know that it was copied.
    let elsewhere = site.wired();
    let mut clone = site.host_beyond(&elsewhere, "clone", (2, 7), None);
    clone.wait_log("another machine is this node already");
    assert_eq!(site.events("node.quarantined"), 1);
    assert!(site.nodes()[0]["quarantined"][0]["name"] == "clone", "{:#?}", site.nodes());
    assert_eq!(site.nodes().len(), 1);

    site.done(&["adopt", &id]);
    first.wait_log("another machine is this node already");
    site.wait("the clone speaks for the node", &[&first, &clone], |nodes| (nodes[0]["name"] == "clone").then_some(()));
    assert_eq!(site.nodes()[0]["id"], id.as_str());
}
