//! What becomes of a fleet whose collector lost `control.db`: whoever was revoked stays out, and the
//! others wait until somebody lets them in.

use std::fs;

use super::{LIMIT, Site};

#[test]
fn a_revoked_node_stays_out_after_control_db_is_lost_and_the_others_are_let_in_together() {
    let mut site = Site::start();
    let token = site.token(&[]);
    let (mut bad, good, other) = (
        site.host("bad", (1, 1), Some(&token)),
        site.host("good", (2, 2), Some(&token)),
        site.host("other", (3, 3), Some(&token)),
    );
    let id = site.up("bad", &bad);
    let kept = [("good", site.up("good", &good)), ("other", site.up("other", &other))];
    site.done(&["revoke", "bad", "--why", "stolen"]);
    bad.wait_log("this node was revoked");
    let state = site.scratch.join("collector");
    let revoked = fs::read_to_string(state.join("revoked")).expect("it is there");
    assert!(revoked.lines().count() == 1 && revoked.contains(&id) && revoked.contains(" revoked "), "{revoked}");

    site.collector.terminate(LIMIT).expect("it stops");
    for file in ["control.db", "control.db-wal", "control.db-shm"] {
        if state.join(file).exists() {
            fs::rename(state.join(file), state.join(format!("{file}.old"))).expect("it can be set aside");
        }
    }
    site.collector = Site::launch(&site.namespace, &site.scratch);
    site.wait("two are held and one is revoked", &[&bad, &good, &other], |nodes| {
        let is = |id: &str, state: &str| nodes.iter().any(|node| node["id"] == id && node["state"] == state);
        (is(&id, "revoked") && kept.iter().all(|(_, id)| is(id, "held"))).then_some(())
    });
    let held = site.done(&["nodes", "--state", "held"]);
    assert!(kept.iter().all(|(_, id)| held.contains(id)) && !held.contains(&id), "{held}");

    assert!(site.dunlin(&["approve"]).is_err(), "whom?");
    assert_eq!(site.done(&["approve", "--held"]).trim(), "2 nodes may send now");
    for ((name, id), host) in kept.iter().zip([&good, &other]) {
        assert_eq!(&site.up(name, host), id, "it is the node that it was");
    }
    assert!(site.nodes().iter().any(|node| node["id"] == id.as_str() && node["state"] == "revoked"));
    assert!(site.dunlin(&["approve", &id]).is_err(), "nobody lets it in again");
    let log = site.done(&["log"]);
    assert!(log.contains("2 nodes") && log.contains("refused"), "{log}");
}
