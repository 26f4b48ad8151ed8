//! One identity on two machines, and two machines that look like one.

use super::Site;

#[test]
fn a_disk_that_is_copied_to_another_machine_makes_another_node() {
    let site = Site::start();
    let token = site.token(&[]);
    let first = site.host("first", (1, 1), Some(&token));
    let id = site.up("first", &first);
    first.copied_to(&site, "copy");
    let copy = site.host("copy", (2, 2), Some(&token));
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
    let mut copy = site.host("copy", (2, 2), None);
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
fn of_two_machines_with_one_identity_the_later_is_kept_out_until_it_is_adopted() {
    let site = Site::start();
    let token = site.token(&[]);
    let mut first = site.host("first", (1, 7), Some(&token));
    let id = site.up("first", &first);
    first.copied_to(&site, "clone");
    // The same machine-id: the disk does not know that it was copied.
    let mut clone = site.host("clone", (2, 7), None);
    clone.wait_log("another machine is this node already");
    assert_eq!(site.events("node.quarantined"), 1);
    assert!(site.nodes()[0]["quarantined"][0]["name"] == "clone", "{:#?}", site.nodes());
    assert_eq!(site.nodes().len(), 1);

    site.done(&["adopt", &id]);
    first.wait_log("another machine is this node already");
    site.wait("the clone speaks for the node", &[&first, &clone], |nodes| (nodes[0]["name"] == "clone").then_some(()));
    assert_eq!(site.nodes()[0]["id"], id.as_str());
}
