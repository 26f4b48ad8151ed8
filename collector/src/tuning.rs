//! What a configuration that is read again changes at once, and what waits for the next start.

use std::ffi::OsString;
use std::sync::Arc;

use arc_swap::ArcSwap;
use dunlin_shared::config::Key;
use tokio::signal::unix::Signal;
use tracing::{info, warn};

use crate::api::HttpCertificate;
use crate::config::{CollectorConfig, Http, load};
use crate::engine::Retiring;
use crate::rules::RulesInForce;
use crate::window::retain::Retention;

/// Read by their owners whenever they need them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuning {
    pub retention: Retention,
    pub retiring: Retiring,
    /// How long events are kept.
    pub events_keep_ms: u64,
}

pub type Tuned = Arc<ArcSwap<Tuning>>;

/// Where a configuration came from, so that it can be read again.
#[derive(Clone, Debug)]
pub struct Origin {
    pub file: Option<OsString>,
    pub flags: Vec<(&'static Key, OsString)>,
}

/// For ever: reads the configuration again at each hangup, whole or not at all.
pub async fn reload_on_hangup(
    mut hangup: Signal,
    origin: Origin,
    running: CollectorConfig,
    (tuned, shown): (Tuned, Option<Arc<HttpCertificate>>),
    rules: RulesInForce,
) {
    while hangup.recv().await.is_some() {
        match load(origin.file.clone(), &origin.flags) {
            Ok(read) => {
                tuned.store(Arc::new(read.tuning));
                reread(&running.http, shown.as_deref());
                rules.read_again(&read.rules_dir).await;
                let waiting = waiting(&running, &read);
                if waiting.is_empty() {
                    info!("the configuration was read again");
                } else {
                    let keys = waiting.join(", ");
                    warn!("the configuration was read again; these keys wait for the next start: {keys}");
                }
            }
            Err(refused) => {
                for line in refused.lines {
                    warn!("the configuration stays as it was: {line}");
                }
            }
        }
    }
}

/// A certificate that an operator gave is often renewed in its place.
fn reread(http: &Http, shown: Option<&HttpCertificate>) {
    if let (Http::Given { cert, key }, Some(shown)) = (http, shown)
        && let Err(error) = shown.reread(cert, key)
    {
        warn!("the certificate for HTTP stays as it was: {error}");
    }
}

/// Keys that changed and are only read at a start.
fn waiting(running: &CollectorConfig, read: &CollectorConfig) -> Vec<&'static str> {
    let mut keys = Vec::new();
    let mut compare = |key, same: bool| {
        if !same {
            keys.push(key);
        }
    };
    compare("state_dir", running.state_dir == read.state_dir);
    compare("quic_listen", running.quic_listen == read.quic_listen);
    compare("http_listen", running.http_listen == read.http_listen);
    compare("tls and insecure_http", running.http == read.http);
    keys
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> CollectorConfig {
        CollectorConfig::load(Some(("collector.toml", text.as_bytes())), &[], &[]).expect("it is right")
    }

    #[test]
    fn what_waits_for_a_start_is_named_and_the_rest_does_not_wait() {
        let running = config("");
        assert!(
            waiting(&running, &config("retire_after = \"10d\"\n[events]\nkeep = \"2d\"\n[retention]\nfull = \"10h\""))
                .is_empty()
        );
        let read = config("quic_listen = \"[::]:1\"\nstate_dir = \"/x\"");
        assert_eq!(waiting(&running, &read), ["state_dir", "quic_listen"]);
        let insecure = config("http_listen = \"0.0.0.0:1\"\ninsecure_http = true");
        assert_eq!(waiting(&running, &insecure), ["http_listen", "tls and insecure_http"]);
    }
}
