//! Samples the machine it runs on, for recordings that benches replay: what the agent's own sampler tells, and all of it.

use std::path::Path;
use std::sync::Arc;

use dunlin_agent::clock::Clock;
use dunlin_agent::sample::Sampler;
use dunlin_agent::stats::Stats;
use dunlin_shared::sample::Sample;
use dunlin_shared::time::{MonoMs, WallMs};

#[derive(Debug)]
pub struct Recorder {
    sampler: Sampler,
}

impl Recorder {
    #[must_use]
    pub fn new() -> Self {
        Self { sampler: Sampler::new(Path::new("/"), Clock::start(), Arc::new(Stats::default())) }
    }

    #[must_use]
    pub fn sample(&mut self, mono: MonoMs, wall: WallMs) -> Sample {
        self.sampler.sample(mono, wall).sample
    }
}

impl Default for Recorder {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use dunlin_shared::metric::by_name;
    use dunlin_shared::sample::SubjectKind;

    use super::*;

    #[test]
    fn this_machine_has_the_series_of_a_host_and_keeps_them() {
        let mut recorder = Recorder::new();
        let [first, second] = [1, 10_001].map(|n| recorder.sample(MonoMs(n), WallMs(0)));
        for name in ["host_cpu_idle_seconds", "host_memory_used_ratio", "host_load1", "net_received_bytes"] {
            let id = by_name(name).expect("in the catalogue").id.0;
            for sample in [&first, &second] {
                assert!(sample.rows().iter().any(|(_, metric, _)| metric.raw() == id), "{name}");
            }
        }
        let has_groups = second.rows().iter().any(|(subject, ..)| subject.kind == SubjectKind::Process);
        assert!(has_groups, "process groups are recorded as well");
    }
}
