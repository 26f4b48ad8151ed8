//! Whether the collectors answer, and what a handshake tells of this host: whether they take its certificate, or whether
//! they are those of its join token.
//!
//! No Hello is said: beside the service's session it would be a second machine that says it is this node. So what depends
//! on the machine, as a quarantine does, is known from the service's own report alone. Of a join token its pin is used,
//! and its secret stays here.

use std::net::SocketAddr;

use super::path::{self, Path};
use super::report::{Report, Verdict};
use crate::chain::chain;
use crate::config::Config;
use crate::enrol::token::{CREDENTIAL, TokenSources};
use crate::identity::Identity;
use crate::identity::trust::Trust;
use crate::resolve::{Resolver, system_entropy};
use crate::uplink::connect::{ConnectError, Connected, Connector, DEFAULT_PORT, OwnEndpoints, Sockets};
use crate::uplink::join::told_apart;
use crate::uplink::tls::client_config;

/// As whom collectors are asked.
enum Caller {
    Node(Connector),
    /// Not enrolled yet: whoever is believed is the one that the token names.
    Token(Connector, Trust),
}

impl Report {
    /// One collector that answers is enough; the others are a warning then, and so are all before anybody can be asked.
    pub(super) async fn collectors(&mut self, config: &Config) {
        let resolver = Resolver::new("/", system_entropy);
        let caller = caller(config, &TokenSources::of_process(config.join_token_file.clone()), &resolver);
        let mut outcomes = Vec::new();
        for collector in &config.collectors {
            outcomes.push((collector, reach(collector, &resolver, caller.as_ref().ok()).await));
        }
        // Why nobody could be asked comes first: it may be all that is wrong.
        let may_wait = matches!(caller, Err((Verdict::Warning, _)));
        match caller {
            Ok(Caller::Node(_)) => self.add(Verdict::Ok, "identity", "there and whole"),
            Ok(Caller::Token(..)) => {
                let text = "none yet: the service enrols this host with its join token when it is started";
                self.add(Verdict::Ok, "identity", text);
            }
            Err((verdict, text)) => self.add(verdict, "identity", text),
        }
        let one_answers = outcomes.iter().any(|(_, outcome)| outcome.is_ok());
        for (collector, outcome) in outcomes {
            let what = format!("collector {collector}");
            match outcome {
                Ok(text) => self.add(Verdict::Ok, what, text),
                Err(text) if one_answers || may_wait => self.add(Verdict::Warning, what, text),
                Err(text) => self.add(Verdict::Critical, what, text),
            }
        }
    }
}

/// By what lies in the state directory, or why nobody can be asked.
fn caller(config: &Config, tokens: &TokenSources, resolver: &Resolver) -> Result<Caller, (Verdict, String)> {
    let sockets = Sockets::Own(OwnEndpoints::default());
    if config.state_dir.join("node.pem").exists() {
        let identity = Identity::load(&config.state_dir).map_err(|error| (Verdict::Critical, chain(&error)))?;
        let tls = client_config(&identity).map_err(|error| (Verdict::Critical, chain(&error)))?;
        return Ok(Caller::Node(Connector::new(resolver.clone(), tls, sockets)));
    }
    match tokens.find() {
        Ok(Some(token)) => {
            let trust = Trust { authorities: Vec::new(), pin: Some(token.pin) };
            Ok(Caller::Token(Connector::without_identity(resolver.clone(), sockets), trust))
        }
        Ok(None) => {
            let text = format!(
                "this host is not enrolled, and no join token is seen: {}; the credential {CREDENTIAL} is seen by the \
                 service alone",
                tokens.advice()
            );
            Err((Verdict::Warning, text))
        }
        Err(error) => Err((Verdict::Critical, format!("this host is not enrolled, and {}", chain(&error)))),
    }
}

async fn reach(collector: &str, resolver: &Resolver, caller: Option<&Caller>) -> Result<String, String> {
    let addresses = resolver.resolve(collector, DEFAULT_PORT).await;
    let addresses = addresses.map_err(|error| chain(&error))?;
    let paths = looked(addresses).await;
    // Whether UDP gets there can be known though nobody can be asked as anybody.
    let (Some(caller), true) = (caller, paths.iter().any(|(_, path)| path.may_be_open())) else {
        return match paths.iter().find(|(_, path)| matches!(path, Path::Open)) {
            Some((address, _)) => Ok(format!("{address} answers over UDP; no connection was tried")),
            None => Err(paths.iter().map(shown).collect::<Vec<_>>().join("; ")),
        };
    };
    let (connected, what) = match caller {
        Caller::Node(connector) => (connector.connect(collector).await, "takes the certificate of this node"),
        Caller::Token(connector, trust) => (
            connector.connect_to_join(collector, trust).await,
            "is the collector of the join token, of which nothing was sent",
        ),
    };
    let judged = match connected {
        Ok(connected) => judged(collector, connected).await,
        Err(error) => Err(error),
    };
    let error = match judged {
        Ok(address) => return Ok(format!("{address} answers and {what}")),
        Err(error) => error,
    };
    if let Some(found) = paths.iter().find(|(address, _)| error.unanswered() == Some(*address)) {
        return Err(shown(found));
    }
    match caller {
        Caller::Node(_) => Err(chain(&error)),
        Caller::Token(..) => Err(chain(&told_apart(error, true))),
    }
}

/// All of a name's addresses, one after the other.
async fn looked(addresses: Vec<SocketAddr>) -> Vec<(SocketAddr, Path)> {
    let mut paths = Vec::new();
    for address in addresses {
        paths.push((address, path::look(address).await));
    }
    paths
}

fn shown((address, path): &(SocketAddr, Path)) -> String {
    format!("{address}: {path}")
}

/// The address that answered, after its verdict.
async fn judged(collector: &str, connected: Connected) -> Result<SocketAddr, ConnectError> {
    let (verdict, address) = (connected.judged().await, connected.address);
    connected.connection.close(0_u32.into(), b"checked");
    connected.endpoint.wait_idle().await;
    verdict.map(|()| address).map_err(|source| ConnectError::Handshake {
        collector: collector.to_owned(),
        address,
        source,
    })
}
