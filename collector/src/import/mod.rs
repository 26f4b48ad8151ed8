//! Samples from files that an export wrote, into the state of a collector that is stopped.
//!
//! Files are read from their beginnings to their ends before anything counts: what is made lies apart until it is whole,
//! and then all of it counts at once (`staging`). Memory is bounded whatever the files hold: rows are gathered an hour of
//! a node at a time (`gather`), and what comes series by series is sorted on disk first (`sorter`).

mod csv;
mod error;
mod gather;
mod judge;
mod lines;
mod openmetrics;
mod sorter;
mod staging;
#[cfg(test)]
mod tests;

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use dunlin_shared::time::WallMs;

pub use self::error::ImportError;
use self::gather::Gather;
use self::judge::Judge;
use self::lines::Lines;
use self::staging::Staging;
pub use self::staging::settle;
use crate::clock::Clock;
use crate::record::{NodeKey, Pos};
use crate::registry::Registry;
use crate::store::{self, Control, Files, Log, NodeRow, StateLock};

/// What was imported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Imported {
    pub samples: u64,
    pub nodes: usize,
    /// Of those, the ones that were not known here.
    pub new_nodes: usize,
    pub from: WallMs,
    pub to: WallMs,
}

/// Imports files in the order in which they are given: all of them, or nothing.
pub fn run(state_dir: &Path, files: &[PathBuf], now: WallMs) -> Result<Imported, ImportError> {
    refuse_foreign(state_dir)?;
    let _lock = StateLock::take(state_dir)?;
    let dir = state_dir.join("window");
    settle(&dir)?;
    refuse_unsound(state_dir)?;
    let random = Clock::random().ok_or(ImportError::NoRandom)?;
    let (mut control, opened) = Control::open(&state_dir.join("control.db"), now, u64::from_le_bytes(random) >> 1)?;
    let (log, _) = Log::open(&dir, now, opened.applied_pos)?;
    let first = log.next_pos();
    refuse_behind(state_dir, &log, (&control.nodes()?, opened.applied_pos))?;
    log.close()?;

    let staging = Staging::begin(&dir)?;
    let judge = Judge::new(&control.nodes()?, &control.registry()?, control.next_key()?, now);
    let mut gather = Gather::new(judge, (&dir, staging.path()), (first, now));
    for file in files {
        take(file, &mut gather, staging.path())?;
    }
    let (imported, mut new_nodes) = gather.finish(first)?;
    // Who has joined and was not heard yet has no number, and is let in still.
    let registry = control.registry()?;
    for node in &mut new_nodes {
        if let Some(known) = registry.member(node.id) {
            node.member = known.clone();
        }
    }
    // Nodes without samples harm nobody, and samples without nodes could not be found: so nodes come first.
    control.add_nodes(&new_nodes, now)?;
    control.close()?;
    staging.decide()?;
    settle(&dir)?;
    Ok(imported)
}

/// How many samples a file holds, or what is wrong with it. It counts for nothing: what is made of it lies in `scratch`.
pub fn look(file: &Path, scratch: &Path, now: WallMs) -> Result<u64, ImportError> {
    let judge = Judge::new(&[], &Registry::default(), NodeKey(1), now);
    let mut gather = Gather::new(judge, (scratch, scratch), (Pos(1), now));
    take(file, &mut gather, scratch)?;
    Ok(gather.finish(Pos(1))?.0.samples)
}

fn take(file: &Path, gather: &mut Gather, scratch: &Path) -> Result<(), ImportError> {
    let mut lines = Lines::open(file)?;
    match lines.first()? {
        line if line.starts_with("time,") => csv::read(&mut lines, gather)?,
        line if line.starts_with('#') => openmetrics::read(&mut lines, gather, scratch)?,
        _ => {
            return Err(
                lines.wrong("neither CSV nor OpenMetrics as `dunlin metrics export` writes it begins like this")
            );
        }
    }
    gather.end_file(&lines)
}

/// What another user makes there, the collector's own user could not take away.
fn refuse_foreign(state_dir: &Path) -> Result<(), ImportError> {
    let (Ok(about), own) = (fs::metadata(state_dir), rustix::process::geteuid()) else { return Ok(()) };
    if about.uid() == own.as_raw() {
        return Ok(());
    }
    Err(ImportError::OtherUser { path: state_dir.to_path_buf(), uid: about.uid() })
}

/// Who came to a collector that was killed may be known to its log alone, and has a number there.
fn refuse_behind(state_dir: &Path, log: &Log, (known, applied): (&[NodeRow], Pos)) -> Result<(), ImportError> {
    for item in log.scan(applied.next()) {
        let node = item?.1.event.node();
        if node.is_some_and(|key| known.iter().all(|row| row.key != key)) {
            return Err(ImportError::Behind(state_dir.to_path_buf()));
        }
    }
    Ok(())
}

/// A start would set aside what is damaged, and make anew what is missing; an import is no moment for either.
fn refuse_unsound(state_dir: &Path) -> Result<(), ImportError> {
    let (window, control) = (state_dir.join("window"), state_dir.join("control.db"));
    if !window.exists() {
        fs::create_dir_all(&window).map_err(|error| ImportError::io(&window, error))?;
    }
    if control.exists() {
        let damaged = store::check(state_dir)?.into_iter().find_map(|file| file.damage);
        return damaged.map_or(Ok(()), |damage| Err(damage.into()));
    }
    let files = Files::list(&window)?;
    if files.sealed.is_empty() && files.journal_bytes(Pos(0)) == (0, 0) {
        return Ok(());
    }
    Err(ImportError::NoControl(state_dir.to_path_buf()))
}
