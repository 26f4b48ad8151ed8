//! Mistakes in files, variables and flags: 78 for a configuration, 2 for wrong usage, 1 for what the host lacks.

use std::fs;

use dunlin_tests::pki::{Authority, Identity, node_ids};
use dunlin_tests::scratch::Scratch;

use crate::{program, refused};

#[test]
fn mistake_in_the_file_is_named_with_its_place_and_what_would_be_right() {
    let scratch = Scratch::new("config").expect("a directory");
    let file = scratch.join("dunlin.toml");
    let cases: &[(&str, &str, &str, &[&str])] = &[
        (
            "dunlin-agent",
            "collectors = [\"a\"]\n[spool]\n  ramm = \"1MiB\"\n",
            ":3:3: ",
            &["spool.ramm", "spool.ram\""],
        ),
        ("dunlin-agent", "collectors = [\"a\"]\ninterval = \"soon\"\n", ":2:12: ", &["interval", "\"10s\""]),
        ("dunlin-agent", "collectors = [\"a\"]\ninterval = \"1ms\"\n", ":2:12: ", &["interval", "1s"]),
        ("dunlin-agent", "collectors = [\n", "", &["dunlin.toml:"]),
        ("dunlin-agent", "", "", &["collectors: none given"]),
        ("dunlin-collector", "quic_lisen = \"[::]:1\"\n", ":1:1: ", &["quic_lisen", "quic_listen"]),
        ("dunlin-collector", "http_listen = 7\n", ":1:15: ", &["http_listen", "text in quotes"]),
        ("dunlin-collector", "quic_listen = \"here\"\n", "", &["quic_listen", "here", "[::]:9737"]),
        ("dunlin-collector", "http_listen = \"0.0.0.0:80\"\n", "", &["http_listen", "insecure_http"]),
    ];
    for (name, text, place, words) in cases {
        fs::write(&file, text).expect("it is writable");
        let (code, said) = refused(program(name).arg("--config").arg(&file));
        assert_eq!(code, 78, "{text}: {said}");
        assert_eq!(said.lines().count(), 1, "{text}: {said}");
        let place = if place.is_empty() { String::new() } else { format!("{}{place}", file.display()) };
        for word in words.iter().copied().chain([place.as_str()]) {
            assert!(said.contains(word), "{word:?} is not said of {text:?}: {said}");
        }
    }
    let (code, said) = refused(program("dunlin-agent").arg("--config").arg(scratch.join("none.toml")));
    assert_eq!((code, said.contains("none.toml")), (78, true), "{said}");
    fs::write(&file, [0xff, 0xfe, b'\n']).expect("it is writable");
    let (code, said) = refused(program("dunlin-collector").arg("--config").arg(&file));
    assert_eq!((code, said.contains("dunlin.toml")), (78, true), "{said}");
}

#[test]
fn unknown_variable_and_flag_are_refused_with_the_nearest_name() {
    for (name, variable, nearest) in [
        ("dunlin-agent", "DUNLIN_AGENT_INTERVALL", "DUNLIN_AGENT_INTERVAL"),
        ("dunlin-collector", "DUNLIN_COLLECTOR_STATE", "DUNLIN_COLLECTOR_STATE_DIR"),
    ] {
        let (code, said) = refused(program(name).env(variable, "1"));
        assert_eq!((code, said.lines().count()), (78, 1), "{said}");
        assert!(said.contains(variable) && said.contains(nearest), "{said}");
    }
    for (name, flag) in [("dunlin-agent", "--interva"), ("dunlin-collector", "--state-dirr")] {
        let (code, said) = refused(program(name).args([flag, "1"]));
        assert_eq!(code, 2, "{said}");
        assert!(said.contains(flag), "{said}");
    }
}

#[test]
fn missing_or_useless_identity_of_a_collector_is_named_by_its_file() {
    let authority = Authority::new().expect("an authority");
    let node = authority.node(node_ids(1, 0)[0]).expect("a certificate").identity();
    let collector = authority.collector().expect("a certificate");
    let mixed = Identity { cert_der: collector.cert_der.clone(), key_der: node.key_der.clone() };
    type Spoil = fn(&std::path::Path);
    let cases: &[(&Identity, Spoil, &[&str])] = &[
        (&collector, |state| fs::remove_file(state.join("ca.pem")).expect("it is there"), &["ca.pem"]),
        (&collector, |state| fs::write(state.join("collector.key"), [0; 9]).expect("writable"), &["collector.key"]),
        (&mixed, |_| {}, &["collector.key", "collector.pem", "belong together"]),
    ];
    for (identity, spoil, words) in cases {
        let scratch = Scratch::new("identity").expect("a directory");
        let state = scratch.join("state");
        identity.write(&state, authority.ca_der(), "collector").expect("it is writable");
        spoil(&state);
        let (code, said) = refused(program("dunlin-collector").arg("--state-dir").arg(&state));
        assert_eq!((code, said.lines().count()), (1, 1), "{said}");
        assert!(words.iter().all(|word| said.contains(word)), "{words:?}: {said}");
    }
}

#[test]
fn certificate_for_http_that_cannot_be_used_is_named_by_its_file_and_nothing_listens() {
    let authority = Authority::new().expect("an authority");
    let scratch = Scratch::new("http").expect("a directory");
    let place = |name: &str| scratch.join(name);
    for name in ["one", "two"] {
        authority
            .collector()
            .expect("a certificate")
            .write(&place(name), authority.ca_der(), "http")
            .expect("writable");
    }
    fs::write(place("garbage"), "x").expect("it is writable");
    let (cert, key) = (place("one").join("http.pem"), place("one").join("http.key"));
    let (other, none, garbage) = (place("two").join("http.key"), place("none"), place("garbage"));
    for (cert, key, code, words) in [
        (Some(&cert), Some(&other), 1, "the certificate for HTTP"),
        (Some(&none), Some(&key), 1, "none"),
        (Some(&garbage), Some(&key), 1, "garbage"),
        (Some(&cert), Some(&garbage), 1, "garbage"),
        (Some(&cert), None, 78, "tls.key"),
        (None, Some(&key), 78, "tls.cert"),
    ] {
        let state = Scratch::new("state").expect("a directory");
        let flags = [("--tls-cert", cert), ("--tls-key", key)];
        let flags = flags.into_iter().filter_map(|(flag, path)| Some([flag.to_owned(), path?.display().to_string()]));
        let program = program("dunlin-collector").arg("--state-dir").arg(state.path());
        let program = program.args(["--http-listen", "0.0.0.0:0", "--quic-listen", "127.0.0.1:0"]);
        let (got, said) = refused(program.args(flags.flatten()));
        assert!(got == code && said.contains(words), "{got}: {said}");
        let complaints = said.lines().filter(|line| !line.contains("INFO")).count();
        assert_eq!(complaints, 1, "{said}");
    }
}
