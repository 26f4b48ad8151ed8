//! Chains that lead to an authority and chains that do not, and certificates made of noise.

use proptest::prelude::*;

use super::*;
use crate::identity::testing::{Authority, Collector, NODE, VALID};

fn trusts(authorities: &[&Authority], pin: Option<&Authority>, collector: &Collector) -> bool {
    let trust = Trust {
        authorities: authorities.iter().map(|authority| authority.der.clone()).collect(),
        pin: pin.map(|authority| pin_of(&authority.der).expect("it is a certificate")),
    };
    trust.check_collector(&collector.chain[0], &collector.chain[1..]).is_ok()
}

#[test]
fn a_collector_is_believed_by_its_authority_or_by_the_pin_of_it() {
    let (ours, other) = (Authority::new("ours"), Authority::new("other"));
    let collector = ours.good_collector();
    assert!(trusts(&[&ours], None, &collector));
    assert!(trusts(&[], Some(&ours), &collector));
    assert!(trusts(&[&other], Some(&ours), &collector));
    assert!(trusts(&[&ours], Some(&other), &collector));
    assert!(!trusts(&[&other], None, &collector));
    assert!(!trusts(&[], Some(&other), &collector));
    assert!(!trusts(&[], None, &collector));
}

#[test]
fn a_pinned_authority_that_is_shown_but_did_not_sign_is_not_enough() {
    let (ours, other) = (Authority::new("ours"), Authority::new("other"));
    let liar = other.collector(COLLECTOR_NAME, VALID, &[&ours.der]);
    assert!(!trusts(&[], Some(&ours), &liar));
    let twin = Authority::new("ours");
    assert!(!trusts(&[&ours], Some(&ours), &twin.collector(COLLECTOR_NAME, VALID, &[&ours.der])), "one name, two keys");
}

#[test]
fn the_name_counts_and_the_date_does_not() {
    let ours = Authority::new("ours");
    let wrong_name = ours.collector("collector.example", VALID, &[&ours.der]);
    assert!(!trusts(&[&ours], Some(&ours), &wrong_name));
    for years in [(2000, 2001), (2090, 2091)] {
        let out_of_date = ours.collector(COLLECTOR_NAME, years, &[&ours.der]);
        assert!(trusts(&[&ours], None, &out_of_date) && trusts(&[], Some(&ours), &out_of_date));
    }
    let node = ours.node(NODE, &crate::identity::key::NodeKey::generate().expect("a key").public_key());
    let trust = Trust { authorities: vec![ours.der.clone()], pin: None };
    assert!(trust.check_collector(&node, &[]).is_err(), "a node is no collector");
}

#[test]
fn an_authority_that_another_vouches_for_leads_back_to_that_one() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let between = old.vouch_for(&new, "new");
    let collector = new.collector(COLLECTOR_NAME, VALID, &[&between, &old.der]);
    assert!(trusts(&[], Some(&old), &collector), "a token of last year still enrols");
    assert!(trusts(&[&old], None, &collector));
    assert!(trusts(&[&new], None, &collector));
    assert!(trusts(&[], Some(&new), &collector));
    let broken = new.collector(COLLECTOR_NAME, VALID, &[&old.der]);
    assert!(!trusts(&[], Some(&old), &broken), "the link is missing");
    let trust = Trust { authorities: vec![between.clone()], pin: None };
    assert!(trust.check_collector(&broken.chain[0], &[]).is_ok(), "what was vouched for is an authority itself");
}

#[test]
fn a_node_leads_to_an_authority_and_a_collector_is_no_node() {
    let (ours, other) = (Authority::new("ours"), Authority::new("other"));
    let key = crate::identity::key::NodeKey::generate().expect("a key").public_key();
    let chain = [ours.node(NODE, &key)];
    assert!(check_node(&chain, std::slice::from_ref(&ours.der)).is_ok());
    assert!(check_node(&chain, std::slice::from_ref(&other.der)).is_err());
    assert!(check_node(&[], std::slice::from_ref(&ours.der)).is_err());
    assert!(check_node(&ours.good_collector().chain, std::slice::from_ref(&ours.der)).is_err());
}

#[test]
fn only_an_authority_is_one_and_only_its_signer_signed_it() {
    let (old, new, other) = (Authority::new("old"), Authority::new("new"), Authority::new("other"));
    let between = old.vouch_for(&new, "new");
    assert!(is_authority(&between) && is_authority(&old.der));
    assert!(!is_authority(&old.good_collector().chain[0]));
    assert!(is_signed_by(&between, &old.der) && is_signed_by(&old.der, &old.der));
    assert!(!is_signed_by(&between, &new.der) && !is_signed_by(&between, &other.der));
    assert!(!is_signed_by(&between, &Authority::new("old").der), "one name, two keys");
    for at in [between.len() - 1, between.len() / 2, 40] {
        let mut bent = between.to_vec();
        bent[at] ^= 1;
        assert!(!is_signed_by(&bent.into(), &old.der), "byte {at}");
    }
}

#[test]
fn every_cut_of_a_certificate_is_refused() {
    let ours = Authority::new("ours");
    for len in 0..ours.der.len() {
        let cut = CertificateDer::from(ours.der[..len].to_vec());
        assert!(signed_parts(&cut).is_none() && !is_authority(&cut) && public_key_of(&cut).is_none(), "{len} bytes");
    }
    let longer = CertificateDer::from([&ours.der[..], &[0]].concat());
    assert!(signed_parts(&longer).is_none() && public_key_of(&longer).is_none());
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
        let _parts = signed_parts(&bytes);
        let certificate = CertificateDer::from(bytes);
        prop_assert!(!is_authority(&certificate) && !is_signed_by(&certificate, &certificate));
        prop_assert!(Trust::default().check_collector(&certificate, &[]).is_err());
    }

    #[test]
    fn lengths_that_lie_never_panic(lead in prop::collection::vec(prop_oneof![Just(0x30), Just(0x03), Just(0x82), Just(0x81), any::<u8>()], 0..40)) {
        let _parts = signed_parts(&lead);
        prop_assert!(element(&lead, 0x30).is_none_or(|(whole, inside, rest)| whole.len() + rest.len() == lead.len() && inside.len() <= whole.len()));
    }
}
