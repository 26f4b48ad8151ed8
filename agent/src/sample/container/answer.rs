//! What an engine answers when it is asked for its containers, read into no more than what is told.
//!
//! The shapes are our own and not bollard's: theirs hold environment, command line and arguments, which are not even
//! read here, and a state that they do not know costs them the whole list. Any answer is read or refused.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use dunlin_shared::inventory::{Container, ContainerState, Engine, Health, Protocol, Published};
use dunlin_shared::limits::{
    CONTAINER_LABELS_MAX, FACT_BYTES_MAX, LABEL_KEY_BYTES_MAX, LABEL_VALUE_BYTES_MAX, NETWORKS_MAX, PUBLISHED_MAX,
    SUBJECT_NAME_BYTES_MAX,
};
use serde::Deserialize;

use super::event::{is_id, signal};
use super::time::moment;
use super::trouble::Trouble;
use crate::sample::name::shown;

/// Of one container in a list: a thousand labels would not fill it.
pub(super) const ELEMENT_BYTES_MAX: usize = 256 * 1024;

/// A container in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    pub id: Box<str>,
    pub is_up: bool,
}

/// A container that was inspected.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inspected {
    /// Its digest is the image's id, until the engine is asked for a better one.
    pub container: Container,
    pub image_id: Box<str>,
    /// What ends it in order.
    pub stop_signal: Option<u8>,
    /// The engine removes it when it ends, whoever ended it.
    pub removes_itself: bool,
}

/// Cuts a list into its elements as it arrives, so that a list of thousands is never held as a whole.
#[derive(Debug, Default)]
pub struct Elements {
    place: Place,
    depth: u32,
    in_text: bool,
    is_escaped: bool,
    element: Vec<u8>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    #[default]
    Before,
    Inside,
    After,
}

#[derive(Deserialize)]
struct Summary {
    #[serde(rename = "Id")]
    id: Box<str>,
    #[serde(rename = "State")]
    state: Option<Box<str>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    id: Box<str>,
    name: Option<Box<str>>,
    image: Option<Box<str>>,
    restart_count: Option<u32>,
    state: State,
    config: Option<Config>,
    host_config: Option<HostConfig>,
    network_settings: Option<NetworkSettings>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct State {
    status: Option<Box<str>>,
    exit_code: Option<i64>,
    #[serde(rename = "OOMKilled")]
    oom_killed: Option<bool>,
    started_at: Option<Box<str>>,
    finished_at: Option<Box<str>>,
    health: Option<HealthState>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HealthState {
    status: Option<Box<str>>,
}

/// Environment, command and entry point stand beside these in the answer. They have no field.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Config {
    image: Option<Box<str>>,
    labels: Option<BTreeMap<Box<str>, Box<str>>>,
    stop_signal: Option<Box<str>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HostConfig {
    network_mode: Option<Box<str>>,
    auto_remove: Option<bool>,
    restart_policy: Option<RestartPolicy>,
    memory: Option<i64>,
    nano_cpus: Option<i64>,
    cpu_quota: Option<i64>,
    cpu_period: Option<i64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RestartPolicy {
    name: Option<Box<str>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct NetworkSettings {
    ports: Option<BTreeMap<Box<str>, Option<Vec<Binding>>>>,
    networks: Option<BTreeMap<Box<str>, serde::de::IgnoredAny>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Binding {
    host_ip: Option<Box<str>>,
    host_port: Option<Box<str>>,
}

/// Of an image; environment, command and entry point have no field here either.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Image {
    repo_digests: Option<Vec<Box<str>>>,
}

const COMPOSE_PROJECT: &str = "com.docker.compose.project";
const COMPOSE_SERVICE: &str = "com.docker.compose.service";
/// The kernel's scheduling period where an engine names none.
const CPU_PERIOD_US: i64 = 100_000;

impl Elements {
    pub fn feed(&mut self, bytes: &[u8], mut take: impl FnMut(Listed)) -> Result<(), Trouble> {
        for &byte in bytes {
            match self.place {
                Place::Inside => self.inside(byte, &mut take)?,
                Place::Before if byte == b'[' => self.place = Place::Inside,
                Place::Before | Place::After if byte.is_ascii_whitespace() => {}
                Place::Before | Place::After => return Err(Trouble::Garbage),
            }
        }
        Ok(())
    }

    /// Whether the list came to its end.
    pub fn is_whole(&self) -> bool {
        self.place == Place::After
    }

    fn inside(&mut self, byte: u8, take: &mut impl FnMut(Listed)) -> Result<(), Trouble> {
        if self.depth == 0 {
            match byte {
                b'{' => {}
                b']' => {
                    self.place = Place::After;
                    return Ok(());
                }
                b',' | b' ' | b'\n' | b'\r' | b'\t' => return Ok(()),
                _ => return Err(Trouble::Garbage),
            }
        }
        if self.element.len() >= ELEMENT_BYTES_MAX {
            return Err(Trouble::TooLong { max: ELEMENT_BYTES_MAX });
        }
        self.element.push(byte);
        match byte {
            _ if self.is_escaped => self.is_escaped = false,
            b'\\' if self.in_text => self.is_escaped = true,
            b'"' => self.in_text = !self.in_text,
            b'{' | b'[' if !self.in_text => self.depth += 1,
            b'}' | b']' if !self.in_text => self.depth -= 1,
            _ => {}
        }
        if self.depth == 0 {
            let summary: Summary = serde_json::from_slice(&self.element).map_err(|_| Trouble::Garbage)?;
            self.element.clear();
            if is_id(&summary.id) {
                take(Listed { id: summary.id, is_up: matches!(summary.state.as_deref(), Some("running" | "paused")) });
            }
        }
        Ok(())
    }
}

/// Reads the answer to an inspect. Of the labels those that are `wanted` are kept.
pub fn inspected(bytes: &[u8], engine: Engine, wanted: &[String]) -> Result<Inspected, Trouble> {
    let answer: Answer = serde_json::from_slice(bytes).map_err(|_| Trouble::Garbage)?;
    if !is_id(&answer.id) {
        return Err(Trouble::Garbage);
    }
    let Config { image, labels, stop_signal } =
        answer.config.unwrap_or(Config { image: None, labels: None, stop_signal: None });
    let mut labels = labels.unwrap_or_default();
    let host = answer.host_config;
    let removes_itself = host.as_ref().and_then(|host| host.auto_remove).unwrap_or(false);
    let name = answer.name.as_deref().map_or("", |name| name.trim_start_matches('/'));
    let name = shown(if name.is_empty() { short(&answer.id) } else { name }.as_bytes());
    let state = answer.state;
    let status = state_of(state.status.as_deref().unwrap_or_default());
    let started = state.started_at.as_deref().and_then(moment);
    let is_up = matches!(status, ContainerState::Running | ContainerState::Paused);
    let has_ended = !is_up && started.is_some();
    let image_id = cut(answer.image.as_deref().unwrap_or_default(), FACT_BYTES_MAX);
    let compose = |value: Option<Box<str>>| value.map(|value| cut(&value, SUBJECT_NAME_BYTES_MAX));
    let container = Container {
        name: name.into(),
        engine,
        is_told: true,
        image: cut(image.as_deref().unwrap_or_default(), FACT_BYTES_MAX),
        digest: image_id.clone(),
        state: status,
        health: health_of(state.health.and_then(|health| health.status).as_deref().unwrap_or_default()),
        restart_policy: policy(host.as_ref()),
        restarts: answer.restart_count.unwrap_or(0),
        exit_code: state.exit_code.filter(|_| has_ended).and_then(|code| i32::try_from(code).ok()),
        is_oom_killed: has_ended && state.oom_killed.unwrap_or(false),
        is_stop_asked: false,
        started,
        finished: state.finished_at.as_deref().and_then(moment).filter(|_| has_ended),
        published: answer.network_settings.as_ref().map(published).unwrap_or_default(),
        networks: networks(answer.network_settings.as_ref(), host.as_ref()),
        memory_limit_bytes: host.as_ref().and_then(|host| u64::try_from(host.memory?).ok()).filter(|&bytes| bytes > 0),
        cpu_limit_millicores: host.as_ref().and_then(millicores),
        compose_project: compose(labels.remove(COMPOSE_PROJECT)),
        compose_service: compose(labels.remove(COMPOSE_SERVICE)),
        labels: chosen(labels, wanted),
        id: answer.id,
    };
    let stop_signal = stop_signal.as_deref().and_then(signal);
    Ok(Inspected { container, image_id, stop_signal, removes_itself })
}

/// What registries call an image: the digest beside the name that a container was started by, else the first. None for
/// an image that came from nowhere; Podman has names below `localhost/` for those.
pub(super) fn digest(bytes: &[u8], name: &str) -> Result<Option<Box<str>>, Trouble> {
    let image: Image = serde_json::from_slice(bytes).map_err(|_| Trouble::Garbage)?;
    let all = image.repo_digests.unwrap_or_default();
    let known = all.iter().filter_map(|known| known.split_once('@'));
    let mut known = known.filter(|(name, digest)| !name.starts_with("localhost/") && is_digest(digest)).peekable();
    let first = known.peek().map(|(_, digest)| *digest);
    let name = repository(name);
    let is_named = |known: &str| {
        let (long, short) = if known.len() > name.len() { (known, name) } else { (name, known) };
        long.strip_suffix(short).is_some_and(|rest| rest.is_empty() || rest.ends_with('/'))
    };
    let named = known.find(|(known, _)| is_named(known)).map(|(_, digest)| digest);
    Ok(named.or(first).map(Box::from))
}

/// Whether it can be asked for by this id.
pub(super) fn is_image_id(id: &str) -> bool {
    is_id(id.strip_prefix("sha256:").unwrap_or(id))
}

/// Without tag and digest: a colon before the last slash is that of a port.
fn repository(name: &str) -> &str {
    let name = name.split_once('@').map_or(name, |(name, _)| name);
    let from = name.rfind('/').map_or(0, |at| at + 1);
    name[from..].find(':').map_or(name, |at| &name[..from + at])
}

fn is_digest(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b':';
    text.len() <= FACT_BYTES_MAX && text.contains(':') && text.bytes().all(is_plain)
}

/// What stands for a name where there is none.
pub(super) fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

fn state_of(status: &str) -> ContainerState {
    match status {
        "running" | "stopping" | "removing" => ContainerState::Running,
        "paused" => ContainerState::Paused,
        "restarting" => ContainerState::Restarting,
        "created" | "configured" | "initialized" => ContainerState::Created,
        "dead" => ContainerState::Dead,
        _ => ContainerState::Exited,
    }
}

fn health_of(status: &str) -> Health {
    match status {
        "starting" => Health::Starting,
        "healthy" => Health::Healthy,
        "unhealthy" => Health::Unhealthy,
        _ => Health::None,
    }
}

fn policy(host: Option<&HostConfig>) -> Box<str> {
    let name = host.and_then(|host| host.restart_policy.as_ref()?.name.as_deref()).unwrap_or_default();
    cut(if name.is_empty() { "no" } else { name }, FACT_BYTES_MAX)
}

fn millicores(host: &HostConfig) -> Option<u32> {
    let nano = host.nano_cpus.unwrap_or(0) / 1_000_000;
    let quota = host.cpu_quota.unwrap_or(0);
    let period = host.cpu_period.filter(|&period| period > 0).unwrap_or(CPU_PERIOD_US);
    let found = if nano > 0 { nano } else { quota.saturating_mul(1_000) / period };
    u32::try_from(found).ok().filter(|&found| found > 0)
}

fn networks(settings: Option<&NetworkSettings>, host: Option<&HostConfig>) -> Vec<Box<str>> {
    let named = settings.and_then(|settings| settings.networks.as_ref());
    let mut networks: Vec<_> = named
        .into_iter()
        .flat_map(BTreeMap::keys)
        .take(NETWORKS_MAX)
        .map(|name| cut(name, SUBJECT_NAME_BYTES_MAX))
        .collect();
    // Podman names no network for a container that has the host's.
    if networks.is_empty() && host.and_then(|host| host.network_mode.as_deref()) == Some("host") {
        networks.push("host".into());
    }
    networks
}

fn published(settings: &NetworkSettings) -> Vec<Published> {
    let mut all = Vec::new();
    for (inside, bindings) in settings.ports.iter().flatten() {
        let (port, protocol) = inside.split_once('/').unwrap_or((inside, "tcp"));
        let protocol = match protocol {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            _ => continue,
        };
        let Ok(inside) = port.parse() else { continue };
        for binding in bindings.iter().flatten() {
            let address = binding.host_ip.as_deref().filter(|ip| !ip.is_empty());
            let address = address.map_or(Ok(IpAddr::V4(Ipv4Addr::UNSPECIFIED)), str::parse);
            let port = binding.host_port.as_deref().unwrap_or_default().parse();
            let (Ok(address), Ok(port)) = (address, port) else { continue };
            if all.len() < PUBLISHED_MAX {
                all.push(Published { protocol, address, port, inside });
            }
        }
    }
    all
}

/// A label with a key or value that is too long is cut nowhere: half a value would say something else.
fn chosen(labels: BTreeMap<Box<str>, Box<str>>, wanted: &[String]) -> BTreeMap<Box<str>, Box<str>> {
    let fits = |key: &str, value: &str| key.len() <= LABEL_KEY_BYTES_MAX && value.len() <= LABEL_VALUE_BYTES_MAX;
    let is_wanted = |key: &str| wanted.iter().any(|name| name == key);
    let chosen = labels.into_iter().filter(|(key, value)| is_wanted(key) && fits(key, value));
    chosen.take(CONTAINER_LABELS_MAX).collect()
}

fn cut(text: &str, max: usize) -> Box<str> {
    text[..text.floor_char_boundary(max)].into()
}

#[cfg(test)]
mod tests;
