//! What the collector counts about itself, for `/metrics`.
//!
//! Counters are atomics that any thread may raise; a histogram has fixed buckets, so that counting
//! never allocates.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use dunlin_shared::wire::CloseCode;
use dunlin_shared::wire::join::JoinReason;

/// Upper bounds in milliseconds; the promise for a commit is 200.
const BUCKETS_MS: [u64; 14] = [1, 2, 5, 10, 20, 50, 75, 100, 125, 150, 200, 500, 1_000, 5_000];

#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [AtomicU64; BUCKETS_MS.len() + 1],
    sum_ms: AtomicU64,
}

#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

/// What a level of the window takes, and how far back it reaches.
#[derive(Debug, Default)]
pub struct Extent {
    pub bytes: Gauge,
    pub age_s: Gauge,
}

#[derive(Debug, Default)]
pub struct Stats {
    pub connections: Counter,
    pub connections_accepted: Counter,
    pub connections_ended: Counter,
    pub handshakes_failed: Counter,
    pub handshakes_retried: Counter,
    pub handshakes_refused: Counter,
    pub frames_received: Counter,
    pub frames_committed: Counter,
    pub frames_duplicate: Counter,
    pub frames_not_stored: Counter,
    pub values_left_out: Counter,
    pub first_packets_unread: Counter,
    pub bytes_received: Counter,
    pub gaps: Counter,
    pub commits: Counter,
    pub commits_failed: Counter,
    pub joins: Counter,
    pub certificates_renewed: Counter,
    pub files_set_aside: Counter,
    pub effects_dropped: Counter,
    pub seals: Counter,
    pub merges: Counter,
    pub window_failures: Counter,
    /// By level: full, mid, long.
    pub window: [Extent; 3],
    pub journal_bytes: Gauge,
    /// Of the last ten seconds, those in which connections left no rest.
    pub busy_permille: Gauge,
    pub backlog_held: Gauge,
    pub seal_duration: Histogram,
    pub received_to_committed: Histogram,
    pub commit_duration: Histogram,
    closed: [Counter; CloseCode::ALL.len()],
    joins_refused: [Counter; JoinReason::ALL.len()],
}

impl Counter {
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Relaxed);
    }

    pub fn one(&self) {
        self.add(1);
    }

    #[must_use]
    pub fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

impl Gauge {
    pub fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    #[must_use]
    pub fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

impl Extent {
    pub fn set(&self, bytes: u64, age_s: u64) {
        self.bytes.set(bytes);
        self.age_s.set(age_s);
    }
}

impl Histogram {
    pub fn note(&self, ms: u64) {
        let bucket = BUCKETS_MS.partition_point(|&bound| bound < ms);
        self.buckets[bucket].fetch_add(1, Relaxed);
        self.sum_ms.fetch_add(ms, Relaxed);
    }

    /// In the text format, in seconds.
    pub fn render(&self, page: &mut String, name: &str, help: &str) {
        page.push_str(&format!("# HELP {name} {help}\n# TYPE {name} histogram\n"));
        let mut total = 0;
        for (bucket, count) in self.buckets.iter().enumerate() {
            total += count.load(Relaxed);
            let bound = BUCKETS_MS.get(bucket).map_or("+Inf".to_owned(), |&ms| seconds(ms));
            page.push_str(&format!("{name}_bucket{{le=\"{bound}\"}} {total}\n"));
        }
        let sum = seconds(self.sum_ms.load(Relaxed));
        page.push_str(&format!("{name}_sum {sum}\n{name}_count {total}\n"));
    }
}

impl Stats {
    pub fn closed(&self, code: CloseCode) {
        self.closed[code as usize].one();
    }

    pub fn join_refused(&self, reason: JoinReason) {
        self.joins_refused[reason as usize].one();
    }

    /// All counters in the text format.
    #[must_use]
    pub fn render(&self) -> String {
        let open = self.connections_accepted.value().saturating_sub(self.connections_ended.value());
        let mut page = String::new();
        let mut line = |name: &str, kind: &str, help: &str, value: u64| {
            page.push_str(&format!("# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n"));
        };
        line("dunlin_connections", "gauge", "Connections of agents.", open);
        for (name, help, counter) in [
            (
                "dunlin_connections_accepted_total",
                "Connections that finished their handshake.",
                &self.connections_accepted,
            ),
            ("dunlin_handshakes_failed_total", "Handshakes that failed or came too late.", &self.handshakes_failed),
            (
                "dunlin_handshakes_retried_total",
                "Peers that were asked to prove their address.",
                &self.handshakes_retried,
            ),
            (
                "dunlin_handshakes_refused_total",
                "Peers refused because their network had too many handshakes under way.",
                &self.handshakes_refused,
            ),
            ("dunlin_frames_received_total", "Frames received.", &self.frames_received),
            ("dunlin_frames_committed_total", "Frames committed to the journal.", &self.frames_committed),
            ("dunlin_frames_duplicate_total", "Frames received that were held already.", &self.frames_duplicate),
            (
                "dunlin_frames_not_stored_total",
                "Frames that could not be stored and were given back to their agents.",
                &self.frames_not_stored,
            ),
            (
                "dunlin_values_left_out_total",
                "Values left out of frames because their node brought more new names than it may.",
                &self.values_left_out,
            ),
            ("dunlin_first_packets_unread_total", "First packets that came too fast.", &self.first_packets_unread),
            ("dunlin_received_bytes_total", "Bytes of frames received.", &self.bytes_received),
            ("dunlin_gaps_total", "Gaps recorded.", &self.gaps),
            ("dunlin_commits_total", "Commits of the journal.", &self.commits),
            ("dunlin_commits_failed_total", "Commits of the journal that failed.", &self.commits_failed),
            ("dunlin_joins_total", "Nodes that were given a certificate when they joined.", &self.joins),
            ("dunlin_certificates_renewed_total", "Certificates renewed on live sessions.", &self.certificates_renewed),
            ("dunlin_seals_total", "Journals that were sealed.", &self.seals),
            ("dunlin_merges_total", "Merges of sealed files.", &self.merges),
            (
                "dunlin_window_failures_total",
                "Times that the window could not be kept, mostly for want of room.",
                &self.window_failures,
            ),
            ("dunlin_files_set_aside_total", "Damaged files set aside since the start.", &self.files_set_aside),
            (
                "dunlin_effects_dropped_total",
                "Changes that found no room while control.db could not be written.",
                &self.effects_dropped,
            ),
        ] {
            line(name, "counter", help, counter.value());
        }
        self.render_reasons(&mut page);
        self.render_strain(&mut page);
        self.render_window(&mut page);
        let help = "From a frame's last byte to its commit.";
        self.received_to_committed.render(&mut page, "dunlin_received_to_committed_seconds", help);
        self.commit_duration.render(&mut page, "dunlin_commit_seconds", "How long a commit takes.");
        page
    }

    fn render_reasons(&self, page: &mut String) {
        page.push_str("# HELP dunlin_connections_closed_total Connections that this side closed, by reason.\n");
        page.push_str("# TYPE dunlin_connections_closed_total counter\n");
        for code in CloseCode::ALL {
            let count = self.closed[code as usize].value();
            page.push_str(&format!("dunlin_connections_closed_total{{reason=\"{}\"}} {count}\n", code.as_str()));
        }
        page.push_str("# HELP dunlin_joins_refused_total Joins that were refused, by reason.\n");
        page.push_str("# TYPE dunlin_joins_refused_total counter\n");
        for reason in JoinReason::ALL {
            let count = self.joins_refused[reason as usize].value();
            page.push_str(&format!("dunlin_joins_refused_total{{reason=\"{}\"}} {count}\n", reason.as_str()));
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "a thousand at most")]
    fn render_strain(&self, page: &mut String) {
        let busy = self.busy_permille.value() as f64 / 1_000.0;
        page.push_str(
            "# HELP dunlin_busy_ratio Of ten seconds, the share in which connections left the collector no rest.\n",
        );
        page.push_str(&format!("# TYPE dunlin_busy_ratio gauge\ndunlin_busy_ratio {busy}\n"));
        page.push_str("# HELP dunlin_backlog_held Whether agents are told to keep their backlog, for want of time.\n");
        page.push_str(&format!(
            "# TYPE dunlin_backlog_held gauge\ndunlin_backlog_held {}\n",
            self.backlog_held.value()
        ));
    }

    fn render_window(&self, page: &mut String) {
        let levels = || ["full", "5m", "1h"].into_iter().zip(&self.window);
        page.push_str("# HELP dunlin_window_bytes What the window takes of the disk, by resolution.\n# TYPE dunlin_window_bytes gauge\n");
        page.push_str(&format!("dunlin_window_bytes{{resolution=\"journal\"}} {}\n", self.journal_bytes.value()));
        for (level, extent) in levels() {
            page.push_str(&format!("dunlin_window_bytes{{resolution=\"{level}\"}} {}\n", extent.bytes.value()));
        }
        page.push_str("# HELP dunlin_window_age_seconds How far back the window reaches, by resolution.\n# TYPE dunlin_window_age_seconds gauge\n");
        for (level, extent) in levels() {
            page.push_str(&format!("dunlin_window_age_seconds{{resolution=\"{level}\"}} {}\n", extent.age_s.value()));
        }
        self.seal_duration.render(page, "dunlin_seal_seconds", "How long it takes to seal a journal.");
    }
}

fn seconds(ms: u64) -> String {
    format!("{}.{:03}", ms / 1_000, ms % 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_counts_into_the_bucket_whose_bound_is_not_below() {
        let histogram = Histogram::default();
        [0, 1, 100, 101, 9_000].into_iter().for_each(|ms| histogram.note(ms));
        let mut page = String::new();
        histogram.render(&mut page, "x", "X.");
        assert!(page.contains("x_bucket{le=\"0.001\"} 2\n"), "{page}");
        assert!(page.contains("x_bucket{le=\"0.100\"} 3\n"), "{page}");
        assert!(page.contains("x_bucket{le=\"+Inf\"} 5\nx_sum 9.202\nx_count 5\n"), "{page}");
    }

    #[test]
    fn the_page_names_every_reason_for_closing() {
        let stats = Stats::default();
        stats.closed(CloseCode::Flooding);
        let page = stats.render();
        assert!(page.contains("dunlin_connections_closed_total{reason=\"flooding\"} 1\n"));
        assert!(page.contains("dunlin_connections_closed_total{reason=\"malformed\"} 0\n"));
    }
}
