//! The lives of containers, step by step, as either engine tells them.

use dunlin_shared::inventory::{ContainerState, Engine as By, What};
use dunlin_tests::deadline::until;
use dunlin_tests::engines::{Engine, IMAGE, Kind};
use dunlin_tests::netns::Namespace;

use crate::{LIMIT, SECRET, Site, container, engine, happened};

/// Ends in order when it is asked to, and says so by its exit code.
const POLITE: &[&str] = &["sh", "-c", "trap 'exit 7' TERM; while :; do sleep 0.1; done # --requirepass S3CRET"];
const HOST: &[&str] = &["--network", "host"];

#[test]
fn docker_tells_every_step_of_a_life_and_no_secret() {
    let namespace = Namespace::new("docker").expect("a namespace");
    let docker = engine(Kind::Docker, &namespace);
    docker.run(&["network", "create", "--subnet", "10.97.77.0/24", "shop"]).expect("a network");
    let site = Site::start(&namespace, &docker);
    tell_a_life(&site, &docker, By::Docker);

    let published = ["--network", "shop", "-p", "127.0.0.1:18080:80", "-p", "53:5353/udp"];
    docker.launch("shop", &published, POLITE).expect("it starts");
    site.wait_happened("shop", "container.started", 1);
    let shop = site.container("shop");
    assert_eq!(shop.networks, ["shop".into()]);
    let mut ports: Vec<_> =
        shop.published.iter().filter(|one| one.address.is_ipv4()).map(|one| (one.port, one.inside)).collect();
    ports.sort_unstable();
    assert_eq!(ports, [(53, 5353), (18_080, 80)]);
    site.has_no_secret();
}

#[test]
fn podman_tells_every_step_of_a_life_and_no_secret() {
    let namespace = Namespace::new("podman").expect("a namespace");
    let podman = engine(Kind::Podman, &namespace);
    // Without a container its service is left alone.
    podman.launch("first", HOST, POLITE).expect("it starts");
    let site = Site::start(&namespace, &podman);
    tell_a_life(&site, &podman, By::Podman);
    site.has_no_secret();
}

fn tell_a_life(site: &Site<'_>, engine: &Engine<'_>, by: By) {
    site.wait("the first inventory", |history| (!history.stock.is_empty()).then_some(()));
    let options = ["--network", "host", "-e", "PASS=S3CRET", "--label", "team=a", "--label", "key=S3CRET"];
    engine.launch("web", &[&options[..], &["--memory", "20m"]].concat(), POLITE).expect("it starts");
    site.wait_happened("web", "container.started", 1);
    let web = site.container("web");
    assert_eq!((web.state, web.engine, web.is_told), (ContainerState::Running, by, true));
    assert_eq!((web.memory_limit_bytes, web.labels.len()), (Some(20 << 20), 1));
    assert!(web.id.len() == 64 && web.image.contains("box") && web.digest.starts_with("sha256:"), "{web:?}");
    assert!(!format!("{web:?}").contains(SECRET));

    for (words, kind) in [(&["pause", "web"][..], "container.paused"), (&["unpause", "web"], "container.unpaused")] {
        engine.run(words).expect("it does");
        site.wait_happened("web", kind, 1);
    }
    engine.run(&["rename", "web", "www"]).expect("it does");
    site.wait_happened("www", "container.renamed", 1);
    site.wait("the new name alone", |history| {
        (container(history, "www").is_some() && container(history, "web").is_none()).then_some(())
    });
    // An exit code that is not 0 is no crash where somebody asked for the end.
    engine.run(&["stop", "www"]).expect("it does");
    site.wait_happened("www", "container.stopped", 1);
    let www = site.container("www");
    assert_eq!((www.state, www.exit_code, www.is_stop_asked), (ContainerState::Exited, Some(7), true));
    engine.run(&["rm", "www"]).expect("it does");
    site.wait_happened("www", "container.removed", 1);
    site.wait("no more of it", |history| container(history, "www").is_none().then_some(()));

    engine.launch("crash", HOST, &["sh", "-c", "exit 3"]).expect("it starts");
    site.wait_happened("crash", "container.crashed", 1);
    assert_eq!(site.container("crash").exit_code, Some(3));

    let restarting = [HOST, &["--restart", "on-failure:2"]].concat();
    engine.launch("loop", &restarting, &["sh", "-c", "sleep 0.2; exit 3"]).expect("it starts");
    site.wait_happened("loop", "container.crashed", 3);
    site.wait_happened("loop", "container.restarted", 2);
    let last = site.wait("its end", |history| {
        container(history, "loop").filter(|one| one.state == ContainerState::Exited && one.restarts == 2)
    });
    assert!(!last.is_stop_asked && last.exit_code == Some(3), "{last:?}");

    engine.launch("hog", &[HOST, &["--memory", "8m"]].concat(), &["tail", "/dev/zero"]).expect("it starts");
    site.wait_happened("hog", "container.oom_killed", 1);
    let hog =
        site.wait("its end", |history| container(history, "hog").filter(|one| one.state == ContainerState::Exited));
    assert!(hog.is_oom_killed && hog.exit_code == Some(137), "{hog:?}");
    upgrade(site, engine);
    site.wait("nothing told twice", |history| {
        let once = [("crash", "container.crashed"), ("hog", "container.oom_killed"), ("www", "container.stopped")];
        let all_once = once.iter().all(|(name, kind)| happened(history, name, kind) == 1);
        let loops = happened(history, "loop", "container.crashed") == 3;
        (all_once && loops && history.mismatches == 0).then_some(())
    });
    feed_tells(site);
}

/// As it is done with containers: another one in the place of the old.
fn upgrade(site: &Site<'_>, engine: &Engine<'_>) {
    engine.launch("up", HOST, POLITE).expect("it starts");
    site.wait_happened("up", "container.started", 1);
    let before = site.container("up").image;
    engine.run(&["stop", "up"]).expect("it does");
    site.wait_happened("up", "container.stopped", 1);
    engine.run(&["rm", "up"]).expect("it does");
    site.wait_happened("up", "container.removed", 1);
    engine.run(&["tag", IMAGE, "next:2"]).expect("it does");
    engine.launch_from("next:2", "up", HOST, POLITE).expect("it starts");
    site.wait_happened("up", "container.started", 2);
    let after = site.wait("the new image", |history| container(history, "up").filter(|one| one.image != before)).image;
    assert!(after.ends_with("next:2"), "{before} {after}");
    let changed = site.wait("the change", |history| {
        let is_it = |what: &What| matches!(what, What::ContainerImageChanged { .. });
        history.happened.iter().map(|one| &one.what).find(|what| is_it(what)).cloned()
    });
    assert_eq!(changed, What::ContainerImageChanged { before, after });
}

/// The collector's feed holds the life that was played, each container's steps in their order, and nothing else of them.
fn feed_tells(site: &Site<'_>) {
    let lives = [
        ("web", "created started paused unpaused"),
        ("www", "renamed stopped removed"),
        ("crash", "created started crashed"),
        ("loop", "created started crashed restarted crashed restarted crashed"),
        ("hog", "created started oom_killed crashed"),
        ("up", "created started stopped removed image_changed created started"),
    ];
    let told = || {
        let events = site.events();
        let of = |name: &str| {
            let kinds = events.iter().filter(|(_, container)| container == name);
            kinds.map(|(kind, _)| kind.trim_start_matches("container.")).collect::<Vec<_>>().join(" ")
        };
        lives.map(|(name, _)| (name, of(name)))
    };
    let played = lives.map(|(name, life)| (name, life.to_owned()));
    let found = until("the feed of the life that was played", LIMIT, || (told() == played).then_some(()));
    found.unwrap_or_else(|error| panic!("{error}: played {played:?}, told {:?}", told()));
}
