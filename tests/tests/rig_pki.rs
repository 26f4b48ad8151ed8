//! Shows that certificates of the rig are what the programs expect: rustls accepts and refuses them rightly.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use dunlin_tests::pki::{Authority, COLLECTOR_NAME, Fleet, PkiError, node_ids};
use dunlin_tests::scratch::Scratch;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};

fn roots(ca: CertificateDer<'static>) -> Arc<RootCertStore> {
    let mut roots = RootCertStore::empty();
    roots.add(ca).expect("the authority's certificate is one");
    Arc::new(roots)
}

/// A handshake in memory, with mutual certificates as in the real one; the error of whichever end refused.
fn handshake(fleet: &Fleet, trusted_by_agent: &Fleet, name: &str) -> Result<(), rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(roots(fleet.ca()), provider.clone()).build();
    let server = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier.expect("there is a root"))
        .with_single_cert(vec![fleet.collector.cert()], fleet.collector.key())?;
    let client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots(trusted_by_agent.ca()))
        .with_client_auth_cert(vec![fleet.nodes[0].cert()], fleet.nodes[0].key())?;
    let name = ServerName::try_from(name.to_owned()).expect("the name is a DNS name");
    let mut client = ClientConnection::new(Arc::new(client), name)?;
    let mut server = ServerConnection::new(Arc::new(server))?;
    while client.is_handshaking() || server.is_handshaking() {
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).expect("memory takes all");
        server.read_tls(&mut bytes.as_slice()).expect("memory gives all");
        server.process_new_packets()?;
        let mut bytes = Vec::new();
        server.write_tls(&mut bytes).expect("memory takes all");
        client.read_tls(&mut bytes.as_slice()).expect("memory gives all");
        client.process_new_packets()?;
    }
    Ok(())
}

#[test]
fn collector_and_node_accept_each_other_and_no_stranger() {
    let fleet = Fleet::generate(1, 1).expect("certificates can be made");
    let stranger = Fleet::generate(1, 1).expect("certificates can be made");
    handshake(&fleet, &fleet, COLLECTOR_NAME).expect("one authority signed both");
    handshake(&fleet, &fleet, "other.dunlin").expect_err("the certificate bears another name");
    handshake(&fleet, &stranger, COLLECTOR_NAME).expect_err("another authority is trusted");
    let swapped = Fleet { nodes: stranger.nodes, ..fleet.clone() };
    handshake(&swapped, &fleet, COLLECTOR_NAME).expect_err("another authority signed the node");
}

#[test]
fn node_certificate_names_its_node() {
    let authority = Authority::new().expect("an authority can be made");
    let id = node_ids(1, 3)[0];
    let node = authority.node(id).expect("a node can be made");
    let uri = format!("dunlin:node:{id}");
    assert!(node.cert_der.windows(uri.len()).any(|window| window == uri.as_bytes()));
}

#[test]
fn fleet_is_the_same_after_its_file_and_its_ids_follow_from_the_seed() {
    let scratch = Scratch::new("fleet").expect("the temporary directory is writable");
    let path = scratch.join("fleet.bin");
    let fleet = Fleet::generate(33, 42).expect("certificates can be made");
    fleet.write(&path).expect("a scratch directory is writable");
    assert_eq!(Fleet::read(&path).expect("it was written a moment ago"), fleet);
    assert_eq!(fleet.nodes.iter().map(|node| node.id).collect::<Vec<_>>(), node_ids(33, 42));

    let mut bytes = fs::read(&path).expect("it was written a moment ago");
    bytes.push(0);
    fs::write(&path, &bytes).expect("a scratch directory is writable");
    assert!(matches!(Fleet::read(&path), Err(PkiError::NotAFleet { .. })), "a byte too many");
    fs::write(&path, &bytes[..bytes.len() / 2]).expect("a scratch directory is writable");
    assert!(matches!(Fleet::read(&path), Err(PkiError::NotAFleet { .. })), "cut short");
}

#[test]
fn state_directories_hold_what_the_programs_read() {
    let scratch = Scratch::new("state").expect("the temporary directory is writable");
    let fleet = Fleet::generate(2, 5).expect("certificates can be made");
    let (collector, agent) = (scratch.join("collector"), scratch.join("agent"));
    fleet.write_collector(&collector).expect("a scratch directory is writable");
    assert_eq!(fleet.write_agent(1, &agent).expect("a scratch directory is writable"), fleet.nodes[1].id);
    for (state, name, cert_der, key_der) in [
        (&collector, "collector", &fleet.collector.cert_der, &fleet.collector.key_der),
        (&agent, "node", &fleet.nodes[1].cert_der, &fleet.nodes[1].key_der),
    ] {
        let cert = |file: &str| CertificateDer::from_pem_file(state.join(file)).expect("it holds a certificate");
        assert_eq!(cert("ca.pem"), fleet.ca());
        assert_eq!(cert(&format!("{name}.pem")).as_ref(), cert_der);
        let key = state.join(format!("{name}.key"));
        assert_eq!(PrivateKeyDer::from_pem_file(&key).expect("it holds a key").secret_der(), key_der);
        assert_eq!(fs::metadata(&key).expect("it is there").permissions().mode() & 0o777, 0o600);
    }
}
