//! HTTP off loopback: TLS, and a client that says whom it does not trust and what to do.

use dunlin_collector::access::hash_of;
use dunlin_shared::token::Pin;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, PublicKeyData as _};

use super::wire::Request;
use super::*;

/// The pin of the authority that it makes.
pub(super) fn certify(scratch: &Scratch) -> String {
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_key = KeyPair::generate().expect("a key");
    let authority_cert = authority.self_signed(&authority_key).expect("a certificate");
    let leaf_key = KeyPair::generate().expect("a key");
    let leaf = CertificateParams::new([String::from("127.0.0.1"), String::from("localhost")]).expect("names");
    let leaf = leaf.signed_by(&leaf_key, &Issuer::from_params(&authority, &authority_key)).expect("a certificate");
    fs::write(scratch.join("ca.pem"), authority_cert.pem()).expect("written");
    fs::write(scratch.join("http.pem"), format!("{}{}", leaf.pem(), authority_cert.pem())).expect("written");
    fs::write(scratch.join("http.key"), leaf_key.serialize_pem()).expect("written");
    Pin(hash_of(&authority_key.subject_public_key_info()).0).to_string()
}

#[test]
fn off_loopback_it_speaks_tls_and_the_client_says_whom_it_trusts() {
    let place = Scratch::new("tls").expect("a place");
    let pin = certify(&place);
    let path = |name: &str| place.join(name).display().to_string();
    let (cert, key, ca) = (path("http.pem"), path("http.key"), path("ca.pem"));
    let site = Site::start_with(&["--http-listen", "0.0.0.0:9738", "--tls-cert", &cert, "--tls-key", &key], |_| {});
    let token = site.admin_token();
    let ask = |url: &str, more: &[(&str, &str)]| {
        let environment: Vec<_> =
            [("DUNLIN_URL", url), ("DUNLIN_TOKEN", &token)].into_iter().chain(more.iter().copied()).collect();
        site.dunlin_with(&environment, &["nodes"])
    };
    let trusted = ask("https://127.0.0.1:9738", &[("DUNLIN_CA", &ca)]);
    assert_eq!(trusted.code, 0, "{}", trusted.err);
    assert_eq!(ask("https://localhost", &[("DUNLIN_CA", &ca)]).code, 0);
    let unknown = ask("https://127.0.0.1:9738", &[("DUNLIN_CA", &site.state().join("ca.pem").display().to_string())]);
    assert!(unknown.code == 1 && unknown.err.contains("DUNLIN_CA"), "{}", unknown.err);
    let pinned = ask("https://127.0.0.1:9738", &[("DUNLIN_CA_PIN", &pin)]);
    assert_eq!(pinned.code, 0, "{}", pinned.err);
    let misnamed = ask("https://127.0.0.2:9738", &[("DUNLIN_CA_PIN", &pin)]);
    assert!(misnamed.code == 1 && misnamed.err.contains("[tls] names"), "{}", misnamed.err);
    let other = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    let unpinned = ask("https://127.0.0.1:9738", &[("DUNLIN_CA_PIN", other)]);
    assert!(unpinned.code == 1 && unpinned.err.contains("not trusted"), "{}", unpinned.err);
    let plain = ask("http://127.0.0.1:9738", &[]);
    assert!(plain.code == 1 && plain.err.contains("https://127.0.0.1:9738"), "{}", plain.err);
}

/// A collector that makes its own authority, and speaks TLS on every address under these names.
fn with_own_authority(names: &str) -> Site {
    Site::start_with(&["--http-listen", "0.0.0.0:9738", "--tls-names", names], without_authority)
}

#[test]
fn the_collectors_own_authority_certifies_its_names_and_its_file_or_its_pin_is_enough_to_trust_it() {
    let site = with_own_authority("127.0.0.1,localhost");
    let token = site.admin_token();
    let ca = site.state().join("ca.pem").display().to_string();
    let joins = site.dunlin(&["token", "create", "--role", "join"]).out;
    let pin = joins.trim().rsplit_once('.').expect("a token ends with its pin").1.to_owned();
    let ask = |url: &str, more: &[(&str, &str)]| {
        let environment = [&[("DUNLIN_URL", url), ("DUNLIN_TOKEN", &token)], more].concat();
        site.dunlin_with(&environment, &["nodes"])
    };
    for url in ["https://127.0.0.1:9738", "https://localhost"] {
        for trust in [("DUNLIN_CA", ca.as_str()), ("DUNLIN_CA_PIN", pin.as_str())] {
            let said = ask(url, &[trust]);
            assert!(said.code == 0 && said.out.starts_with("NAME "), "{url} {trust:?}: {}", said.err);
        }
    }
    let stranger = Scratch::new("stranger").expect("a place");
    let other_pin = certify(&stranger);
    let other_ca = stranger.join("ca.pem").display().to_string();
    let nobody = stranger.join("none.pem").display().to_string();
    let https = "https://127.0.0.1:9738";
    for (url, more, code, words) in [
        (https, &[("DUNLIN_CA_PIN", other_pin.as_str())][..], 1, "not trusted; set DUNLIN_CA"),
        (https, &[("DUNLIN_CA", other_ca.as_str())], 1, "not trusted; set DUNLIN_CA"),
        (https, &[("DUNLIN_CA", nobody.as_str())], 1, "none.pem"),
        (https, &[("DUNLIN_CA", ca.as_str()), ("DUNLIN_CA_PIN", pin.as_str())], 1, "exclude each other"),
        (https, &[("DUNLIN_CA_PIN", "x")], 78, "DUNLIN_CA_PIN"),
        (https, &[], 1, "DUNLIN_CA"),
        ("https://127.0.0.2:9738", &[("DUNLIN_CA", ca.as_str())], 1, "[tls] names"),
        ("http://127.0.0.1:9738", &[], 1, "https://127.0.0.1:9738"),
    ] {
        let said = ask(url, more);
        assert_eq!(said.code, code, "{url} {more:?}: {}", said.err);
        assert!(said.err.contains(words) && said.err.lines().count() == 1, "{url} {more:?}: {}", said.err);
        assert!(said.out.is_empty(), "{}", said.out);
    }
}

#[test]
fn the_file_of_the_command_line_says_whom_to_trust_as_its_environment_does() {
    let site = with_own_authority("127.0.0.1");
    let joins = site.dunlin(&["token", "create", "--role", "join"]).out;
    let pin = joins.trim().rsplit_once('.').expect("a token ends with its pin").1;
    let (ca, token) = (site.state().join("ca.pem"), site.state().join("admin-token"));
    let file = site.scratch.join("cli.toml");
    let path = file.display().to_string();
    let start = format!("url = \"https://127.0.0.1\"\ntoken_file = {token:?}\n");
    for (trust, code, words) in [
        (format!("ca_file = {ca:?}\n"), 0, ""),
        (format!("ca_pin = \"{pin}\"\n"), 0, ""),
        (format!("ca_pin = \"{}\"\n", "A".repeat(43)), 1, "not trusted"),
        (String::from("ca_fiel = \"x\"\n"), 78, "ca_file"),
    ] {
        fs::write(&file, format!("{start}{trust}")).expect("it is writable");
        let said = site.dunlin_with(&[], &["--config", &path, "nodes"]);
        assert!(said.code == code && said.err.contains(words), "{trust}: {}", said.err);
        assert_eq!(said.err.lines().count(), usize::from(code != 0), "{trust}: {}", said.err);
    }
}

#[test]
fn plain_http_off_loopback_works_only_where_somebody_asked_for_it_and_is_warned_of() {
    let site = Site::start_with(&["--http-listen", "0.0.0.0:9738", "--insecure-http", "true"], |_| {});
    assert!(site.collector.log_text().contains("HTTP is plain (insecure_http)"), "{}", site.collector.log_text());
    let token = site.admin_token();
    let ask = |url: &str| site.dunlin_with(&[("DUNLIN_URL", url), ("DUNLIN_TOKEN", &token)], &["nodes"]);
    assert_eq!(ask("http://127.0.0.1:9738").code, 0);
    let tls = ask("https://127.0.0.1:9738");
    assert!(tls.code == 1 && tls.err.contains("http:// for https://"), "{}", tls.err);
    // What is open to this host on loopback needs a token where others can ask.
    let metrics = |token| site.ask(&Request { method: "GET", target: "/metrics", token, body: "" }).status;
    assert_eq!((metrics(None), metrics(Some(&token))), (401, 200));
}
