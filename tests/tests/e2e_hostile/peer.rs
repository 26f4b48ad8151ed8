//! A client that speaks QUIC well and our protocol as badly as a test wants, and the scene that it plays in.
//!
//! An honest agent is connected all the while; at the end of a scene it must have noticed nothing.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use dunlin_shared::frame::{BodyKind, Frame};
use dunlin_shared::id::{Epoch, FrameId, NodeId, Seq};
use dunlin_shared::time::{MonoMs, WallMs};
use dunlin_shared::wire::{self, ALPN, AgentControl, COLLECTOR_NAME, CloseCode, CollectorControl, Deframer, Hello};
use dunlin_tests::netns::Namespace;
use dunlin_tests::pki::{Authority, Identity};
use dunlin_tests::scrape::Scrape;
use dunlin_tests::site::{Agent, Collector, QUIC_PORT, counter};
use dunlin_tests::window::Window;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Connection, ConnectionError, Endpoint, EndpointConfig, TokioRuntime, TransportConfig};
use rustls::RootCertStore;
use tokio::runtime::Runtime;

/// Far above what any step takes on a busy machine.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);
/// What the promises allow for peers that mean harm.
const GROWTH_KIB_MAX: u64 = 64 * 1024;
/// The longest that an honest frame may come after the one before it. Its tick is 1 s; a machine with two cores
/// that both sides of the attack run on may cost a little, a queue or a lost packet would cost more.
const HONEST_PAUSE_MS_MAX: i64 = 5_000;

/// A collector, an honest agent, and the place of an attacker.
pub(crate) struct Scene<'n> {
    pub(crate) namespace: &'n Namespace,
    pub(crate) authority: Authority,
    pub(crate) collector: Collector<'n>,
    pub(crate) runtime: Runtime,
    honest: Agent<'n>,
    rss_before_kib: u64,
    accepted_before: Scrape,
}

/// A connection of an attacker with its control stream.
pub(crate) struct Peer {
    pub(crate) connection: Connection,
    pub(crate) control: quinn::SendStream,
    pub(crate) answers: quinn::RecvStream,
    heard: Deframer,
    /// The connection ends with it.
    _endpoint: Endpoint,
}

impl<'n> Scene<'n> {
    pub(crate) fn new(namespace: &'n Namespace) -> Self {
        let authority = Authority::new().expect("an authority");
        let collector = Collector::start(namespace, &authority).expect("a collector");
        let honest = Agent::start(namespace, &authority, &format!("127.0.0.1:{QUIC_PORT}")).expect("an agent");
        collector.wait_committed(3, LIMIT).expect("the honest agent's frames arrive");
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let rss_before_kib = collector.running().usage().expect("it runs").rss_kib;
        let accepted_before = collector.scrape().expect("it answers");
        Self {
            namespace,
            authority,
            collector,
            runtime: runtime.expect("a runtime"),
            honest,
            rss_before_kib,
            accepted_before,
        }
    }

    /// An endpoint of an attacker on loopback inside the namespace. Call it on the runtime.
    pub(crate) fn endpoint(&self) -> Endpoint {
        let socket = self.namespace.enter(|| std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)));
        let socket = socket.expect("the namespace is there").expect("a port is free");
        Endpoint::new(EndpointConfig::default(), None, socket, Arc::new(TokioRuntime)).expect("an endpoint")
    }

    pub(crate) async fn connect(&self, identity: Option<&Identity>) -> Result<Peer, ConnectionError> {
        self.connect_with(identity, TransportConfig::default()).await
    }

    pub(crate) async fn connect_with(
        &self,
        identity: Option<&Identity>,
        mut transport: TransportConfig,
    ) -> Result<Peer, ConnectionError> {
        transport.keep_alive_interval(Some(Duration::from_secs(1)));
        let mut config = self.client_config(identity);
        config.transport_config(Arc::new(transport));
        let endpoint = self.endpoint();
        let connecting = endpoint.connect_with(config, address(), COLLECTOR_NAME).expect("a valid configuration");
        let connection = connecting.await?;
        let (control, answers) = connection.open_bi().await?;
        Ok(Peer { connection, control, answers, heard: Deframer::default(), _endpoint: endpoint })
    }

    pub(crate) fn client_config(&self, identity: Option<&Identity>) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.ca_der().to_vec().into()).expect("a certificate");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("ring has TLS 1.3")
            .with_root_certificates(roots);
        let mut config = match identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                builder.with_client_auth_cert(vec![identity.cert()], identity.key()).expect("they belong together")
            }
        };
        config.alpn_protocols = vec![ALPN.to_vec()];
        ClientConfig::new(Arc::new(QuicClientConfig::try_from(config).expect("ring has QUIC's cipher")))
    }

    /// The node of the agent that is to notice nothing.
    pub(crate) const fn honest_node(&self) -> NodeId {
        self.honest.node
    }

    /// How often a connection was closed with this code since the scene began.
    pub(crate) fn closed(&self, code: CloseCode) -> u64 {
        self.rise("dunlin_connections_closed_total", &[("reason", code.as_str())])
    }

    /// By how much a counter rose since the scene began.
    pub(crate) fn rise(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        let now = self.collector.scrape().expect("it answers");
        counter(&now, name, labels) - counter(&self.accepted_before, name, labels)
    }

    /// The collector lives, has not grown, and the honest agent noticed nothing.
    pub(crate) fn end(self) {
        let committed = dunlin_tests::site::committed(&self.collector.scrape().expect("it answers"));
        self.collector.wait_committed(committed + 2, LIMIT).expect("honest frames are committed still");
        let usage = self.collector.running().usage().expect("it runs");
        let growth_kib = usage.rss_peak_kib.saturating_sub(self.rss_before_kib);
        eprintln!("the collector grew by {growth_kib} KiB at most, to {} KiB", usage.rss_peak_kib);
        assert!(growth_kib < GROWTH_KIB_MAX, "it grew by {growth_kib} KiB");
        let log = self.honest.log_text();
        assert_eq!(log.matches("streaming to the collector").count(), 1, "{log}");
        assert!(!log.contains("not connected"), "{log}");
        // What it took before it was welcome arrives piece by piece, so that a young scene has holes for a while.
        let whole =
            |window: &Window| window.of(self.honest.node).ok().filter(|history| history.check().is_ok()).cloned();
        let history = self.collector.wait_window("all of the honest agent", LIMIT, whole).expect("nothing is lost");
        let pauses = history.frames.windows(2).map(|pair| pair[1].at.since(pair[0].at));
        let longest_ms = pauses.max().expect("several frames");
        eprintln!("the longest pause between two honest frames was {longest_ms} ms");
        assert!(longest_ms < HONEST_PAUSE_MS_MAX, "the honest agent was held up for {longest_ms} ms");
        let said = self.collector.running().log_text();
        assert!(!said.contains("panicked"), "{said}");
    }
}

impl Peer {
    pub(crate) async fn say(&mut self, bytes: &[u8]) {
        // A peer that is closed meanwhile sees it in `closed`.
        if let Err(error) = self.control.write_all(bytes).await {
            eprintln!("the control stream takes no more: {error}");
        }
    }

    /// Says Hello and waits for the Welcome.
    pub(crate) async fn greet(&mut self, node: NodeId) {
        self.say(&hello(node).encode()).await;
        let answer = tokio::time::timeout(LIMIT, self.answers.read_chunk(1, true)).await;
        answer.expect("an answer comes").expect("the stream is open").expect("it is not empty");
    }

    /// The collector's next message.
    pub(crate) async fn next(&mut self) -> CollectorControl {
        loop {
            if let Some(body) = self.heard.next_message().expect("the collector is honest") {
                return CollectorControl::decode(body).expect("the collector is honest");
            }
            let chunk = tokio::time::timeout(LIMIT, self.answers.read_chunk(4_096, true)).await;
            let chunk = chunk.expect("an answer comes").expect("the stream is open").expect("it has not ended");
            self.heard.push(&chunk.bytes);
        }
    }

    /// Opens a stream and writes to it what it takes. None when the collector has closed the connection by then.
    pub(crate) async fn stream(&self, bytes: &[u8]) -> Option<quinn::SendStream> {
        let mut stream = self.connection.open_uni().await.ok()?;
        if let Err(error) = stream.write_all(bytes).await {
            eprintln!("the stream takes no more: {error}");
        }
        Some(stream)
    }

    /// The code that the collector closes the connection with.
    pub(crate) async fn closed(&self) -> Option<CloseCode> {
        code_of(&tokio::time::timeout(LIMIT, self.connection.closed()).await.ok()?)
    }
}

pub(crate) fn address() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, QUIC_PORT).into()
}

pub(crate) fn code_of(error: &ConnectionError) -> Option<CloseCode> {
    match error {
        ConnectionError::ApplicationClosed(close) => CloseCode::from_raw(close.error_code.into_inner()),
        other => {
            eprintln!("it ended otherwise: {other}");
            None
        }
    }
}

/// What a real agent of epoch 5 would say.
pub(crate) fn hello(node: NodeId) -> AgentControl {
    AgentControl::Hello(plain_hello(node))
}

pub(crate) fn plain_hello(node: NodeId) -> Hello {
    Hello {
        wire_min: wire::WIRE_VERSION_MIN,
        wire_max: wire::WIRE_VERSION_MAX,
        node,
        name: String::from("hostile"),
        agent_version: String::from("0"),
        boot_id: [1; 16],
        epoch: Epoch(5),
        // Beyond whatever it sends: who counts anew is taken for a machine that was set back.
        next_seq: Seq(1 << 40),
        interval_ms: 1_000,
        mono: MonoMs(0),
        wall: WallMs(0),
        spooled: Vec::new(),
        ended: Vec::new(),
    }
}

/// An inventory frame's bytes: the smallest thing that is taken in without a decoder's objection.
pub(crate) fn frame(epoch: u32, seq: u64) -> Vec<u8> {
    let frame = Frame { id: FrameId::new(epoch, seq), kind: BodyKind::Inventory, body: vec![0xff] };
    wire::items(&frame).expect("it is small")
}
