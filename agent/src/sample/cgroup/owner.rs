//! To whom a control group belongs, told from its path alone: a container, a service, or nobody in particular.
//!
//! Pure. Of a container within a container the outer one owns it: that is what this host runs.

use dunlin_shared::inventory::Engine;

/// Whose processes a control group holds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Owner {
    Host,
    /// A systemd service of the system's own manager, with its suffix.
    Unit(Box<str>),
    Container {
        engine: Engine,
        /// 64 hexadecimal digits, or the name of an LXC container.
        id: Box<str>,
    },
}

/// What stands in front of a container's id in the name of its group, and who writes so.
const MARKS: [(&str, Engine); 6] = [
    ("docker-", Engine::Docker),
    ("libpod-", Engine::Podman),
    ("cri-containerd-", Engine::Containerd),
    ("nerdctl-", Engine::Containerd),
    ("crio-", Engine::Crio),
    ("lxc.payload.", Engine::Lxc),
];

/// From `/proc/N/cgroup`: a line a hierarchy, `number:controllers:path`.
#[must_use]
pub fn owner_of(text: &str) -> Owner {
    let mut unit = None;
    for line in text.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        match owner_of_path(path) {
            container @ Owner::Container { .. } => return container,
            // Only systemd's own hierarchy says to which service a process belongs.
            Owner::Unit(name) if controllers.is_empty() || controllers == "name=systemd" => unit = unit.or(Some(name)),
            Owner::Unit(_) | Owner::Host => {}
        }
    }
    unit.map_or(Owner::Host, Owner::Unit)
}

/// From a path below the root of a hierarchy.
#[must_use]
pub fn owner_of_path(path: &str) -> Owner {
    let mut before = "";
    let mut unit = None;
    for name in path.split('/').filter(|name| !name.is_empty()) {
        if let Some((engine, id)) = container(before, name) {
            return Owner::Container { engine, id: id.into() };
        }
        if unit.is_none() && name.ends_with(".service") {
            unit = Some(name);
        }
        before = name;
    }
    unit.map_or(Owner::Host, |name| Owner::Unit(name.into()))
}

/// Whether the group called `name`, below the one called `before`, is a container.
fn container<'a>(before: &str, name: &'a str) -> Option<(Engine, &'a str)> {
    let bare = name.strip_suffix(".scope").unwrap_or(name);
    for (mark, engine) in MARKS {
        match bare.strip_prefix(mark) {
            Some(id) if engine == Engine::Lxc && !id.is_empty() => return Some((engine, id)),
            Some(id) if is_id(id) => return Some((engine, id)),
            _ => {}
        }
    }
    match before {
        "lxc" | "lxc.payload" if name != "lxc.monitor" => Some((Engine::Lxc, name)),
        "docker" if is_id(name) => Some((Engine::Docker, name)),
        // Kubernetes with cgroupfs, and others that name a group by its id alone.
        _ if is_id(name) => Some((Engine::Unknown, name)),
        _ => None,
    }
}

fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_engine_is_known_by_the_path_that_it_makes() {
        let id = "0123456789abcdef".repeat(4);
        let cases = [
            ("/docker/ID", Engine::Docker),
            ("/system.slice/docker-ID.scope", Engine::Docker),
            ("/system.slice/docker-ID.scope/init.scope", Engine::Docker),
            ("/machine.slice/libpod-ID.scope", Engine::Podman),
            ("/libpod_parent/libpod-ID", Engine::Podman),
            ("/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-ID.scope/container", Engine::Podman),
            ("/kubepods.slice/kubepods-pod7.slice/cri-containerd-ID.scope", Engine::Containerd),
            ("/kubepods.slice/kubepods-pod7.slice/crio-ID.scope", Engine::Crio),
            ("/kubepods/burstable/pod7/ID", Engine::Unknown),
            ("/default/nerdctl-ID.scope", Engine::Containerd),
        ];
        for (path, engine) in cases {
            let owner = owner_of_path(&path.replace("ID", &id));
            assert_eq!(owner, Owner::Container { engine, id: id.as_str().into() }, "{path}");
        }
        for path in ["/lxc/web", "/lxc.payload/web/system.slice/a.service", "/lxc.payload.web"] {
            assert_eq!(owner_of_path(path), Owner::Container { engine: Engine::Lxc, id: "web".into() }, "{path}");
        }
    }

    #[test]
    fn what_only_watches_over_a_container_is_none() {
        let id = "0123456789abcdef".repeat(4);
        for path in [
            "/machine.slice/libpod-conmon-ID.scope",
            "/system.slice/crio-conmon-ID.scope",
            "/docker",
            "/lxc.monitor.web",
        ] {
            assert_eq!(owner_of_path(&path.replace("ID", &id)), Owner::Host, "{path}");
        }
    }

    #[test]
    fn a_service_is_told_by_systemds_own_hierarchy() {
        let nginx = Owner::Unit("nginx.service".into());
        assert_eq!(owner_of("4:memory:/\n1:name=systemd:/system.slice/nginx.service\n0::/\n"), nginx);
        assert_eq!(owner_of("0::/system.slice/nginx.service/workers\n"), nginx);
        assert_eq!(owner_of("4:memory:/system.slice/nginx.service\n"), Owner::Host);
        assert_eq!(owner_of("0::/init.scope\n"), Owner::Host);
        assert_eq!(owner_of("0::/user.slice/user-0.slice/session-1.scope\n"), Owner::Host);
    }

    proptest! {
        #[test]
        fn any_text_has_an_owner(text: String) {
            prop_assert!(owner_of(&text) == Owner::Host || text.contains(':'));
        }
    }
}
