//! Wires HTTP to the rest: what it is shown, the certificate that it shows, and its sockets.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use rustls::pki_types::PrivateKeyDer;
use tokio::net::TcpListener;
use tracing::{info, warn};

use crate::api::{self, AdminSocket, HttpCertificate, Published};
use crate::authority::{Authority, ServerName};
use crate::clock::Clock;
use crate::config::{CollectorConfig, Http};
use crate::health::Health;
use crate::orders::Orders;
use crate::pipeline::Outlets;
use crate::rules::RulesInForce;
use crate::stats::Stats;

/// A certificate of our own lasts 90 days, and is made anew long before.
const CERTIFICATE_AGAIN: Duration = Duration::from_secs(24 * 3_600);

/// All but what the state directory says.
#[must_use]
pub fn published(
    outlets: &Outlets,
    orders: Orders,
    (health, stats, clock): (Arc<Health>, Arc<Stats>, Clock),
) -> Published {
    Published {
        clock,
        health,
        stats,
        fleet: Arc::clone(&outlets.view),
        board: Arc::clone(&outlets.board),
        silences: Arc::clone(&outlets.silences),
        access: Arc::clone(&outlets.access),
        rules: RulesInForce::new(Arc::clone(&outlets.rules), orders.clone()),
        orders,
        newest_event: outlets.newest_event.subscribe(),
        incarnation: 0,
        authority: None,
        window: Arc::default(),
        state_dir: std::path::PathBuf::new(),
    }
}

/// `None` where HTTP is plain. Inside of a runtime: a certificate of our own is kept fresh.
pub fn tls(config: &CollectorConfig, authority: &Arc<Authority>, clock: Clock) -> Result<Option<Arc<HttpCertificate>>> {
    let certificate = match &config.http {
        Http::Loopback => return Ok(None),
        Http::Insecure => {
            let listen = config.http_listen;
            warn!(%listen, "HTTP is plain (insecure_http): whoever is on the way reads tokens along");
            return Ok(None);
        }
        Http::Given { cert, key } => HttpCertificate::from_files(cert, key)?,
        Http::Own { names } => {
            let name = |name: &String| name.parse().map_or_else(|_| ServerName::Dns(name.clone()), ServerName::Ip);
            let names: Vec<ServerName> = names.iter().map(name).collect();
            let made = authority.server_certificate(&names, clock.wall()).context("a certificate for HTTP")?;
            let certificate = HttpCertificate::new(made.chain, &PrivateKeyDer::Pkcs8(made.key))?;
            tokio::spawn(keep_certificate(Arc::clone(&certificate), names, Arc::clone(authority), clock));
            certificate
        }
    };
    Ok(Some(certificate))
}

/// The socket of the admin goes with the value that comes back.
pub async fn serve(
    http: TcpListener,
    shown: Option<&Arc<HttpCertificate>>,
    published: Published,
) -> Result<AdminSocket> {
    let tls = shown.map(HttpCertificate::server_config).transpose()?;
    let (orders, state_dir) = (published.orders.clone(), published.state_dir.clone());
    let mut admin = AdminSocket::bind(&state_dir)?;
    let listener = api::Listener::new(api::router(published));
    if let Some(socket) = admin.take() {
        tokio::spawn(listener.clone().serve_admin(socket));
    }
    tokio::spawn(listener.serve(http, tls));
    // Without it the admin socket is still a way in.
    if let Err(error) = api::first_token(&orders, &state_dir).await {
        warn!("{:#}", anyhow::Error::from(error));
    }
    Ok(admin)
}

async fn keep_certificate(
    certificate: Arc<HttpCertificate>,
    names: Vec<ServerName>,
    authority: Arc<Authority>,
    clock: Clock,
) {
    let mut interval = tokio::time::interval(CERTIFICATE_AGAIN);
    interval.tick().await;
    loop {
        interval.tick().await;
        let made = authority.server_certificate(&names, clock.wall());
        let replaced = made
            .map_err(anyhow::Error::from)
            .and_then(|made| Ok(certificate.replace(made.chain, &PrivateKeyDer::Pkcs8(made.key))?));
        match replaced {
            Ok(()) => info!("made the certificate for HTTP anew"),
            Err(failed) => warn!("the certificate for HTTP could not be made anew: {failed:#}"),
        }
    }
}
