//! An agent's way through its state directory: first start, power cuts, damage, copies, renewals, rotations.

use std::fs;

use dunlin_shared::limits::JOIN_TOKEN_SECRET_BYTES;

use super::*;
use crate::identity::testing::{Authority, Collector, NODE};
use crate::state;
use crate::state::tests::Dir;

const OTHER_NODE: NodeId = NodeId::from_bytes([8; 16]);

/// A host with its own files, a state directory, and a place for a token.
struct Host {
    root: Dir,
    state: PathBuf,
    token: PathBuf,
}

impl Host {
    fn new(machine_id: Option<&str>) -> Self {
        let root = Dir::new();
        fs::create_dir_all(root.0.join("etc")).expect("it is writable");
        let state = root.0.join("state");
        fs::create_dir(&state).expect("it is writable");
        let token = root.0.join("token");
        let host = Self { root, state, token };
        host.become_machine(machine_id);
        host
    }

    fn become_machine(&self, id: Option<&str>) {
        let path = self.root.0.join("etc/machine-id");
        match id {
            Some(id) => fs::write(path, format!("{}\n", id.repeat(32))).expect("it is writable"),
            None => state::remove(&path).map(drop).expect("it is writable"),
        }
    }

    fn give_token(&self, authority: &Authority) {
        let pin = trust::pin_of(&authority.der).expect("it is a certificate");
        let token = JoinToken { secret: [3; JOIN_TOKEN_SECRET_BYTES], pin };
        fs::write(&self.token, token.reveal()).expect("it is writable");
    }

    /// As after a restart.
    fn enrolment(&self) -> Enrolment {
        let tokens = TokenSources::new(None, Some(self.token.clone()), None);
        Enrolment::new(&self.state, &self.root.0, tokens)
    }

    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.state.join(name)).expect("it is there")
    }

    fn has(&self, name: &str) -> bool {
        self.state.join(name).exists()
    }
}

fn ask(step: Step) -> Box<Ask> {
    match step {
        Step::Join(ask) => ask,
        other => panic!("it should join: {other:?}"),
    }
}

fn complaint(step: Step) -> String {
    match step {
        Step::Wait(line) => line,
        other => panic!("it should wait: {other:?}"),
    }
}

fn is_connect(step: &Step) -> bool {
    matches!(step, Step::Connect(_))
}

fn joined(authority: &Authority, key: &NodeKey) -> Joined {
    Joined {
        node: NODE,
        chain: vec![authority.node(NODE, &key.public_key()).to_vec()],
        authorities: vec![authority.der.to_vec()],
        is_approved: true,
    }
}

/// A host that has enrolled and connected.
fn member(authority: &Authority) -> (Host, Enrolment, Collector) {
    let host = Host::new(Some("a"));
    host.give_token(authority);
    let mut enrolment = host.enrolment();
    let collector = authority.good_collector();
    let ask = ask(enrolment.step());
    enrolment.accept(&ask, &joined(authority, &ask.key), &collector.chain).expect("it is all right");
    assert!(is_connect(&enrolment.step()));
    (host, enrolment, collector)
}

#[test]
fn a_first_start_makes_a_key_joins_and_connects_from_then_on() {
    let ours = Authority::new("ours");
    let host = Host::new(Some("a"));
    let mut enrolment = host.enrolment();
    assert_eq!(enrolment.settle(), Ok(()));
    assert!(complaint(enrolment.step()).contains("not enrolled"));
    assert!(!host.has("node.key"), "no key is made in vain: an image may be taken of this disk");
    host.give_token(&ours);
    let ask = ask(enrolment.step());
    assert_eq!(ask.token.as_ref().map(|token| token.secret), Some([3; JOIN_TOKEN_SECRET_BYTES]));
    assert_eq!(host.read("machine"), format!("{}\n", "a".repeat(32)).into_bytes());
    assert!(host.has("node.key"), "it is on the disk before it is used");
    enrolment.accept(&ask, &joined(&ours, &ask.key), &ours.good_collector().chain).expect("it is all right");
    let Step::Connect(Some(identity)) = enrolment.step() else { panic!("it has an identity") };
    assert_eq!((identity.node, &identity.key), (NODE, &ask.key.private()));
    assert!(matches!(enrolment.step(), Step::Connect(None)), "the uplink has it already");
    assert_eq!(Identity::load(&host.state).expect("it is kept").node, NODE);
}

#[test]
fn a_power_cut_at_any_point_of_a_join_ends_with_the_same_key() {
    let ours = Authority::new("ours");
    let host = Host::new(Some("a"));
    host.give_token(&ours);
    let first = ask(host.enrolment().step()).key.public_key();
    let again = ask(host.enrolment().step());
    assert_eq!(again.key.public_key(), first, "the answer was lost");
    host.enrolment().accept(&again, &joined(&ours, &again.key), &ours.good_collector().chain).expect("all right");
    fs::remove_file(&host.token).expect("it is there");
    fs::remove_file(host.state.join("node.pem")).expect("it is there");
    let by_key = ask(host.enrolment().step());
    assert_eq!(by_key.key.public_key(), first, "the certificate was not written");
    assert!(by_key.token.is_none() && by_key.trust.pin.is_none() && by_key.trust.authorities == [ours.der.clone()]);
    fs::remove_file(host.state.join("ca.pem")).expect("it is there");
    host.give_token(&ours);
    let by_pin = ask(host.enrolment().step());
    assert_eq!(by_pin.key.public_key(), first, "nothing but the key was written");
    assert_eq!(by_pin.trust.pin, trust::pin_of(&ours.der));
    // A key of which only the temporary file was written was never used: another is made.
    let torn = Host::new(None);
    torn.give_token(&ours);
    fs::write(torn.state.join("node.key.tmp"), "-----BEGIN").expect("it is writable");
    ask(torn.enrolment().step());
    assert!(!torn.has("node.key.tmp"));
}

#[test]
fn an_answer_that_does_not_fit_is_refused_and_leaves_every_file_as_it_was() {
    let (ours, other) = (Authority::new("ours"), Authority::new("other"));
    let host = Host::new(Some("a"));
    host.give_token(&ours);
    let mut enrolment = host.enrolment();
    let ask = ask(enrolment.step());
    let collector = ours.good_collector().chain;
    let good = joined(&ours, &ask.key);
    let stranger = NodeKey::generate().expect("a key");
    let leaf = ours.good_collector().chain[0].to_vec();
    let cases: Vec<(&str, Joined)> = vec![
        ("for this agent's key", Joined { chain: joined(&ours, &stranger).chain, ..good.clone() }),
        ("another node", Joined { node: OTHER_NODE, ..good.clone() }),
        ("another node", Joined { chain: vec![leaf.clone()], ..good.clone() }),
        ("another node", Joined { chain: vec![b"noise".to_vec()], ..good.clone() }),
        ("no authority", Joined { authorities: Vec::new(), ..good.clone() }),
        ("no authority", Joined { authorities: vec![ours.der.to_vec(), leaf], ..good.clone() }),
        ("no authority", Joined { authorities: vec![b"noise".to_vec()], ..good.clone() }),
        ("does not lead to", Joined { authorities: vec![other.der.to_vec()], ..good.clone() }),
        ("does not lead to", joined(&other, &ask.key)),
    ];
    for (said, answer) in cases {
        let error = enrolment.accept(&ask, &answer, &collector).expect_err(said).to_string();
        assert!(error.contains(said), "{said}: {error}");
        assert!(!host.has("node.pem") && !host.has("ca.pem"), "{said}");
    }
    enrolment.accept(&ask, &good, &collector).expect("this one fits");
}

#[test]
fn a_damaged_key_is_never_replaced_and_the_file_is_named() {
    let ours = Authority::new("ours");
    let (host, ..) = member(&ours);
    fs::write(host.state.join("node.key"), "x").expect("it is writable");
    for _ in 0..3 {
        let line = complaint(host.enrolment().step());
        assert!(line.contains("node.key is damaged") && line.contains("dunlin-agent seal"), "{line}");
    }
    assert_eq!(host.read("node.key"), b"x");
    fs::remove_file(host.state.join("node.key")).expect("it is there");
    let line = complaint(host.enrolment().step());
    assert!(line.contains("node.key is missing") && line.contains("dunlin-agent seal"), "{line}");
    assert!(!host.has("node.key"));
}

#[test]
fn a_damaged_certificate_is_asked_for_again_and_damaged_authorities_need_a_person() {
    let ours = Authority::new("ours");
    let (host, ..) = member(&ours);
    fs::remove_file(&host.token).expect("it is there");
    fs::write(host.state.join("node.pem"), "x").expect("it is writable");
    assert!(ask(host.enrolment().step()).token.is_none());
    fs::write(host.state.join("ca.pem"), "x").expect("it is writable");
    let line = complaint(host.enrolment().step());
    assert!(line.contains("ca.pem is damaged") && line.contains("join token"), "{line}");
    fs::write(&host.token, "hunter2").expect("it is writable");
    let line = complaint(host.enrolment().step());
    assert!(line.contains("no join token") && !line.contains("hunter2"), "{line}");
}

#[test]
fn what_the_collector_says_of_a_certificate_decides_what_follows() {
    let ours = Authority::new("ours");
    let (host, mut enrolment, _) = member(&ours);
    assert!(enrolment.note_refused(Refused::Certificate));
    let expired = ask(enrolment.step());
    assert_eq!(expired.key.private(), Identity::load(&host.state).expect("it is whole").key);
    enrolment.note_welcome();
    assert!(is_connect(&enrolment.step()));
    assert!(enrolment.note_refused(Refused::NotEnrolled));
    assert!(ask(enrolment.step()).token.is_some());
    fs::remove_file(&host.token).expect("it is there");
    assert!(!enrolment.note_refused(Refused::NotEnrolled));
    assert!(is_connect(&enrolment.step()), "without a token it is asked again as it is");
    host.give_token(&ours);
    assert!(ask(enrolment.step()).token.is_some(), "a token that comes later is found");
}

#[test]
fn a_renewed_certificate_is_used_next_and_one_that_does_not_suit_is_not() {
    let (ours, other) = (Authority::new("ours"), Authority::new("other"));
    let (host, mut enrolment, _) = member(&ours);
    let own = trust::public_key_of(&Identity::load(&host.state).expect("it is whole").chain[0]).expect("a key");
    let before = host.read("node.pem");
    let stranger = NodeKey::generate().expect("a key").public_key();
    for bad in [
        vec![ours.node(NODE, &stranger).to_vec()],
        vec![ours.node(OTHER_NODE, &own).to_vec()],
        vec![other.node(NODE, &own).to_vec()],
        vec![b"noise".to_vec()],
        Vec::new(),
    ] {
        assert!(enrolment.renew(&bad).is_err());
        assert_eq!(host.read("node.pem"), before);
    }
    assert!(matches!(enrolment.step(), Step::Connect(None)));
    let next = ours.node_in(NODE, &own, (2021, 2041));
    enrolment.renew(&[next.to_vec()]).expect("it suits");
    let Step::Connect(Some(identity)) = enrolment.step() else { panic!("it is new") };
    assert_eq!(identity.chain, std::slice::from_ref(&next));
    assert_eq!(Identity::load(&host.state).expect("it is whole").chain, [next]);
}

#[test]
fn an_authority_is_believed_when_one_that_is_believed_vouches_for_it() {
    let (ours, next, other) = (Authority::new("ours"), Authority::new("next"), Authority::new("other"));
    let (host, mut enrolment, collector) = member(&ours);
    let own_key = NodeKey::generate().expect("a key").public_key();
    for bad in
        [next.der.to_vec(), other.vouch_for(&next, "next").to_vec(), ours.node(NODE, &own_key).to_vec(), b"x".to_vec()]
    {
        assert!(enrolment.believe(&bad, &collector.chain).is_err());
    }
    let vouched = ours.vouch_for(&next, "next");
    assert!(enrolment.believe(&vouched, &collector.chain).expect("it is vouched for"));
    assert!(!enrolment.believe(&vouched, &collector.chain).expect("once is enough"));
    assert!(!enrolment.believe(&next.der, &collector.chain).expect("it is the same by another voucher"));
    let Step::Connect(Some(identity)) = enrolment.step() else { panic!("it is new") };
    assert_eq!(identity.authorities, [ours.der.clone(), vouched.clone()]);
    assert_eq!(Identity::load(&host.state).expect("it is whole").authorities, [ours.der, vouched]);
}

#[test]
fn the_oldest_authority_goes_only_when_the_collector_does_not_need_it() {
    let mut line = vec![Authority::new("ca0")];
    let (_host, mut enrolment, first_collector) = member(&line[0]);
    for n in 1..=AUTHORITIES_MAX {
        let name = format!("ca{n}");
        let next = Authority::new(&name);
        let vouched = line[n - 1].vouch_for(&next, &name);
        assert!(enrolment.believe(&vouched, &first_collector.chain).expect("it is vouched for"));
        line.push(next);
    }
    let subjects = |enrolment: &Enrolment| -> Vec<Vec<u8>> {
        let identity = enrolment.identity.as_ref().expect("it has one");
        identity.authorities.iter().map(|der| trust::public_key_of(der).expect("a key").to_vec()).collect()
    };
    let keys: Vec<Vec<u8>> = line.iter().map(|ca| trust::public_key_of(&ca.der).expect("a key").to_vec()).collect();
    let left: Vec<&Vec<u8>> = [0, 2, 3, 4].map(|n| &keys[n]).to_vec();
    assert_eq!(subjects(&enrolment).iter().collect::<Vec<_>>(), left, "the collector still shows a leaf of the first");
    let newest = line[4].good_collector();
    let fifth = Authority::new("ca5");
    assert!(enrolment.believe(&line[4].vouch_for(&fifth, "ca5"), &newest.chain).expect("it is vouched for"));
    assert_eq!(subjects(&enrolment)[0], keys[2], "now the first can go");
    assert!(matches!(enrolment.believe(&fifth.vouch_for(&Authority::new("x"), "x"), &[]), Err(EnrolError::TooMany)));
}

#[test]
fn a_copy_of_a_disk_enrols_anew_with_a_token_and_stays_silent_without_one() {
    let ours = Authority::new("ours");
    let (host, ..) = member(&ours);
    let key = host.read("node.key");
    for name in ["epoch", "goodbyes"] {
        fs::write(host.state.join(name), "x").expect("it is writable");
    }
    fs::remove_file(&host.token).expect("it is there");
    host.become_machine(Some("b"));
    let line = host.enrolment().settle().expect_err("another machine");
    assert!(line.contains("another machine") && line.contains("join token"), "{line}");
    assert_eq!(host.read("node.key"), key, "nothing is touched");
    host.give_token(&ours);
    let mut enrolment = host.enrolment();
    assert_eq!(enrolment.settle(), Ok(()));
    assert_eq!(host.read("node.key.from-another-machine"), key);
    assert!(!host.has("epoch") && !host.has("goodbyes") && !host.has("node.pem"));
    let fresh = ask(enrolment.step());
    assert_ne!(fresh.key.pem().into_bytes(), key);
    assert_eq!(host.read("machine"), format!("{}\n", "b".repeat(32)).into_bytes());
    assert_eq!(host.enrolment().settle(), Ok(()), "it is at home now");
}

#[test]
fn an_identity_is_kept_where_no_machine_can_be_told() {
    let ours = Authority::new("ours");
    let (host, ..) = member(&ours);
    host.become_machine(None);
    let mut enrolment = host.enrolment();
    assert_eq!(enrolment.settle(), Ok(()));
    assert!(is_connect(&enrolment.step()));
    // An identity that does not remember its machine belongs to the first that asks.
    fs::remove_file(host.state.join("machine")).expect("it is there");
    host.become_machine(Some("c"));
    assert_eq!(host.enrolment().settle(), Ok(()));
    assert_eq!(host.read("machine"), format!("{}\n", "c".repeat(32)).into_bytes());
    assert!(is_connect(&host.enrolment().step()));
}

#[test]
fn a_memory_of_another_machine_without_an_identity_hinders_nobody() {
    let host = Host::new(Some("b"));
    machine::remember(&host.state, &"a".repeat(32)).expect("it is writable");
    assert_eq!(host.enrolment().settle(), Ok(()));
    host.give_token(&Authority::new("ours"));
    ask(host.enrolment().step());
    assert_eq!(host.read("machine"), format!("{}\n", "b".repeat(32)).into_bytes());
}

#[test]
fn two_machines_with_one_machine_id_have_two_keys() {
    let ours = Authority::new("ours");
    let [one, two] = [Host::new(Some("a")), Host::new(Some("a"))];
    let keys = [&one, &two].map(|host| {
        host.give_token(&ours);
        ask(host.enrolment().step()).key.public_key()
    });
    assert_ne!(keys[0], keys[1]);
}

#[test]
fn an_epoch_that_was_used_before_is_followed_by_a_higher_one_even_when_nothing_can_be_written() {
    let now = WallMs(1_800_000_000_000);
    let host = Host::new(None);
    let enrolment = host.enrolment();
    assert_eq!(enrolment.raise_epoch(Epoch(41), now), Some(Epoch(42)));
    assert_eq!(enrolment.raise_epoch(Epoch(42), now), Some(Epoch(43)));
    let lost = Enrolment::new(&host.state.join("none"), &host.root.0, TokenSources::default());
    assert!(lost.raise_epoch(Epoch(43), now).is_some_and(|epoch| epoch > Epoch(43)));
}
