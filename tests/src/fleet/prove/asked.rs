//! The API is asked as hard as is promised while the fleet goes on, from the collector's own machine.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::steady::committed;
use super::{Alerts, LIMIT, PART, Part, Proof, ProvePlan, promised};
use crate::process::Program;
use crate::site::HTTP;
use crate::table::Table;

const CONNECTIONS: usize = 64;

pub(super) struct Asked {
    part: Part,
    /// As `dunlin-fleet ask` sums it up.
    answers: Value,
}

impl Proof<'_> {
    pub(super) fn ask(&mut self) -> Result<Asked> {
        let takes = self.plan.share(8);
        let program = Program::ours("dunlin-tests", "dunlin-fleet")?;
        let program = program.args(["ask", "--http", &HTTP.to_string(), "--token", &self.token]);
        let program = program.args(["--rate", &self.plan.requests_per_second.to_string()]);
        let program = program.args(["--seconds", &takes.as_secs().max(1).to_string()]);
        let program = program.args(["--connections", &CONNECTIONS.to_string()]);
        let mut asking = program.inside(&self.network.collector).start()?;
        let part = self.spell("asking the API", takes)?;
        let status = asking.wait_exit(LIMIT)?;
        let said = asking.log_text();
        ensure!(status.success(), "dunlin-fleet ask ended with {status}:\n{said}");
        let line = said.lines().rev().find(|line| line.starts_with('{')).context("it printed no summary")?;
        Ok(Asked { part, answers: serde_json::from_str(line)? })
    }
}

impl Asked {
    pub(super) fn tell(&self, table: &mut Table, plan: ProvePlan, alerts: &Alerts<'_>) {
        let Self { part, answers } = self;
        let figure = |of: &Value, name: &str| of[name].as_f64().unwrap_or(f64::INFINITY);
        let whose = format!("the API asked {} times a second", plan.requests_per_second);
        let rate = answers["requests_per_second"].as_f64().unwrap_or(0.0);
        let least = f64::from(plan.requests_per_second).min(promised::REQUESTS) * promised::SLACK;
        table.promise_least(PART, &format!("{whose}: answers"), rate, least, "a second");
        table.promise(PART, &format!("{whose}: not answered with 200"), figure(answers, "failed"), 0.0, "");
        table.promise(PART, &format!("{whose}: p95"), figure(&answers["all"], "p95_ms"), promised::ASKED_P95_MS, "ms");
        let all = &answers["all"];
        let shown = format!("{:.1} ms, {:.1} ms", figure(all, "median_ms"), figure(all, "p99_ms"));
        table.note(PART, format!("{whose}: median, p99"), shown);
        for kind in answers["by_kind"].as_array().into_iter().flatten() {
            let name = kind[0].as_str().unwrap_or_default();
            let shown = format!("{:.1} ms, {:.1} ms", figure(&kind[1], "median_ms"), figure(&kind[1], "p95_ms"));
            table.note(PART, format!("{whose}, {name}: median, p95"), shown);
        }
        committed(table, part, &whose);
        let (count, times) = alerts.times(part);
        let what = format!("{whose}: sample to feed, {count} alerts: p99");
        table.promise(PART, &what, times.p99_ms, promised::ALERT_MS, "ms");
        let cpu = part.after.cpu_since(&part.before) / part.before.seconds_to(&part.after);
        table.note(PART, format!("{whose}: of a core, frames included"), format!("{cpu:.2}"));
    }
}
