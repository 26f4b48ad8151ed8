//! Backups under load: the asker is killed, the collector is killed, the asker's disk is full; then a whole one is put
//! into another place, and holds all that was acknowledged before it began, exactly once.

use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use anyhow::Result;
use dunlin_tests::disk::Disk;
use dunlin_tests::process::{Program, Running};

use crate::Plan;
use crate::load::Load;
use crate::report::{Report, Times};
use crate::site::Site;

/// A backup of the short form takes some hundred milliseconds.
const WITHIN_MS: u64 = 400;
const BACKUP_LIMIT: Duration = Duration::from_secs(120);

pub(crate) fn run(plan: &Plan) -> Result<Report> {
    let (rounds, agents) = if plan.short { (3, 100) } else { (40, 2_000) };
    let mut random = plan.random(9);
    let mut report = Report::new("backup");
    let (mut times, mut whole) = (Times::default(), 0_u64);
    let mut site = Site::new(agents, None)?;
    let full = Disk::new(16)?;
    full.fill()?;
    let mut collector = site.start_ready(&mut times)?;
    let load = Load::start(&site, 1)?;
    site.wait_up()?;
    let file = site.scratch.join("state.tar");
    for _ in 0..rounds {
        // Whoever asks dies: the collector goes on, and the next is not refused.
        let mut asker = ask(&site, &file)?;
        sleep(Duration::from_millis(random.below(WITHIN_MS)));
        asker.kill9()?;
        // The collector dies: who asked is told, and there is no half file in the place of the one before.
        let mut asker = ask(&site, &file)?;
        sleep(Duration::from_millis(random.below(WITHIN_MS)));
        collector.kill9()?;
        let status = asker.wait_exit(BACKUP_LIMIT)?;
        report.expect(status.success() || !site.scratch.join("state.tar.new").exists(), || {
            format!("a backup that broke off leaves its file behind: {}", asker.log_text())
        });
        drop(collector);
        collector = site.start_ready(&mut times)?;
        report.expect(!site.state.join("backup.new").exists(), || "what was cut off is still there".to_owned());
        let said = finish(ask(&site, &full.join("state.tar"))?)?;
        let is_told = said.contains("state.tar.new") && said.contains("No space left") || said.contains("bytes free");
        report.expect(is_told, || format!("a full disk is not told: {said}"));
        let is_empty = !full.join("state.tar").exists() && !full.join("state.tar.new").exists();
        report.expect(is_empty, || "a full disk holds half a backup".to_owned());
        let said = finish(ask(&site, &file)?)?;
        whole += u64::from(said.contains("is written"));
        report.expect(said.contains("is written"), || format!("no backup: {said}"));
    }
    let outcome = load.finish(&mut report)?;
    let said = finish(ask(&site, &file)?)?;
    report.expect(said.contains("is written"), || format!("no backup: {said}"));
    site.stop_and_check(collector, &mut report)?;
    report.count("rounds", rounds);
    report.count("whole", whole);
    outcome.judge(&mut report);

    site.state = site.scratch.join("restored");
    let restore = program()?.arg("restore").arg(&file).arg("--state-dir").arg(&site.state);
    let said = finish(restore.start()?)?;
    report.expect(said.contains("holds the backup"), || format!("it cannot be restored: {said}"));
    site.check(&mut report);
    outcome.verify(&site, &mut report)?;
    let collector = site.start_ready(&mut times)?;
    site.stop_and_check(collector, &mut report)?;
    fs::remove_file(&file)?;
    Ok(report)
}

fn program() -> Result<Program> {
    Ok(Program::ours("dunlin-collector", "dunlin-collector")?)
}

fn ask(site: &Site, file: &Path) -> Result<Running> {
    Ok(program()?.arg("backup").arg(file).arg("--state-dir").arg(&site.state).start()?)
}

fn finish(mut running: Running) -> Result<String> {
    running.wait_exit(BACKUP_LIMIT)?;
    Ok(running.log_text())
}
