//! Load averages, tasks, open files, entropy, uptime and tracked connections: small files of one line each.

use dunlin_shared::sample::Sample;

use super::failure::{Failures, SampleError};
use super::source::Source;
use super::{metric, put};

pub(super) fn sample(source: &mut Source, sample: &mut Sample, failures: &mut Failures) {
    let load = load(source, sample);
    failures.keep(load);
    let files = files(source, sample);
    failures.keep(files);
    // What is not there is a kernel without it: a container, or a firewall that tracks nothing.
    for (file, metric) in [
        ("proc/uptime", const { metric("host_uptime_seconds") }),
        ("proc/sys/kernel/random/entropy_avail", const { metric("host_entropy_bits") }),
        ("proc/sys/net/netfilter/nf_conntrack_count", const { metric("host_conntrack_entries") }),
        ("proc/sys/net/netfilter/nf_conntrack_max", const { metric("host_conntrack_max") }),
    ] {
        if let Some(value) = source.number(file) {
            put(sample, metric, value);
        }
    }
}

fn load(source: &mut Source, sample: &mut Sample) -> Result<(), SampleError> {
    let text = source.read("proc/loadavg")?;
    let lossy = text.lossy();
    let line = lossy.lines().next().unwrap_or_default();
    let wrong = || text.malformed(0, line);
    let mut words = line.split(' ');
    for metric in const { [metric("host_load1"), metric("host_load5"), metric("host_load15")] } {
        put(sample, metric, words.next().and_then(|word| word.parse().ok()).ok_or_else(wrong)?);
    }
    let (running, threads) = words.next().and_then(|word| word.split_once('/')).ok_or_else(wrong)?;
    put(sample, const { metric("host_processes_running") }, running.parse().map_err(|_| wrong())?);
    put(sample, const { metric("host_threads") }, threads.parse().map_err(|_| wrong())?);
    Ok(())
}

fn files(source: &mut Source, sample: &mut Sample) -> Result<(), SampleError> {
    let text = source.read_optional("proc/sys/fs/file-nr", "its /proc/sys is masked")?;
    let lossy = text.lossy();
    let mut numbers = lossy.split_whitespace().map(str::parse::<f64>);
    let (Some(Ok(open)), Some(Ok(_)), Some(Ok(max))) = (numbers.next(), numbers.next(), numbers.next()) else {
        return Err(text.malformed(0, &lossy));
    };
    put(sample, const { metric("host_files_open") }, open);
    // Since Linux 5.x the default is the largest number there is, which is no limit that could be neared.
    if max < 1e18 {
        put(sample, const { metric("host_files_max") }, max);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use dunlin_shared::time::{MonoMs, WallMs};

    use super::*;
    use crate::sample::tree::{Tree, Values};

    fn take(files: &[(&str, &str)]) -> (Values, Vec<String>) {
        let tree = Tree::new(files);
        let (mut taken, mut failures) = (Sample::new(MonoMs(0), WallMs(0)), Failures::default());
        sample(&mut Source::new(tree.path()), &mut taken, &mut failures);
        let said = failures.into_list().iter().map(|failure| failure.error.to_string()).collect();
        (Values::of(&taken), said)
    }

    #[test]
    fn the_small_files_of_a_recorded_host() {
        let (values, said) = take(&[
            ("proc/loadavg", "0.50 1.25 2.00 3/411 99\n"),
            ("proc/sys/fs/file-nr", "640\t0\t9223372036854775807\n"),
            ("proc/uptime", "7200.11 9000.00\n"),
            ("proc/sys/kernel/random/entropy_avail", "256\n"),
            ("proc/sys/net/netfilter/nf_conntrack_count", "17\n"),
            ("proc/sys/net/netfilter/nf_conntrack_max", "262144\n"),
        ]);
        assert!(said.is_empty(), "{said:?}");
        assert_eq!((values.host("host_load5"), values.host("host_threads")), (Some(1.25), Some(411.0)));
        assert_eq!((values.host("host_files_open"), values.host("host_files_max")), (Some(640.0), None));
        assert_eq!(values.host("host_conntrack_entries"), Some(17.0));
        assert_eq!(values.host("host_uptime_seconds"), Some(7_200.0));
    }

    #[test]
    fn a_part_that_fails_costs_itself_alone_and_names_its_file() {
        let (values, said) = take(&[("proc/loadavg", "garbage"), ("proc/sys/fs/file-nr", "1\t0\t1000\n")]);
        assert!(said.len() == 1 && said[0].contains("proc/loadavg line 1"), "{said:?}");
        assert_eq!(values.host("host_files_max"), Some(1_000.0));
    }
}
