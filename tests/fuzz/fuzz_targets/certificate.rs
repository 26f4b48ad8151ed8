//! Certificates that a peer shows or a collector sends: judged, never a panic, and never believed without a reason.
#![no_main]

use dunlin_agent::identity::node_of;
use dunlin_agent::identity::trust::{Trust, check_node, is_authority, is_signed_by, pin_of, public_key_of};
use libfuzzer_sys::fuzz_target;
use rustls::pki_types::CertificateDer;

fuzz_target!(|data: &[u8]| {
    // The length of the first certificate, then two: the second is what may have signed the first.
    let Some((len, rest)) = data.split_first_chunk::<2>() else { return };
    let (first, second) = rest.split_at(usize::from(u16::from_le_bytes(*len)).min(rest.len()));
    let (first, second) = (CertificateDer::from(first.to_vec()), CertificateDer::from(second.to_vec()));
    assert_eq!(public_key_of(&first).is_some(), pin_of(&first).is_some());
    assert!(node_of(&first).is_none() || public_key_of(&first).is_some());
    assert!(!is_authority(&first) || public_key_of(&first).is_some());
    let signed = is_signed_by(&first, &second);
    assert!(!signed || (public_key_of(&first).is_some() && public_key_of(&second).is_some()));
    drop(check_node(&[first.clone()], &[second.clone()]));
    let nobody = Trust { authorities: Vec::new(), pin: None };
    assert!(nobody.check_collector(&first, &[second]).is_err());
});
