//! `dunlin metrics export`: samples and roll-ups as CSV or OpenMetrics, to be used elsewhere.
//!
//! A file has its name only when it is whole.

use std::fs::{self, File};
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use dunlin_collector::client::escaped;

use crate::{Desk, Failure};

/// What is passed on at once.
const BUFFER_BYTES: usize = 64 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Csv,
    Openmetrics,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Resolution {
    Full,
    #[value(name = "5m")]
    FiveMinutes,
    #[value(name = "1h")]
    Hour,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Counter {
    Value,
    Rate,
}

#[derive(Debug, Args)]
pub(crate) struct Export {
    /// How it is written
    #[arg(long, value_enum, default_value = "csv")]
    format: Format,
    /// Only of this node, by id or by a name that one node alone has; repeated, of each of them
    #[arg(long = "node", value_name = "NODE")]
    nodes: Vec<String>,
    /// Only this metric; repeated, each of them
    #[arg(long = "metric", value_name = "METRIC")]
    metrics: Vec<String>,
    /// Only of this subject, such as host or fs:/var; repeated, of each of them
    #[arg(long = "subject", value_name = "SUBJECT")]
    subjects: Vec<String>,
    /// Only of nodes that bear it; repeated, all of them
    #[arg(long = "label", value_name = "KEY=VALUE")]
    labels: Vec<String>,
    /// From when on: a duration before now, or RFC 3339; all that there is when absent
    #[arg(long)]
    from: Option<String>,
    /// Until when
    #[arg(long)]
    to: Option<String>,
    /// Every sample, or what each 5 minutes or each hour came to
    #[arg(long, value_enum, default_value = "full")]
    resolution: Resolution,
    /// Counters as they are counted, or as what they grew by in a second; of 5m and 1h always that
    #[arg(long, value_enum)]
    counter: Option<Counter>,
    /// Write to this file, which is there only when it is whole
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

impl Export {
    fn path(&self) -> String {
        let word = |value: &dyn Fn() -> Option<clap::builder::PossibleValue>| {
            value().map(|value| value.get_name().to_owned()).unwrap_or_default()
        };
        let mut path = format!("/api/v1/export?format={}", word(&|| self.format.to_possible_value()));
        let mut add = |key: &str, value: &str| path.push_str(&format!("&{key}={}", escaped(value)));
        add("resolution", &word(&|| self.resolution.to_possible_value()));
        if let Some(counter) = self.counter {
            add("counter", &word(&|| counter.to_possible_value()));
        }
        let many =
            [("node", &self.nodes), ("metric", &self.metrics), ("subject", &self.subjects), ("label", &self.labels)];
        many.into_iter().for_each(|(key, values)| values.iter().for_each(|value| add(key, value)));
        let once = [("from", &self.from), ("to", &self.to)];
        once.into_iter().for_each(|(key, value)| value.iter().for_each(|value| add(key, value)));
        path
    }
}

pub(crate) fn export(desk: &mut Desk<'_>, wanted: &Export) -> Result<(), Failure> {
    let path = wanted.path();
    let Some(file) = &wanted.out else {
        return Ok(desk.client.pass_on(&path, &mut BufWriter::with_capacity(BUFFER_BYTES, &mut desk.out))??);
    };
    let unfinished = beside(file);
    let done = write(desk, &path, &unfinished).and_then(|()| Ok(fs::rename(&unfinished, file)?));
    if done.is_err() {
        // What is left of it is no export; that it was not made is said anyway.
        fs::remove_file(&unfinished).ok();
    }
    done
}

fn write(desk: &Desk<'_>, path: &str, unfinished: &Path) -> Result<(), Failure> {
    let file = File::create(unfinished).map_err(|error| named(unfinished, &error))?;
    let mut out = BufWriter::with_capacity(BUFFER_BYTES, file);
    desk.client.pass_on(path, &mut out)?.map_err(|error| named(unfinished, &error))?;
    let file = out.into_inner().map_err(|error| named(unfinished, error.error()))?;
    Ok(file.sync_all().map_err(|error| named(unfinished, &error))?)
}

/// In the same directory, so that a rename is enough.
fn beside(file: &Path) -> PathBuf {
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(".part");
    file.with_file_name(name)
}

fn named(file: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", file.display()))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::metrics::MetricsCommand;
    use crate::{Cli, Command};

    fn parsed(words: &[&str]) -> Option<Export> {
        let Command::Metrics(metrics) = Cli::try_parse_from([&["dunlin"], words].concat()).ok()?.command else {
            return None;
        };
        metrics.command.map(|MetricsCommand::Export(export)| export)
    }

    #[test]
    fn words_become_a_question() {
        let export = parsed(&["metrics", "export"]).expect("all of it");
        assert_eq!(export.path(), "/api/v1/export?format=csv&resolution=full");
        let words = "metrics export --format openmetrics --node a --node b --metric host_load1 --subject fs:/ --label k=v \
             --from 2h --to 1h --resolution full --counter rate";
        let export = parsed(&words.split_whitespace().collect::<Vec<_>>()).expect("some of it");
        assert_eq!(
            export.path(),
            "/api/v1/export?format=openmetrics&resolution=full&counter=rate&node=a&node=b&metric=host_load1\
             &subject=fs%3A%2F&label=k%3Dv&from=2h&to=1h"
        );
        assert!(parsed(&["metrics", "web-1"]).is_none() && parsed(&["metrics"]).is_none());
        assert!(parsed(&["metrics", "export", "--resolution", "2h"]).is_none());
        assert_eq!(beside(Path::new("/x/y.csv")), Path::new("/x/y.csv.part"));
    }
}
