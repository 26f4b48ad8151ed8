//! What becomes of a feed that is kept for a while only, for whoever follows it.

use super::*;

/// Long enough for what is done before the first goes, and short enough to wait for.
const KEEP: &str = "20s";

#[test]
fn whoever_comes_back_after_what_is_kept_is_told_where_to_go_on() {
    let site = Site::start_with(&["--http-listen", &HTTP.to_string(), "--events-keep", KEEP], |_| {});
    let id = site.nodes[0].to_string();
    let cursors = || -> Vec<String> {
        let said = site.dunlin(&["-o", "json", "events"]);
        let events = said.out.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("an event"));
        events.map(|event| event["cursor"].as_str().expect("it has one").to_owned()).collect()
    };
    for act in [&["drain", &id, "--for", "1h"][..], &["drain", &id, "--end"], &["drain", &id, "--for", "1h"]] {
        assert_eq!(site.dunlin(act).code, 0);
    }
    let all = cursors();
    let [first, .., newest] = &all[..] else { panic!("{all:?}") };
    assert!(all.len() >= 3, "{all:?}");
    assert_eq!(site.dunlin(&["events", "--after", newest]).code, 0);
    let gone = site.wait("it is gone", &["events", "--after", first], |said| said.code == 1);
    assert!(gone.err.contains("is not kept any more"), "{}", gone.err);
    // Whoever had read up to the newest missed nothing, and the earliest is one that goes on.
    let kept = cursors();
    assert!(kept.ends_with(std::slice::from_ref(newest)) && !kept.contains(first), "{kept:?}");
    let after = site.dunlin(&["events", "--after", newest]);
    assert!(after.code == 0 && after.out.is_empty(), "{}{}", after.out, after.err);
    assert_eq!(site.dunlin(&["drain", &id, "--end"]).code, 0);
    let after = site.dunlin(&["-o", "json", "events", "--after", newest]);
    assert!(after.out.lines().count() == 1 && after.out.contains("node.maintenance"), "{}{}", after.out, after.err);
}
