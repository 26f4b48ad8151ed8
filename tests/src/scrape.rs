//! Reads the Prometheus text format and answers what tests ask of it: a value, a sum, a quantile.
//!
//! It reads what the collector writes and refuses the rest with the line; it never guesses.

use thiserror::Error;

#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("line {line} of the metrics is not `name{{label=\"value\"}} number`: {text}")]
pub struct ScrapeError {
    pub line: usize,
    pub text: String,
}

/// One scrape.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scrape {
    samples: Vec<Sample>,
}

#[derive(Clone, Debug, PartialEq)]
struct Sample {
    name: String,
    labels: Vec<(String, String)>,
    value: f64,
}

impl Scrape {
    pub fn parse(text: &str) -> Result<Self, ScrapeError> {
        let mut samples = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let wrong = || ScrapeError { line: index + 1, text: line.chars().take(200).collect() };
            samples.push(Sample::parse(line).ok_or_else(wrong)?);
        }
        Ok(Self { samples })
    }

    /// The one series of this name that has all these labels; `None` if there is none or more than one.
    #[must_use]
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let mut found = self.matching(name, labels);
        let first = found.next()?;
        found.next().is_none().then_some(first.value)
    }

    /// All series of this name that have these labels, added up; 0 if there is none.
    #[must_use]
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.matching(name, labels).map(|sample| sample.value).sum()
    }

    /// The quantile of a histogram, linear within its bucket as Prometheus has it. What lies beyond the last
    /// finite bound is reported as that bound, so a test must compare with a bound below it.
    #[must_use]
    pub fn quantile(&self, histogram: &str, labels: &[(&str, &str)], quantile: f64) -> Option<f64> {
        quantile_of(&self.buckets(histogram, labels), quantile)
    }

    /// The same of what was observed after `earlier`.
    #[must_use]
    pub fn quantile_since(
        &self,
        earlier: &Self,
        histogram: &str,
        labels: &[(&str, &str)],
        quantile: f64,
    ) -> Option<f64> {
        let before = earlier.buckets(histogram, labels);
        let mut now = self.buckets(histogram, labels);
        for (bound, count) in &mut now {
            *count -= before.iter().find(|(other, _)| other == bound).map_or(0.0, |(_, count)| *count);
        }
        quantile_of(&now, quantile)
    }

    fn matching(&self, name: &str, labels: &[(&str, &str)]) -> impl Iterator<Item = &Sample> {
        self.samples.iter().filter(move |sample| {
            sample.name == name && labels.iter().all(|(key, value)| sample.label(key) == Some(*value))
        })
    }

    /// Cumulative counts by upper bound, ascending, series with the same bound added up.
    fn buckets(&self, histogram: &str, labels: &[(&str, &str)]) -> Vec<(f64, f64)> {
        let mut buckets: Vec<(f64, f64)> = Vec::new();
        for sample in self.matching(&format!("{histogram}_bucket"), labels) {
            let Some(bound) = sample.label("le").and_then(number) else {
                continue;
            };
            match buckets.iter_mut().find(|(other, _)| *other == bound) {
                Some((_, count)) => *count += sample.value,
                None => buckets.push((bound, sample.value)),
            }
        }
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        buckets
    }
}

impl Sample {
    fn parse(line: &str) -> Option<Self> {
        let name_end = line.find(|c: char| c == '{' || c.is_whitespace())?;
        let (name, rest) = line.split_at(name_end);
        let (labels, rest) = match rest.strip_prefix('{') {
            Some(inside) => labels(inside)?,
            None => (Vec::new(), rest),
        };
        let mut words = rest.split_whitespace();
        let value = number(words.next()?)?;
        // A time stamp may follow; the collector writes none, and nothing else may.
        if words.next().is_some_and(|stamp| stamp.parse::<i64>().is_err()) || words.next().is_some() {
            return None;
        }
        (!name.is_empty()).then(|| Self { name: name.to_owned(), labels, value })
    }

    fn label(&self, key: &str) -> Option<&str> {
        self.labels.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }
}

/// The labels up to the closing brace, and what follows it.
fn labels(mut rest: &str) -> Option<(Vec<(String, String)>, &str)> {
    let mut labels = Vec::new();
    loop {
        rest = rest.trim_start_matches([',', ' ']);
        if let Some(after) = rest.strip_prefix('}') {
            return Some((labels, after));
        }
        let (key, after) = rest.split_once("=\"")?;
        let (value, after) = quoted(after)?;
        labels.push((key.trim().to_owned(), value));
        rest = after;
    }
}

/// The text up to the closing quote with its escapes resolved, and what follows it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(match characters.next()?.1 {
                'n' => '\n',
                other => other,
            }),
            other => value.push(other),
        }
    }
    None
}

fn number(text: &str) -> Option<f64> {
    match text {
        "+Inf" => Some(f64::INFINITY),
        "-Inf" => Some(f64::NEG_INFINITY),
        "NaN" => Some(f64::NAN),
        other => other.parse().ok(),
    }
}

fn quantile_of(buckets: &[(f64, f64)], quantile: f64) -> Option<f64> {
    let total = buckets.last().filter(|(bound, count)| bound.is_infinite() && *count > 0.0)?.1;
    let rank = quantile * total;
    let at = buckets.iter().position(|(_, count)| *count >= rank)?;
    let (bound, count) = buckets[at];
    let (below_bound, below_count) = if at == 0 { (0.0, 0.0) } else { buckets[at - 1] };
    if bound.is_infinite() {
        return (at > 0).then_some(below_bound);
    }
    if count <= below_count {
        return Some(bound);
    }
    Some(below_bound + (bound - below_bound) * (rank - below_count) / (count - below_count))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"# HELP dunlin_frames_total Frames.
# TYPE dunlin_frames_total counter
dunlin_frames_total{result="stored",stream="live"} 90
dunlin_frames_total{result="refused",stream="live"} 10 1767225600000
dunlin_up 1
dunlin_path{name="a\"b\\c\n,}"} 2.5e3
commit_seconds_bucket{le="0.1"} 50
commit_seconds_bucket{le="0.2"} 100
commit_seconds_bucket{le="+Inf"} 100
commit_seconds_sum 9.5
commit_seconds_count 100
"#;

    fn scrape() -> Scrape {
        Scrape::parse(TEXT).expect("the text is valid")
    }

    #[test]
    fn values_are_found_by_name_and_labels() {
        let scrape = scrape();
        assert_eq!(scrape.value("dunlin_frames_total", &[("result", "stored")]), Some(90.0));
        assert_eq!(scrape.value("dunlin_frames_total", &[]), None, "two series are no one value");
        assert_eq!(scrape.sum("dunlin_frames_total", &[]), 100.0);
        assert_eq!(scrape.value("dunlin_up", &[]), Some(1.0));
        assert_eq!(scrape.value("dunlin_path", &[("name", "a\"b\\c\n,}")]), Some(2500.0));
        assert_eq!(scrape.value("dunlin_down", &[]), None);
    }

    #[test]
    fn quantiles_are_linear_within_a_bucket() {
        let scrape = scrape();
        let quantile = |q| scrape.quantile("commit_seconds", &[], q).expect("it has observations");
        assert!((quantile(0.25) - 0.05).abs() < 1e-9);
        assert!((quantile(0.75) - 0.15).abs() < 1e-9);
        assert_eq!(scrape.quantile("no_such", &[], 0.5), None);
    }

    #[test]
    fn quantile_since_counts_only_what_came_later() {
        let later = Scrape::parse(&TEXT.replace("} 100\n", "} 200\n")).expect("the text is valid");
        let median = later.quantile_since(&scrape(), "commit_seconds", &[], 0.5).expect("100 came later");
        assert!((median - 0.15).abs() < 1e-9, "{median}");
        assert_eq!(scrape().quantile_since(&scrape(), "commit_seconds", &[], 0.5), None);
    }

    #[test]
    fn beyond_the_last_finite_bound_the_bound_is_reported() {
        let text = "h_bucket{le=\"1\"} 1\nh_bucket{le=\"+Inf\"} 100\n";
        assert_eq!(Scrape::parse(text).expect("the text is valid").quantile("h", &[], 0.99), Some(1.0));
    }

    #[test]
    fn broken_lines_are_named() {
        for line in
            ["name", "name{", "name{a=\"b} 1", "name{a=b} 1", "name one", "{a=\"b\"} 1", "name 1 2 3", "name 1 x"]
        {
            let error = Scrape::parse(&format!("up 1\n{line}\n")).expect_err(line);
            assert_eq!(error.line, 2, "{line}");
        }
    }
}
