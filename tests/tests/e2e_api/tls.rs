//! HTTP off loopback: TLS, and a client that says whom it does not trust and what to do.

use dunlin_collector::access::hash_of;
use dunlin_shared::token::Pin;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, PublicKeyData as _};

use super::*;

/// The pin of the authority that it makes.
fn certify(scratch: &Scratch) -> String {
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
