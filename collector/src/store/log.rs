//! The log: a chain of journal files, of which the newest is written. Positions rise by one from record
//! to record across files; only behind a damaged file is there a hole.
//!
//! Opening verifies the newest file and every file with records that are still to be applied. What is
//! damaged is set aside and reported, never repaired, overwritten or deleted.

use std::path::{Path, PathBuf};

use dunlin_shared::time::WallMs;

use super::connect;
use super::error::StoreError;
use super::files::Files;
use super::journal::{Journal, Meta, Name, ROWS_MAX, SLOT_S, remove_all};
use super::quarantine::{self, MARK};
use super::reader::{Scan, journals};
use super::verify::{Verified, probe, verify};
use crate::record::{NodeKey, Pos, Record};

/// By how much a slot may be ahead of the clock.
const AHEAD_S_MAX: i64 = 3_600;
/// A file with so many records is rotated before its five minutes are over: about 1 GiB.
const ROWS_ROTATE: u64 = 1 << 22;

#[derive(Debug)]
pub struct Log {
    dir: PathBuf,
    /// Oldest first.
    closed: Vec<Name>,
    /// Closed files whose WAL could not be folded yet.
    unfolded: Vec<PathBuf>,
    current: Option<Journal>,
    next: Pos,
    /// Nothing may be appended to `current`: there is a hole behind it, or no `current` at all.
    rotate_first: bool,
}

/// What was found when the log was opened.
#[derive(Clone, Debug, Default)]
pub struct Opened {
    /// The snapshot in the newest sound file, as it was given to `rotate`. Empty when there is none.
    /// What happened since is in `Log::scan_newest`.
    pub snapshot: Vec<u8>,
    pub next_pos: Pos,
    /// Files that were found damaged, under their new names.
    pub set_aside: Vec<PathBuf>,
    /// Why, in the same order, for people.
    pub reasons: Vec<String>,
    /// The records after this one are lost, though they had been applied or synced.
    pub lost_after: Option<Pos>,
    /// The highest node key in the files that were verified: no key up to it may be given to another node.
    pub highest_node: Option<NodeKey>,
}

/// What retention took away.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    pub files: usize,
    pub bytes: u64,
    /// The earliest position that is still there, if anything was dropped.
    pub earliest: Option<Pos>,
}

impl Log {
    /// Opens `dir`, which is made when missing. `applied` is the last position that `control.db` has:
    /// no position up to it is used again, and what follows it is verified.
    /// The caller holds the `StateLock`.
    pub fn open(dir: &Path, now: WallMs, applied: Pos) -> Result<(Self, Opened), StoreError> {
        if !dir.is_dir() {
            std::fs::create_dir_all(dir).map_err(|error| StoreError::io(dir, error))?;
            quarantine::sync_dir_of(dir)?;
        }
        let mut opened = Opened::default();
        let mut names = tidy_up(dir, now, &mut opened)?;
        let newest = set_damaged_aside(&mut names, now, applied, &mut opened)?;
        let newest = newest.zip(names.pop());
        let mut log = Self {
            dir: dir.to_path_buf(),
            unfolded: names.iter().map(|name| &name.path).filter(|path| connect::has_wal(path)).cloned().collect(),
            closed: names,
            current: None,
            next: Pos(1),
            rotate_first: newest.is_none(),
        };
        if let Some((verified, name)) = newest {
            log.resume(name, verified, (now, applied), &mut opened)?;
        } else if applied.0 > 0 {
            opened.lost_after = Some(Pos(0));
        }
        let last = Pos(log.next.0 - 1);
        log.next = log.next.max(applied.next());
        for first in damaged_firsts(dir)? {
            if first >= log.current.as_ref().map_or(Pos(0), |current| current.name.first) {
                log.rotate_first = true;
                if !opened.set_aside.is_empty() && opened.lost_after.is_none() {
                    opened.lost_after = Some(last);
                }
                log.next = log.next.max(Pos(first.0.saturating_add(ROWS_MAX)));
            }
        }
        // What is sealed has its positions for good: no record may stand where a sealed one does.
        if let Some(last) = Files::list(dir)?.sealed.iter().map(|name| name.last).max().filter(|last| *last >= log.next)
        {
            log.next = last.next();
            log.rotate_first = true;
        }
        opened.next_pos = log.next;
        Ok((log, opened))
    }

    /// Whether `rotate` comes before the next record: always after the very first open.
    #[must_use]
    pub fn due(&self, now: WallMs) -> bool {
        let Some(current) = self.current.as_ref().filter(|_| !self.rotate_first) else { return true };
        // A clock that was set back lets the file last for its five minutes from then on at most.
        slot_of(now) > slot_of(current.created_at)
            || now.since(current.created_at) <= -SLOT_S * 1_000
            || self.next.0 - current.name.first.0 >= ROWS_ROTATE
    }

    /// Begins a new file with the caller's snapshot. When it fails, the file before goes on.
    pub fn rotate(&mut self, now: WallMs, snapshot: &[u8]) -> Result<(), StoreError> {
        if self.current.as_ref().is_some_and(Journal::in_transaction) {
            return Err(StoreError::misuse(&self.dir, "rotate within a transaction"));
        }
        // Slots do not go back, but from a clock that was far ahead: nothing would be merged before that time comes.
        let newest_s = self.newest_slot();
        let slot_s = if newest_s > slot_of(now) + AHEAD_S_MAX { slot_of(now) } else { slot_of(now).max(newest_s) };
        let follows = self.current.as_ref().map_or(Pos(0), |current| Pos(current.next().0 - 1));
        let meta = Meta { slot_s, first: self.next, follows, created_at: now, snapshot: snapshot.to_vec() };
        let name = Name::new(&self.dir, slot_s, self.next);
        Journal::prepare(&name, &meta)?;
        if self.current.as_ref().is_some_and(Journal::is_empty) {
            self.drop_empty(&name)?;
        }
        let fresh = Journal::publish(name.clone(), &meta).inspect_err(|_| {
            // Left behind it would claim the positions that the file before went on to use.
            self.rotate_first |= remove_all(&name.path).is_err();
        })?;
        self.rotate_first = false;
        if let Some(old) = self.current.replace(fresh) {
            let name = old.name.clone();
            self.closed.push(name.clone());
            match old.close() {
                Ok(()) => {}
                Err(error @ StoreError::SyncFailed { .. }) => return Err(error),
                // The WAL stays beside the file and is folded later.
                Err(_) => self.unfolded.push(name.path),
            }
        }
        Ok(())
    }

    /// Begins a transaction; one that failed and was not rolled back is rolled back first.
    pub fn begin(&mut self) -> Result<(), StoreError> {
        if self.rotate_first {
            return Err(StoreError::misuse(&self.dir, "begin before rotate"));
        }
        self.writable()?.begin()
    }

    /// The record is claimed by nobody before `commit` has returned.
    pub fn append(&mut self, record: &Record) -> Result<Pos, StoreError> {
        let pos = self.writable()?.append(record)?;
        self.next = pos.next();
        Ok(pos)
    }

    /// After an error nothing of the transaction is stored: roll it back.
    pub fn commit(&mut self) -> Result<(), StoreError> {
        self.writable()?.commit()
    }

    pub fn rollback(&mut self) -> Result<(), StoreError> {
        let current = self.writable()?;
        current.rollback()?;
        self.next = current.next();
        Ok(())
    }

    /// Folds a WAL that has grown, and those that could not be folded when their files were closed. One that still cannot
    /// be holds up neither the others, whose turn is next, nor the one that is written.
    pub fn checkpoint_if_due(&mut self) -> Result<(), StoreError> {
        let mut folded = Ok(());
        while let Some(path) = self.unfolded.pop() {
            if path.exists()
                && let Err(error) = connect::fold(&path)
            {
                self.unfolded.insert(0, path);
                folded = Err(error);
                break;
            }
        }
        let current = self.current.as_mut().map_or(Ok(()), Journal::checkpoint_if_grown);
        // What ends the process comes first.
        if matches!(folded, Err(StoreError::SyncFailed { .. })) { folded } else { current.and(folded) }
    }

    /// Committed records from `from` on, read in batches beside the writer.
    #[must_use]
    pub fn scan(&self, from: Pos) -> Scan {
        let current = self.current.iter().map(|current| current.name.clone());
        Scan::over(self.closed.iter().cloned().chain(current).collect(), from)
    }

    /// The same, from the beginning of the file that holds `from`: a delta is read only behind what it
    /// builds on.
    #[must_use]
    pub fn scan_file_of(&self, from: Pos) -> Scan {
        self.scan(from).whole_files()
    }

    /// The records of the file whose snapshot `open` returned, or that `rotate` made last.
    #[must_use]
    pub fn scan_newest(&self) -> Scan {
        Scan::over(self.current.iter().map(|current| current.name.clone()).collect(), Pos(0))
    }

    /// The records of all files that may hold one of that time or later, from the beginning of the first.
    #[must_use]
    pub fn scan_since(&self, at: WallMs) -> Scan {
        let current = self.current.iter().map(|current| &current.name);
        let names: Vec<&Name> = self.closed.iter().chain(current).collect();
        let ends_after =
            |place: &usize| names.get(place + 1).is_none_or(|next| next.slot_s.saturating_mul(1_000) > at.0);
        let first = (0..names.len()).find(ends_after).unwrap_or(names.len());
        Scan::over(names[first..].iter().map(|name| (*name).clone()).collect(), Pos(0))
    }

    /// The position that the next record will have.
    #[must_use]
    pub const fn next_pos(&self) -> Pos {
        self.next
    }

    /// The node's last frame in the newest file, from which the back-links lead through it.
    #[must_use]
    pub fn last_of(&self, node: NodeKey) -> Option<Pos> {
        self.current.as_ref()?.last_of(node)
    }

    /// The bytes of all files, their WALs included, those set aside not.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        let current = self.current.iter().map(|current| &current.name);
        self.closed.iter().chain(current).map(|name| connect::bytes_with_wal(&name.path)).sum()
    }

    /// Deletes the oldest closed files while all take more than `bytes`; never one with records beyond `applied`.
    pub fn drop_oldest_beyond(&mut self, bytes: u64, applied: Pos) -> Result<Dropped, StoreError> {
        let mut dropped = Dropped::default();
        let mut total = self.size_bytes();
        while let Some(oldest) = self.closed.first() {
            let next = self.closed.get(1).or_else(|| self.current.as_ref().map(|current| &current.name));
            let Some(next) = next.filter(|next| total > bytes && next.first <= applied.next()) else { break };
            let freed = connect::bytes_with_wal(&oldest.path);
            dropped.earliest = Some(next.first);
            remove_all(&oldest.path)?;
            self.closed.remove(0);
            total = total.saturating_sub(freed);
            dropped.files += 1;
            dropped.bytes += freed;
        }
        if dropped.files > 0 {
            quarantine::sync_dir_of(&self.dir.join("any"))?;
        }
        Ok(dropped)
    }

    /// What is free of the file system that it lies on, in thousandths; `None` where nobody can say.
    #[must_use]
    pub fn free_permille(&self) -> Option<u16> {
        let disk = rustix::fs::statvfs(&self.dir).ok()?;
        let permille = u128::from(disk.f_bavail) * 1_000 / u128::from(disk.f_blocks).max(1);
        u16::try_from(permille).ok()
    }

    /// Deletes the closed files of which every record is sealed, once they have been closed for so long.
    pub fn drop_sealed(&mut self, sealed: Pos, kept_ms: i64, now: WallMs) -> Result<Dropped, StoreError> {
        let mut dropped = Dropped::default();
        while let Some(oldest) = self.closed.first() {
            let next = self.closed.get(1).or_else(|| self.current.as_ref().map(|current| &current.name));
            let is_old = |next: &&Name| {
                let ago_ms = now.0.saturating_sub(next.slot_s.saturating_mul(1_000));
                // A clock that was ahead and came back makes slots of the future.
                !(-SLOT_S * 1_000..kept_ms).contains(&ago_ms)
            };
            let Some(next) = next.filter(|next| next.first <= sealed.next()).filter(is_old) else { break };
            dropped.earliest = Some(next.first);
            dropped.files += 1;
            dropped.bytes += connect::bytes_with_wal(&oldest.path);
            remove_all(&oldest.path)?;
            self.closed.remove(0);
        }
        if dropped.files > 0 {
            quarantine::sync_dir_of(&self.dir.join("any"))?;
        }
        Ok(dropped)
    }

    /// Folds everything and lets go. An error loses nothing: the next start reads the WAL.
    pub fn close(mut self) -> Result<(), StoreError> {
        let folded = self.checkpoint_if_due();
        match self.current.take() {
            Some(mut current) => {
                current.rollback()?;
                current.close().and(folded)
            }
            None => folded,
        }
    }

    fn resume(
        &mut self,
        name: Name,
        verified: Verified,
        (now, applied): (WallMs, Pos),
        opened: &mut Opened,
    ) -> Result<(), StoreError> {
        self.next = verified.last.next();
        opened.highest_node = opened.highest_node.max(verified.highest_node);
        opened.snapshot = verified.snapshot;
        if verified.lossy_wal || verified.last < applied {
            // The prefix is sound and stays; the WAL is kept as it was, since closing would fold it.
            if connect::has_wal(&name.path) {
                opened.set_aside.push(quarantine::copy_wal_aside(&name.path, now)?);
                opened.reasons.push(format!("the WAL of {} has lost records that were synced", name.path.display()));
            }
            // What fails otherwise is tried again when the file is closed.
            if let Err(error @ StoreError::SyncFailed { .. }) = connect::fold(&name.path) {
                return Err(error);
            }
            opened.lost_after = Some(verified.last);
            self.rotate_first = true;
            self.next = Pos(name.first.0.saturating_add(ROWS_MAX));
        }
        self.current = Some(Journal::open(name, verified.created_at, verified.last.next(), verified.links)?);
        Ok(())
    }

    fn writable(&mut self) -> Result<&mut Journal, StoreError> {
        let missing = StoreError::misuse(&self.dir, "there is no file yet: rotate first");
        self.current.as_mut().ok_or(missing)
    }

    fn newest_slot(&self) -> i64 {
        let newest = self.current.as_ref().map(|current| &current.name).or(self.closed.last());
        newest.map_or(0, |name| name.slot_s)
    }

    /// A file without records makes room for its successor, which may have the same name.
    fn drop_empty(&mut self, successor: &Name) -> Result<(), StoreError> {
        let Some(old) = self.current.take() else { return Ok(()) };
        self.rotate_first = true;
        let name = old.name.clone();
        old.close()?;
        if name == *successor { Ok(()) } else { remove_all(&name.path) }
    }
}

fn slot_of(now: WallMs) -> i64 {
    let now_s = now.0.max(0) / 1_000;
    now_s - now_s % SLOT_S
}

/// Removes files that were never whole, sets WALs aside whose database is gone, and lists the rest.
fn tidy_up(dir: &Path, now: WallMs, opened: &mut Opened) -> Result<Vec<Name>, StoreError> {
    let at = |error| StoreError::io(dir, error);
    for entry in std::fs::read_dir(dir).map_err(at)? {
        let path = entry.map_err(at)?.path();
        let Some(text) = path.file_name().and_then(|name| name.to_str()) else { continue };
        if text.contains(MARK) {
            continue;
        }
        if let Some((stem, _)) = text.split_once(".new") {
            if Name::parse(dir, stem).is_some() {
                remove_all(&dir.join(format!("{stem}.new")))?;
            }
        } else if let Some(stem) = text.strip_suffix("-wal")
            && Name::parse(dir, stem).is_some_and(|name| !name.path.exists())
            && connect::has_wal(&dir.join(stem))
        {
            opened.set_aside.push(quarantine::set_aside(&dir.join(stem), now)?);
            opened.reasons.push(format!("{text} is there without its database"));
        }
    }
    journals(dir)
}

/// Looks at every file, reads those that are needed, and takes the damaged ones out of `names`. Returns
/// what the last of the others holds.
fn set_damaged_aside(
    names: &mut Vec<Name>,
    now: WallMs,
    applied: Pos,
    opened: &mut Opened,
) -> Result<Option<Verified>, StoreError> {
    let mut newest = None;
    // Where the file behind the one at hand begins, and where it says that this one ends.
    let mut after: Option<(Pos, Option<Pos>)> = None;
    for i in (0..names.len()).rev() {
        let name = &names[i];
        let needed = after.is_none_or(|(first, _)| first > applied.next());
        let looked = probe(name).and_then(|()| if needed { verify(name).map(Some) } else { Ok(None) });
        let looked = looked.and_then(|verified| match (&verified, after) {
            (Some(sound), Some((_, Some(ends)))) if ends.0 > 0 && sound.last != ends => {
                Err(StoreError::damaged(&name.path, format!("it ends at {} instead of {}", sound.last.0, ends.0)))
            }
            _ => Ok(verified),
        });
        match looked {
            Ok(verified) => {
                opened.highest_node = opened.highest_node.max(verified.as_ref().and_then(|sound| sound.highest_node));
                let follows = verified.as_ref().map(|sound| sound.follows);
                newest = newest.or(verified);
                after = Some((name.first, follows));
            }
            Err(StoreError::Damaged { path, what }) => {
                opened.set_aside.push(quarantine::set_aside(&path, now)?);
                opened.reasons.push(what);
                names.remove(i);
                after = after.map(|(first, _)| (first, None));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(newest)
}

/// The first positions of the files that were set aside.
fn damaged_firsts(dir: &Path) -> Result<Vec<Pos>, StoreError> {
    let at = |error| StoreError::io(dir, error);
    let mut firsts = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(at)? {
        let file_name = entry.map_err(at)?.file_name();
        let stem = file_name.to_str().and_then(|text| text.split_once(MARK)).map(|(stem, _)| stem);
        let name = stem.and_then(|stem| Name::parse(dir, stem.strip_suffix("-wal").unwrap_or(stem)));
        firsts.extend(name.map(|name| name.first));
    }
    Ok(firsts)
}
