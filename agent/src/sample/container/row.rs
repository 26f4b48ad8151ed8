//! The numbers of one container, as rows of a sample.

use dunlin_shared::inventory::{Container, Health};
use dunlin_shared::metric::Metric;
use dunlin_shared::sample::{Sample, Subject, SubjectKind};

use super::Seen;
use super::network::{Host, traffic};
use crate::sample::source::Source;
use crate::sample::{float, metric};

/// What its engine says: whether it runs, whether it is well, how often it was restarted.
pub(super) fn told(sample: &mut Sample, name: &str, container: &Container) {
    let Some(subject) = Subject::new(SubjectKind::Container, name) else { return };
    let mut put = |metric: &'static Metric, value: f64| sample.push(&subject, metric, value);
    put(const { metric("container_running") }, f64::from(u8::from(container.is_up())));
    if container.is_told {
        put(const { metric("container_restarts") }, f64::from(container.restarts));
    }
    match container.health {
        Health::Healthy => put(const { metric("container_healthy") }, 1.0),
        Health::Unhealthy => put(const { metric("container_healthy") }, 0.0),
        Health::None | Health::Starting => {}
    }
}

/// What its control group and its network say.
pub(super) fn used(source: &mut Source, sample: &mut Sample, host: Host, name: &str, seen: Option<&Seen<'_>>) {
    let (Some(subject), Some(seen)) = (Subject::new(SubjectKind::Container, name), seen) else { return };
    let usage = &seen.usage;
    let ratio = usage.memory_used_bytes.zip(usage.memory_limit_bytes).map(|(used, limit)| used / limit);
    let traffic = seen.pid.and_then(|pid| traffic(source, host, pid));
    for (metric, value) in [
        (const { metric("container_cpu_seconds") }, usage.cpu_seconds),
        (const { metric("container_cpu_throttled_seconds") }, usage.throttled_seconds),
        (const { metric("container_cpu_limit_cores") }, usage.cpu_limit_cores),
        (const { metric("container_memory_used_bytes") }, usage.memory_used_bytes),
        (const { metric("container_memory_anon_bytes") }, usage.anon_bytes),
        (const { metric("container_memory_file_bytes") }, usage.file_bytes),
        (const { metric("container_memory_kernel_bytes") }, usage.kernel_bytes),
        (const { metric("container_memory_limit_bytes") }, usage.memory_limit_bytes),
        (const { metric("container_memory_used_ratio") }, ratio.filter(|ratio| ratio.is_finite())),
        (const { metric("container_swap_used_bytes") }, usage.swap_bytes),
        (const { metric("container_oom_kills") }, usage.oom_kills),
        (const { metric("container_read_bytes") }, usage.read_bytes),
        (const { metric("container_written_bytes") }, usage.written_bytes),
        (const { metric("container_net_received_bytes") }, traffic.map(|(received, _)| float(received))),
        (const { metric("container_net_sent_bytes") }, traffic.map(|(_, sent)| float(sent))),
        (const { metric("container_processes") }, usage.tasks),
    ] {
        if let Some(value) = value {
            sample.push(&subject, metric, value);
        }
    }
}
