//! The thread that seals is killed while it also drops what has no room: what is left has to be whole and the newest.
//!
//! What may go is found without the code of retention. A collector that has room for everything seals the past first: by
//! that it is known how large each file is and what it holds. After each kill every level has to reach from some border
//! between two journals to the end, without a hole; all frames behind that border are there once, and none before it.

use std::collections::BTreeMap;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use dunlin_collector::record::{Event, Pos};
use dunlin_collector::store::{self, Files, Level, Reader, Sealed, SealedName};
use dunlin_shared::id::{NodeId, Seq};
use dunlin_shared::range::{SeqRange, SeqSet};
use dunlin_tests::fleet::oracle::{Oracle, plain, set_of};
use dunlin_tests::fleet::verify::verify;
use dunlin_tests::window::is_sealed;

use crate::Plan;
use crate::report::{Report, Times};
use crate::site::Site;
use crate::window::{DONE_LIMIT, Past, hit_within, wait_done};

/// The least that may be asked for; that past takes more than twice as much.
const BYTES: u64 = 1 << 20;
const FLAGS: [&str; 2] = ["--retention-bytes", "1MiB"];
/// What each level may have of it, in hundredths: as the configuration's reference says.
const PARTS: [(Level, u64); 3] = [(Level::Full, 60), (Level::Mid, 25), (Level::Long, 15)];
const NODES: usize = 10;
const SERIES: usize = 400;
/// Dropping follows the last merge at once, and takes about as long.
const DROPPING_US: u64 = 3_000;
/// A journal of a collector that nobody sends anything, with its WAL.
const OPEN_JOURNAL_BYTES: u64 = 512 * 1024;

/// The past when all of it is sealed and nothing dropped.
struct Whole {
    files: Vec<Held>,
    /// Where journals began.
    borders: Vec<Pos>,
    frames: Vec<(Pos, NodeId, Seq)>,
}

struct Held {
    name: SealedName,
    bytes: u64,
    content: Content,
}

/// What there is of a level: from where on, and what it takes.
#[derive(Clone, Copy, Debug)]
struct Reach {
    from: Pos,
    bytes: u64,
}

pub(crate) fn kill(plan: &Plan, report: &mut Report) -> Result<()> {
    let kills = if plan.short { 6 } else { 100 };
    let mut random = plan.random(13);
    let site = Site::new(NODES, None)?;
    let past = Past::write(&site, plan, SERIES)?;
    let whole = Whole::seal(&site, &past)?;
    let takes = past.time(&site)?;
    let (mut rounds, mut met, mut cut) = (0, 0, 0);
    let mut gone = 0;
    for number in 0..kills {
        if rounds == 0 || (is_sealed(&site.state)? && is_within(&site.state)?) {
            past.restore(&site.state)?;
            (rounds, gone) = (rounds + 1, 0);
        }
        let mut collector = site.start_with(&FLAGS)?;
        // Every other one meets it while it drops.
        if number % 2 == 0 {
            meet_dropping(&site)?;
            sleep(Duration::from_micros(random.below(DROPPING_US)));
        } else {
            hit_within(takes, &mut random);
        }
        collector.kill9()?;
        let when = format!("after kill {number} with little room");
        let left = whole.judge(&site, &past, report, &when)?;
        met += usize::from(left > gone);
        cut += usize::from(left > 0 && !is_within(&site.state)?);
        gone = left;
    }
    whole.finish(&site, &past, report)?;
    report.count("kills_with_little_room", kills);
    report.count("met_dropping", met);
    report.count("cut_dropping", cut);
    report.expect(met > 0, || "no kill came to a run that dropped anything".to_owned());
    Ok(())
}

/// Waits until all is merged, or something is gone.
fn meet_dropping(site: &Site) -> Result<()> {
    let end = Instant::now() + DONE_LIMIT;
    let has_all = |files: &Files| files.of(Level::Full).any(|name| name.first == Pos(1)) || files.closed().len() > 1;
    while !is_sealed(&site.state)? && has_all(&Files::list(&site.state.join("window"))?) {
        ensure!(Instant::now() < end, "not sealed and merged after {DONE_LIMIT:?}: {}", site.log_text());
        sleep(Duration::from_micros(300));
    }
    Ok(())
}

/// Whether no level takes more than its part.
fn is_within(state: &Path) -> Result<bool> {
    let files = Files::list(&state.join("window"))?;
    Ok(Level::ALL.iter().all(|level| bytes_of(&files, *level) <= quota(*level)))
}

fn bytes_of(files: &Files, level: Level) -> u64 {
    files.of(level).map(|name| store::bytes_of(name.path())).sum()
}

fn quota(level: Level) -> u64 {
    PARTS.iter().find(|(known, _)| *known == level).map_or(0, |(_, part)| BYTES / 100 * part)
}

impl Whole {
    /// By a collector that has room. The state is as it was afterwards.
    fn seal(site: &Site, past: &Past) -> Result<Self> {
        let window = site.state.join("window");
        let (mut names, mut borders, mut frames) = (BTreeMap::new(), Vec::new(), Vec::new());
        for record in Reader::new(&window).scan(Pos(0))? {
            let (pos, record) = record?;
            match record.event {
                Event::Hello { node, session } => drop(names.insert(node, session.node)),
                Event::Frame { node, frame, .. } => {
                    let Some(id) = names.get(&node) else { bail!("{node:?} speaks before its Hello") };
                    frames.push((pos, *id, frame.id.seq));
                }
                _ => {}
            }
        }
        borders.extend(Files::list(&window)?.closed().iter().map(store::ClosedJournal::first));
        let mut collector = site.start_ready(&mut Times::default())?;
        wait_done(site, &mut collector)?;
        collector.kill9()?;
        let sealed = Files::list(&window)?.sealed;
        let held =
            |name: SealedName| Ok(Held { bytes: store::bytes_of(name.path()), content: Content::of(&name)?, name });
        let files = sealed.into_iter().map(held).collect::<Result<Vec<_>>>()?;
        for level in [Level::Full, Level::Mid] {
            let bytes: u64 = files.iter().filter(|held| held.name.level == level).map(|held| held.bytes).sum();
            ensure!(bytes > quota(level), "the past has room: {bytes} bytes of {}", level.as_str());
        }
        borders.extend(files.iter().map(|held| held.name.last.next()));
        past.restore(&site.state)?;
        Ok(Self { files, borders, frames })
    }

    /// Gives how many frames are gone.
    fn judge(&self, site: &Site, past: &Past, report: &mut Report, when: &str) -> Result<usize> {
        let files = Files::list(&site.state.join("window"))?;
        let mut from = Pos(1);
        for level in Level::ALL {
            match self.reach(&files, level) {
                Ok(reach) if level == Level::Full => from = reach.from,
                Ok(_) => {}
                Err(hole) => report.violation(format!("{when}: {hole}")),
            }
        }
        let (oracle, gone) = self.left(&past.oracle, from);
        let found = verify(&site.state, &[oracle], &past.fleet)?;
        let is_half = found.stored_unacknowledged > 0;
        report.expect(found.is_clean() && !is_half, || {
            let half = found.stored_unacknowledged;
            format!("{when}: from {} on {} {:?}; before it {half} frames", from.0, found.violations, found.shown)
        });
        Ok(gone)
    }

    /// From which border on a level, with the journals that are still to become of it, holds everything.
    fn reach(&self, files: &Files, level: Level) -> Result<Reach, String> {
        let mut parts: Vec<(Pos, Pos)> = files.of(level).map(|name| (name.first, name.last)).collect();
        // An hour of roll-ups is made of those of five minutes, and those of journals.
        if level == Level::Long {
            parts.extend(files.of(Level::Mid).map(|name| (name.first, name.last)));
        }
        parts.extend(files.closed().iter().map(|journal| (journal.first(), journal.last())));
        // The newest is written still.
        parts.extend(files.not_rolled_up().last().map(|journal| (journal.first(), Pos(u64::MAX))));
        parts.sort_unstable();
        let Some(&(from, mut last)) = parts.first() else { return Ok(Reach { from: Pos(u64::MAX), bytes: 0 }) };
        for (first, end) in parts {
            if first.0 > last.0.saturating_add(1) {
                return Err(format!("{} has a hole from {} to {}", level.as_str(), last.0, first.0));
            }
            last = last.max(end);
        }
        if !self.borders.contains(&from) {
            return Err(format!("{} begins at {}, which is within a journal", level.as_str(), from.0));
        }
        Ok(Reach { from, bytes: bytes_of(files, level) })
    }

    /// What the oracle says of what stands from there on, and how many frames stood before it.
    fn left(&self, all: &Oracle, from: Pos) -> (Oracle, usize) {
        let mut gone: BTreeMap<String, SeqSet> = BTreeMap::new();
        let before = self.frames.iter().filter(|(pos, ..)| *pos < from);
        let mut count = 0;
        for (_, node, seq) in before {
            count += 1;
            gone.entry(node.to_string()).or_default().insert_range(SeqRange::one(*seq));
        }
        let mut left = all.clone();
        for node in &mut left.nodes {
            let mut acknowledged = set_of(&node.acknowledged);
            if let Some(gone) = gone.get(&node.node) {
                acknowledged.remove_all(gone);
            }
            node.acknowledged = plain(&acknowledged);
        }
        (left, count)
    }

    /// A last run comes to its end: each level has its part and no more, and lost no more than it had to; what is left
    /// holds what it holds where there is room for everything.
    fn finish(&self, site: &Site, past: &Past, report: &mut Report) -> Result<()> {
        let mut collector = site.start_with(&FLAGS)?;
        collector.wait_ready(site.http, DONE_LIMIT)?;
        wait_done(site, &mut collector)?;
        let end = Instant::now() + DONE_LIMIT;
        while !is_within(&site.state)? {
            ensure!(Instant::now() < end, "it takes more than it may: {}", site.log_text());
            sleep(Duration::from_millis(20));
        }
        site.stop_and_check(collector, report)?;
        self.judge(site, past, report, "at the end with little room")?;
        let files = Files::list(&site.state.join("window"))?;
        for level in [Level::Full, Level::Mid] {
            let Ok(reach) = self.reach(&files, level) else { continue };
            let dropped = self.files.iter().filter(|held| held.name.level == level && held.name.last < reach.from);
            let Some(last) = dropped.max_by_key(|held| held.name.last).map(|held| held.bytes) else {
                report.violation(format!("{} dropped nothing, and takes more than there is", level.as_str()));
                continue;
            };
            let journal = if level == Level::Full { OPEN_JOURNAL_BYTES } else { 0 };
            let (bytes, may) = (reach.bytes, quota(level));
            report.expect(bytes + last + journal > may, || {
                format!("{} has {bytes} of {may} bytes left, and dropped a file of {last}", level.as_str())
            });
        }
        let mut same = 0;
        for name in &files.sealed {
            let Some(whole) = self.files.iter().find(|held| held.name == *name) else { continue };
            report.expect(Content::of(name)? == whole.content, || format!("{name:?} holds something else"));
            same += 1;
        }
        report.expect(same > 0, || "no file is left".to_owned());
        report.count("files_left", same);
        Ok(())
    }
}

/// What a sealed file says, but for when it was made.
#[derive(PartialEq, Eq)]
struct Content {
    blocks: Vec<store::Block>,
    sheets: Vec<store::Sheet>,
}

impl Content {
    fn of(name: &SealedName) -> Result<Self> {
        let Some(file) = Sealed::open(name)? else { bail!("{name:?} is gone") };
        let blocks = file.blocks().collect::<Result<_, _>>()?;
        let sheets = file.sheets().collect::<Result<_, _>>()?;
        Ok(Self { blocks, sheets })
    }
}
