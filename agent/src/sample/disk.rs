//! Whole disks, from `/proc/diskstats`. A disk that vanishes has no rows from then on.
//!
//! Left out are partitions, what is made of other disks (loop, md, dm: its work is counted below), memory that poses as
//! a disk, and what has never been read or written, such as an empty card reader.

use dunlin_shared::metric::Metric;
use dunlin_shared::sample::{Sample, Subject, SubjectKind};

use super::failure::{Failures, SampleError};
use super::name::shown;
use super::source::{Source, Text};
use super::{float, metric};

/// More than any chassis holds; 2,304 series.
const DISKS_MAX: usize = 256;
/// The unit of the kernel's columns, whatever the disk's own blocks are.
const SECTOR_BYTES: f64 = 512.0;
/// The columns since Linux 2.6; later kernels append discards and flushes.
const COLUMNS: usize = 11;
const MADE_OF_OTHERS: [&str; 8] = ["dm-", "fd", "loop", "md", "ram", "sr", "zd", "zram"];

/// Of each column: what it is, and what one of it is in the unit of the metric.
const READ: [(usize, &Metric, f64); 9] = [
    (2, metric("disk_read_bytes"), SECTOR_BYTES),
    (6, metric("disk_written_bytes"), SECTOR_BYTES),
    (0, metric("disk_reads"), 1.0),
    (4, metric("disk_writes"), 1.0),
    (3, metric("disk_read_wait_seconds"), 1e-3),
    (7, metric("disk_write_wait_seconds"), 1e-3),
    (9, metric("disk_busy_seconds"), 1e-3),
    (10, metric("disk_queue_seconds"), 1e-3),
    (8, metric("disk_in_flight"), 1.0),
];

#[derive(Debug, Default)]
pub(super) struct Disks {
    /// Those of the tick before, in the kernel's order: names are made into subjects once.
    known: Vec<(String, Subject)>,
}

impl Disks {
    pub(super) fn sample(&mut self, source: &mut Source, sample: &mut Sample, failures: &mut Failures) {
        let why = "this kernel has no block devices";
        let outcome = source.read_optional("proc/diskstats", why).and_then(|text| self.parse(&text, sample));
        failures.keep(outcome);
    }

    fn parse(&mut self, text: &Text<'_>, sample: &mut Sample) -> Result<(), SampleError> {
        let lossy = text.lossy();
        let (mut whole, mut count) = ("", 0);
        for (number, line) in lossy.lines().enumerate() {
            let mut words = line.split_ascii_whitespace().skip(2);
            let Some(name) = words.next() else { return Err(text.malformed(number, line)) };
            if is_partition(name, whole) {
                continue;
            }
            whole = name;
            if MADE_OF_OTHERS.iter().any(|made| is_numbered(name, made)) {
                continue;
            }
            let mut columns = [0_u64; COLUMNS];
            for column in &mut columns {
                let word = words.next().and_then(|word| word.parse().ok());
                *column = word.ok_or_else(|| text.malformed(number, line))?;
            }
            if columns[0] == 0 && columns[4] == 0 {
                continue;
            }
            if count == DISKS_MAX {
                return Err(SampleError::TooMany { what: "disks", max: DISKS_MAX });
            }
            let Some(subject) = self.subject(count, name) else { continue };
            for (column, metric, unit) in READ {
                sample.push(subject, metric, float(columns[column]) * unit);
            }
            count += 1;
        }
        self.known.truncate(count);
        Ok(())
    }

    fn subject(&mut self, at: usize, name: &str) -> Option<&Subject> {
        if self.known.get(at).is_none_or(|(known, _)| known != name) {
            let subject = Subject::new(SubjectKind::Disk, &shown(name.as_bytes()))?;
            self.known.truncate(at);
            self.known.push((name.to_owned(), subject));
        }
        self.known.get(at).map(|(_, subject)| subject)
    }
}

/// `vda1` of `vda`, `nvme0n1p2` of `nvme0n1`: the kernel lists them behind their disk.
fn is_partition(name: &str, whole: &str) -> bool {
    let Some(rest) = name.strip_prefix(whole).filter(|_| !whole.is_empty()) else { return false };
    let digits = if whole.ends_with(|c: char| c.is_ascii_digit()) { rest.strip_prefix('p') } else { Some(rest) };
    digits.is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()))
}

fn is_numbered(name: &str, kind: &str) -> bool {
    name.strip_prefix(kind).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use dunlin_shared::time::{MonoMs, WallMs};

    use super::*;
    use crate::sample::tree::{Tree, Values};

    fn take(disks: &mut Disks, tree: &Tree) -> (Values, Vec<String>) {
        let (mut sample, mut failures) = (Sample::new(MonoMs(0), WallMs(0)), Failures::default());
        disks.sample(&mut Source::new(tree.path()), &mut sample, &mut failures);
        (Values::of(&sample), failures.into_list().iter().map(|failure| failure.error.to_string()).collect())
    }

    const DISKSTATS: &str = " 254 0 vda 10 1 2000 40 20 2 4000 80 3 500 120 0 0 0 0\n \
        254 1 vda1 9 1 1900 39 19 2 3900 79 0 499 119 0 0 0 0\n \
        259 0 nvme0n1 1 0 8 1 0 0 0 0 0 1 1\n \
        259 1 nvme0n1p1 1 0 8 1 0 0 0 0 0 1 1\n \
        259 2 nvme0n10 5 0 8 1 0 0 0 0 0 1 1\n \
        7 0 loop0 9 0 9 9 9 9 9 9 0 9 9\n 253 0 dm-0 9 0 9 9 9 9 9 9 0 9 9\n \
        9 127 md127 9 0 9 9 9 9 9 9 0 9 9\n 8 0 sda 0 0 0 0 0 0 0 0 0 0 0\n \
        202 1 xvda1 1 0 8 1 0 0 0 0 0 1 1\n";

    #[test]
    fn whole_disks_that_were_used_have_rows() {
        let tree = Tree::new(&[("proc/diskstats", DISKSTATS)]);
        let (values, said) = take(&mut Disks::default(), &tree);
        assert!(said.is_empty(), "{said:?}");
        assert_eq!(values.subjects("disk:"), ["disk:vda", "disk:nvme0n1", "disk:nvme0n10", "disk:xvda1"]);
        let names = ["read_bytes", "written_bytes", "reads", "writes", "in_flight"];
        let found = names.map(|name| values.at("disk:vda", &format!("disk_{name}")).expect("it is told"));
        assert_eq!(found, [1_024_000.0, 2_048_000.0, 10.0, 20.0, 3.0]);
        let names = ["read_wait", "write_wait", "busy", "queue"];
        let found = names.map(|name| values.at("disk:vda", &format!("disk_{name}_seconds")).expect("it is told"));
        assert_eq!(found, [0.04, 0.08, 0.5, 0.12]);
    }

    #[test]
    fn a_disk_that_vanishes_between_two_ticks_takes_its_rows_alone() {
        let tree = Tree::new(&[("proc/diskstats", DISKSTATS)]);
        let mut disks = Disks::default();
        take(&mut disks, &tree);
        let left: String =
            DISKSTATS.lines().filter(|line| !line.contains("nvme0n1 ")).map(|line| format!("{line}\n")).collect();
        tree.set("proc/diskstats", &left);
        let (values, said) = take(&mut disks, &tree);
        assert!(said.is_empty(), "{said:?}");
        assert_eq!(values.at("disk:vda", "disk_reads"), Some(10.0));
        assert_eq!(values.at("disk:nvme0n10", "disk_reads"), Some(5.0));
        assert!(!values.subjects("disk:").contains(&"disk:nvme0n1".to_owned()));
    }

    #[test]
    fn a_thousand_disks_are_reported_up_to_the_limit() {
        let text: String = (0..1_000).map(|n| format!("8 {n} nbd{n} 1 0 8 1 0 0 0 0 0 1 1\n")).collect();
        let tree = Tree::new(&[("proc/diskstats", &text)]);
        let (values, said) = take(&mut Disks::default(), &tree);
        assert_eq!(values.subjects("disk:").len(), DISKS_MAX);
        assert!(said[0].contains("more than 256 disks"), "{said:?}");
    }

    #[test]
    fn a_line_that_makes_no_sense_names_itself() {
        let tree = Tree::new(&[("proc/diskstats", "8 0 sda 1 2 3\n")]);
        assert!(take(&mut Disks::default(), &tree).1[0].contains("diskstats line 1"));
    }
}
