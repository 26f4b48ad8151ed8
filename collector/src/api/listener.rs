//! Takes connections and serves the router on each: so many at a time, and none that only keeps its place.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use dunlin_shared::repeat::Repeats;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt as _;
use tracing::{debug, warn};

use super::Peer;
use super::patience::Patient;

/// Each costs about 20 kB, most of which TLS takes.
const CONNECTIONS_MAX: usize = 1_024;
/// For the head of a request, the first on a connection or a later one.
const HEAD_TIME: Duration = Duration::from_secs(20);
const TLS_TIME: Duration = Duration::from_secs(10);
/// Request line and headers: a cursor, a token and whatever a proxy adds.
const HEAD_BYTES_MAX: usize = 32 * 1024;
const HEADERS_MAX: usize = 64;
/// When the system has no room for another connection, it is asked again after so long.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// Serves one router on one socket after the other, all with one bound on connections.
#[derive(Clone, Debug)]
pub struct Listener {
    router: Router,
    places: Arc<Semaphore>,
}

impl Listener {
    #[must_use]
    pub fn new(router: Router) -> Self {
        Self { router, places: Arc::new(Semaphore::new(CONNECTIONS_MAX)) }
    }

    /// Until the runtime ends. Plain without a `tls`.
    pub async fn serve(self, listener: TcpListener, tls: Option<Arc<ServerConfig>>) {
        let loopback = listener.local_addr().is_ok_and(|address| address.ip().is_loopback());
        let tls = tls.map(TlsAcceptor::from);
        let mut failures = Repeats::default();
        loop {
            let Some(place) = self.place().await else { return };
            match listener.accept().await {
                Ok((stream, from)) => {
                    let peer = Peer::Tcp { from: canonical(from), loopback };
                    tokio::spawn(Self::take(self.router.clone(), stream, tls.clone(), peer, place));
                }
                Err(error) => not_accepted(&mut failures, &error).await,
            }
        }
    }

    /// The admin socket: whoever can open it may do everything.
    pub async fn serve_admin(self, listener: UnixListener) {
        let mut failures = Repeats::default();
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    tokio::spawn(answer(self.router.clone(), stream, Peer::Root));
                }
                Err(error) => not_accepted(&mut failures, &error).await,
            }
        }
    }

    async fn place(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.places).acquire_owned().await.ok()
    }

    async fn take(
        router: Router,
        stream: TcpStream,
        tls: Option<TlsAcceptor>,
        peer: Peer,
        place: OwnedSemaphorePermit,
    ) {
        // Answers are small, and whoever waits for one waits for all of it.
        stream.set_nodelay(true).ok();
        match tls {
            None => answer(router, stream, peer).await,
            Some(tls) => match tokio::time::timeout(TLS_TIME, tls.accept(stream)).await {
                Ok(Ok(stream)) => answer(router, stream, peer).await,
                Ok(Err(error)) => debug!("a connection that does not speak TLS: {error}"),
                Err(_) => debug!("a connection that did not finish its TLS handshake"),
            },
        }
        drop(place);
    }
}

async fn answer<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(router: Router, stream: S, peer: Peer) {
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(peer);
        router.clone().oneshot(request.map(Body::new))
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .serve_connection(TokioIo::new(Patient::new(stream)), service)
        .await;
    if let Err(error) = served {
        debug!("a connection ended: {error}");
    }
}

async fn not_accepted(failures: &mut Repeats, error: &std::io::Error) {
    if let Some(times) = failures.note("accept") {
        warn!(times, "a connection cannot be taken: {error}");
    }
    tokio::time::sleep(ACCEPT_AGAIN).await;
}

fn canonical(from: SocketAddr) -> IpAddr {
    from.ip().to_canonical()
}
