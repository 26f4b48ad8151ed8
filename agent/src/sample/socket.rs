//! Sockets and what the network stack lost, from `/proc/net/sockstat`, `snmp` and `netstat`.

use dunlin_shared::metric::Metric;
use dunlin_shared::sample::Sample;

use super::failure::{Failures, SampleError};
use super::source::{Source, Text};
use super::{float, metric, put};

/// The line's head and the column's name.
pub const SNMP: [(&str, &str, &Metric); 5] = [
    ("Tcp:", "CurrEstab", metric("host_tcp_established")),
    ("Tcp:", "RetransSegs", metric("host_tcp_retransmits")),
    ("Tcp:", "OutRsts", metric("host_tcp_resets_sent")),
    ("Udp:", "InErrors", metric("host_udp_errors")),
    ("Udp:", "RcvbufErrors", metric("host_udp_buffer_errors")),
];
pub const NETSTAT: [(&str, &str, &Metric); 1] = [("TcpExt:", "ListenOverflows", metric("host_tcp_listen_overflows"))];

pub(super) fn sample(source: &mut Source, sample: &mut Sample, failures: &mut Failures) {
    let sockets = source.read("proc/net/sockstat").and_then(|text| sockets(&text, sample));
    failures.keep(sockets);
    let snmp = source.read("proc/net/snmp").and_then(|text| columns(&text, &SNMP, sample));
    failures.keep(snmp);
    let netstat = source.read("proc/net/netstat").and_then(|text| columns(&text, &NETSTAT, sample));
    failures.keep(netstat);
}

pub fn sockets(text: &Text<'_>, sample: &mut Sample) -> Result<(), SampleError> {
    let lossy = text.lossy();
    for (number, line) in lossy.lines().enumerate() {
        let (key, metric) = match line.split(' ').next() {
            Some("sockets:") => ("used", const { metric("host_sockets_used") }),
            Some("TCP:") => ("tw", const { metric("host_tcp_time_wait") }),
            _ => continue,
        };
        let mut words = line.split(' ').skip_while(|word| *word != key).skip(1);
        let value: Option<u64> = words.next().and_then(|word| word.parse().ok());
        put(sample, metric, float(value.ok_or_else(|| text.malformed(number, line))?));
    }
    Ok(())
}

/// Lines come in pairs of one head: names, then values. The values may be negative and are then of no interest here.
pub fn columns(
    text: &Text<'_>,
    wanted: &[(&str, &str, &'static Metric)],
    sample: &mut Sample,
) -> Result<(), SampleError> {
    let lossy = text.lossy();
    let mut lines = lossy.lines().enumerate();
    while let (Some((number, names)), Some((_, values))) = (lines.next(), lines.next()) {
        let head = names.split(' ').next().unwrap_or_default();
        if !values.starts_with(head) {
            return Err(text.malformed(number + 1, values));
        }
        if !wanted.iter().any(|(known, ..)| *known == head) {
            continue;
        }
        for (name, value) in names.split(' ').zip(values.split(' ')) {
            let metric = wanted.iter().find(|(known, column, _)| *known == head && *column == name);
            if let (Some((.., metric)), Ok(value)) = (metric, value.parse::<u64>()) {
                put(sample, metric, float(value));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use dunlin_shared::time::{MonoMs, WallMs};

    use super::*;
    use crate::sample::tree::{Tree, Values};

    const SOCKSTAT: &str = "sockets: used 32\nTCP: inuse 2 orphan 0 tw 7 alloc 2 mem 38\nUDP: inuse 17 mem 91\n";
    const SNMP: &str = "Ip: Forwarding DefaultTTL\nIp: 1 64\n\
        Tcp: RtoAlgorithm MaxConn CurrEstab RetransSegs OutRsts\nTcp: 1 -1 5 40 6\n\
        Udp: InDatagrams InErrors RcvbufErrors\nUdp: 9 3 2\nUdpLite: InErrors\nUdpLite: 99\n";
    const NETSTAT: &str = "TcpExt: SyncookiesSent ListenOverflows\nTcpExt: 0 11\nIpExt: InOctets\nIpExt: 5\n";

    fn take(files: &[(&str, &str)]) -> (Values, Vec<String>) {
        let tree = Tree::new(files);
        let (mut taken, mut failures) = (Sample::new(MonoMs(0), WallMs(0)), Failures::default());
        sample(&mut Source::new(tree.path()), &mut taken, &mut failures);
        let said = failures.into_list().iter().map(|failure| failure.error.to_string()).collect();
        (Values::of(&taken), said)
    }

    #[test]
    fn sockets_and_losses_of_a_recorded_host() {
        let (values, said) =
            take(&[("proc/net/sockstat", SOCKSTAT), ("proc/net/snmp", SNMP), ("proc/net/netstat", NETSTAT)]);
        assert!(said.is_empty(), "{said:?}");
        let names = ["tcp_established", "tcp_time_wait", "tcp_listen_overflows", "tcp_retransmits", "udp_errors"];
        let found = names.map(|name| values.host(&format!("host_{name}")));
        assert_eq!(found, [5.0, 7.0, 11.0, 40.0, 3.0].map(Some));
        assert_eq!(values.host("host_sockets_used"), Some(32.0));
    }

    #[test]
    fn values_that_do_not_belong_to_their_names_are_refused() {
        let (_, said) = take(&[
            ("proc/net/sockstat", "sockets: used many\n"),
            ("proc/net/snmp", "Tcp: CurrEstab\nUdp: 1\n"),
            ("proc/net/netstat", NETSTAT),
        ]);
        assert!(said.len() == 2 && said[1].contains("snmp line 2"), "{said:?}");
    }
}
