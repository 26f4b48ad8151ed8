//! A sample for programs: one object on one line.
//!
//! `at`, `facts`, `series` of `subject, metric, unit, kind, value, per_second`, `containers` of `name, id, engine, told,
//! image, digest, state, health, restart_policy, restarts, exit_code, oom_killed, stop_asked, started, finished,
//! memory_limit_bytes, cpu_limit_cores, published, networks, compose_project, compose_service, labels`, `groups` of
//! `name, container, unit, user`, `units` (those that failed) of `name, result, since`, `ports` of `network, protocol, address, scope, port, process, container, user`, `sources` of `name, working,
//! says, left_out`, `failures` of `part, message`. Fields are added, and never taken away.

use std::fmt::{Display, Write as _};

use dunlin_shared::inventory::{Container, Group, Item, Port, Source, Unit};
use dunlin_shared::time::WallMs;

use super::{Once, rfc3339};
use crate::chain::chain;
use crate::json::{list, quoted};
use crate::sample::Failure;

impl Once {
    #[must_use]
    pub fn json(&self) -> String {
        let facts = &self.facts;
        let mut text = format!(
            "{{\"at\":{},\"facts\":{{\"host_name\":{},\"os\":{},\"kernel\":{},\"architecture\":{},\"cpus\":{},\"memory_bytes\":{}}},\"series\":[",
            quoted(&rfc3339(self.wall)),
            quoted(&facts.host_name),
            quoted(&facts.os),
            quoted(&facts.kernel),
            quoted(&facts.architecture),
            facts.cpus,
            facts.memory_bytes,
        );
        for (number, row) in self.rows.iter().enumerate() {
            let rate = or_null(row.per_second);
            let comma = if number > 0 { "," } else { "" };
            // Writing to a string cannot fail.
            write!(
                text,
                "{comma}{{\"subject\":{},\"metric\":{},\"unit\":\"{}\",\"kind\":\"{}\",\"value\":{},\"per_second\":{rate}}}",
                quoted(&row.subject.to_string()),
                quoted(row.metric.name),
                row.metric.unit.as_str(),
                row.metric.kind.as_str(),
                row.value,
            )
            .ok();
        }
        for (name, one) in [
            ("containers", container as fn(&Item) -> Option<String>),
            ("groups", group),
            ("units", unit),
            ("ports", port),
            ("sources", source),
        ] {
            write!(text, "],\"{name}\":[").ok();
            list(&mut text, self.stock.items().filter_map(one));
        }
        text.push_str("],\"failures\":[");
        let failure = |Failure { part, error }: &Failure| {
            format!("{{\"part\":{},\"message\":{}}}", quoted(part), quoted(&chain(error)))
        };
        list(&mut text, self.failures.iter().map(failure));
        text.push_str("]}\n");
        text
    }
}

fn container(item: &Item) -> Option<String> {
    let Item::Container(one) = item else { return None };
    let Container { name, id, engine, is_told, image, digest, state, health, restart_policy, restarts, .. } = &**one;
    let mut text = format!(
        "{{\"name\":{},\"id\":{},\"engine\":\"{}\",\"told\":{is_told},\"image\":{},\"digest\":{},\"state\":\"{}\",\
         \"health\":\"{}\",\"restart_policy\":{},\"restarts\":{restarts},\"exit_code\":{},\"oom_killed\":{},\
         \"stop_asked\":{},\"started\":{},\"finished\":{},\"memory_limit_bytes\":{},\"cpu_limit_cores\":{},\"published\":[",
        quoted(name),
        quoted(id),
        engine.as_str(),
        quoted(image),
        quoted(digest),
        state.as_str(),
        health.as_str(),
        quoted(restart_policy),
        or_null(one.exit_code),
        one.is_oom_killed,
        one.is_stop_asked,
        time_or_null(one.started),
        time_or_null(one.finished),
        or_null(one.memory_limit_bytes),
        or_null(one.cpu_limit_millicores.map(|cores| f64::from(cores) / 1_000.0)),
    );
    let published = one.published.iter().map(|one| {
        let (protocol, address, port, inside) = (one.protocol.as_str(), one.address, one.port, one.inside);
        format!("{{\"protocol\":\"{protocol}\",\"address\":\"{address}\",\"port\":{port},\"inside\":{inside}}}")
    });
    list(&mut text, published);
    text.push_str("],\"networks\":[");
    list(&mut text, one.networks.iter().map(|network| quoted(network)));
    let (project, service) = (name_or_null(&one.compose_project), name_or_null(&one.compose_service));
    write!(text, "],\"compose_project\":{project},\"compose_service\":{service},\"labels\":{{").ok();
    list(&mut text, one.labels.iter().map(|(key, value)| format!("{}:{}", quoted(key), quoted(value))));
    text.push_str("}}");
    Some(text)
}

fn group(item: &Item) -> Option<String> {
    let Item::Group(Group { name, container, unit, user }) = item else { return None };
    Some(format!(
        "{{\"name\":{},\"container\":{},\"unit\":{},\"user\":{}}}",
        quoted(name),
        name_or_null(container),
        name_or_null(unit),
        name_or_null(user),
    ))
}

fn unit(item: &Item) -> Option<String> {
    let Item::Unit(Unit { name, result, since, .. }) = item else { return None };
    let since = time_or_null(*since);
    Some(format!("{{\"name\":{},\"result\":{},\"since\":{since}}}", quoted(name), quoted(result)))
}

fn port(item: &Item) -> Option<String> {
    let Item::Port(Port { place, scope, process, container, user }) = item else { return None };
    Some(format!(
        "{{\"network\":{},\"protocol\":\"{}\",\"address\":\"{}\",\"scope\":\"{}\",\"port\":{},\"process\":{},\"container\":{},\"user\":{}}}",
        name_or_null(&place.network),
        place.protocol.as_str(),
        place.address,
        scope.as_str(),
        place.port,
        name_or_null(process),
        name_or_null(container),
        name_or_null(user),
    ))
}

fn source(item: &Item) -> Option<String> {
    let Item::Source(Source { name, is_working, says, left_out }) = item else { return None };
    let (name, says) = (quoted(name), quoted(says));
    Some(format!("{{\"name\":{name},\"working\":{is_working},\"says\":{says},\"left_out\":{left_out}}}"))
}

fn name_or_null(name: &Option<Box<str>>) -> String {
    name.as_deref().map_or_else(|| String::from("null"), quoted)
}

fn time_or_null(time: Option<WallMs>) -> String {
    time.map_or_else(|| String::from("null"), |time| quoted(&rfc3339(time)))
}

fn or_null(number: Option<impl Display>) -> String {
    number.map_or_else(|| String::from("null"), |number| number.to_string())
}

#[cfg(test)]
mod tests {
    use dunlin_shared::inventory::{Engine, Protocol, Published, UnitState};
    use serde_json::Value;

    use super::*;

    fn value(text: Option<String>) -> Value {
        serde_json::from_str(&text.expect("it is told")).expect("it is JSON")
    }

    #[test]
    fn a_container_is_told_with_what_its_engine_knows() {
        let published =
            Published { protocol: Protocol::Tcp, address: "::".parse().expect("an address"), port: 80, inside: 8080 };
        let one = Container {
            name: "we\"b".into(),
            engine: Engine::Docker,
            is_told: true,
            exit_code: Some(137),
            published: vec![published],
            networks: vec!["front".into()],
            compose_project: Some("shop".into()),
            started: Some(WallMs(1_795_270_423_456)),
            memory_limit_bytes: Some(1 << 20),
            cpu_limit_millicores: Some(1_500),
            labels: [("te\"am".into(), "a".into())].into(),
            ..Container::default()
        };
        let told = value(container(&Item::Container(Box::new(one))));
        assert_eq!((told["name"].as_str(), told["engine"].as_str()), (Some("we\"b"), Some("docker")));
        assert_eq!((told["exit_code"].as_i64(), told["published"][0]["inside"].as_u64()), (Some(137), Some(8080)));
        assert_eq!((told["networks"][0].as_str(), told["compose_service"].is_null()), (Some("front"), true));
        assert_eq!((told["started"].as_str(), told["finished"].is_null()), (Some("2026-11-21T14:13:43.456Z"), true));
        let limits = (told["memory_limit_bytes"].as_u64(), told["cpu_limit_cores"].as_f64());
        assert_eq!((limits, told["labels"]["te\"am"].as_str()), ((Some(1_048_576), Some(1.5)), Some("a")));
    }

    #[test]
    fn a_failed_unit_says_since_when_where_that_is_known() {
        let failed = |since| {
            let (name, result) = ("web.service".into(), "exit-code".into());
            value(unit(&Item::Unit(Unit { name, state: UnitState::Failed, result, since })))["since"].clone()
        };
        assert_eq!(
            (failed(Some(WallMs(0))).as_str(), failed(None).is_null()),
            (Some("1970-01-01T00:00:00.000Z"), true)
        );
    }

    #[test]
    fn a_group_says_whose_it_is() {
        let one = Group { name: "mysqld".into(), container: None, unit: Some("mysql.service".into()), user: None };
        let told = value(group(&Item::Group(one)));
        assert_eq!((told["unit"].as_str(), told["user"].is_null()), (Some("mysql.service"), true));
    }
}
