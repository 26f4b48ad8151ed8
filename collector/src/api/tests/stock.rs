//! What stands on nodes, through the router: shapes, filters, pages, labels, and numbers from the latest readings.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use dunlin_shared::codec::Grouper;
use dunlin_shared::inventory::{Container, ContainerState, Group, Item, Place, Port, Protocol, Scope, Stock};
use dunlin_shared::metric::by_name;
use dunlin_shared::sample::{Sample, Subject};
use dunlin_shared::time::MonoMs;
use serde_json::{Value, json};

use super::*;
use crate::engine::StockMark;
use crate::record::Pos;
use crate::stock::{KeptStock, StockBody};
use crate::store::StockUpdate;

const SINCE: &str = "1970-01-01T00:00:09.000Z";

impl Rig {
    fn stand(&mut self, number: u8, stock: Stock) {
        let kept = KeptStock::told(None, stock, WallMs(9_000));
        let body = Some(kept.body());
        let update = StockUpdate { node: NodeKey(number.into()), mark: StockMark::default(), noise: None, body };
        let applied_pos = self.control.applied_pos().expect("read").next();
        let batch = ControlBatch { applied_pos, stocks: vec![update], ..ControlBatch::default() };
        assert!(self.control.apply(&batch).expect("stored") && applied_pos > Pos(0));
    }

    async fn items(&self, path: &str) -> Vec<Value> {
        let answer = self.get(path).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}: {}", answer.json());
        answer.json()["items"].as_array().expect("items").clone()
    }

    /// All pages, one after the other, each of `limit`.
    async fn all(&self, path: &str, limit: usize) -> Vec<Value> {
        let (mut items, mut after) = (Vec::new(), String::new());
        loop {
            let page = self.get(&format!("{path}?limit={limit}{after}")).await.json();
            let found = page["items"].as_array().expect("items");
            assert!(found.len() <= limit);
            items.extend(found.iter().cloned());
            let Some(next) = page["next"].as_str() else { return items };
            after = format!("&after={next}");
        }
    }
}

fn port(number: u16, scope: Scope) -> Item {
    let address = match scope {
        Scope::Loopback => IpAddr::V4(Ipv4Addr::LOCALHOST),
        _ => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
    };
    let place = Place { network: None, protocol: Protocol::Tcp, address, port: number };
    Item::Port(Port { place, scope, process: Some("sshd".into()), container: None, user: Some("root".into()) })
}

fn container(name: &str, state: ContainerState) -> Item {
    let container = Container { name: name.into(), id: "abc".into(), is_told: true, state, ..Container::default() };
    Item::Container(Box::new(Container { image: "redis:7".into(), memory_limit_bytes: Some(1 << 30), ..container }))
}

fn group(name: &str) -> Item {
    Item::Group(Group { name: name.into(), container: Some("cache".into()), unit: None, user: None })
}

fn standing() -> Rig {
    let mut rig = Rig::new();
    let all = [
        port(22, Scope::Any),
        port(25, Scope::Loopback),
        container("cache", ContainerState::Running),
        container("old", ContainerState::Exited),
        group("redis-server"),
    ];
    rig.stand(1, Stock::of(all.clone()));
    rig.stand(2, Stock::of([port(80, Scope::Any), group("nginx")]));
    rig.stand(4, Stock::of([port(443, Scope::Public), container("web", ContainerState::Running)]));
    rig
}

#[tokio::test]
async fn each_thing_has_the_fields_that_programs_rely_on() {
    let rig = standing();
    let node = node_id(1).to_string();
    let ports = rig.items(&format!("/api/v1/ports?node={node}&exposed=true")).await;
    let said = json!([{ "node": node, "node_name": "twin", "protocol": "tcp", "address": "0.0.0.0", "scope": "any",
        "port": 22, "process": "sshd", "container": null, "user": "root", "network": null, "since": SINCE }]);
    assert_eq!(json!(ports), said);
    let containers = rig.items(&format!("/api/v1/containers?node={node}&state=running")).await;
    let fields = [
        "node",
        "name",
        "id",
        "image",
        "state",
        "health",
        "restarts",
        "exit_code",
        "oom_killed",
        "since",
        "cpu_cores",
        "memory_bytes",
        "memory_limit_bytes",
    ];
    assert!(fields.iter().all(|field| containers[0].get(field).is_some()), "{containers:?}");
    assert_eq!((&containers[0]["name"], containers.len()), (&json!("cache"), 1));
    assert_eq!((&containers[0]["memory_limit_bytes"], &containers[0]["memory_bytes"]), (&json!(1 << 30), &Value::Null));
    let processes = rig.items("/api/v1/processes?name=redis-server").await;
    let fields = [
        "node",
        "name",
        "container",
        "unit",
        "user",
        "count",
        "cpu_cores",
        "memory_bytes",
        "threads",
        "files_open",
        "started",
    ];
    assert!(processes.len() == 1 && fields.iter().all(|field| processes[0].get(field).is_some()), "{processes:?}");

    let one = rig.get(&format!("/api/v1/nodes/{node}")).await.json();
    let counts = json!({ "containers": 2, "containers_up": 1, "processes": 1, "ports": 2, "ports_exposed": 1,
        "units_failed": 0 });
    assert_eq!((&one["counts"], &one["changes"]), (&counts, &json!([])));
    assert!(rig.items("/api/v1/nodes").await[0].get("changes").is_none());
}

#[tokio::test]
async fn values_come_from_the_latest_reading() {
    let mut sample = Sample::new(MonoMs(5), WallMs(5));
    let mut push = |subject: &str, metric: &str, value: f64| {
        let subject = Subject::parse(subject).expect("a subject");
        sample.push(&subject, by_name(metric).expect("a metric"), value);
    };
    push("container:cache", "container_memory_used_bytes", 65_536.0);
    push("container:cache", "container_memory_limit_bytes", 131_072.0);
    push("container:other", "container_memory_used_bytes", 7.0);
    push("process:redis-server", "process_count", 3.0);
    push("process:redis-server", "process_oldest_start_seconds", 60.0);
    let (reading, _) = Grouper::default().lay_out(&sample);
    let mut rig = standing();
    let mut fleet = (*rig.fleet.load_full()).clone();
    fleet.nodes[0].latest = Some(Arc::new(reading));
    rig.fleet.store(Arc::new(fleet));
    rig.stand(3, Stock::of([group("redis-server")]));
    let cache = &rig.items("/api/v1/containers?name=cache").await[0];
    assert_eq!((&cache["memory_bytes"], &cache["memory_limit_bytes"]), (&json!(65_536), &json!(131_072)));
    assert_eq!(cache["cpu_cores"], Value::Null, "one reading is no rate");
    let redis = rig.items("/api/v1/processes?name=redis-server").await;
    assert_eq!((&redis[0]["count"], &redis[0]["started"]), (&json!(3), &json!("1970-01-01T00:01:00.000Z")));
    assert_eq!((&redis[1]["count"], &redis[1]["node"]), (&Value::Null, &json!(node_id(3).to_string())));
}

#[tokio::test]
async fn pages_of_any_length_show_each_item_once_and_in_order() {
    let mut rig = standing();
    rig.stand(3, Stock::of((1..40).map(|number| port(number, Scope::Any))));
    let whole = rig.items("/api/v1/ports?limit=1000").await;
    assert_eq!(whole.len(), 2 + 1 + 39 + 1);
    for limit in [1, 2, 3, 7, 39, 43, 44] {
        assert_eq!(rig.all("/api/v1/ports", limit).await, whole, "pages of {limit}");
    }
    let places: BTreeSet<_> = whole.iter().map(|port| format!("{}{}", port["node"], port["port"])).collect();
    assert_eq!(places.len(), whole.len());
}

#[tokio::test]
async fn what_stands_on_a_node_that_is_not_seen_does_not_exist() {
    let rig = standing();
    let limited = token(Role::Viewer, true);
    for what in ["containers", "processes", "ports"] {
        let seen = rig.ask("GET", &format!("/api/v1/{what}"), Some(&limited), "").await;
        assert_eq!(seen.status, StatusCode::OK);
        let nodes: BTreeSet<_> =
            seen.json()["items"].as_array().expect("items").iter().map(|item| item["node"].to_string()).collect();
        assert_eq!(nodes, BTreeSet::from([json!(node_id(1).to_string()).to_string()]), "{what}");
        let after = format!("/api/v1/{what}?after={}", node_id(1));
        let rest = rig.ask("GET", &after, Some(&limited), "").await.json();
        assert_eq!((&rest["items"], &rest["next"]), (&json!([]), &Value::Null), "{what}");
        let hidden = rig.ask("GET", &format!("/api/v1/{what}?node=other"), Some(&limited), "").await;
        assert_eq!(hidden.status, StatusCode::NOT_FOUND, "{what}");
        let twin = rig.ask("GET", &format!("/api/v1/{what}?node=twin"), Some(&limited), "").await;
        assert_eq!(twin.status, StatusCode::OK, "of two of a name it sees one");
    }
    let all = rig.items("/api/v1/ports?label=tenant%3Db").await;
    assert_eq!(all.iter().map(|port| port["port"].as_u64()).collect::<Vec<_>>(), [Some(80), Some(443)]);
}

#[tokio::test]
async fn what_is_asked_wrongly_is_said_and_a_body_of_nobody_is_passed_over() {
    let mut rig = standing();
    for (path, word) in [
        ("containers?state=asleep", "restarting"),
        ("ports?exposed=yes", "true or false"),
        ("ports?port=70000", "65535"),
        ("ports?state=running", "unknown parameter"),
        ("processes?after=1-1", "cursor"),
        ("processes?after=%27%3B+DROP+TABLE+stock", "cursor"),
        ("ports?limit=1001", "1000"),
        ("ports?node=twin", "2 nodes have the name"),
    ] {
        let answer = rig.get(&format!("/api/v1/{path}")).await;
        assert!(answer.status.is_client_error(), "{path}: {}", answer.status);
        assert!(answer.json()["detail"].as_str().is_some_and(|detail| detail.contains(word)), "{path}");
    }
    let bad = StockUpdate {
        node: NodeKey(1),
        mark: StockMark::default(),
        noise: None,
        body: Some(StockBody { bytes: Arc::from(&[0xff; 99][..]), counts: Default::default() }),
    };
    let batch = ControlBatch { applied_pos: Pos(99), stocks: vec![bad], ..ControlBatch::default() };
    rig.control.apply(&batch).expect("stored");
    assert_eq!(rig.items("/api/v1/ports").await.len(), 2, "the others are shown");
}
