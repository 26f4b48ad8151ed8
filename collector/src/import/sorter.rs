//! Samples in any order, in the order of nodes and times: more of them than memory holds.
//!
//! Runs that are sorted in memory go to files, and are read side by side.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use dunlin_shared::time::WallMs;

use super::error::ImportError;
use super::judge::Sample;

/// Samples of one run, 24 bytes each: 24 MB.
const RUN_MAX: usize = 1_000_000;
/// Runs that are open at once; a thousand million samples, which is a window that is full.
const RUNS_MAX: usize = 900;
/// What is read ahead of each run.
const BUFFER_BYTES: usize = 16 * 1024;
const SAMPLE_BYTES: usize = 24;

#[derive(Debug)]
pub(super) struct Sorter {
    scratch: PathBuf,
    held: Vec<Sample>,
    runs: Vec<File>,
    run_max: usize,
}

/// All samples, in order.
#[derive(Debug)]
pub(super) struct Sorted {
    scratch: PathBuf,
    runs: Vec<BufReader<File>>,
    next: BinaryHeap<Reverse<(Sample, usize)>>,
    failed: bool,
}

impl Sorter {
    pub(super) fn new(scratch: &Path) -> Self {
        Self { scratch: scratch.to_path_buf(), held: Vec::new(), runs: Vec::new(), run_max: RUN_MAX }
    }

    pub(super) fn push(&mut self, sample: Sample) -> Result<(), ImportError> {
        self.held.push(sample);
        if self.held.len() < self.run_max { Ok(()) } else { self.write() }
    }

    pub(super) fn sorted(mut self) -> Result<Sorted, ImportError> {
        self.write()?;
        let runs = self.runs.drain(..).map(|run| BufReader::with_capacity(BUFFER_BYTES, run)).collect();
        let mut sorted = Sorted { scratch: self.scratch, runs, next: BinaryHeap::new(), failed: false };
        (0..sorted.runs.len()).try_for_each(|run| sorted.advance(run))?;
        Ok(sorted)
    }

    /// What is held becomes a run. Its file has no name any more, so that nothing is left of it whatever happens.
    fn write(&mut self) -> Result<(), ImportError> {
        if self.held.is_empty() {
            return Ok(());
        }
        let path = self.scratch.join("run");
        let at = |error| ImportError::io(&path, error);
        if self.runs.len() == RUNS_MAX {
            let what = format!("it holds more than {} samples; split it by time", RUNS_MAX * self.run_max);
            return Err(ImportError::In { file: path, what });
        }
        self.held.sort_unstable();
        let file = File::options().read(true).write(true).create_new(true).open(&path).map_err(at)?;
        std::fs::remove_file(&path).map_err(at)?;
        let mut out = BufWriter::new(file);
        for sample in self.held.drain(..) {
            out.write_all(&bytes(sample)).map_err(at)?;
        }
        let mut file = out.into_inner().map_err(|error| ImportError::io(&path, error.into_error()))?;
        std::io::Seek::rewind(&mut file).map_err(at)?;
        self.runs.push(file);
        Ok(())
    }
}

impl Sorted {
    /// Puts the next sample of a run among those that wait.
    fn advance(&mut self, run: usize) -> Result<(), ImportError> {
        let mut bytes = [0; SAMPLE_BYTES];
        match self.runs[run].read_exact(&mut bytes) {
            Ok(()) => self.next.push(Reverse((sample(bytes), run))),
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {}
            Err(error) => return Err(ImportError::io(&self.scratch, error)),
        }
        Ok(())
    }
}

impl Iterator for Sorted {
    type Item = Result<Sample, ImportError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let Reverse((sample, run)) = self.next.pop()?;
        if let Err(error) = self.advance(run) {
            self.failed = true;
            return Some(Err(error));
        }
        Some(Ok(sample))
    }
}

fn bytes(sample: Sample) -> [u8; SAMPLE_BYTES] {
    let mut bytes = [0; SAMPLE_BYTES];
    bytes[..4].copy_from_slice(&sample.node.to_le_bytes());
    bytes[4..8].copy_from_slice(&sample.series.to_le_bytes());
    bytes[8..16].copy_from_slice(&sample.at.0.to_le_bytes());
    bytes[16..].copy_from_slice(&sample.steps.to_le_bytes());
    bytes
}

fn sample(bytes: [u8; SAMPLE_BYTES]) -> Sample {
    let four = |from: usize| u32::from_le_bytes(bytes[from..from + 4].try_into().unwrap_or_default());
    let eight = |from: usize| i64::from_le_bytes(bytes[from..from + 8].try_into().unwrap_or_default());
    Sample { node: four(0), series: four(4), at: WallMs(eight(8)), steps: eight(16) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::store::tests::Dir;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn all_come_back_in_order(
            samples in prop::collection::vec((0u32..4, any::<i64>(), 0u32..4, any::<i64>()), 0..200),
            run_max in 1usize..50,
        ) {
            let dir = Dir::new();
            let mut sorter = Sorter { run_max, ..Sorter::new(dir.path()) };
            let mut samples: Vec<Sample> = samples
                .into_iter()
                .map(|(node, at, series, steps)| Sample { node, at: WallMs(at), series, steps })
                .collect();
            for sample in &samples {
                sorter.push(*sample).expect("it is written");
            }
            let sorted: Vec<Sample> =
                sorter.sorted().expect("it is read").map(|sample| sample.expect("it is read")).collect();
            samples.sort_unstable();
            prop_assert_eq!(sorted, samples);
            prop_assert_eq!(std::fs::read_dir(dir.path()).expect("listed").count(), 0);
        }
    }
}
