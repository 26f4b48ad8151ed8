//! What happened on a node, in the words of the feed. Pure.

use dunlin_shared::inventory::{Happening, Key, Place, What};
use dunlin_shared::time::WallMs;
use serde_json::{Map, Value, json};

use crate::shape::Moment;

/// `happened` is when, by our clock as far as the node's is known to be off.
pub(super) fn words(happening: &Happening, skew_ms: i64, is_late: bool) -> Value {
    let mut words = Map::new();
    let mut say = |key: &str, value: Value| {
        if !value.is_null() {
            words.insert(key.to_owned(), value);
        }
    };
    match &happening.key {
        None | Some(Key::Source(_)) => {}
        Some(Key::Container(name)) => say("container", json!(name)),
        Some(Key::Group(name)) => say("process", json!(name)),
        Some(Key::Unit(name)) => say("unit", json!(name)),
        Some(Key::Port(Place { network, protocol, address, port })) => {
            say("protocol", json!(protocol.as_str()));
            say("address", json!(address));
            say("port", json!(port));
            say("network", json!(network));
        }
    }
    match &happening.what {
        What::ContainerStopped { exit_code } | What::ContainerCrashed { exit_code } => {
            say("exit_code", json!(exit_code));
        }
        What::ContainerRestarted { restarts } => say("restarts", json!(restarts)),
        What::ContainerImageChanged { before, after } => {
            say("from", json!(before));
            say("to", json!(after));
        }
        What::ContainerRenamed { before } => say("from", json!(before)),
        What::PortOpened { scope, process } => {
            say("scope", json!(scope.as_str()));
            say("process", json!(process));
        }
        What::UnitFailed { result } => say("result", json!(result)),
        What::HostOomKilled { count } => say("count", json!(count)),
        What::ContainerCreated
        | What::ContainerStarted
        | What::ContainerOomKilled
        | What::ContainerRemoved
        | What::ContainerPaused
        | What::ContainerUnpaused
        | What::ContainerHealthy
        | What::ContainerUnhealthy
        | What::PortClosed
        | What::UnitRecovered => {}
    }
    let happened = WallMs(happening.at.0.saturating_sub(skew_ms));
    say("happened", json!(Moment(happened).to_string()));
    if is_late {
        say("late", json!(true));
    }
    Value::Object(words)
}

#[cfg(test)]
mod tests {
    use dunlin_shared::inventory::{Protocol, Scope};

    use super::*;

    #[test]
    fn a_port_is_told_with_its_place_and_a_crash_with_its_code() {
        let place =
            Place { network: None, protocol: Protocol::Tcp, address: "::1".parse().expect("an address"), port: 6379 };
        let what = What::PortOpened { scope: Scope::Loopback, process: Some("redis-server".into()) };
        let opened = Happening { at: WallMs(2_000), key: Some(Key::Port(place)), what };
        let said = json!({ "protocol": "tcp", "address": "::1", "port": 6379, "scope": "loopback",
            "process": "redis-server", "happened": "1970-01-01T00:00:01.500Z" });
        assert_eq!(words(&opened, 500, false), said);
        let what = What::ContainerCrashed { exit_code: Some(139) };
        let crashed = Happening { at: WallMs(i64::MIN), key: Some(Key::Container("web".into())), what };
        let said =
            json!({ "container": "web", "exit_code": 139, "happened": "1970-01-01T00:00:00.000Z", "late": true });
        assert_eq!(words(&crashed, 0, true), said);
    }
}
