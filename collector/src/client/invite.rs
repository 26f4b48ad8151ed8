//! The one line that brings a host into the fleet: the agent's package, where its collector is, and a token that ends.
//!
//! It is printed alone, to be pasted; what it is good for, and what to do where it does not fit, is said beside it.

use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

use thiserror::Error;

use super::table::labels;
use super::when::When;
use crate::shape::{TokenCreated, TokenRequest};

/// For documentation alone (RFC 5737): a socket that is bound to it sends nothing, and knows where it would send from.
const ANYWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 9);

#[derive(Debug, Error, PartialEq, Eq)]
pub enum InviteError {
    #[error(
        "quic_listen is {0}, which no other host reaches; set it to [::]:9737, or invite this host itself with \
         --address {0}"
    )]
    Loopback(SocketAddr),
    #[error(
        "this machine has no way out, so no address of it is known; say by which one hosts reach it: --address HOST"
    )]
    NoAddress,
    #[error("{0:?} is no address; write HOST or HOST:PORT, such as collector.example.net")]
    Malformed(String),
}

/// Where agents find this collector: what was said, or else what it listens on.
pub fn address(said: Option<&str>, listen: SocketAddr) -> Result<String, InviteError> {
    if let Some(said) = said {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '[' | ']');
        if said.is_empty() || said.starts_with('-') || !said.chars().all(is_plain) {
            return Err(InviteError::Malformed(said.to_owned()));
        }
        let has_port = said.parse::<SocketAddr>().is_ok()
            || said.split_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        return Ok(match said.parse::<IpAddr>() {
            Ok(ip) => SocketAddr::new(ip, listen.port()).to_string(),
            Err(_) if has_port => said.to_owned(),
            Err(_) => format!("{said}:{}", listen.port()),
        });
    }
    if listen.ip().is_loopback() {
        return Err(InviteError::Loopback(listen));
    }
    if !listen.ip().is_unspecified() {
        return Ok(listen.to_string());
    }
    let ip = way_out().ok_or(InviteError::NoAddress)?;
    Ok(SocketAddr::new(ip, listen.port()).to_string())
}

/// The line alone on `out`, for a person to paste; the rest on `said`.
pub fn show(
    address: &str,
    created: &TokenCreated,
    request: &TokenRequest,
    when: &When,
    (out, said): (&mut dyn Write, &mut dyn Write),
) -> io::Result<()> {
    let given = format!("sudo env DUNLIN_AGENT_COLLECTORS={address} DUNLIN_JOIN_TOKEN={}", created.token);
    writeln!(out, "{given} dpkg -i dunlin-agent_*.deb")?;
    let hosts = match request.uses {
        Some(1) => String::from("one host"),
        Some(uses) => format!("{uses} hosts"),
        None => String::from("any number of hosts"),
    };
    let bear =
        if request.labels.is_empty() { String::new() } else { format!(", labelled {}", labels(&request.labels)) };
    let until = created.expires.map_or_else(String::new, |at| format!(" until {} ({})", when.local(at), when.zone()));
    writeln!(said, "Paste it on a host, in the directory with the agent's package: good for {hosts}{bear}{until}.")?;
    writeln!(said, "  without dpkg: unpack dunlin-agent-*.tar.gz there, and end the line with ./install instead")?;
    writeln!(said, "  hosts reach {address} by UDP; if that is another address from there, use --address HOST")?;
    if request.needs_approval {
        writeln!(said, "  each waits for: dunlin approve --pending")?;
    }
    writeln!(said, "  then: dunlin nodes        to take it back: dunlin token delete {}", created.id)
}

/// The address of this machine that packets to others leave from. None is sent.
fn way_out() -> Option<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect(ANYWHERE).ok()?;
    Some(socket.local_addr().ok()?.ip()).filter(|ip| !ip.is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_wins_and_gets_the_port_that_is_listened_on() {
        let listen = "[::]:7000".parse().expect("an address");
        for (said, found) in [
            ("collector.example.net", "collector.example.net:7000"),
            ("collector.example.net:443", "collector.example.net:443"),
            ("192.0.2.7", "192.0.2.7:7000"),
            ("2001:db8::7", "[2001:db8::7]:7000"),
            ("[2001:db8::7]:443", "[2001:db8::7]:443"),
        ] {
            assert_eq!(address(Some(said), listen).as_deref(), Ok(found));
        }
        for wrong in ["", "a b", "a;reboot", "--help", "$(x)"] {
            assert_eq!(address(Some(wrong), listen), Err(InviteError::Malformed(wrong.to_owned())));
        }
    }

    #[test]
    fn an_address_of_its_own_is_told_and_loopback_is_refused() {
        let of = |listen: &str| address(None, listen.parse().expect("an address"));
        assert_eq!(of("192.0.2.9:9737").as_deref(), Ok("192.0.2.9:9737"));
        let refused = of("127.0.0.1:9737").expect_err("nobody reaches it").to_string();
        assert!(refused.contains("--address 127.0.0.1:9737"), "{refused}");
    }
}
