//! The highest temperature of the host. A sensor may sit behind a slow bus or a disk that sleeps, so all are read on a
//! thread of their own, and what a tick reports is what they said since the tick before.

use std::fs;
use std::path::{Path, PathBuf};

use dunlin_shared::sample::Sample;

use super::failure::{Failures, SampleError};
use super::lane::{Alive, Lane};
use super::{metric, put};
use crate::clock::Clock;

/// What the first tick waits, so that one sample on a terminal has a temperature too.
const FIRST_MS: u64 = 100;
/// A server of two sockets has about a hundred.
const SENSORS_MAX: usize = 256;
/// Beyond these a sensor is not connected: many report 0 K or 255 degrees then.
const PLAUSIBLE: std::ops::RangeInclusive<f64> = -50.0..=150.0;

#[derive(Debug)]
pub(super) struct Sensors {
    clock: Clock,
    lane: Option<Lane<(), Option<f64>>>,
    asked: Option<u64>,
    is_first: bool,
    /// They did not answer within a whole tick.
    is_late: bool,
    start_failure: Option<std::io::Error>,
}

impl Sensors {
    /// Without any sensor there is no thread.
    pub(super) fn new(root: &Path, clock: Clock) -> Self {
        let files = files(root);
        let (mut lane, mut start_failure) = (None, None);
        if !files.is_empty() {
            match Lane::start("sensors", 1, clock, &Alive::default(), move |()| highest(&files)) {
                Ok(started) => lane = Some(started),
                Err(error) => start_failure = Some(error),
            }
        }
        Self { clock, lane, asked: None, is_first: true, is_late: false, start_failure }
    }

    pub(super) fn ask(&mut self) {
        self.is_late = self.asked.is_some() && !self.is_first;
        if self.is_first {
            self.asked = self.lane.as_mut().and_then(|lane| lane.ask(()));
        }
    }

    pub(super) fn collect(&mut self, sample: &mut Sample, failures: &mut Failures) {
        if let Some(source) = self.start_failure.take() {
            failures.note(SampleError::Thread { what: "the sensors", source });
        }
        let Some(lane) = &mut self.lane else { return };
        let is_first = std::mem::take(&mut self.is_first);
        let until = self.clock.mono().plus(if is_first { FIRST_MS } else { 0 });
        match lane.wait(self.clock, until) {
            Some(answered) => {
                self.asked = lane.ask(());
                if let Some(celsius) = answered.answer {
                    put(sample, const { metric("host_temperature_celsius") }, celsius);
                }
            }
            None if self.is_late => failures.note(SampleError::Sensors),
            None => {}
        }
    }
}

fn files(root: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for (class, is_sensor) in [
        ("sys/class/hwmon", (|name| name.starts_with("temp") && name.ends_with("_input")) as fn(&str) -> bool),
        ("sys/class/thermal", |name| name == "temp"),
    ] {
        let Ok(devices) = fs::read_dir(root.join(class)) else { continue };
        for device in devices.flatten() {
            let Ok(entries) = fs::read_dir(device.path()) else { continue };
            let names = entries.flatten().filter(|entry| entry.file_name().to_str().is_some_and(is_sensor));
            files.extend(names.map(|entry| entry.path()));
        }
    }
    files.truncate(SENSORS_MAX);
    files
}

/// Files tell thousandths of a degree; a sensor that cannot be read is left out.
fn highest(files: &[PathBuf]) -> Option<f64> {
    let read = |file: &PathBuf| fs::read_to_string(file).ok()?.trim().parse::<f64>().ok();
    files
        .iter()
        .filter_map(read)
        .map(|milli| milli / 1e3)
        .filter(|celsius| PLAUSIBLE.contains(celsius))
        .reduce(f64::max)
}

#[cfg(test)]
mod tests {
    use dunlin_shared::time::{MonoMs, WallMs};

    use super::*;
    use crate::sample::tree::{Tree, Values};

    #[test]
    fn the_highest_plausible_temperature_is_told() {
        let tree = Tree::new(&[
            ("sys/class/hwmon/hwmon0/temp1_input", "41500\n"),
            ("sys/class/hwmon/hwmon0/temp2_input", "255000\n"),
            ("sys/class/hwmon/hwmon0/temp1_max", "90000\n"),
            ("sys/class/hwmon/hwmon1/fan1_input", "120000\n"),
            ("sys/class/thermal/thermal_zone0/temp", "55000\n"),
            ("sys/class/thermal/thermal_zone1/temp", "broken\n"),
        ]);
        assert_eq!(highest(&files(tree.path())), Some(55.0));
        let mut sensors = Sensors::new(tree.path(), Clock::start());
        // The thread may be late on a busy machine; what it says is told in a later tick then.
        let told = (0..600).find_map(|_| {
            let (mut sample, mut failures) = (Sample::new(MonoMs(0), WallMs(0)), Failures::default());
            sensors.is_first |= sensors.asked.is_none();
            sensors.ask();
            sensors.collect(&mut sample, &mut failures);
            Values::of(&sample).host("host_temperature_celsius").or_else(|| {
                std::thread::yield_now();
                None
            })
        });
        assert_eq!(told, Some(55.0));
    }

    #[test]
    fn a_host_without_sensors_has_no_thread_for_them() {
        let tree = Tree::new(&[("sys/class/hwmon/hwmon0/name", "power\n")]);
        assert!(Sensors::new(tree.path(), Clock::start()).lane.is_none());
    }
}
