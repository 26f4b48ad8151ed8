//! A collector of one test: it enrols and welcomes as its script says, and tells the test what it was asked.
//!
//! It verifies what a collector must: the proof of the key over the exporter, and the client's certificate.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use dunlin_shared::limits::JOIN_BYTES_MAX;
use dunlin_shared::time::WallMs;
use dunlin_shared::wire::join::{
    Join, JoinAnswer, JoinReason, JoinRefusal, JoinRequest, Joined, PROOF_LABEL, PROOF_SECRET_BYTES,
};
use dunlin_shared::wire::{
    ALPN, ALPN_JOIN, AgentControl, CloseCode, CollectorControl, Config, Deframer, Hello, Welcome,
};
use quinn::crypto::rustls::{HandshakeData, QuicServerConfig};
use quinn::{Connection, Endpoint, RecvStream, ServerConfig, VarInt};
use ring::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use tokio::sync::mpsc;

use crate::identity::testing::{Authority, Collector, NODE};

/// What the collector does with whoever comes next.
pub(super) enum Play {
    Enrol,
    Refuse(JoinReason),
    Welcome {
        next_authority: Vec<u8>,
    },
    /// Welcomes, sends a renewed certificate in place of the one that was shown, and closes once it is told to.
    Renew {
        years: (i32, i32),
    },
    Close(CloseCode),
    /// Welcomes, says that it is being stopped and for how long it wants to be left alone, and closes.
    Drain {
        ms: u32,
    },
}

/// What it was asked.
#[derive(Debug)]
pub(super) enum Asked {
    Join(Join),
    Hello(Hello, CertificateDer<'static>),
    /// After a welcome: the next control message.
    Said(AgentControl),
}

pub(super) struct Server {
    pub(super) address: SocketAddr,
    pub(super) asked: mpsc::Receiver<Asked>,
    script: Arc<Mutex<VecDeque<Play>>>,
    shown: Arc<Shown>,
    endpoint: Endpoint,
}

#[derive(Debug)]
struct Shown(Mutex<Arc<CertifiedKey>>);

impl ResolvesServerCert for Shown {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.lock().expect("nobody panics with it")))
    }
}

impl Server {
    pub(super) fn start(authority: &Arc<Authority>, protocols: &[&[u8]], script: Vec<Play>) -> Self {
        Self::playing(authority, protocols, Arc::new(Mutex::new(VecDeque::from(script))))
    }

    /// A second collector that goes on with the script where the other is.
    pub(super) fn beside(&self, authority: &Arc<Authority>, protocols: &[&[u8]]) -> Self {
        Self::playing(authority, protocols, Arc::clone(&self.script))
    }

    fn playing(authority: &Arc<Authority>, protocols: &[&[u8]], script: Arc<Mutex<VecDeque<Play>>>) -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(authority.der.clone()).expect("it is an authority");
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .allow_unauthenticated()
            .build()
            .expect("it is whole");
        let shown = Arc::new(Shown(Mutex::new(certified(authority.good_collector()))));
        let mut tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("it is supported")
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::<Shown>::clone(&shown));
        tls.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        let config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).expect("TLS 1.3")));
        let endpoint = Endpoint::server(config, (Ipv4Addr::LOCALHOST, 0).into()).expect("a port is free");
        let address = endpoint.local_addr().expect("it is bound");
        let (tell, asked) = mpsc::channel(64);
        tokio::spawn(serve(endpoint.clone(), Arc::clone(authority), Arc::clone(&script), tell));
        Self { address, asked, script, shown, endpoint }
    }

    /// From the next connection on.
    pub(super) fn show(&self, collector: Collector) {
        *self.shown.0.lock().expect("nobody panics with it") = certified(collector);
    }

    pub(super) fn play(&self, play: Play) {
        self.script.lock().expect("nobody panics with it").push_back(play);
    }

    pub(super) fn close_all(&self) {
        self.endpoint.close(VarInt::from_u32(CloseCode::Done as u32), b"");
    }
}

fn certified(collector: Collector) -> Arc<CertifiedKey> {
    let key = rustls::crypto::ring::sign::any_supported_type(&collector.key).expect("it is P-256");
    Arc::new(CertifiedKey::new(collector.chain, key))
}

async fn serve(
    endpoint: Endpoint,
    authority: Arc<Authority>,
    script: Arc<Mutex<VecDeque<Play>>>,
    tell: mpsc::Sender<Asked>,
) {
    while let Some(incoming) = endpoint.accept().await {
        let (authority, script, tell) = (Arc::clone(&authority), Arc::clone(&script), tell.clone());
        tokio::spawn(async move {
            // A client that is refused by its certificate comes no further.
            let Ok(connection) = incoming.await else { return };
            let data = connection.handshake_data().and_then(|any| any.downcast::<HandshakeData>().ok());
            let protocol = data.and_then(|data| data.protocol);
            let next = || script.lock().expect("nobody panics with it").pop_front();
            if protocol.as_deref() == Some(ALPN_JOIN) {
                enrol(&connection, &authority, next, &tell).await;
            } else {
                assert_eq!(protocol.as_deref(), Some(ALPN));
                talk(&connection, &authority, next, &tell).await;
            }
        });
    }
}

async fn enrol(
    connection: &Connection,
    authority: &Authority,
    next: impl Fn() -> Option<Play>,
    tell: &mpsc::Sender<Asked>,
) {
    let Ok((mut send, mut receive)) = connection.accept_bi().await else { return };
    let Ok(bytes) = receive.read_to_end(JOIN_BYTES_MAX).await else { return };
    let mut deframer = Deframer::default();
    deframer.push(&bytes);
    let body = deframer.next_message().expect("it is short").expect("it is whole");
    let JoinRequest::Join(join) = JoinRequest::decode(body).expect("it is a join");
    let mut secret = [0; PROOF_SECRET_BYTES];
    connection.export_keying_material(&mut secret, PROOF_LABEL, b"").expect("TLS 1.3");
    let point = &join.public_key[26..];
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point).verify(&secret, &join.proof).expect("it is the key's");
    let answer = match next() {
        Some(Play::Enrol) => JoinAnswer::Joined(Joined {
            node: NODE,
            chain: vec![authority.node(NODE, &join.public_key).to_vec()],
            authorities: vec![authority.der.to_vec()],
            is_approved: true,
        }),
        Some(Play::Refuse(reason)) => JoinAnswer::Refused(JoinRefusal { reason, retry_after_ms: 0 }),
        _ => panic!("nobody should join now"),
    };
    tell.send(Asked::Join(join)).await.expect("the test listens");
    send.write_all(&answer.encode()).await.expect("it is read");
    send.finish().expect("it was open");
    connection.closed().await;
}

async fn talk(
    connection: &Connection,
    authority: &Authority,
    next: impl Fn() -> Option<Play>,
    tell: &mpsc::Sender<Asked>,
) {
    let Ok((mut send, mut receive)) = connection.accept_bi().await else { return };
    let mut deframer = Deframer::default();
    let Some(AgentControl::Hello(hello)) = hear(&mut receive, &mut deframer).await else { return };
    let chain = super::super::join::shown(connection);
    let shown = chain.first().expect("a session shows a certificate").clone();
    tell.send(Asked::Hello(hello, shown.clone())).await.expect("the test listens");
    match next() {
        Some(Play::Close(code)) => connection.close(VarInt::from_u32(code as u32), b""),
        Some(Play::Welcome { next_authority }) => {
            send.write_all(&welcome(next_authority)).await.expect("it is read");
        }
        Some(Play::Drain { ms }) => {
            send.write_all(&welcome(Vec::new())).await.expect("it is read");
            send.write_all(&CollectorControl::Drain { reconnect_after_ms: ms }.encode()).await.expect("it is read");
            send.finish().expect("it was open");
            // What was said is read before the end of the stream is.
            send.stopped().await.ok();
            connection.close(VarInt::from_u32(CloseCode::Draining as u32), b"");
        }
        Some(Play::Renew { years }) => {
            send.write_all(&welcome(Vec::new())).await.expect("it is read");
            let key = crate::identity::trust::public_key_of(&shown).expect("it is a certificate");
            let chain = vec![authority.node_in(NODE, &key, years).to_vec()];
            send.write_all(&CollectorControl::Certificate { chain }.encode()).await.expect("it is read");
            // The answer to this proves that what came before it was read.
            send.write_all(&CollectorControl::Challenge { nonce: 7 }.encode()).await.expect("it is read");
        }
        _ => panic!("nobody should connect now"),
    }
    while let Some(said) = hear(&mut receive, &mut deframer).await {
        if tell.send(Asked::Said(said)).await.is_err() {
            return;
        }
    }
}

fn welcome(next_authority: Vec<u8>) -> Vec<u8> {
    CollectorControl::Welcome(Welcome {
        wire: 1,
        collector_version: String::from("0"),
        held: Vec::new(),
        start_after_ms: 0,
        config: Config { interval_ms: 0, backlog_gap_ms: 0 },
        wall: WallMs(0),
        next_authority,
    })
    .encode()
}

async fn hear(receive: &mut RecvStream, deframer: &mut Deframer) -> Option<AgentControl> {
    loop {
        if let Some(body) = deframer.next_message().expect("it is short") {
            return Some(AgentControl::decode(body).expect("it is of the protocol"));
        }
        let chunk = receive.read_chunk(usize::from(u16::MAX), true).await.ok()??;
        deframer.push(&chunk.bytes);
    }
}
