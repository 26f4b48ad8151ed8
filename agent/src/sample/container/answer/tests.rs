//! Answers of real engines, read; answers of others, refused.

use proptest::prelude::*;

use super::*;

const ID: &str = "42c68eb63c6ad5d3e6c0356b0f4e7a77322bcdba394203d597c7e396afae502d";

/// What Docker 20.10 answered, with fields that are of no use left out.
const DOCKER: &str = r#"{"Id":"42c68eb63c6ad5d3e6c0356b0f4e7a77322bcdba394203d597c7e396afae502d",
"Created":"2026-11-21T18:05:58.904901493Z","Path":"redis-server","Args":["--requirepass","S3CRET"],
"State":{"Status":"running","Running":true,"Paused":false,"Restarting":false,"OOMKilled":false,"Dead":false,"Pid":77,
"ExitCode":0,"Error":"","StartedAt":"2026-11-21T18:06:04.085927295Z","FinishedAt":"0001-01-01T00:00:00Z",
"Health":{"Status":"healthy","FailingStreak":0,"Log":[]}},
"Image":"sha256:583abc8f","Name":"/web","RestartCount":2,
"HostConfig":{"NetworkMode":"default","PortBindings":{},"RestartPolicy":{"Name":"on-failure","MaximumRetryCount":5},
"Memory":20971520,"NanoCpus":500000000,"CpuPeriod":0,"CpuQuota":0},
"Config":{"Env":["PASS=S3CRET"],"Cmd":["redis-server","--requirepass","S3CRET"],"Image":"redis:7","Entrypoint":null,
"Labels":{"com.docker.compose.project":"shop","com.docker.compose.service":"cache","team":"a","secret":"S3CRET"},
"StopSignal":"SIGQUIT"},
"NetworkSettings":{"Ports":{"6379/tcp":[{"HostIp":"0.0.0.0","HostPort":"16379"},{"HostIp":"::","HostPort":"16379"}],
"53/udp":[{"HostIp":"127.0.0.1","HostPort":"53"}],"9/sctp":[{"HostIp":"","HostPort":"9"}],"80/tcp":null},
"Networks":{"shop_default":{"IPAddress":"172.18.0.2"}}}}"#;

/// What Podman 4.3 answered, likewise.
const PODMAN: &str = r#"{"Id":"42c68eb63c6ad5d3e6c0356b0f4e7a77322bcdba394203d597c7e396afae502d","Name":"/web2",
"State":{"Status":"exited","OOMKilled":false,"Pid":0,"ExitCode":137,"StartedAt":"2026-11-21T18:06:12.142546804Z",
"FinishedAt":"2026-11-21T18:06:12.253714161Z","Health":{"Status":"","FailingStreak":0,"Log":null}},
"Image":"sha256:ed901896","RestartCount":0,
"HostConfig":{"NetworkMode":"host","RestartPolicy":{"Name":"","MaximumRetryCount":0},"Memory":0,"NanoCpus":0,
"CpuPeriod":50000,"CpuQuota":25000},
"Config":{"Env":["PASS=S3CRET"],"Image":"localhost/box:latest","Labels":null,"StopSignal":"15"},
"NetworkSettings":{"Ports":{},"Networks":null}}"#;

fn read(text: &str) -> Inspected {
    inspected(text.as_bytes(), Engine::Docker, &["team".into(), "nobody".into()]).expect("it is an answer")
}

#[test]
fn what_docker_tells_is_read_and_no_more() {
    let Inspected { container, stop_signal, .. } = read(DOCKER);
    assert!(!format!("{container:?}").contains("S3CRET"), "{container:?}");
    assert_eq!((&*container.name, &*container.image, &*container.digest), ("web", "redis:7", "sha256:583abc8f"));
    assert_eq!((container.state, container.health), (ContainerState::Running, Health::Healthy));
    assert_eq!((&*container.restart_policy, container.restarts, stop_signal), ("on-failure", 2, Some(3)));
    assert_eq!((container.exit_code, container.finished, container.started.is_some()), (None, None, true));
    assert_eq!((container.memory_limit_bytes, container.cpu_limit_millicores), (Some(20_971_520), Some(500)));
    assert_eq!(container.compose_project.as_deref().zip(container.compose_service.as_deref()), Some(("shop", "cache")));
    assert_eq!(container.labels, BTreeMap::from([("team".into(), "a".into())]));
    assert_eq!(container.networks, ["shop_default".into()]);
    let published: Vec<_> =
        container.published.iter().map(|one| format!("{}:{}->{}", one.address, one.port, one.inside)).collect();
    assert_eq!(published, ["127.0.0.1:53->53", "0.0.0.0:16379->6379", ":::16379->6379"]);
}

#[test]
fn what_podman_tells_is_read_alike() {
    let Inspected { container, stop_signal, .. } = read(PODMAN);
    assert_eq!((&*container.name, container.state, container.health), ("web2", ContainerState::Exited, Health::None));
    assert_eq!((container.exit_code, stop_signal, &*container.restart_policy), (Some(137), Some(15), "no"));
    assert_eq!((container.memory_limit_bytes, container.cpu_limit_millicores), (None, Some(500)));
    assert_eq!(container.networks, ["host".into()]);
    assert!(container.finished > container.started, "{container:?}");
}

#[test]
fn an_answer_with_other_things_in_its_fields_is_refused_and_one_with_little_is_read() {
    for text in ["", "null", "[]", "{}", "\u{0}", r#"{"Id":"../x","State":{}}"#, r#"{"Id":7,"State":{}}"#] {
        assert!(inspected(text.as_bytes(), Engine::Docker, &[]).is_err(), "{text}");
    }
    let little = read(&format!(r#"{{"Id":"{ID}","State":{{}}}}"#)).container;
    assert_eq!((&*little.name, little.state), ("42c68eb63c6a", ContainerState::Exited));
    let long = format!(r#"{{"Id":"{ID}","Name":"/{0}","Image":"{0}","State":{{}}}}"#, "ü\\n".repeat(300));
    let long = read(&long).container;
    let stock = dunlin_shared::inventory::Stock::of([dunlin_shared::inventory::Item::Container(Box::new(long))]);
    let whole = dunlin_shared::inventory::Inventory::Whole(stock.to_whole(Vec::new()));
    assert!(dunlin_shared::inventory::Inventory::decode(&whole.encode()).is_ok(), "it fits its limits");
}

#[test]
fn an_image_has_the_digest_of_the_registry_that_its_name_names() {
    let of = |digests: &str, name: &str| {
        let answer = format!(r#"{{"Id":"sha256:1","RepoDigests":{digests},"Config":{{"Env":["PASS=S3CRET"]}}}}"#);
        digest(answer.as_bytes(), name).expect("it is an answer").map(String::from)
    };
    let two = r#"["mirror.example:5000/redis@sha256:a1","docker.io/library/redis@sha256:b2"]"#;
    for (digests, name, found) in [
        (r#"["redis@sha256:a1"]"#, "redis:7", Some("sha256:a1")),
        (two, "library/redis:7", Some("sha256:b2")),
        (two, "mirror.example:5000/redis@sha256:a1", Some("sha256:a1")),
        (two, "sha256:0123", Some("sha256:a1")),
        (r#"["xredis@sha256:a1","redis@sha256:b2"]"#, "redis", Some("sha256:b2")),
        (r#"["localhost/box@sha256:a1"]"#, "box", None),
        (r#"["<none>@<none>","redis@sha256:a b"]"#, "redis", None),
        ("[]", "redis", None),
        ("null", "redis", None),
    ] {
        assert_eq!(of(digests, name).as_deref(), found, "{digests} {name}");
    }
    assert!(digest(b"OK", "redis").is_err());
    assert!(is_image_id(&format!("sha256:{ID}")) && is_image_id(ID) && !is_image_id("sha256:../../x"));
}

fn list(pieces: &[&[u8]]) -> Result<(Vec<Listed>, bool), Trouble> {
    let (mut elements, mut found) = (Elements::default(), Vec::new());
    pieces.iter().try_for_each(|piece| elements.feed(piece, |one| found.push(one)))?;
    Ok((found, elements.is_whole()))
}

#[test]
fn a_list_is_cut_wherever_it_is_torn() {
    let text = format!(
        r#" [{{"Id":"{ID}","State":"running","Command":"a \"}}]\\","Labels":{{"x":"{{"}}}}, {{"Id":"{ID}","Ports":[]}}] "#
    );
    let whole = list(&[text.as_bytes()]).expect("a list");
    assert_eq!((whole.0.len(), whole.0[0].is_up, whole.0[1].is_up, whole.1), (2, true, false, true));
    for at in 0..text.len() {
        assert_eq!(list(&[&text.as_bytes()[..at], &text.as_bytes()[at..]]).expect("a list"), whole, "torn at {at}");
    }
    assert_eq!(list(&[b"[]"]).expect("an empty list"), (vec![], true));
    assert_eq!(list(&[b"["]).expect("half a list"), (vec![], false));
}

#[test]
fn what_is_no_list_or_has_no_end_is_refused() {
    for text in ["{}", "null", "[1]", "[[]]", "[{}]", r#"[{"Id":7}]"#, "[]]", "[{]"] {
        assert!(list(&[text.as_bytes()]).is_err(), "{text}");
    }
    let endless = format!("[{{\"Id\":\"{}", "x".repeat(ELEMENT_BYTES_MAX));
    assert!(matches!(list(&[endless.as_bytes()]), Err(Trouble::TooLong { .. })));
}

proptest! {
    #[test]
    fn any_answer_is_read_or_refused(bytes: Vec<u8>, cut in 0..DOCKER.len(), at in 0..DOCKER.len(), byte: u8) {
        let refused = |bytes: &[u8]| drop(inspected(bytes, Engine::Docker, &[]));
        refused(&bytes);
        drop(digest(&bytes, "redis:7"));
        refused(&DOCKER.as_bytes()[..cut]);
        let mut flipped = DOCKER.as_bytes().to_vec();
        flipped[at] = byte;
        refused(&flipped);
        drop(list(&[&bytes]));
    }
}
