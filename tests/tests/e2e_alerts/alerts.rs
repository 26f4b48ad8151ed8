//! An alert's life on a real host: it fires once, explains itself, goes on through a restart, and ends with a reason.

use std::time::{SystemTime, UNIX_EPOCH};

use dunlin_shared::time::WallMs;
use dunlin_tests::scrape::Scrape;
use dunlin_tests::site::committed;

use super::*;

const RULES: &str = r#"
[[rule]]
name = "busy-host"
when = 'host_processes > 0'
severity = "critical"
summary = "{node} runs {value} processes"
summary_zh = "{node} 正在运行 {value} 个进程"
runbook = "https://wiki.example.net/busy"

[[rule]]
name = "busy-database"
when = 'host_threads > 0'
where = { role = "db" }
severity = "info"
summary = "{node}, a {label.role}, has threads"

# In the place of the one that ships, which goes on for a while.
[[rule]]
name = "node-down"
when = 'node_state == down'
severity = "critical"
summary = "{node} is down"
"#;

#[test]
fn an_alert_fires_once_explains_itself_and_goes_on_through_a_restart() {
    let mut site = Site::start(RULES);
    let _agent = site.agent();
    let alert = site.wait_alert("busy-host", "firing");
    let (id, node) = (alert["id"].as_str().expect("an id").to_owned(), site.node.to_string());
    assert_eq!(
        (&alert["node"], &alert["subject"], &alert["severity"]),
        (&node.into(), &"host".into(), &"critical".into())
    );
    assert!(alert["value"].as_f64().is_some_and(|value| value > 0.0) && alert["threshold"] == 0.0, "{alert}");
    assert!(alert["since"].as_str().is_some_and(|since| since.ends_with('Z')), "{alert}");

    let table = site.dunlin(&["alerts", "--rule", "busy-host"]);
    assert!(table.out.starts_with("SEVERITY ") && table.out.contains("\ncritical "), "{}", table.out);
    assert!(table.out.contains(&id[..8]) && !table.out.contains('\u{1b}'), "{}", table.out);
    let chinese = site.dunlin_with(&[("LANG", "zh_CN.UTF-8")], &["alerts", "--rule", "busy-host"]);
    assert!(chinese.out.contains("正在运行") && !table.out.contains("正在运行"), "{}", chinese.out);

    // Its course is there once there are points of it.
    let context = site.wait("a course of the metric", || {
        let context = site.dunlin(&["-o", "json", "alert", &id[..8]]).json();
        let points = context["series"][0]["points"].as_array().map_or(0, Vec::len);
        (points > 0).then_some(context)
    });
    assert_eq!(
        (&context["series"][0]["metric"], &context["rule"]["when"]),
        (&"host_processes".into(), &"host_processes > 0".into())
    );
    assert!(context["top"].as_array().is_some_and(|lists| !lists.is_empty()), "{context}");
    assert!(context["fired"]["value"].as_f64().is_some_and(|value| value > 0.0), "{context}");
    let screen = site.dunlin(&["alert", &id]).out;
    for word in [
        "CRITICAL  ",
        "VALUE ",
        "RULE     busy-host: host_processes > 0",
        "THE HOUR UNTIL NOW",
        "WHEN IT FIRED",
        "wiki.example.net",
    ] {
        assert!(screen.contains(word), "{word}: {screen}");
    }
    let host = site.dunlin(&["node", &node_of(&site)]);
    assert!(host.out.contains("CRITICAL for"), "{}", host.out);
    let host = site.dunlin(&["-o", "json", "node", &node_of(&site)]).json();
    let firing = host["firing"].as_array().expect("a list");
    assert!(firing.iter().any(|alert| alert["id"] == *id) && host["alerts"].as_u64() >= Some(1), "{host}");

    let fired = Told { kind: String::from("alert.firing"), id: id.clone(), reason: None };
    assert_eq!(site.wait_told("busy-host", 1), std::slice::from_ref(&fired));
    site.restart();
    // It is there before its host is, and after.
    assert_eq!(site.wait_alert("busy-host", "firing")["id"], *id);
    let before = frames(&site);
    site.wait("frames after the restart", || (frames(&site) > before + 2).then_some(()));
    assert_eq!(site.alerts("busy-host", "firing").len(), 1);
    assert_eq!(site.told("busy-host"), [fired], "it is not told again");
    let missing = site.dunlin(&["alert", "ffffffffff"]);
    assert!(missing.code == 1 && missing.err.contains("there is no alert"), "{}", missing.err);
}

#[test]
fn a_rule_that_asks_for_labels_follows_them() {
    let site = Site::start(RULES);
    let _agent = site.agent();
    site.wait_alert("busy-host", "firing");
    assert!(site.alerts("busy-database", "firing").is_empty(), "it bears no such label");
    assert_eq!(site.dunlin(&["label", &node_of(&site), "role=db"]).code, 0);
    let alert = site.wait_alert("busy-database", "firing");
    assert_eq!((&alert["labels"]["role"], &alert["severity"]), (&"db".into(), &"info".into()));
    let listed = site.dunlin(&["-o", "json", "alerts", "--label", "role=db", "--severity", "info"]).json();
    assert!(
        listed["items"].as_array().is_some_and(|items| items.iter().any(|item| item["id"] == alert["id"])),
        "{listed}"
    );
    assert_eq!(site.dunlin(&["label", &node_of(&site), "role-"]).code, 0);
    let over = site.wait_alert("busy-database", "resolved");
    assert_eq!((&over["id"], &over["reason"]), (&alert["id"], &"rule_changed".into()));
    let kinds: Vec<_> = site.wait_told("busy-database", 2).into_iter().map(|told| told.kind).collect();
    assert_eq!(kinds, ["alert.firing", "alert.resolved"]);
}

#[test]
fn a_node_that_is_killed_is_down_once_and_recovers_when_it_is_back() {
    let site = Site::start(RULES);
    let mut agent = site.agent();
    site.wait_alert("busy-host", "firing");
    // For as long a start gives every node more time.
    site.wait("half a minute of frames", || (frames(&site) >= 35).then_some(()));
    let killed = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is later than 1970").as_millis();
    agent.kill9().expect("it runs");
    let down = site.wait_alert("node-down", "firing");
    let killed = WallMs(i64::try_from(killed).expect("it fits for long"));
    let fired =
        down["since"].as_str().and_then(|at| at.parse::<dunlin_collector::shape::Moment>().ok()).expect("a time");
    let after_ms = fired.0.since(killed);
    assert!((15_000..=45_000).contains(&after_ms), "{after_ms} ms after it was killed");
    // What it measured last decides nothing now, and is not gone.
    assert_eq!(site.wait_alert("busy-host", "firing")["held"], "down");
    let screen = site.dunlin(&["alert", down["id"].as_str().expect("an id")]).out;
    assert!(screen.contains("node.down") && screen.contains("ALSO ON"), "{screen}");

    let _agent = site.agent();
    let back = site.wait_alert("node-down", "resolved");
    assert_eq!((&back["id"], &back["reason"]), (&down["id"], &"recovered".into()));
    let told: Vec<_> = site.wait_told("node-down", 2).into_iter().map(|told| (told.kind, told.reason)).collect();
    let recovered = Some(String::from("recovered"));
    assert_eq!(told, [(String::from("alert.firing"), None), (String::from("alert.resolved"), recovered)]);
    site.wait("nothing is held any more", || site.wait_alert("busy-host", "firing")["held"].is_null().then_some(()));
    assert_eq!(site.told("busy-host").len(), 1, "one that goes on is not told again");
}

fn node_of(site: &Site) -> String {
    site.node.to_string()
}

/// That were committed since the start.
fn frames(site: &Site) -> u64 {
    let page = site.collector.get(HTTP, "/metrics").expect("it answers");
    committed(&Scrape::parse(&page.body).expect("a page of metrics"))
}
