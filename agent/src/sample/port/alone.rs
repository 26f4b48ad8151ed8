//! A look at ports by themselves: processes go by the name that each has, and nothing is known of containers.
//!
//! It stands in for what the parts of containers and processes tell.

use std::fs;

use dunlin_shared::inventory::Stock;
use dunlin_shared::time::MonoMs;

use super::{Around, Ports};
use crate::sample::failure::Failures;
use crate::sample::name::shown;
use crate::sample::source::Source;

impl Ports {
    pub(in crate::sample) fn look_alone(
        &mut self,
        source: &mut Source,
        now: MonoMs,
        stock: &mut Stock,
        failures: &mut Failures,
    ) {
        let proc = source.path("proc");
        let pids = || {
            let entries = fs::read_dir(&proc).into_iter().flatten().flatten();
            entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
        };
        let group_of = |pid: u32| {
            let name = fs::read(proc.join(format!("{pid}/comm"))).ok()?;
            Some(shown(name.trim_ascii_end()).into())
        };
        let container_of = |_| None;
        let around =
            Around { pids: &pids, group_of: &group_of, container_of: &container_of, containers: &[], published: &[] };
        self.look(source, now, &around, stock, failures);
    }
}
