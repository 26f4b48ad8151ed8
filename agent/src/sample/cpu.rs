//! Processor time by mode, the busiest and the least busy core, and what else `/proc/stat` counts.
//!
//! The kernel's counters are shipped as they are, those that go back included. Only the two ratios of cores are taken
//! here, because shipping every core would cost a host of 256 more than all the rest.

use dunlin_shared::metric::Metric;
use dunlin_shared::sample::Sample;

use super::failure::{Failures, SampleError};
use super::source::{Source, Text};
use super::{float, metric, put};

/// `USER_HZ`: the unit in which the kernel tells processor time, 100 on every architecture that we build for.
pub(super) const TICKS_PER_S: f64 = 100.0;

#[derive(Debug, Default)]
pub(super) struct Cpu {
    /// As they stood at the tick before, by number. A core that was offline then has no ratio now.
    before: Vec<Core>,
    now: Vec<Core>,
}

#[derive(Clone, Copy, Debug)]
struct Core {
    number: u32,
    busy: u64,
    total: u64,
}

const MODES: [&Metric; 8] = [
    metric("host_cpu_user_seconds"),
    metric("host_cpu_nice_seconds"),
    metric("host_cpu_system_seconds"),
    metric("host_cpu_idle_seconds"),
    metric("host_cpu_iowait_seconds"),
    metric("host_cpu_irq_seconds"),
    metric("host_cpu_softirq_seconds"),
    metric("host_cpu_steal_seconds"),
];
const COUNTS: [(&str, &Metric); 5] = [
    ("ctxt", metric("host_context_switches")),
    ("intr", metric("host_interrupts")),
    ("processes", metric("host_forks")),
    ("procs_blocked", metric("host_processes_blocked")),
    ("btime", metric("host_boot_seconds")),
];

impl Cpu {
    pub(super) fn sample(&mut self, source: &mut Source, sample: &mut Sample, failures: &mut Failures) {
        let outcome = source.read("proc/stat").and_then(|text| self.parse(&text, sample));
        failures.keep(outcome);
    }

    fn parse(&mut self, text: &Text<'_>, sample: &mut Sample) -> Result<(), SampleError> {
        let lossy = text.lossy();
        let mut found = false;
        self.now.clear();
        for (number, line) in lossy.lines().enumerate() {
            let Some((key, rest)) = line.split_once(' ') else { continue };
            if key == "cpu" {
                let modes = modes(rest).ok_or_else(|| text.malformed(number, line))?;
                put_modes(&modes, sample);
                found = true;
            } else if let Some(core) = key.strip_prefix("cpu") {
                let modes = modes(rest).ok_or_else(|| text.malformed(number, line))?;
                let core = core.parse().map_err(|_| text.malformed(number, line))?;
                self.now.push(Core::of(core, &modes));
            } else if let Some((_, metric)) = COUNTS.iter().find(|(known, _)| *known == key) {
                // The line of interrupts goes on with each of them; the first number is their sum.
                let first = rest.split(' ').next().and_then(|word| word.parse().ok());
                put(sample, metric, first.ok_or_else(|| text.malformed(number, line))?);
            }
        }
        if !found {
            return Err(text.malformed(0, "no line of all processors"));
        }
        put(sample, const { metric("host_cpu_cores") }, float(self.now.len() as u64));
        self.extremes(sample);
        std::mem::swap(&mut self.before, &mut self.now);
        Ok(())
    }

    fn extremes(&self, sample: &mut Sample) {
        let ratios = self.now.iter().filter_map(|core| {
            let at = self.before.binary_search_by_key(&core.number, |before| before.number).ok()?;
            core.busy_since(self.before[at])
        });
        let extremes = ratios.fold(None, |found: Option<(f64, f64)>, ratio| {
            let (least, most) = found.unwrap_or((ratio, ratio));
            Some((least.min(ratio), most.max(ratio)))
        });
        if let Some((least, most)) = extremes {
            put(sample, const { metric("host_cpu_busy_core_max_ratio") }, most);
            put(sample, const { metric("host_cpu_busy_core_min_ratio") }, least);
        }
    }
}

impl Core {
    /// Time taken by the hypervisor is busy: the core could do nothing else.
    fn of(number: u32, modes: &[u64; 8]) -> Self {
        let total = modes.iter().fold(0_u64, |sum, &ticks| sum.saturating_add(ticks));
        let [_, _, _, idle, iowait, ..] = *modes;
        Self { number, busy: total.saturating_sub(idle).saturating_sub(iowait), total }
    }

    /// Idle time may go back by a tick, and a core that was switched off may begin anew: neither gives a ratio.
    fn busy_since(self, before: Self) -> Option<f64> {
        let total = self.total.checked_sub(before.total).filter(|&total| total > 0)?;
        let busy = self.busy.checked_sub(before.busy)?;
        Some((float(busy) / float(total)).min(1.0))
    }
}

/// Kernels before 2.6.11 had fewer columns; no other does.
fn modes(rest: &str) -> Option<[u64; 8]> {
    let mut words = rest.split_ascii_whitespace();
    let mut modes = [0; 8];
    for mode in &mut modes {
        *mode = words.next()?.parse().ok()?;
    }
    Some(modes)
}

fn put_modes(modes: &[u64; 8], sample: &mut Sample) {
    let [user, nice, ..] = *modes;
    for ((metric, &ticks), column) in MODES.iter().zip(modes).zip(0..) {
        let ticks = if column == 0 { user.saturating_add(nice) } else { ticks };
        put(sample, metric, float(ticks) / TICKS_PER_S);
    }
}

#[cfg(test)]
mod tests {
    use dunlin_shared::time::{MonoMs, WallMs};

    use super::*;
    use crate::sample::tree::{Tree, Values};

    fn stat(cores: &[(u32, u64, u64)]) -> String {
        let lines: String =
            cores.iter().map(|(n, user, idle)| format!("cpu{n} {user} 0 0 {idle} 0 0 0 0 0 0\n")).collect();
        format!(
            "cpu  300 20 50 900 5 1 2 7 0 0\n{lines}intr 77 1 2 3\nctxt 123456\nbtime 1795255200\nprocesses 4242\n\
             procs_running 2\nprocs_blocked 1\nsoftirq 9 1 2\n"
        )
    }

    fn take(cpu: &mut Cpu, tree: &Tree) -> (Values, u64) {
        let (mut sample, mut failures) = (Sample::new(MonoMs(0), WallMs(0)), Failures::default());
        cpu.sample(&mut Source::new(tree.path()), &mut sample, &mut failures);
        (Values::of(&sample), failures.count())
    }

    #[test]
    fn modes_are_seconds_and_user_holds_the_niced_part() {
        let tree = Tree::new(&[("proc/stat", &stat(&[(0, 1, 1), (1, 1, 1)]))]);
        let (values, failed) = take(&mut Cpu::default(), &tree);
        assert_eq!(failed, 0);
        let names = ["user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal"];
        let seconds = names.map(|mode| values.host(&format!("host_cpu_{mode}_seconds")).expect("every mode"));
        assert_eq!(seconds, [3.2, 0.2, 0.5, 9.0, 0.05, 0.01, 0.02, 0.07]);
        assert_eq!(values.host("host_cpu_cores"), Some(2.0));
        assert_eq!(values.host("host_forks"), Some(4242.0));
        assert_eq!(values.host("host_boot_seconds"), Some(1_795_255_200.0));
        assert_eq!(values.host("host_cpu_busy_core_max_ratio"), None, "there is no tick before");
    }

    #[test]
    fn extremes_are_those_of_256_cores_since_the_tick_before() {
        let cores: Vec<_> = (0..256).map(|n| (n, 1_000, 1_000)).collect();
        let tree = Tree::new(&[("proc/stat", &stat(&cores))]);
        let mut cpu = Cpu::default();
        take(&mut cpu, &tree);
        let busy = |n: u32| if n == 200 { 90 } else { 20 + u64::from(n % 2) * 10 };
        let cores: Vec<_> = (0..256).map(|n| (n, 1_000 + busy(n), 1_100 - busy(n))).collect();
        tree.set("proc/stat", &stat(&cores));
        let (values, failed) = take(&mut cpu, &tree);
        let extremes = ["min", "max"].map(|end| values.host(&format!("host_cpu_busy_core_{end}_ratio")));
        assert_eq!((extremes, failed), ([Some(0.2), Some(0.9)], 0));
        assert_eq!(values.host("host_cpu_cores"), Some(256.0));
    }

    #[test]
    fn a_counter_that_goes_back_and_a_core_that_comes_and_goes_give_no_ratio() {
        let tree = Tree::new(&[("proc/stat", &stat(&[(0, 100, 100), (1, 100, 100), (2, 100, 100)]))]);
        let mut cpu = Cpu::default();
        take(&mut cpu, &tree);
        tree.set("proc/stat", &stat(&[(0, 50, 160), (2, 150, 150), (3, 5, 5)]));
        let (values, failed) = take(&mut cpu, &tree);
        assert_eq!((values.host("host_cpu_busy_core_max_ratio"), failed), (Some(0.5), 0));
        assert_eq!(values.host("host_cpu_busy_core_min_ratio"), Some(0.5), "core 2 is the only one that can be told");
        tree.set("proc/stat", &stat(&[(0, 50, 160)]));
        assert_eq!(take(&mut cpu, &tree).0.host("host_cpu_busy_core_max_ratio"), None, "no time passed");
    }

    #[test]
    fn nonsense_names_its_line() {
        for text in ["", "cpu 1 2 3\n", "cpu  1 2 3 4 5 6 7 8\ncpux 1 2 3 4 5 6 7 8\n", "cpu  1 2 3 4 5 6 7 -8\n"] {
            let tree = Tree::new(&[("proc/stat", text)]);
            assert_eq!(take(&mut Cpu::default(), &tree).1, 1, "{text:?}");
        }
    }
}
