//! A consumer of the feed as a program would be one: it uses what it reads, and only then writes down how far it is.
//!
//! It may be killed at any moment. What it used is appended to one file, a line for each event and one for each of its
//! starts; how far it is stands in another, which is replaced whole.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dunlin_collector::client::{Client, escaped};
use dunlin_collector::shape::Feed;

/// The line of a start.
const BEGINS: &str = "begins";
/// Events that are used at a time: what a consumer that is killed may use again.
pub const BATCH: usize = 100;
const WAIT: Duration = Duration::from_secs(30);

#[derive(Clone, Debug)]
pub struct Consumer {
    pub used: PathBuf,
    pub cursor: PathBuf,
}

/// How the feed is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    LongPoll,
    Stream,
}

impl Consumer {
    /// Until it is killed, or the collector is gone.
    pub fn follow(&self, client: &Client, way: Way) -> Result<()> {
        let mut used = File::options().create(true).append(true).open(&self.used)?;
        writeln!(used, "{BEGINS}")?;
        match way {
            Way::LongPoll => self.poll(client, &mut used),
            Way::Stream => self.stream(client, &mut used),
        }
    }

    /// What each run of it used: cursors in their order. What it was killed in the middle of writing is no line.
    pub fn runs(&self) -> Result<Vec<Vec<String>>> {
        let text = fs::read_to_string(&self.used)?;
        let mut runs = Vec::new();
        for line in text.split_inclusive('\n') {
            let Some(line) = line.strip_suffix('\n') else { break };
            // A run that was killed within a line leaves its end to the next.
            if line.ends_with(BEGINS) {
                runs.push(Vec::new());
            } else {
                let run: &mut Vec<String> = runs.last_mut().context("nothing is used before a start")?;
                run.push(line.to_owned());
            }
        }
        Ok(runs)
    }

    fn poll(&self, client: &Client, used: &mut File) -> Result<()> {
        let mut after = self.read_cursor()?;
        loop {
            let page: Feed = client.wait_for(&path("", &after, &format!("limit={BATCH}&wait=30s")), WAIT)?;
            self.take(used, page.items.iter().map(|event| event.cursor.as_str()), &page.next)?;
            after = Some(page.next);
        }
    }

    /// It is read line by line: an event is whole with its empty line.
    fn stream(&self, client: &Client, used: &mut File) -> Result<()> {
        let path = path("/stream", &self.read_cursor()?, "");
        let mut id = None;
        for line in BufReader::new(client.stream("GET", &path)?).lines() {
            let line = line?;
            if let Some(cursor) = line.strip_prefix("id: ") {
                id = Some(cursor.to_owned());
            } else if line.is_empty()
                && let Some(cursor) = id.take()
            {
                self.take(used, [cursor.as_str()], &cursor)?;
            }
            ensure!(line != "event: problem", "the cursor is lost");
        }
        Ok(())
    }

    fn take<'a>(&self, used: &mut File, cursors: impl IntoIterator<Item = &'a str>, next: &str) -> Result<()> {
        let lines: String = cursors.into_iter().flat_map(|cursor| [cursor, "\n"]).collect();
        used.write_all(lines.as_bytes())?;
        let new = self.cursor.with_extension("new");
        fs::write(&new, next)?;
        Ok(fs::rename(&new, &self.cursor)?)
    }

    fn read_cursor(&self) -> Result<Option<String>> {
        match fs::read_to_string(&self.cursor) {
            Ok(cursor) => Ok(Some(cursor)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).context(self.cursor.display().to_string()),
        }
    }
}

/// How often something was used again: each run goes on where the one before was, or up to a batch before that. `feed`
/// are all cursors in their order.
pub fn used_again(feed: &[String], runs: &[Vec<String>]) -> Result<usize> {
    let (mut next, mut again) = (0, 0);
    for (number, run) in runs.iter().enumerate().filter(|(_, run)| !run.is_empty()) {
        let first = feed.iter().position(|cursor| *cursor == run[0]);
        let first = first.with_context(|| format!("run {number} used {}, which is not in the feed", run[0]))?;
        ensure!(first <= next, "run {number} begins with event {first}, and event {next} was not used");
        ensure!(next - first <= BATCH, "run {number} begins with event {first}, which is {} back", next - first);
        ensure!(feed.get(first..first + run.len()) == Some(run.as_slice()), "run {number} leaves something out");
        again += next - first;
        next = next.max(first + run.len());
    }
    ensure!(next == feed.len(), "{next} of {} events were used", feed.len());
    Ok(again)
}

/// How many events are in a file of what was used.
#[must_use]
pub fn count(used: &Path) -> usize {
    let bytes = fs::read(used).unwrap_or_default();
    bytes.split(|byte| *byte == b'\n').count().saturating_sub(1)
}

fn path(below: &str, after: &Option<String>, more: &str) -> String {
    let after = after.as_ref().map(|after| format!("after={}&", escaped(after))).unwrap_or_default();
    format!("/api/v1/events{below}?{after}{more}").trim_end_matches(['?', '&']).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cursors(numbers: std::ops::Range<usize>) -> Vec<String> {
        numbers.map(|number| number.to_string()).collect()
    }

    #[test]
    fn what_is_left_out_swapped_or_used_again_too_often_is_found() {
        let feed = cursors(0..1_000);
        let good = [cursors(0..300), Vec::new(), cursors(200..700), cursors(700..1_000)];
        assert_eq!(used_again(&feed, &good).expect("gapless, and one batch again"), 100);
        for bad in [
            vec![cursors(0..999)],
            vec![cursors(1..1_000)],
            vec![cursors(0..300), cursors(301..1_000)],
            vec![cursors(0..300), cursors(199..1_000)],
            vec![[cursors(0..300), cursors(299..1_000)].concat()],
            vec![[cursors(0..300), cursors(301..1_000)].concat()],
            vec![cursors(0..1_001)],
        ] {
            assert!(used_again(&feed, &bad).is_err(), "{:?}", bad.iter().map(Vec::len).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_line_that_a_kill_cut_off_is_no_event() {
        let scratch = crate::scratch::Scratch::new("used").expect("a directory");
        let consumer = Consumer { used: scratch.join("used"), cursor: scratch.join("cursor") };
        fs::write(&consumer.used, "begins\na-1\na-2\na-begins\na-2\na-3\na").expect("a file");
        let run = |cursors: &[&str]| cursors.iter().map(|cursor| (*cursor).to_owned()).collect::<Vec<_>>();
        assert_eq!(consumer.runs().expect("it is read"), [run(&["a-1", "a-2"]), run(&["a-2", "a-3"])]);
    }
}
