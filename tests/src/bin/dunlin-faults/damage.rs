//! Databases that lost their tail, a bit of each page, or all their bytes while the collector was stopped. It starts,
//! sets the file aside under a loud name, counts and logs it, serves on, and keeps all that was not damaged.

use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use dunlin_collector::ingest::Ingest;
use dunlin_collector::record::Pos;
use dunlin_collector::store::{Control, Log, StateLock};
use dunlin_shared::time::WallMs;
use dunlin_tests::pki::{Fleet, enrol};
use dunlin_tests::random::Random;

use crate::Plan;
use crate::load::{Load, Outcome, verify};
use crate::report::{Report, Times};
use crate::site::{STOP_LIMIT, Site, copy_dir, judge_recovery};

/// SQLite's page, of which each loses a bit.
const PAGE_BYTES: usize = 4_096;
/// What the name of a file that was set aside holds.
const MARK: &str = ".damaged-";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    Newest,
    Older,
    Control,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Truncated,
    Flipped,
    Zeroed,
}

pub(crate) fn run(plan: &Plan) -> Result<Report> {
    let (agents, load_s) = if plan.short { (20, 3) } else { (200, 10) };
    let mut random = plan.random(6);
    let mut report = Report::new("damage");
    let mut times = Times::default();
    let site = Site::new(agents, None)?;
    // Journals of two runs, each with an oracle of its own.
    let older = fill(&site, ("older", 1), load_s, &mut times, &mut report)?;
    rotate(&site.state)?;
    let begun = journals(&site.state)?.pop().context("a journal")?;
    let newest = fill(&site, ("newest", 2), load_s, &mut times, &mut report)?;
    let files = Files::split(&site.state, &begun)?;
    let kept = site.scratch.join("kept");
    copy_dir(&site.state, &kept)?;
    // What is damaged here are journals that nothing was sealed of.
    unseal(&kept)?;

    let short = [
        (Target::Newest, Kind::Flipped),
        (Target::Newest, Kind::Zeroed),
        (Target::Older, Kind::Truncated),
        (Target::Control, Kind::Zeroed),
    ];
    let targets = [Target::Newest, Target::Older, Target::Control];
    let all = targets.iter().flat_map(|&t| [Kind::Truncated, Kind::Flipped, Kind::Zeroed].map(|kind| (t, kind)));
    let variants: Vec<_> = if plan.short { short.to_vec() } else { all.collect() };
    report.count("variants", variants.len());
    for (target, kind) in variants {
        fs::remove_dir_all(&site.state)?;
        copy_dir(&kept, &site.state)?;
        let mut part = Report::new("damage");
        let outcome = one(&site, &files, (target, kind), &mut random, &mut times, &mut part);
        let after = outcome.with_context(|| format!("{target:?} {kind:?}"))?;
        // What the damage took is known; everything else is to be there.
        if target != Target::Control {
            for path in files.of(target).iter().filter(|path| path.exists()) {
                fs::remove_file(path)?;
            }
        }
        if target == Target::Older {
            // What could be read of a damaged journal may be sealed by now; the journals of the others are still there.
            unseal(&site.state)?;
        }
        site.check(&mut part);
        let runs = [(Target::Older, &older), (Target::Newest, &newest), (Target::Control, &after)];
        let whole: Vec<_> = runs.iter().filter(|(of, _)| *of != target || target == Target::Control).collect();
        verify(&site, &whole.iter().map(|(_, run)| *run).collect::<Vec<_>>(), &mut part)?;
        report.absorb(&format!("{target:?} {kind:?}: "), part);
    }
    judge_recovery(&mut report, &times);
    Ok(report)
}

/// Which files are whose. A run that the end of five minutes falls into has two.
struct Files {
    older: Vec<PathBuf>,
    newest: Vec<PathBuf>,
    control: Vec<PathBuf>,
}

impl Files {
    /// The newest run's journals are `begun` and what came after it.
    fn split(state: &Path, begun: &Path) -> Result<Self> {
        let mut older = journals(state)?;
        let at = older.iter().position(|path| path == begun).context("the journal that was begun is there")?;
        let newest = older.split_off(at);
        ensure!(!older.is_empty(), "there is a journal before {}", begun.display());
        Ok(Self { older, newest, control: vec![state.join("control.db")] })
    }

    fn of(&self, target: Target) -> &[PathBuf] {
        match target {
            Target::Older => &self.older,
            Target::Newest => &self.newest,
            Target::Control => &self.control,
        }
    }
}

/// Damages, starts, serves, stops. Gives the oracle of what it served.
fn one(
    site: &Site,
    files: &Files,
    (target, kind): (Target, Kind),
    random: &mut Random,
    times: &mut Times,
    report: &mut Report,
) -> Result<Outcome> {
    for path in files.of(target) {
        damage(path, kind, random)?;
    }
    let log_before = site.log_text().len();
    let mut collector = site.start_ready(times)?;
    // A closed journal is read when someone asks for it; a start looks at its head and its length.
    let is_noticed = target != Target::Older || kind != Kind::Flipped;
    if is_noticed {
        let aside = site.metrics()?.sum("dunlin_files_set_aside_total", &[]);
        report.expect(aside >= 1.0, || format!("{aside} files are counted as set aside"));
        let text = site.log_text().split_off(log_before);
        report.expect(text.contains("is set aside"), || "the log does not say that a file is set aside".to_owned());
        if let Some(path) = files.of(target).last() {
            report.expect(is_aside(path)?, || format!("nothing beside {} is named {MARK}", path.display()));
        }
    }
    if target == Target::Control {
        // Who may send was in it: the nodes are held until a person lets them in.
        let status = collector.terminate(STOP_LIMIT)?;
        report.expect(status.success(), || format!("a clean stop ends with {status}"));
        enrol(&site.state, &Fleet::read(&site.pki.join("fleet.bin"))?.nodes)?;
        collector = site.start_ready(times)?;
    }
    let load = Load::in_epoch(site, &format!("after-{target:?}-{kind:?}"), 1, 3)?;
    site.wait_up()?;
    let outcome = load.finish(report)?;
    let status = collector.terminate(STOP_LIMIT)?;
    report.expect(status.success(), || format!("a clean stop ends with {status}"));
    Ok(outcome)
}

/// A collector takes frames for some seconds and stops.
fn fill(
    site: &Site,
    (name, epoch): (&str, u32),
    load_s: u64,
    times: &mut Times,
    report: &mut Report,
) -> Result<Outcome> {
    let collector = site.start_ready(times)?;
    let load = Load::in_epoch(site, name, 1, epoch)?;
    site.wait_up()?;
    std::thread::sleep(Duration::from_secs(load_s));
    let outcome = load.finish(report)?;
    site.stop_and_check(collector, report)?;
    outcome.judge(report);
    Ok(outcome)
}

/// Begins a new journal as the collector does every five minutes, without waiting for them.
fn rotate(state: &Path) -> Result<()> {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    let now = WallMs(i64::try_from(since.as_millis())?);
    let _lock = StateLock::take(state)?;
    let (control, opened) = Control::open(&state.join("control.db"), now, 0)?;
    let (mut log, found) = Log::open(&state.join("window"), now, opened.applied_pos)?;
    let mut ingest = Ingest::recover(&found.snapshot).or_else(|error| {
        // The first file of all has none.
        if found.snapshot.is_empty() { Ok(Ingest::default()) } else { Err(error) }
    })?;
    for node in control.nodes()? {
        ensure!(ingest.learn(node.key, node.id), "node {} has two keys", node.id);
    }
    for record in log.scan_newest() {
        ingest.observe(&record?.1);
    }
    ensure!(found.next_pos > Pos(1), "there are records");
    log.rotate(now, &ingest.snapshot())?;
    log.close()?;
    control.close()?;
    Ok(())
}

/// By their first position, as the numbers at the end of their names say.
fn journals(state: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(state.join("window"))? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let first = name.strip_prefix("journal-").and_then(|rest| rest.strip_suffix(".db")?.split_once('-'));
        if let Some(first) = first.and_then(|(_, first)| first.parse::<u64>().ok()) {
            found.push((first, path));
        }
    }
    found.sort();
    Ok(found.into_iter().map(|(_, path)| path).collect())
}

/// Removes every sealed file.
fn unseal(state: &Path) -> Result<()> {
    for entry in fs::read_dir(state.join("window"))? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if ["full-", "mid-", "long-"].iter().any(|level| name.starts_with(level)) {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

fn is_aside(path: &Path) -> Result<bool> {
    let name = path.file_name().and_then(|name| name.to_str()).context("a name")?;
    let begins = format!("{name}{MARK}");
    for entry in fs::read_dir(path.parent().context("a directory")?)? {
        if entry?.file_name().to_str().is_some_and(|name| name.starts_with(&begins)) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn damage(path: &Path, kind: Kind, random: &mut Random) -> Result<()> {
    let mut bytes = fs::read(path).with_context(|| path.display().to_string())?;
    match kind {
        Kind::Truncated => bytes.truncate(bytes.len() / 2),
        Kind::Zeroed => bytes.fill(0),
        Kind::Flipped => {
            for page in bytes.chunks_mut(PAGE_BYTES) {
                // Where there is nothing but zeros a page has no content, and a flip would prove nothing.
                let used: Vec<usize> = (0..page.len()).filter(|&at| page[at] != 0).collect();
                if !used.is_empty() {
                    let at = used[usize::try_from(random.below(used.len() as u64))?];
                    page[at] ^= 1 << random.below(8);
                }
            }
        }
    }
    let mut file = File::options().write(true).open(path)?;
    file.set_len(bytes.len() as u64)?;
    file.seek(SeekFrom::Start(0))?;
    file.write_all(&bytes)?;
    Ok(())
}
