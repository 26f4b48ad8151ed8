//! Files that are whole, missing, torn, open, or of another key.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use super::testing::{Authority, NODE};
use super::*;
use crate::state::tests::Dir;

fn kinds(files: &Files) -> [&'static str; 3] {
    const fn kind<T>(part: &Part<T>) -> &'static str {
        match part {
            Part::Missing => "missing",
            Part::Good(_) => "good",
            Part::Bad(_) => "bad",
        }
    }
    [kind(&files.key), kind(&files.certificate), kind(&files.authorities)]
}

#[test]
fn what_was_stored_is_the_identity_and_is_closed_to_others() {
    let dir = Dir::new();
    assert_eq!(kinds(&Files::read(&dir.0)), ["missing"; 3]);
    let ours = Authority::new("ours");
    let key = ours.enrol(&dir.0);
    let identity = Identity::load(&dir.0).expect("it is whole");
    assert_eq!((identity.node, identity.key), (NODE, key.private()));
    assert_eq!(identity.authorities, [ours.der]);
    for name in dir.names() {
        let mode = fs::metadata(dir.0.join(&name)).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

#[test]
fn every_torn_file_is_noticed_by_name() {
    for (at, name) in [KEY, CERTIFICATE, AUTHORITIES].iter().enumerate() {
        let dir = Dir::new();
        Authority::new("ours").enrol(&dir.0);
        let path = dir.0.join(name);
        let whole = fs::read(&path).expect("it is there");
        // The last line break is no part of what it holds.
        for len in (0..whole.len() - 1).step_by(7) {
            fs::write(&path, &whole[..len]).expect("it is writable");
            let files = Files::read(&dir.0);
            assert_eq!(kinds(&files)[at], "bad", "{name} with {len} bytes");
            let error = Identity::load(&dir.0).expect_err("it is torn").to_string();
            assert!(error.contains(name), "{error}");
        }
    }
}

#[test]
fn a_key_that_others_can_read_is_refused_with_the_command_to_run() {
    let dir = Dir::new();
    Authority::new("ours").enrol(&dir.0);
    let path = dir.0.join(KEY);
    for mode in [0o640, 0o604, 0o620] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("it is ours");
        let error = Identity::load(&dir.0).expect_err("it is open").to_string();
        assert!(error.contains(&format!("chmod 600 {}", path.display())), "{error}");
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).expect("it is ours");
    assert!(Identity::load(&dir.0).is_ok());
}

#[test]
fn a_certificate_of_another_key_or_of_no_node_is_not_ours() {
    let dir = Dir::new();
    let ours = Authority::new("ours");
    ours.enrol(&dir.0);
    let other = NodeKey::generate().expect("a key");
    store_certificate(&dir.0, &[ours.node(NODE, &other.public_key())]).expect("it is writable");
    let error = Identity::load(&dir.0).expect_err("another's").to_string();
    assert!(error.contains("node.pem") && error.contains("another key"), "{error}");
    store_certificate(&dir.0, &ours.good_collector().chain).expect("it is writable");
    let error = Identity::load(&dir.0).expect_err("nobody's").to_string();
    assert!(error.contains("node.pem") && error.contains("names no node"), "{error}");
}

#[test]
fn what_is_no_certificate_or_too_many_of_them_is_refused() {
    let dir = Dir::new();
    let ours = Authority::new("ours");
    ours.enrol(&dir.0);
    let path = dir.0.join(AUTHORITIES);
    for (text, said) in [("x".to_owned(), "no certificate"), (pem::encode("CERTIFICATE", b"x"), "no certificate")] {
        fs::write(&path, text).expect("it is writable");
        let error = Identity::load(&dir.0).expect_err("no certificate").to_string();
        assert!(error.contains("ca.pem") && error.contains(said), "{error}");
    }
    store_authorities(&dir.0, &vec![ours.der; AUTHORITIES_MAX + 1]).expect("it is writable");
    assert!(Identity::load(&dir.0).expect_err("too many").to_string().contains("more than 4"));
}
