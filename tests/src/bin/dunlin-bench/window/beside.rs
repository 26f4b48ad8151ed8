//! How long commits wait beside what else the store does: while a window is sealed and merged, and while a backup of it is
//! taken. Frames come as from ten thousand nodes, in real time.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::scope;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use dunlin_collector::backup::{self, Beside};
use dunlin_collector::health::Health;
use dunlin_collector::record::Pos;
use dunlin_collector::store::{Files, Level, Log, Span};
use dunlin_shared::time::WallMs;
use dunlin_tests::fleet::history::{History, write};
use dunlin_tests::fleet::load::Load;
use dunlin_tests::pki::Fleet;
use dunlin_tests::scratch::Scratch;

use super::flow::{COMMIT_MS_MAX, PART};
use super::{INTERVAL_MS, TICKS, float, keeper, now};
use crate::journal;
use dunlin_tests::table::Table;

const HOUR_MS: i64 = 3_600_000;
const SERIES: usize = 150;
/// 1,000 frames in a second, in groups of 100.
const GROUP: u64 = 100;
const GROUP_EVERY: Duration = Duration::from_millis(100);

pub(crate) fn measure(table: &mut Table, short: bool) -> Result<()> {
    // Of a backup that is over at once nobody can say what commits wait for it: it is taken again and again for so long.
    let (nodes, lasts) = if short { (50, Duration::from_secs(2)) } else { (2_000, Duration::from_secs(30)) };
    let scratch = Scratch::new("beside")?;
    let state = scratch.path();
    let fleet = Fleet::generate(nodes, 1)?;
    let until = WallMs(now().0.div_euclid(HOUR_MS) * HOUR_MS - HOUR_MS).plus(i64::try_from(TICKS * INTERVAL_MS)?);
    let load = Load::made_up(1, SERIES);
    write(state, &fleet, &History { nodes, ticks: TICKS, interval_ms: INTERVAL_MS, until, load, ahead_ms: vec![] })?;

    let ((), alone) = while_ingesting(state, || {
        std::thread::sleep(lasts);
        Ok(())
    })?;
    report(table, "nothing else", alone)?;
    let (took, beside) = while_ingesting(state, || seal_and_merge(state))?;
    table.note(PART, format!("sealing and merging an hour of {nodes} nodes"), format!("{:.1} s", took.as_secs_f64()));
    report(table, "sealing and merging", beside)?;
    let ((count, bytes), beside) = while_ingesting(state, || back_up(state, &scratch.join("state.tar"), lasts))?;
    table.note(PART, format!("backups taken, {count}, bytes of one"), format!("{:.1} MB", float(bytes) / 1e6));
    report(table, "a backup", beside)
}

/// Commits frames of other nodes while `work` goes on. What that gave, and how many milliseconds each commit took.
pub(super) fn while_ingesting<T>(state: &Path, work: impl FnOnce() -> Result<T>) -> Result<(T, Vec<f64>)> {
    let (mut log, _) = Log::open(&state.join("window"), now(), Pos(0))?;
    let is_over = AtomicBool::new(false);
    let done = scope(|scope| {
        let ingest = scope.spawn(|| {
            let mut commits_ms = Vec::new();
            for group in 0.. {
                if is_over.load(Relaxed) {
                    break;
                }
                let began = Instant::now();
                log.begin()?;
                for n in group * GROUP..(group + 1) * GROUP {
                    log.append(&journal::frame(n)?)?;
                }
                log.commit()?;
                commits_ms.push(began.elapsed().as_secs_f64() * 1e3);
                log.checkpoint_if_due()?;
                std::thread::sleep(GROUP_EVERY);
            }
            Ok::<_, anyhow::Error>(commits_ms)
        });
        let done = work();
        is_over.store(true, Relaxed);
        let commits_ms = ingest.join().map_err(|_| anyhow!("the thread that commits panicked"))?;
        Ok::<_, anyhow::Error>((done?, commits_ms.context("frames are committed")?))
    })?;
    log.close()?;
    Ok(done)
}

fn seal_and_merge(state: &Path) -> Result<Duration> {
    let health = Arc::<Health>::default();
    health.set_applied(Pos(u64::MAX >> 1));
    let began = Instant::now();
    keeper(state, &health)?.look()?;
    let files = Files::list(&state.join("window"))?;
    ensure!(files.of(Level::Full).any(|name| name.span == Span::Hour), "nothing was merged");
    Ok(began.elapsed())
}

/// How many, and how large the last of them was. Each is on disk before the next.
fn back_up(state: &Path, to: &Path, lasts: Duration) -> Result<(u32, u64)> {
    let (began, mut taken) = (Instant::now(), 0);
    while taken == 0 || began.elapsed() < lasts {
        let mut file = File::create(to)?;
        backup::prepare(state, now(), Beside::Collector)?.send(&mut file)?;
        file.flush()?;
        file.sync_all()?;
        taken += 1;
    }
    Ok((taken, to.metadata()?.len()))
}

fn report(table: &mut Table, beside: &str, mut commits_ms: Vec<f64>) -> Result<()> {
    commits_ms.sort_unstable_by(f64::total_cmp);
    let longest = commits_ms.last().copied().with_context(|| format!("nothing was committed beside {beside}"))?;
    let p99 = commits_ms[commits_ms.len() * 99 / 100];
    let count = commits_ms.len();
    table.note(PART, format!("commit beside {beside}, longest of {count}"), format!("{longest:.1} ms"));
    table.promise(PART, &format!("commit beside {beside}, p99"), p99, COMMIT_MS_MAX, "ms");
    Ok(())
}
