//! What stands on nodes, across the fleet: containers, process groups and ports.
//!
//! Items come from `control.db`, what they measure from the latest readings. Label limits hold as for nodes: what
//! stands on a node that the caller does not see does not exist.

mod latest;
mod page;

use axum::extract::State;
use dunlin_shared::inventory::{self, ContainerState, Item};
use dunlin_shared::sample::SubjectKind;
use dunlin_shared::time::WallMs;

use self::latest::{Cores, Latest};
use self::page::{Asked, Seen};
use super::Api;
use super::body::{Json, ok};
use super::caller::Viewer;
use super::params::{Params, short};
use super::problem::Problem;
use crate::shape::{self, Moment};

/// The containers, node by node
#[utoipa::path(get, path = "/api/v1/containers", tag = "inventory", security(("bearer" = ["viewer"])),
    params(
        ("limit" = Option<u32>, Query, description = "Containers in a page: 1 to 1000, 100 when absent"),
        ("after" = Option<String>, Query, description = "`next` of the page before"),
        ("node" = Option<String>, Query, description = "An id, or a name that one node alone has"),
        ("label" = Option<Vec<String>>, Query, description = "`KEY=VALUE` of the node; repeated, all must be borne"),
        ("state" = Option<Vec<String>>, Query, description = "A state; repeated, any of them"),
        ("name" = Option<String>, Query, description = "The container's name, exactly")
    ),
    responses(
        (status = 200, description = "A page", body = shape::ContainerPage),
        (status = "4XX", description = "Why not", body = shape::Problem, content_type = "application/problem+json")
    ))]
pub(super) async fn containers(
    Viewer(caller): Viewer,
    State(api): State<Api>,
    mut params: Params,
) -> Result<Json<shape::ContainerPage>, Problem> {
    let asked = Asked::take(&mut params, &api, &caller)?;
    let (states, name) = (states(&mut params)?, params.one("name")?);
    params.done()?;
    let wants = move |item: &Item| match item {
        Item::Container(container) => {
            (states.is_empty() || states.contains(&container.state))
                && name.as_deref().is_none_or(|name| *container.name == *name)
        }
        _ => false,
    };
    let (found, next) = asked.page(&api, wants).await?;
    let cores = Cores::of(&api, &found, "container_cpu_seconds").await?;
    let mut page = Vec::new();
    for found in found {
        let latest = Latest::of(found.node.latest.as_deref(), SubjectKind::Container);
        for (since, item) in found.items {
            if let Item::Container(container) = item {
                page.push(shown_container(&found.node, since, *container, (&latest, &cores)));
            }
        }
    }
    Ok(ok(shape::ContainerPage { items: page, next }))
}

/// The process groups, node by node
///
/// Those that have series: the busiest, the largest, and those that are watched.
#[utoipa::path(get, path = "/api/v1/processes", tag = "inventory", security(("bearer" = ["viewer"])),
    params(
        ("limit" = Option<u32>, Query, description = "Groups in a page: 1 to 1000, 100 when absent"),
        ("after" = Option<String>, Query, description = "`next` of the page before"),
        ("node" = Option<String>, Query, description = "An id, or a name that one node alone has"),
        ("label" = Option<Vec<String>>, Query, description = "`KEY=VALUE` of the node; repeated, all must be borne"),
        ("name" = Option<String>, Query, description = "The group's name, exactly")
    ),
    responses(
        (status = 200, description = "A page", body = shape::ProcessPage),
        (status = "4XX", description = "Why not", body = shape::Problem, content_type = "application/problem+json")
    ))]
pub(super) async fn processes(
    Viewer(caller): Viewer,
    State(api): State<Api>,
    mut params: Params,
) -> Result<Json<shape::ProcessPage>, Problem> {
    let asked = Asked::take(&mut params, &api, &caller)?;
    let name = params.one("name")?;
    params.done()?;
    let wants = move |item: &Item| match item {
        Item::Group(group) => name.as_deref().is_none_or(|name| *group.name == *name),
        _ => false,
    };
    let (found, next) = asked.page(&api, wants).await?;
    let cores = Cores::of(&api, &found, "process_cpu_seconds").await?;
    let mut page = Vec::new();
    for found in found {
        let latest = Latest::of(found.node.latest.as_deref(), SubjectKind::Process);
        for (since, item) in found.items {
            if let Item::Group(group) = item {
                page.push(shown_process(&found.node, since, group, (&latest, &cores)));
            }
        }
    }
    Ok(ok(shape::ProcessPage { items: page, next }))
}

/// The listening ports, node by node
#[utoipa::path(get, path = "/api/v1/ports", tag = "inventory", security(("bearer" = ["viewer"])),
    params(
        ("limit" = Option<u32>, Query, description = "Ports in a page: 1 to 1000, 100 when absent"),
        ("after" = Option<String>, Query, description = "`next` of the page before"),
        ("node" = Option<String>, Query, description = "An id, or a name that one node alone has"),
        ("label" = Option<Vec<String>>, Query, description = "`KEY=VALUE` of the node; repeated, all must be borne"),
        ("exposed" = Option<bool>, Query, description = "`true`: only those that other networks may reach, by their scope; `false`: only the others"),
        ("port" = Option<u16>, Query, description = "Its number")
    ),
    responses(
        (status = 200, description = "A page", body = shape::PortPage),
        (status = "4XX", description = "Why not", body = shape::Problem, content_type = "application/problem+json")
    ))]
pub(super) async fn ports(
    Viewer(caller): Viewer,
    State(api): State<Api>,
    mut params: Params,
) -> Result<Json<shape::PortPage>, Problem> {
    let asked = Asked::take(&mut params, &api, &caller)?;
    let exposed: Option<bool> = parsed(&mut params, "exposed", "true or false")?;
    let number: Option<u16> = parsed(&mut params, "port", "a number from 0 to 65535")?;
    params.done()?;
    let wants = move |item: &Item| match item {
        Item::Port(port) => {
            exposed.is_none_or(|exposed| port.scope.is_exposed() == exposed)
                && number.is_none_or(|number| port.place.port == number)
        }
        _ => false,
    };
    let (found, next) = asked.page(&api, wants).await?;
    let mut page = Vec::new();
    for found in found {
        for (since, item) in found.items {
            if let Item::Port(port) = item {
                page.push(shown_port(&found.node, since, port));
            }
        }
    }
    Ok(ok(shape::PortPage { items: page, next }))
}

fn shown_container(
    node: &Seen,
    since: WallMs,
    container: inventory::Container,
    (latest, cores): (&Latest<'_>, &Cores),
) -> shape::Container {
    let limit = container.cpu_limit_millicores.map(|millicores| f64::from(millicores) / 1_000.0);
    let published = |port: &inventory::Published| shape::PublishedPort {
        protocol: port.protocol.as_str().to_owned(),
        address: port.address.to_string(),
        port: port.port,
        inside: port.inside,
    };
    let name = &container.name;
    shape::Container {
        node: node.id.to_string(),
        node_name: node.name.to_string(),
        cpu_cores: cores.get(node.id, name),
        cpu_limit_cores: limit,
        memory_bytes: latest.whole(name, "container_memory_used_bytes"),
        memory_limit_bytes: latest.whole(name, "container_memory_limit_bytes").or(container.memory_limit_bytes),
        published: container.published.iter().map(published).collect(),
        networks: container.networks.into_iter().map(String::from).collect(),
        labels: container.labels.into_iter().map(|(key, value)| (key.into(), value.into())).collect(),
        name: container.name.into(),
        id: container.id.into(),
        image: container.image.into(),
        digest: container.digest.into(),
        engine: container.engine.as_str().to_owned(),
        state: container.state.as_str().to_owned(),
        health: container.health.as_str().to_owned(),
        restart_policy: container.restart_policy.into(),
        restarts: container.restarts,
        exit_code: container.exit_code,
        oom_killed: container.is_oom_killed,
        stop_asked: container.is_stop_asked,
        since: Moment(since),
        started: container.started.map(Moment),
        finished: container.finished.map(Moment),
        compose_project: container.compose_project.map(String::from),
        compose_service: container.compose_service.map(String::from),
        told_by_engine: container.is_told,
    }
}

fn shown_process(
    node: &Seen,
    since: WallMs,
    group: inventory::Group,
    (latest, cores): (&Latest<'_>, &Cores),
) -> shape::Process {
    let name = &group.name;
    let started_s = latest.whole(name, "process_oldest_start_seconds").and_then(|seconds| i64::try_from(seconds).ok());
    shape::Process {
        node: node.id.to_string(),
        node_name: node.name.to_string(),
        count: latest.whole(name, "process_count"),
        cpu_cores: cores.get(node.id, name),
        memory_bytes: latest.whole(name, "process_memory_bytes"),
        threads: latest.whole(name, "process_threads"),
        files_open: latest.whole(name, "process_files_open"),
        started: started_s.map(|seconds| Moment(WallMs(seconds.saturating_mul(1_000)))),
        name: group.name.into(),
        container: group.container.map(String::from),
        unit: group.unit.map(String::from),
        user: group.user.map(String::from),
        since: Moment(since),
    }
}

fn shown_port(node: &Seen, since: WallMs, port: inventory::Port) -> shape::Port {
    let inventory::Port { place, scope, process, container, user } = port;
    shape::Port {
        node: node.id.to_string(),
        node_name: node.name.to_string(),
        protocol: place.protocol.as_str().to_owned(),
        address: place.address.to_string(),
        scope: scope.as_str().to_owned(),
        port: place.port,
        process: process.map(String::from),
        container: container.map(String::from),
        user: user.map(String::from),
        network: place.network.map(String::from),
        since: Moment(since),
    }
}

fn states(params: &mut Params) -> Result<Vec<ContainerState>, Problem> {
    use ContainerState::{Created, Dead, Exited, Paused, Restarting, Running};
    let all = [Created, Running, Paused, Restarting, Exited, Dead];
    let known = || all.map(ContainerState::as_str).join(", ");
    let wrong = |text: &String| Problem::bad_request(format!("state is {:?}; it is one of {}", short(text), known()));
    let state = |text: &String| all.into_iter().find(|state| state.as_str() == text).ok_or_else(|| wrong(text));
    params.all("state").iter().map(state).collect()
}

fn parsed<T: std::str::FromStr>(params: &mut Params, key: &'static str, what: &str) -> Result<Option<T>, Problem> {
    let Some(text) = params.one(key)? else { return Ok(None) };
    let wrong = |_| Problem::bad_request(format!("{key} is {:?}; it is {what}", short(&text)));
    text.parse().map(Some).map_err(wrong)
}
