//! What is missing without a source, the exact lines that mend it, and what those open. Pure.
//!
//! The lines are for the unit that the packages install, and were each tried on a host that systemd runs. A drop-in never
//! edits the unit, so an upgrade keeps it. What opens more than it gives is said in the same breath, and stands last.

use super::own::{DAC_READ_SEARCH, SYS_PTRACE};
use super::{Kind, Seeing, Sight, State};

/// Where operators put what they add to the unit.
const DROP_INS: &str = "/etc/systemd/system/dunlin-agent.service.d";
/// Where the packages have drop-ins that they do not switch on, under the names that are told here.
const READY: [&str; 2] = ["processes", "docker"];
const CONFIGURATION: &str = "/etc/dunlin/agent.toml";
/// What makes it so.
pub const RESTART: &str = "systemctl daemon-reload && systemctl restart dunlin-agent";
/// The proxy of docs/permissions.md listens here; one of a user below a name that goes on with its number.
const PROXY: &str = "/run/dunlin-proxy/engine.sock";
const PROXIES: &str = "/run/dunlin-proxy";
const PROXY_GROUP: &str = "dunlin-proxy";
/// Directories of users, which are shut to all others.
const USERS: &str = "/run/user/";
const BOTH: u64 = SYS_PTRACE | DAC_READ_SEARCH;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mend {
    pub missing: &'static str,
    pub ways: Vec<Way>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Way {
    /// Which file gets the lines, or what to do first.
    pub to: String,
    pub lines: Vec<String>,
    pub opens: String,
}

/// `None` for what is whole, and for what nobody needs to mend.
#[must_use]
pub fn mend(one: &Seeing, sight: &Sight) -> Option<Mend> {
    if matches!(one.state, State::Works | State::Absent | State::Off) {
        return None;
    }
    let mend = |missing, ways| Some(Mend { missing, ways });
    match one.kind {
        Kind::Engine => mend(ENGINE, if one.state == State::Refused { engine(one, sight) } else { Vec::new() }),
        Kind::Containers => mend(CONTAINERS, shut_engine(sight)),
        Kind::ProcessIo => mend(PROCESS_IO, tracing(sight)),
        Kind::OpenFiles => mend(OPEN_FILES, tracing(sight)),
        Kind::Owners => mend(OWNERS, tracing(sight)),
        Kind::Processes if one.state == State::Refused => mend(PROCESSES, hidden_processes()),
        Kind::Mounts => mend(MOUNTS, searching(sight)),
        Kind::Cgroups if one.state == State::Partly => mend(ACCOUNTING, vec![accounting(one)]),
        Kind::Ports if one.state == State::Partly && one.says.contains("netlink") => mend(NETLINK, vec![netlink()]),
        Kind::Units => mend(UNITS, if one.state == State::Refused { vec![names()] } else { Vec::new() }),
        Kind::Part | Kind::Processes | Kind::Cgroups | Kind::Networks | Kind::Ports | Kind::Uplink => None,
    }
}

const ENGINE: &str = "names, images, states, health, restarts and published ports of its containers; what they use of \
                      processors, memory and disks is seen by control groups";
const CONTAINERS: &str = "names, images and states of containers whose engine the agent cannot ask; their numbers are \
                          seen by control groups";
const PROCESS_IO: &str = "bytes read and written of process groups with processes of other users";
const OPEN_FILES: &str = "open files of process groups with processes of other users";
const OWNERS: &str = "which process holds a port of another user; the ports themselves are listed";
const PROCESSES: &str = "all processes but the agent's own: their number, groups, and whose they are";
const MOUNTS: &str = "how full these file systems are";
const ACCOUNTING: &str = "these numbers of services: systemd does not have the kernel count them";
const UNITS: &str = "which units have failed, and why";
const NETLINK: &str = "nothing, but the tables of /proc are slower to read where connections are many";

/// Sockets stand in a list that replaces the search for them, so that those which work are named again.
fn engine(one: &Seeing, sight: &Sight) -> Vec<Way> {
    if one.name.starts_with(PROXIES) {
        return vec![group("with the proxy", "proxy", PROXY_GROUP, "what the proxy lets pass, and nothing else")];
    }
    let user = one.name.strip_prefix(USERS).and_then(|rest| rest.split_once('/')).map(|(user, _)| user);
    if let Some(user) = user {
        return engine_of_user(one, user, sight);
    }
    let proxy = Way {
        to: format!(
            "best by a socket proxy that allows GET alone, of /version, /containers, /images and /events \
             (docs/permissions.md has one that is ready); with it, {CONFIGURATION}"
        ),
        lines: sockets(PROXY, one, sight),
        opens: "names and settings of containers; nothing can be changed through it".into(),
    };
    let mut ways = vec![proxy, proxy_group()];
    if !one.group.is_empty() {
        let opens = format!("the {} group is root on this host: who may use this socket may start anything", one.group);
        ways.push(group("or instead of it,", &one.group, &one.group, &opens));
    }
    ways
}

/// No group and no capability opens the directory of a user for writing to a socket in it: the proxy runs as that user.
fn engine_of_user(one: &Seeing, user: &str, sight: &Sight) -> Vec<Way> {
    let name = format!("dunlin-proxy-{user}");
    let socket = format!("/run/{name}/engine.sock");
    let unit = Way {
        to: format!(
            "by a socket proxy that allows GET alone and runs as user {user}: dunlin-proxy.service of \
             docs/permissions.md as /etc/systemd/system/{name}.service, without SupplementaryGroups= and with"
        ),
        lines: vec![
            format!("ExecStart=/usr/sbin/haproxy -Ws -f /etc/dunlin/proxy-{user}.cfg"),
            format!("User={user}"),
            format!("Group={PROXY_GROUP}"),
            format!("RuntimeDirectory={name}"),
            "ProtectHome=read-only".into(),
        ],
        opens: "names and settings of that user's containers; nothing can be changed through it".into(),
    };
    let proxy = Way {
        to: format!("with proxy.cfg of the same page as /etc/dunlin/proxy-{user}.cfg, and in it"),
        lines: vec![format!("bind unix@{socket} mode 660"), format!("server engine unix@{}", one.name)],
        opens: String::new(),
    };
    let to = format!("and {CONFIGURATION}");
    vec![unit, proxy, Way { to, lines: sockets(&socket, one, sight), opens: String::new() }, proxy_group()]
}

/// Who tells no container may be the engine that is shut.
fn shut_engine(sight: &Sight) -> Vec<Way> {
    let is_shut = |one: &&Seeing| one.kind == Kind::Engine && one.state == State::Refused;
    sight.sources.iter().find(is_shut).map(|one| engine(one, sight)).unwrap_or_default()
}

fn sockets(first: &str, one: &Seeing, sight: &Sight) -> Vec<String> {
    let is_kept = |other: &&Seeing| other.kind == Kind::Engine && other.name != one.name && other.state == State::Works;
    let kept = sight.sources.iter().filter(is_kept).map(|other| &*other.name);
    let sockets: Vec<String> = std::iter::once(first).chain(kept).map(|path| format!("{path:?}")).collect();
    vec!["[collect]".into(), format!("sockets = [{}]", sockets.join(", "))]
}

fn proxy_group() -> Way {
    let opens = "that socket; who may use it may also read the environments of containers";
    group("and", "proxy", PROXY_GROUP, opens)
}

fn group(when: &str, file: &str, group: &str, opens: &str) -> Way {
    Way {
        to: format!("{when} {DROP_INS}/{file}.conf{}", ready(file)),
        lines: vec!["[Service]".into(), format!("SupplementaryGroups={group}")],
        opens: opens.into(),
    }
}

fn tracing(sight: &Sight) -> Vec<Way> {
    let opens = "the agent may then read every file and the memory of every process: every secret of this host";
    capabilities(("processes", "CAP_SYS_PTRACE CAP_DAC_READ_SEARCH", BOTH), sight, opens)
}

fn searching(sight: &Sight) -> Vec<Way> {
    let opens = "the agent may then read every file of this host";
    capabilities(("mounts", "CAP_DAC_READ_SEARCH", DAC_READ_SEARCH), sight, opens)
}

/// The unit's bounding set is empty: what is not in it cannot be given either. Whoever has them all gets nothing more.
fn capabilities((file, names, bits): (&str, &str, u64), sight: &Sight, opens: &str) -> Vec<Way> {
    if sight.own.capabilities & bits == bits {
        return Vec::new();
    }
    let half = match sight.own.capabilities & BOTH {
        SYS_PTRACE => " (the agent has CAP_SYS_PTRACE; both are needed)",
        DAC_READ_SEARCH if names.contains("PTRACE") => " (the agent has CAP_DAC_READ_SEARCH; both are needed)",
        _ => "",
    };
    let sets = ["AmbientCapabilities", "CapabilityBoundingSet"].map(|set| format!("{set}={names}"));
    let lines = std::iter::once("[Service]".into()).chain(sets).collect();
    vec![Way { to: format!("{DROP_INS}/{file}.conf{half}{}", ready(file)), lines, opens: opens.into() }]
}

/// What is copied needs not be typed.
fn ready(file: &str) -> String {
    if READY.contains(&file) {
        format!(", ready to be copied as /usr/share/dunlin-agent/{file}.conf")
    } else {
        String::new()
    }
}

fn hidden_processes() -> Vec<Way> {
    vec![
        Way {
            to: format!("where a drop-in of the unit says ProtectProc=: {DROP_INS}/zz-proc.conf"),
            lines: vec!["[Service]".into(), "ProtectProc=default".into()],
            opens: "the agent sees the command lines of all processes, as every user does by default".into(),
        },
        Way {
            to: "where /proc is mounted with hidepid=: its option in /etc/fstab, and at once".into(),
            lines: vec!["mount -o remount,hidepid=0 /proc".into()],
            opens: "every user of this host sees the command lines of all processes".into(),
        },
    ]
}

/// The service keeps its sandbox: a user of the unit's name is taken instead of one that systemd makes up.
fn names() -> Way {
    Way {
        to: "a user that stands in /etc/passwd, made while the service is stopped".into(),
        lines: vec![
            "systemctl stop dunlin-agent".into(),
            "useradd --system --user-group --no-create-home --shell /usr/sbin/nologin dunlin-agent".into(),
            "systemctl start dunlin-agent".into(),
        ],
        opens: "nothing else".into(),
    }
}

fn accounting(one: &Seeing) -> Way {
    let io = if one.says.starts_with("control groups 2") { "DefaultIOAccounting" } else { "DefaultBlockIOAccounting" };
    let names = [("processor", "DefaultCPUAccounting"), ("memory", "DefaultMemoryAccounting"), ("input", io)];
    let lacking = names.iter().filter(|(word, _)| one.says.contains(word)).map(|(_, name)| format!("{name}=yes"));
    Way {
        to: "/etc/systemd/system.conf.d/accounting.conf; then systemctl daemon-reexec, and each service at its next start"
            .into(),
        lines: std::iter::once("[Manager]".into()).chain(lacking).collect(),
        opens: "nothing; the kernel counts a little more".into(),
    }
}

fn netlink() -> Way {
    Way {
        to: format!("{DROP_INS}/netlink.conf"),
        lines: vec!["[Service]".into(), "RestrictAddressFamilies=AF_NETLINK".into()],
        opens: "netlink, which tells every user what listens".into(),
    }
}

#[cfg(test)]
mod tests {
    use dunlin_shared::time::WallMs;

    use super::*;
    use crate::sight::Own;

    fn sight(sources: Vec<Seeing>, capabilities: u64) -> Sight {
        Sight { at: WallMs(1), own: Own { capabilities, ..Own::default() }, sources }
    }

    fn engine_at(path: &str, state: State, group: &str) -> Seeing {
        Seeing { group: group.into(), ..Seeing::new(Kind::Engine, state) }.named(path)
    }

    #[test]
    fn a_shut_engine_is_best_mended_by_a_proxy_and_its_group_is_said_to_be_root() {
        let shut = engine_at("/run/docker.sock", State::Refused, "docker");
        let works = engine_at("/run/podman/podman.sock", State::Works, "");
        let found = mend(&shut, &sight(vec![shut.clone(), works], 0)).expect("it is shut");
        let [proxy, to_proxy, group] = &found.ways[..] else { panic!("{found:?}") };
        let sockets = "sockets = [\"/run/dunlin-proxy/engine.sock\", \"/run/podman/podman.sock\"]";
        assert_eq!(proxy.lines, ["[collect]", sockets]);
        assert!(
            proxy.to.contains("GET alone") && group.to.contains("/dunlin-agent.service.d/docker.conf, ready"),
            "{found:?}"
        );
        assert_eq!(to_proxy.lines, ["[Service]", "SupplementaryGroups=dunlin-proxy"]);
        assert_eq!(group.lines, ["[Service]", "SupplementaryGroups=docker"]);
        assert!(group.opens.contains("the docker group is root on this host"), "{found:?}");
        let proxy = engine_at("/run/dunlin-proxy/engine.sock", State::Refused, "dunlin-proxy");
        let found = mend(&proxy, &sight(Vec::new(), 0)).expect("it is shut");
        assert!(found.ways.len() == 1 && !found.ways[0].opens.contains("root"), "{found:?}");
    }

    #[test]
    fn a_users_engine_is_mended_by_a_proxy_that_runs_as_that_user() {
        let shut = engine_at("/run/user/1000/podman/podman.sock", State::Refused, "");
        let works = engine_at("/run/docker.sock", State::Works, "");
        let strange = Seeing::counted(Kind::Containers, 1, 3);
        let sight = sight(vec![shut.clone(), works, strange.clone()], 0);
        let found = mend(&shut, &sight).expect("it is shut");
        let [unit, proxy, sockets, group] = &found.ways[..] else { panic!("{found:?}") };
        assert!(unit.lines.contains(&"User=1000".to_owned()) && unit.lines.contains(&"Group=dunlin-proxy".to_owned()));
        assert!(unit.lines.contains(&"ProtectHome=read-only".to_owned()), "what is empty else is where the socket is");
        assert_eq!(proxy.lines[1], "server engine unix@/run/user/1000/podman/podman.sock");
        assert_eq!(sockets.lines[1], "sockets = [\"/run/dunlin-proxy-1000/engine.sock\", \"/run/docker.sock\"]");
        assert_eq!(group.lines, ["[Service]", "SupplementaryGroups=dunlin-proxy"]);
        assert_eq!(mend(&strange, &sight).expect("some are not told").ways, found.ways, "they may be that engine's");
        let proxy = engine_at("/run/dunlin-proxy-1000/engine.sock", State::Refused, "dunlin-proxy");
        assert_eq!(mend(&proxy, &sight).expect("it is shut").ways.len(), 1);
    }

    #[test]
    fn other_users_processes_need_both_capabilities_in_both_sets() {
        for kind in [Kind::Owners, Kind::OpenFiles, Kind::ProcessIo] {
            let found = mend(&Seeing::counted(kind, 1, 60), &sight(Vec::new(), SYS_PTRACE)).expect("not whole");
            let [way] = &found.ways[..] else { panic!("{found:?}") };
            let names = "CAP_SYS_PTRACE CAP_DAC_READ_SEARCH";
            let lines = [format!("AmbientCapabilities={names}"), format!("CapabilityBoundingSet={names}")];
            assert_eq!(way.lines[1..], lines);
            assert!(way.opens.contains("every secret of this host") && way.to.contains("both are needed"), "{way:?}");
            let found = mend(&Seeing::counted(kind, 1, 60), &sight(Vec::new(), BOTH)).expect("not whole");
            assert_eq!(found.ways, [], "nothing more can be given");
        }
    }

    #[test]
    fn what_systemd_does_not_count_is_turned_on_by_the_names_of_its_version() {
        let lacks = |says: &str| mend(&Seeing::new(Kind::Cgroups, State::Partly).says(says), &sight(Vec::new(), 0));
        let found = lacks("control groups 1: no service has numbers for memory, input and output").expect("partly");
        assert_eq!(found.ways[0].lines, ["[Manager]", "DefaultMemoryAccounting=yes", "DefaultBlockIOAccounting=yes"]);
        let found = lacks("control groups 2: no service has numbers for input and output").expect("partly");
        assert_eq!(found.ways[0].lines, ["[Manager]", "DefaultIOAccounting=yes"]);
    }

    #[test]
    fn what_works_is_not_there_or_is_switched_off_needs_no_mending() {
        for (kind, _) in Kind::WORDS {
            for state in [State::Works, State::Absent, State::Off] {
                assert_eq!(mend(&Seeing::new(kind, state), &sight(Vec::new(), 0)), None, "{kind:?} {state:?}");
            }
        }
        for kind in [Kind::Engine, Kind::Processes, Kind::Mounts, Kind::Owners] {
            let found = mend(&Seeing::new(kind, State::Refused), &sight(Vec::new(), 0)).expect("it is refused");
            assert!(!found.missing.is_empty() && found.ways.iter().all(|way| !way.opens.is_empty()), "{kind:?}");
        }
    }
}
