//! What a person may write for a collector: an address or a name, with or without a port.
//! Pure text; it never looks anything up.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};

use super::name::{Name, NameError};

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    Address(SocketAddr),
    /// `rooted`: the name was written with a final dot, so search domains do not apply.
    Name {
        name: Name,
        rooted: bool,
        port: u16,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    #[error("{port:?} is no port; a port is a number from 1 to 65535")]
    Port { port: String },
    #[error(
        "{host:?} is no IPv6 address; write it as [2001:db8::1]:9737, an interface as its number: [fe80::1%2]:9737"
    )]
    Ipv6 { host: String },
    #[error("{host:?} is no name of a host")]
    Name {
        host: String,
        #[source]
        reason: NameError,
    },
}

impl Target {
    /// `host`, `host:port`, `1.2.3.4`, `1.2.3.4:port`, `::1`, `[::1]` and `[::1]:port`.
    pub fn parse(text: &str, default_port: u16) -> Result<Self, TargetError> {
        let (host, port) = split(text)?;
        let port = port.map_or(Ok(default_port), parse_port)?;
        if host.contains([':', '[', ']']) {
            let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
            return parse_ipv6(bare.unwrap_or(host), port)
                .map(Self::Address)
                .ok_or_else(|| TargetError::Ipv6 { host: host.to_owned() });
        }
        if let Ok(ip) = host.parse::<IpAddr>() {
            return Ok(Self::Address(SocketAddr::new(ip, port)));
        }
        match Name::parse(host) {
            Ok(name) => Ok(Self::Name { name, rooted: host.ends_with('.'), port }),
            Err(reason) => Err(TargetError::Name { host: host.to_owned(), reason }),
        }
    }
}

fn split(text: &str) -> Result<(&str, Option<&str>), TargetError> {
    if text.starts_with('[') {
        let Some(end) = text.find(']') else {
            let host = text.to_owned();
            return Err(TargetError::Ipv6 { host });
        };
        let (host, rest) = text.split_at(end + 1);
        return match rest.strip_prefix(':') {
            Some(port) => Ok((host, Some(port))),
            None if rest.is_empty() => Ok((host, None)),
            None => Err(TargetError::Ipv6 { host: text.to_owned() }),
        };
    }
    match text.split_once(':') {
        // More than one colon without brackets is an IPv6 address without a port.
        Some((host, port)) if !port.contains(':') => Ok((host, Some(port))),
        _ => Ok((text, None)),
    }
}

fn parse_port(port: &str) -> Result<u16, TargetError> {
    let digits = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    match port.parse() {
        Ok(number) if digits && number != 0 => Ok(number),
        _ => Err(TargetError::Port { port: port.to_owned() }),
    }
}

fn parse_ipv6(host: &str, port: u16) -> Option<SocketAddr> {
    let (ip, scope) = match host.split_once('%') {
        Some((ip, scope)) => (ip, scope.parse().ok()?),
        None => (host, 0),
    };
    let ip = ip.parse::<Ipv6Addr>().ok()?;
    Some(SocketAddr::V6(SocketAddrV6::new(ip, port, 0, scope)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> String {
        match Target::parse(text, 9737) {
            Ok(Target::Address(address)) => address.to_string(),
            other => panic!("{text} gave {other:?}"),
        }
    }

    #[test]
    fn addresses_parse_with_and_without_port() {
        assert_eq!(address("1.2.3.4"), "1.2.3.4:9737");
        assert_eq!(address("1.2.3.4:80"), "1.2.3.4:80");
        assert_eq!(address("::1"), "[::1]:9737");
        assert_eq!(address("[::1]"), "[::1]:9737");
        assert_eq!(address("[2001:db8::1]:80"), "[2001:db8::1]:80");
        assert_eq!(address("[fe80::1%2]:80"), "[fe80::1%2]:80");
    }

    #[test]
    fn names_parse_with_and_without_port_and_final_dot() {
        for (text, want_rooted, want_port) in
            [("host.example", false, 9737), ("host.example:80", false, 80), ("host.example.:80", true, 80)]
        {
            let target = Target::parse(text, 9737).expect("a legal target");
            let name = Name::parse("host.example").expect("legal");
            let want = Target::Name { name, rooted: want_rooted, port: want_port };
            assert_eq!(target, want, "{text}");
        }
    }

    #[test]
    fn illegal_targets_say_which_part_is_wrong() {
        let error = |text: &str| Target::parse(text, 9737).expect_err(text);
        for text in ["h:", "h:0", "h:+80", "h:65536", "h:x", "[::1]:", "1.2.3.4:"] {
            assert!(matches!(error(text), TargetError::Port { .. }), "{text}");
        }
        for text in ["[::1", "[::1]x", "::1::2", "[host]:80", "[1.2.3.4]:80", "[fe80::1%eth0]"] {
            assert!(matches!(error(text), TargetError::Ipv6 { .. }), "{text}");
        }
        for text in ["", ":80", "a..b", "10.0.0.256", "a b:80", "http//x"] {
            assert!(matches!(error(text), TargetError::Name { .. }), "{text}");
        }
    }
}
