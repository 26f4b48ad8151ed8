//! Reads the text of a resolv.conf: nameservers, search domains, options. Pure.
//! What it does not know or cannot read it passes over, as resolv.conf(5) asks. Never fails:
//! without a usable nameserver the one on this host is asked.
//! Unlike glibc it derives no search domain from the host's own name.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use super::name::Name;

/// resolv.conf(5): up to MAXNS nameservers.
const SERVERS_MAX: usize = 3;
/// The limit of glibc before 2.26; a longer list only delays the error.
const SEARCH_MAX: usize = 6;
/// resolv.conf(5) caps ndots at 15, timeout at 30 and attempts at 5.
const NDOTS_MAX: usize = 15;
const TIMEOUT_S_MAX: u64 = 30;
const ATTEMPTS_MAX: usize = 5;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conf {
    pub servers: Vec<Server>,
    pub search: Vec<Name>,
    pub ndots: usize,
    pub timeout: Duration,
    pub attempts: usize,
    pub rotate: bool,
}

/// A nameserver; a link-local one names its interface by name or number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    pub ip: IpAddr,
    pub scope: Option<String>,
}

impl Conf {
    pub fn parse(text: &str) -> Self {
        let mut conf = Self {
            servers: Vec::new(),
            search: Vec::new(),
            ndots: 1,
            timeout: Duration::from_secs(5),
            attempts: 2,
            rotate: false,
        };
        for line in text.lines() {
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                Some("nameserver") => conf.add_server(words.next()),
                // The two exclude each other and the last one counts.
                Some("search" | "domain") => {
                    conf.search = words.filter_map(|word| Name::parse(word).ok()).take(SEARCH_MAX).collect();
                }
                Some("options") => words.for_each(|word| conf.set_option(word)),
                _ => {}
            }
        }
        if conf.servers.is_empty() {
            conf.servers.push(Server { ip: IpAddr::V4(Ipv4Addr::LOCALHOST), scope: None });
        }
        conf
    }

    fn add_server(&mut self, word: Option<&str>) {
        let word = word.unwrap_or_default();
        let (ip, scope) = match word.split_once('%') {
            Some((ip, scope)) => (ip, Some(scope.to_owned())),
            None => (word, None),
        };
        if let Ok(ip) = ip.parse()
            && self.servers.len() < SERVERS_MAX
        {
            self.servers.push(Server { ip, scope });
        }
    }

    fn set_option(&mut self, word: &str) {
        match word.split_once(':') {
            Some(("ndots", value)) => {
                self.ndots = number(value, self.ndots).min(NDOTS_MAX);
            }
            Some(("timeout", value)) => {
                let seconds = number(value, self.timeout.as_secs());
                self.timeout = Duration::from_secs(seconds.clamp(1, TIMEOUT_S_MAX));
            }
            Some(("attempts", value)) => {
                self.attempts = number(value, self.attempts).clamp(1, ATTEMPTS_MAX);
            }
            None if word == "rotate" => self.rotate = true,
            _ => {}
        }
    }
}

fn number<T: std::str::FromStr>(value: &str, otherwise: T) -> T {
    value.parse().unwrap_or(otherwise)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn server(ip: &str, scope: Option<&str>) -> Server {
        Server { ip: ip.parse().expect("an address"), scope: scope.map(str::to_owned) }
    }

    #[test]
    fn full_file_is_read() {
        let conf = Conf::parse(
            "# comment\n; nameserver 9.9.9.9\nnameserver 10.0.0.2\nnameserver ::2 # two\n\
             nameserver fe80::1%eth0\nnameserver 10.0.0.5\nsearch a.example b.example.\n\
             options ndots:2 timeout:3 attempts:4 rotate edns0 trust-ad\n",
        );
        let want = [server("10.0.0.2", None), server("::2", None), server("fe80::1", Some("eth0"))];
        assert_eq!(conf.servers, want);
        let search: Vec<String> = conf.search.iter().map(ToString::to_string).collect();
        assert_eq!(search, ["a.example", "b.example"]);
        assert_eq!((conf.ndots, conf.attempts, conf.rotate), (2, 4, true));
        assert_eq!(conf.timeout, Duration::from_secs(3));
    }

    #[test]
    fn empty_file_means_the_nameserver_on_this_host() {
        for text in ["", "nameserver\nnameserver nonsense\nsearch\noptions\n"] {
            let conf = Conf::parse(text);
            assert_eq!(conf.servers, [server("127.0.0.1", None)]);
            assert_eq!((conf.ndots, conf.attempts, conf.rotate), (1, 2, false));
            assert_eq!(conf.timeout, Duration::from_secs(5));
            assert!(conf.search.is_empty());
        }
    }

    #[test]
    fn options_are_kept_within_their_limits() {
        let conf = Conf::parse("options ndots:99 timeout:99 attempts:99");
        assert_eq!((conf.ndots, conf.attempts), (15, 5));
        assert_eq!(conf.timeout, Duration::from_secs(30));
        let conf = Conf::parse("options timeout:0 attempts:0 ndots:x");
        assert_eq!((conf.ndots, conf.attempts), (1, 1));
        assert_eq!(conf.timeout, Duration::from_secs(1));
    }

    #[test]
    fn last_of_search_and_domain_counts() {
        let conf = Conf::parse("search a.example b.example\ndomain c.example\n");
        assert_eq!(conf.search, [Name::parse("c.example").expect("legal")]);
    }

    proptest! {
        #[test]
        fn arbitrary_text_keeps_every_limit(text in "((nameserver|search|options|domain) [ -~\\n]{0,40}\n){0,20}") {
            let conf = Conf::parse(&text);
            prop_assert!((1..=SERVERS_MAX).contains(&conf.servers.len()));
            prop_assert!(conf.search.len() <= SEARCH_MAX && conf.ndots <= NDOTS_MAX);
            prop_assert!((1..=ATTEMPTS_MAX).contains(&conf.attempts));
            prop_assert!(conf.timeout >= Duration::from_secs(1));
        }
    }
}
