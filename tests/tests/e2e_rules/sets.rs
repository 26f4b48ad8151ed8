//! A set of rules from its first text to its end, beside an agent whose host raises it.

use super::*;

/// Every host has been up for longer.
const UP: &str = "[[rule]]\nname = \"up\"\nwhen = 'host_uptime_seconds > 1s'\nsummary = \"{node} is up for {value}\"\n";

#[test]
fn a_set_fires_says_what_it_changes_outlives_a_restart_and_closes_its_alerts_when_it_goes() {
    let rig = Rig::new(1);
    let identity = rig.fleet.write_agent(0, &rig.scratch.join("agent"));
    identity.expect("its identity");
    let collector = rig.start();
    let agent = rig.agent();
    let file = rig.write("own.toml", UP);

    let unasked = rig.dunlin(&["rules", "apply", &file]);
    assert!(unasked.code == 2 && unasked.err.contains("--yes"), "{}{}", unasked.out, unasked.err);
    let would = rig.dunlin(&["rules", "apply", &file, "--dry-run"]).well();
    assert!(would.out.starts_with("+ up\nown: would be 1 added, 0 changed, 0 removed, "), "{}", would.out);
    assert_eq!(rig.dunlin(&["rules", "show", "up"]).code, 1, "nothing was done");
    let did = rig.dunlin(&["rules", "apply", &file, "--yes"]).well();
    assert!(did.out.starts_with("+ up\nown: 1 added, 0 changed, 0 removed, "), "{}", did.out);
    let fired = rig.wait_event("it fires", &collector, |event| event.kind == "alert.firing");
    assert_eq!(fired.more["alert"]["rule"], "up");

    let listed = rig.dunlin(&["rules", "list"]).well();
    let line = listed.out.lines().find(|line| line.starts_with("up ")).expect("it is in force");
    assert_eq!(line.split_whitespace().nth(2), Some("1"), "one alert is open: {line}");
    assert!(line.contains("  set own:2  "), "{line}");
    rig.write("own.toml", &format!("{UP}severity = \"critical\"\nfor = \"5m\"\n"));
    let changed = rig.dunlin(&["rules", "apply", &file, "--yes"]).well();
    let expected = "~ up  (1 open alerts)\n    - severity = \"warning\"\n    + severity = \"critical\"\n    \
                    - for = \"0s\"\n    + for = \"5m\"\nown: 0 added, 1 changed, 0 removed, ";
    assert!(changed.out.starts_with(expected), "{}", changed.out);

    let broken = rig.write("own.toml", &UP.replace("host_uptime", "host_uptme"));
    let refused = rig.dunlin(&["rules", "apply", &broken, "--yes"]);
    assert!(refused.code == 1 && refused.err.contains("own:3:9: "), "{}{}", refused.out, refused.err);
    end(collector);

    let collector = rig.start();
    let kept = rig.dunlin(&["-o", "json", "rules", "show", "up"]).well().json();
    assert_eq!((&kept["severity"], &kept["for"]), (&"critical".into(), &"5m".into()));
    assert_eq!(kept["open"], 1, "its alert is open still");
    // It fired once, before the restart, and not again behind it.
    let fires = |event: &Event| event.kind == "alert.firing" && event.more["alert"]["rule"] == "up";
    let gone = rig.dunlin(&["rules", "delete", "own"]).well();
    assert!(gone.out.starts_with("- up  (closes 1 open alerts)\nown: 0 added, 0 changed, 1 removed, "), "{}", gone.out);
    let is_over = |event: &Event| event.kind == "alert.resolved" && event.more["alert"]["rule"] == "up";
    let over = rig.wait_event("it is closed", &collector, is_over);
    assert_eq!(over.more["alert"]["reason"], "rule_removed");
    let events = rig.events();
    assert_eq!(events.iter().filter(|event| fires(event)).count(), 1);
    let told: Vec<_> = events.iter().filter(|event| event.kind == "rules.changed").collect();
    assert_eq!(told.len(), 3, "{events:?}");
    assert!(told.iter().all(|event| event.more["set"] == "own" && event.more["by"] == "root"), "{told:?}");
    assert_eq!(rig.dunlin(&["rules", "delete", "own"]).code, 1);
    end(agent);
    end(collector);
}
