//! Everything that may happen on a node, as it stands in the feed: its kind and its words, read from a real disk.

use dunlin_shared::inventory::{Happening, Key, What};
use serde_json::{Value, json};

use super::*;

/// One of each, in the order of the wire, about something that it happens to.
fn all() -> Vec<(Option<Key>, What)> {
    let web = || Some(Key::Container("web".into()));
    let unit = || Some(Key::Unit("a.service".into()));
    let address = std::net::Ipv4Addr::LOCALHOST.into();
    let inside = Place { network: Some("web".into()), protocol: Protocol::Udp, address, port: 53 };
    let outside = Place { network: None, protocol: Protocol::Tcp, ..inside.clone() };
    vec![
        (web(), What::ContainerCreated),
        (web(), What::ContainerStarted),
        (web(), What::ContainerStopped { exit_code: Some(0) }),
        (web(), What::ContainerCrashed { exit_code: None }),
        (web(), What::ContainerOomKilled),
        (web(), What::ContainerRestarted { restarts: 3 }),
        (web(), What::ContainerRemoved),
        (web(), What::ContainerImageChanged { before: "web:1".into(), after: "web:2".into() }),
        (web(), What::ContainerPaused),
        (web(), What::ContainerUnpaused),
        (web(), What::ContainerHealthy),
        (web(), What::ContainerUnhealthy),
        (web(), What::ContainerRenamed { before: "old".into() }),
        (Some(Key::Port(inside)), What::PortOpened { scope: Scope::Private, process: None }),
        (Some(Key::Port(outside)), What::PortClosed),
        (unit(), What::UnitFailed { result: "exit-code".into() }),
        (unit(), What::UnitRecovered),
        (None, What::HostOomKilled { count: 2 }),
    ]
}

/// How the feed tells it. A variant that is added does not compile until it has its line here.
fn told(what: &What) -> (&'static str, Value) {
    match what {
        What::ContainerCreated => ("container.created", json!({ "container": "web" })),
        What::ContainerStarted => ("container.started", json!({ "container": "web" })),
        What::ContainerStopped { .. } => ("container.stopped", json!({ "container": "web", "exit_code": 0 })),
        What::ContainerCrashed { .. } => ("container.crashed", json!({ "container": "web" })),
        What::ContainerOomKilled => ("container.oom_killed", json!({ "container": "web" })),
        What::ContainerRestarted { .. } => ("container.restarted", json!({ "container": "web", "restarts": 3 })),
        What::ContainerRemoved => ("container.removed", json!({ "container": "web" })),
        What::ContainerImageChanged { .. } => {
            ("container.image_changed", json!({ "container": "web", "from": "web:1", "to": "web:2" }))
        }
        What::ContainerPaused => ("container.paused", json!({ "container": "web" })),
        What::ContainerUnpaused => ("container.unpaused", json!({ "container": "web" })),
        What::ContainerHealthy => ("container.healthy", json!({ "container": "web" })),
        What::ContainerUnhealthy => ("container.unhealthy", json!({ "container": "web" })),
        What::ContainerRenamed { .. } => ("container.renamed", json!({ "container": "web", "from": "old" })),
        What::PortOpened { .. } => {
            let scope = "private";
            let place =
                json!({ "protocol": "udp", "address": "127.0.0.1", "port": 53, "network": "web", "scope": scope });
            ("port.opened", place)
        }
        What::PortClosed => ("port.closed", json!({ "protocol": "tcp", "address": "127.0.0.1", "port": 53 })),
        What::UnitFailed { .. } => ("unit.failed", json!({ "unit": "a.service", "result": "exit-code" })),
        What::UnitRecovered => ("unit.recovered", json!({ "unit": "a.service" })),
        What::HostOomKilled { .. } => ("host.oom_killed", json!({ "count": 2 })),
    }
}

#[test]
fn everything_that_happens_is_told_in_the_feed_with_its_kind_and_its_words() {
    let all = all();
    for (number, (_, what)) in all.iter().enumerate() {
        let bytes = postcard::to_allocvec(what).expect("it is encoded");
        assert_eq!(usize::from(bytes[0]), number, "one of each, in the order of the wire: {what:?}");
    }
    let mut beyond = [0; 64];
    beyond[0] = u8::try_from(all.len()).expect("they are few");
    assert!(postcard::from_bytes::<What>(&beyond).is_err(), "none is left out above");

    let dir = Dir::new();
    let mut line = Line::start(dir.path());
    let (one, two) = (ports([22]), ports([22, 80]));
    line.hello(1);
    line.tell(1, 1, &whole(&one));
    let happened = all.iter().map(|(key, what)| Happening { at: AT, key: key.clone(), what: what.clone() }).collect();
    line.tell(1, 2, &Inventory::Change(Change { happened, ..change(&one, &two) }));
    line.pipeline.write().expect("written");
    let reader = ControlReader::open(&dir.path().join("control.db")).expect("it opens");
    let mut events = reader.events_about(id(1), 99).expect("read");
    // The newest comes first, and the last of them is that there is such a node.
    events.reverse();
    let of_node = events.len() - all.len();
    assert!(events[..of_node].iter().all(|event| event.kind.starts_with("node.")), "{events:?}");
    for ((_, what), event) in all.iter().zip(&events[of_node..]) {
        let (kind, mut words) = told(what);
        words["name"] = json!("web-1");
        words["happened"] = json!("2027-01-15T08:00:00.000Z");
        let said: Value = serde_json::from_str(&event.body).expect("JSON");
        assert_eq!((event.kind.as_str(), said), (kind, words));
    }
}
