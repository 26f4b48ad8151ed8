//! Time lost to waiting, from `/proc/pressure`. A kernel or container without it has no such rows and is no failure.

use dunlin_shared::metric::Metric;
use dunlin_shared::sample::Sample;

use super::failure::{Failures, SampleError};
use super::source::Source;
use super::{float, metric, put};

const WHY: &str = "this kernel has no pressure accounting (PSI), or hides it from this container";

/// Of the processors only `some` is told: on a whole host `full` is always zero.
const FILES: [(&str, Option<&Metric>, Option<&Metric>); 3] = [
    ("proc/pressure/cpu", Some(metric("host_pressure_cpu_some_seconds")), None),
    (
        "proc/pressure/memory",
        Some(metric("host_pressure_memory_some_seconds")),
        Some(metric("host_pressure_memory_full_seconds")),
    ),
    ("proc/pressure/io", Some(metric("host_pressure_io_some_seconds")), Some(metric("host_pressure_io_full_seconds"))),
];

pub(super) fn sample(source: &mut Source, sample: &mut Sample, failures: &mut Failures) {
    for (file, some, full) in FILES {
        let outcome = read(source, file, some, full, sample);
        let absent = outcome.as_ref().is_err_and(SampleError::is_absence);
        failures.keep(outcome);
        if absent {
            // The three come and go together, and one line says it.
            return;
        }
    }
}

fn read(
    source: &mut Source,
    file: &str,
    some: Option<&'static Metric>,
    full: Option<&'static Metric>,
    sample: &mut Sample,
) -> Result<(), SampleError> {
    let text = source.read_optional(file, WHY)?;
    let lossy = text.lossy();
    for (number, line) in lossy.lines().enumerate() {
        let metric = match line.split(' ').next() {
            Some("some") => some,
            Some("full") => full,
            _ => None,
        };
        let Some(metric) = metric else { continue };
        let total_us = line.rsplit_once("total=").and_then(|(_, total)| total.parse::<u64>().ok());
        put(sample, metric, float(total_us.ok_or_else(|| text.malformed(number, line))?) / 1e6);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use dunlin_shared::time::{MonoMs, WallMs};

    use super::*;
    use crate::sample::tree::{Tree, Values};

    fn take(files: &[(&str, &str)]) -> (Values, Vec<SampleError>) {
        let tree = Tree::new(files);
        let (mut taken, mut failures) = (Sample::new(MonoMs(0), WallMs(0)), Failures::default());
        sample(&mut Source::new(tree.path()), &mut taken, &mut failures);
        (Values::of(&taken), failures.into_list().into_iter().map(|failure| failure.error).collect())
    }

    #[test]
    fn totals_are_seconds() {
        let both = "some avg10=0.00 avg60=0.00 avg300=0.00 total=1500000\n\
                    full avg10=0.00 avg60=0.00 avg300=0.00 total=250000\n";
        let (values, said) =
            take(&[("proc/pressure/cpu", both), ("proc/pressure/memory", both), ("proc/pressure/io", both)]);
        assert!(said.is_empty(), "{said:?}");
        assert_eq!(values.host("host_pressure_cpu_some_seconds"), Some(1.5));
        assert_eq!(values.host("host_pressure_memory_full_seconds"), Some(0.25));
        assert_eq!(values.host("host_pressure_io_full_seconds"), Some(0.25));
    }

    #[test]
    fn a_container_without_pressure_says_so_once_and_fails_nothing() {
        let (_, said) = take(&[]);
        assert!(said.len() == 1 && said[0].is_absence(), "{said:?}");
        assert!(said[0].to_string().contains("proc/pressure/cpu is not there"), "{}", said[0]);
    }

    #[test]
    fn one_of_the_three_that_makes_no_sense_costs_the_others_nothing() {
        let (values, said) = take(&[
            ("proc/pressure/cpu", "some avg10=0.00 total=x\n"),
            ("proc/pressure/memory", "some total=1\n"),
            ("proc/pressure/io", "some avg10=0.00 total=2000000\n"),
        ]);
        assert_eq!(said.len(), 1);
        assert_eq!(values.host("host_pressure_io_some_seconds"), Some(2.0));
    }
}
