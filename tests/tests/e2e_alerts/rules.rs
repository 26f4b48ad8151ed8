//! Rules in files: what they say counts at the start and from a hangup on, whole or not at all.

use super::*;

const BUSY: &str = "[[rule]]\nname = \"busy-host\"\nwhen = 'host_processes > 0'\nsummary = \"{node} is busy\"\n";
const THREADS: &str = "[[rule]]\nname = \"threads\"\nwhen = 'host_threads > 0'\nsummary = \"{node} has threads\"\n";
/// The fourth line names a metric that there is none of.
const BROKEN: &str = "[[rule]]\nname = \"busy-host\"\n# what for?\nwhen = 'host_proceses > 0'\nsummary = \"x\"\n";

#[test]
fn rules_that_are_read_again_end_what_they_no_longer_open_and_a_broken_file_changes_nothing() {
    let mut site = Site::start(&format!("{BUSY}{THREADS}"));
    let _agent = site.agent();
    let (busy, threads) = (site.wait_alert("busy-host", "firing"), site.wait_alert("threads", "firing"));

    fs::write(site.rules(), BROKEN).expect("it is writable");
    let line = site.reread("the rules stay as they were");
    let place = format!("{}:4:", site.rules().display());
    assert!(line.contains("WARN") && line.contains(&place) && line.contains("host_processes"), "{line}");
    assert_eq!(site.alerts("busy-host", "firing").len() + site.alerts("threads", "firing").len(), 2);

    // One is about other nodes from now on, the other is not there any more.
    fs::write(site.rules(), BUSY.replace("summary", "where = { role = \"none\" }\nsummary")).expect("it is writable");
    site.reread("the rules were read again");
    for (rule, alert, reason) in [("busy-host", busy, "rule_changed"), ("threads", threads, "rule_removed")] {
        let over = site.wait_alert(rule, "resolved");
        assert_eq!((&over["id"], &over["reason"]), (&alert["id"], &reason.into()), "{rule}");
        let last = site.wait_told(rule, 2).pop().expect("it is told");
        assert_eq!((last.kind.as_str(), last.reason.as_deref()), ("alert.resolved", Some(reason)));
    }
    let context = site.dunlin(&["-o", "json", "alert", site.told("threads")[0].id.as_str()]).json();
    assert!(context["rule"].is_null() && context["alert"]["state"] == "resolved", "{context}");

    // What is as it was before opens another alert.
    fs::write(site.rules(), BUSY).expect("it is writable");
    site.restart();
    site.wait_alert("busy-host", "firing");
    assert_eq!(site.wait_told("busy-host", 3).len(), 3);
}

#[test]
fn a_collector_does_not_start_with_rules_that_are_wrong() {
    let scratch = Scratch::in_memory("rules").expect("a place for its state");
    fs::create_dir(scratch.join("rules.d")).expect("it is writable");
    fs::write(scratch.join("rules.d/a.toml"), BUSY).expect("it is writable");
    fs::write(scratch.join("rules.d/b.toml"), BROKEN).expect("it is writable");
    let mut refused = collector(&scratch).start().expect("it is built");
    let status = refused.wait_exit(LIMIT).expect("it refuses to run");
    let said = refused.log_text();
    assert_eq!(status.code(), Some(78), "{said}");
    let place = format!("{}:4:", scratch.join("rules.d/b.toml").display());
    assert!(said.contains(&place) && said.contains("host_processes") && !said.contains("panicked"), "{said}");
    // The same name stands twice, which is said as well once the file can be read.
    fs::write(scratch.join("rules.d/b.toml"), BUSY).expect("it is writable");
    let mut refused = collector(&scratch).start().expect("it is built");
    assert_eq!(refused.wait_exit(LIMIT).expect("it refuses to run").code(), Some(78));
    assert!(refused.log_text().contains("two rules are named busy-host"), "{}", refused.log_text());
}
