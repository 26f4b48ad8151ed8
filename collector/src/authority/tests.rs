//! The authority on real files: made, kept, turned and cut off after every step. Its clock is given.

use std::os::unix::fs::PermissionsExt as _;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use rustls::pki_types::UnixTime;

use super::*;

const NOW: WallMs = WallMs(1_790_000_000_000);
const NODE: NodeId = NodeId::from_bytes([7; 16]);

struct Dir(PathBuf);

impl Dir {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("dunlin-authority-{}-{}", std::process::id(), NUMBER.fetch_add(1, Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).expect("a temporary directory");
        Self(path)
    }

    fn copy(&self) -> Self {
        let copy = Self::new();
        for entry in std::fs::read_dir(&self.0).expect("it is ours") {
            let entry = entry.expect("it is ours");
            std::fs::copy(entry.path(), copy.0.join(entry.file_name())).expect("there is room");
        }
        copy
    }

    fn open(&self) -> Authority {
        Authority::open(&self.0, NOW).expect("its files are whole")
    }

    fn remove(&self, name: &str) {
        std::fs::remove_file(self.0.join(name)).expect("it was there");
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

fn agent_key() -> (PublicKey, EcdsaKeyPair) {
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("the system gives random numbers");
    let random = ring::rand::SystemRandom::new();
    let own = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pair.serialized_der(), &random);
    let spki = rcgen::PublicKeyData::subject_public_key_info(&pair);
    (PublicKey::parse(&spki).expect("a P-256 key"), own.expect("rcgen writes what ring reads"))
}

fn node_certificate(authority: &Authority, at: WallMs) -> CertificateDer<'static> {
    let chain = authority.sign(NODE, &agent_key().0, at).expect("it can sign");
    CertificateDer::from(chain[0].clone())
}

fn is_believed(authority: &Authority, certificate: &CertificateDer<'_>, at: WallMs) -> bool {
    let seconds = u64::try_from(at.0 / 1_000).expect("after 1970");
    let at = UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds));
    authority.client_verifier().verify_client_cert(certificate, &[], at).is_ok()
}

fn pins_shown(authority: &Authority) -> Vec<Pin> {
    let shown = authority.collector_certificate(true);
    shown.cert[1..].iter().map(|der| Pin(Certificate::read(der).expect("a certificate").key)).collect()
}

fn steps(authority: &Authority, plan: &str) -> Vec<Step> {
    let state = authority.state.load();
    match plan {
        "prepare" => state.steps_to_prepare(&authority.dir, NOW),
        "activate" => state.steps_to_activate(),
        _ => state.steps_to_retire(),
    }
    .expect("it is that step's turn")
}

#[test]
fn the_first_start_makes_an_authority_and_every_later_one_keeps_it() {
    let dir = Dir::new();
    let first = dir.open();
    let pin = first.pin().expect("it can enrol");
    let mode = std::fs::metadata(dir.0.join(CA_KEY)).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let certificate = node_certificate(&first, NOW);
    let again = dir.open();
    assert_eq!(again.pin(), Some(pin));
    assert!(is_believed(&again, &certificate, NOW));
    assert_eq!(pins_shown(&again), [pin]);
    assert_eq!(again.collector_certificate(false).cert.len(), 1);
}

#[test]
fn a_node_certificate_names_the_node_and_its_key_for_seven_days() {
    let dir = Dir::new();
    let authority = dir.open();
    let (key, _) = agent_key();
    let chain = authority.sign(NODE, &key, NOW).expect("it can sign");
    let der = CertificateDer::from(chain[0].clone());
    let read = Certificate::read(&der).expect("a certificate of ours");
    assert_eq!((read.node, read.key), (Some(NODE), key.hash()));
    assert_eq!(read.not_after, NOW.plus(NODE_LIFE_MS));
    assert!(authority.is_active(&read.issuer));
    assert!(is_believed(&authority, &der, NOW.plus(-3_000_000)), "a clock that is a little behind");
    assert!(is_believed(&authority, &der, NOW.plus(NODE_LIFE_MS - 1_000)));
    assert!(!is_believed(&authority, &der, NOW.plus(NODE_LIFE_MS + 1_000)));
    assert!(!is_believed(&Dir::new().open(), &der, NOW), "another fleet's authority");
    assert!(chain[0].len() < 512, "{} bytes", chain[0].len());
}

#[test]
fn whatever_year_the_clock_says_a_certificate_is_good_when_it_is_given() {
    for year in [1970, 2026, 2049, 2050, 2096, 2097, 2100, 2200, 8_999] {
        let at = WallMs((year - 1970) * 31_556_952_000 + 86_400_000);
        let dir = Dir::new();
        let authority = Authority::open(&dir.0, at).expect("it is made");
        assert!(is_believed(&authority, &node_certificate(&authority, at), at), "{year}");
    }
}

#[test]
fn a_signature_is_of_one_key_over_one_message() {
    let (key, pair) = agent_key();
    let random = ring::rand::SystemRandom::new();
    let proof = pair.sign(&random, b"of this connection").expect("it signs");
    assert!(key.has_signed(b"of this connection", proof.as_ref()));
    assert!(!key.has_signed(b"of another one", proof.as_ref()));
    assert!(!agent_key().0.has_signed(b"of this connection", proof.as_ref()));
    assert!(!key.has_signed(b"of this connection", b""));
}

#[test]
fn what_is_no_p256_key_is_none_of_ours() {
    let rsa = [0x30, 0x0d, 0x06, 0x09];
    assert_eq!(PublicKey::parse(&rsa), None);
    assert_eq!(PublicKey::parse(&[]), None);
    assert_eq!(PublicKey::parse(&[0x30; 91]), None);
}

#[test]
fn another_authority_takes_over_without_anybody_being_shut_out() {
    let dir = Dir::new();
    let authority = dir.open();
    let (old_pin, old_node) = (authority.pin().expect("it signs"), node_certificate(&authority, NOW));
    assert!(authority.next_authority().is_none() && authority.turn() == Turn::None);

    authority.prepare_next(NOW).expect("nothing is prepared yet");
    assert_eq!(authority.pin(), Some(old_pin));
    let announced = CertificateDer::from(authority.next_authority().expect("it is prepared"));
    let next_pin = Pin(Certificate::read(&announced).expect("a certificate").key);
    assert_eq!(authority.authorities().len(), 2);
    assert!(matches!(authority.prepare_next(NOW), Err(AuthorityError::Prepared)));
    assert!(matches!(authority.retire_old(NOW), Err(AuthorityError::NothingOld)));

    authority.activate_next(NOW).expect("it is prepared");
    assert_eq!(authority.pin(), Some(next_pin));
    assert!(is_believed(&authority, &old_node, NOW));
    assert!(!authority.is_active(&Certificate::read(&old_node).expect("a certificate").issuer));
    let new_node = node_certificate(&authority, NOW);
    assert!(is_believed(&authority, &new_node, NOW));
    assert_eq!(pins_shown(&authority), [next_pin, old_pin], "tokens of either authority find it");
    assert_eq!(authority.collector_certificate(false).cert.len(), 2, "nodes that know the old one alone find it");
    assert_eq!(authority.next_authority().map(CertificateDer::from), Some(announced));
    assert!(matches!(authority.prepare_next(NOW), Err(AuthorityError::OldTrusted)));

    authority.retire_old(NOW).expect("the old one is trusted");
    assert!(!is_believed(&authority, &old_node, NOW) && is_believed(&authority, &new_node, NOW));
    assert_eq!((pins_shown(&authority), authority.turn()), (vec![next_pin], Turn::None));
    assert_eq!(dir.open().pin(), Some(next_pin));
}

#[test]
fn a_change_that_is_cut_off_after_any_step_is_gone_on_with() {
    let dir = Dir::new();
    let authority = dir.open();
    let nodes = [node_certificate(&authority, NOW)];
    for (plan, before, after) in [
        ("prepare", Turn::None, Turn::Prepared),
        ("activate", Turn::Prepared, Turn::Activated),
        ("retire", Turn::Activated, Turn::None),
    ] {
        let authority = dir.open();
        let all = steps(&authority, plan);
        for done in 0..all.len() {
            let cut = dir.copy();
            files::carry_out(&cut.0, &all[..done]).expect("there is room");
            let again = cut.open();
            let turn = again.turn();
            assert!(turn == before || turn == after, "{plan} cut off after {done} steps");
            assert!(is_believed(&again, &node_certificate(&again, NOW), NOW));
            if plan != "retire" {
                assert!(is_believed(&again, &nodes[0], NOW));
            }
            assert_eq!(again.pin(), dir.open().pin(), "{plan} cut off after {done} steps");
            let finished = match (plan, turn == after) {
                (_, true) => Ok(()),
                ("prepare", _) => again.prepare_next(NOW),
                ("activate", _) => again.activate_next(NOW),
                _ => again.retire_old(NOW),
            };
            finished.expect("it is gone on with");
            assert_eq!(again.turn(), after);
        }
        files::carry_out(&dir.0, &all).expect("there is room");
        assert_eq!(dir.open().turn(), after);
    }
}

#[test]
fn a_first_start_that_is_cut_off_is_gone_on_with() {
    let dir = Dir::new();
    let pin = dir.open().pin();
    for name in [CA, files::COLLECTOR, files::COLLECTOR_KEY] {
        dir.remove(name);
    }
    assert_eq!(dir.open().pin(), pin);
}

#[test]
fn files_that_do_not_belong_together_are_refused_and_left_alone() {
    let refused = |dir: &Dir| Authority::open(&dir.0, NOW).expect_err("it must not be guessed at");
    let (dir, other) = (Dir::new(), Dir::new());
    dir.open();
    other.open();

    let foreign_key = dir.copy();
    std::fs::copy(other.0.join(CA_KEY), foreign_key.0.join(CA_KEY)).expect("there is room");
    assert!(matches!(refused(&foreign_key), AuthorityError::Foreign { .. }));

    let without_authority = dir.copy();
    without_authority.remove(CA);
    without_authority.remove(CA_KEY);
    assert!(matches!(refused(&without_authority), AuthorityError::Half { .. }));
    assert!(!without_authority.0.join(CA_KEY).exists());

    let turned = dir.copy();
    turned.open().prepare_next(NOW).expect("nothing is prepared yet");
    turned.remove(NEXT_KEY);
    assert!(matches!(refused(&turned), AuthorityError::Foreign { .. }));

    let torn = dir.copy();
    std::fs::write(torn.0.join(CA), "-----BEGIN CERTIFICATE-----\n").expect("there is room");
    assert!(matches!(refused(&torn), AuthorityError::Unreadable { .. }));
}

#[test]
fn without_the_authoritys_key_everything_but_signing_works() {
    let dir = Dir::new();
    let certificate = node_certificate(&dir.open(), NOW);
    dir.remove(CA_KEY);
    let authority = dir.open();
    assert_eq!(authority.pin(), None);
    assert!(is_believed(&authority, &certificate, NOW));
    assert!(!authority.collector_certificate(false).cert.is_empty());
    assert!(matches!(authority.sign(NODE, &agent_key().0, NOW), Err(AuthorityError::NoKey(_))));
    assert!(matches!(authority.prepare_next(NOW), Err(AuthorityError::NoKey(_))));
    assert!(!authority.renew_if_due(NOW).expect("there is nothing to do"));
}

#[test]
fn the_collectors_certificate_is_made_anew_before_its_time_is_up() {
    let dir = Dir::new();
    let authority = dir.open();
    let before = authority.collector_certificate(false);
    assert!(!authority.renew_if_due(NOW.plus(SERVER_LIFE_MS / 2)).expect("it can"));
    assert!(authority.renew_if_due(NOW.plus(SERVER_LIFE_MS * 3 / 4)).expect("it can"));
    assert!(authority.collector_certificate(false).cert[0] != before.cert[0]);
}

#[test]
fn a_listener_for_people_gets_its_names() {
    let dir = Dir::new();
    let authority = dir.open();
    let names = [ServerName::Dns(String::from("dunlin.example.net")), ServerName::Ip([192, 0, 2, 7].into())];
    let made = authority.server_certificate(&names, NOW).expect("it can");
    let leaf = webpki::EndEntityCert::try_from(&made.chain[0]).expect("a certificate");
    for name in ["dunlin.example.net", "192.0.2.7"] {
        let name = name.to_owned().try_into().expect("a name");
        assert!(leaf.verify_is_valid_for_subject_name(&name).is_ok());
    }
    assert_eq!(made.chain.len(), 2);
    assert_eq!(made.not_after, NOW.plus(SERVER_LIFE_MS));
}
