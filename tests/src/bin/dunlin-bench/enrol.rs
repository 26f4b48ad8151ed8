//! Thousands of nodes that join by one token: how long it takes, and what it costs the collector.
//!
//! Those that join run in this program and share the processors with the collector. No figure counts before the
//! nodes are counted at both ends, and the token lets nobody else in.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Result, ensure};
use dunlin_collector::client::{Client, tokens};
use dunlin_collector::shape::{Token, TokenCreated, TokenRequest};
use dunlin_shared::token::JoinToken;
use dunlin_shared::wire::join::{JoinAnswer, JoinReason, JoinRefusal};
use dunlin_tests::fleet::enrol::{EnrolPlan, Enrolled, enrol};
use dunlin_tests::join::{Joiner, client_config};
use quinn::Endpoint;
use tokio::runtime::Runtime;

use dunlin_tests::machine::SmallBuffers;
use dunlin_tests::rig::{Look, Place, Rig};
use dunlin_tests::table::Table;

const PART: &str = "enrol";
const SECONDS: f64 = 60.0;
const NODES: u32 = 10_000;
const NODES_SHORT: u32 = 200;
/// As many as `dunlin-fleet enrol` lets join at a time, on as many sockets.
const AT_ONCE: usize = 96;
const SOCKETS: usize = 16;

/// A collector, the nodes that have joined it, and what that took.
pub(crate) struct Crowd {
    pub(crate) rig: Rig<'static>,
    enrolled: Enrolled,
    before: Look,
    after: Look,
}

pub(crate) fn join(short: bool) -> Result<Crowd> {
    let nodes = if short { NODES_SHORT } else { NODES };
    let _buffers = SmallBuffers::set()?;
    let mut rig = Rig::start_unknowing(Place::loopback()?)?;
    let admin = rig.admin()?;
    let created = tokens::create(&admin, &request("join", Some(nodes)))?;
    let token: JoinToken = created.token.parse()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let plan =
        EnrolPlan { collector: rig.quic(), token, agents: usize::try_from(nodes)?, at_once: AT_ONCE, sockets: SOCKETS };
    let before = rig.look()?;
    let (enrolled, fleet) = runtime.block_on(enrol(&plan))?;
    let after = rig.look()?;
    rig.take_in(fleet)?;
    check(&rig, &admin, &created, nodes)?;
    refused(&runtime, &plan)?;
    check(&rig, &admin, &created, nodes)?;
    Ok(Crowd { rig, enrolled, before, after })
}

impl Crowd {
    pub(crate) fn report(&self, table: &mut Table) {
        let Enrolled { agents, seconds, per_second, p50_ms, p99_ms, worst_ms, tried_again } = self.enrolled;
        table.promise(PART, &format!("{agents} nodes join by one token, {AT_ONCE} at a time"), seconds, SECONDS, "s");
        table.note(PART, "joins", format!("{per_second:.0}/s"));
        let times = format!("{p50_ms} ms, {p99_ms} ms, {worst_ms} ms");
        table.note(PART, "from the first packet to the certificate: median, p99, longest", times);
        table.note(PART, "told to come again, or connections lost", tried_again.to_string());
        let cpu = (self.after.usage.cpu - self.before.usage.cpu).as_secs_f64();
        table.note(PART, "collector's CPU, user and system", format!("{:.3} cores", cpu / seconds));
        let joins = u32::try_from(agents).unwrap_or(u32::MAX);
        let each = Duration::from_secs_f64(cpu) / joins.max(1);
        table.note(PART, "collector's CPU a join", format!("{} us", each.as_micros()));
        let grown_kib = self.after.usage.rss_peak_kib.saturating_sub(self.before.usage.rss_kib);
        let all = format!("{} MiB, {:.1} KiB a node", grown_kib / 1_024, f64_of(grown_kib) / f64::from(joins.max(1)));
        table.note(PART, "collector's RSS at its highest, less before", all);
        let written = self.after.written_bytes - self.before.written_bytes;
        table.note(PART, "written a join", format!("{} bytes", written / u64::from(joins.max(1))));
        let counted = format!("{agents} nodes, {agents} ids, {agents} uses");
        table.note(PART, "verified: each joined once, and one more is refused", counted);
    }
}

/// What a token for the API or for joins is asked for with.
pub(crate) fn request(role: &str, uses: Option<u32>) -> TokenRequest {
    TokenRequest {
        role: role.to_owned(),
        name: String::from("bench"),
        uses,
        ttl: None,
        expires: None,
        labels: std::collections::BTreeMap::new(),
        needs_approval: false,
        per_hour: None,
        ephemeral: false,
    }
}

/// The collector shows exactly the nodes that joined, and the token was spent as often.
fn check(rig: &Rig<'_>, admin: &Client, created: &TokenCreated, nodes: u32) -> Result<()> {
    let joined: BTreeSet<String> = rig.nodes().iter().map(|node| node.id.to_string()).collect();
    ensure!(joined.len() == usize::try_from(nodes)?, "{} ids were given to {nodes} nodes", joined.len());
    let shown = admin.all("/api/v1/nodes", 2 * joined.len())?;
    let count = shown.len();
    let ids: BTreeSet<String> = shown.iter().filter_map(|node| Some(node.get("id")?.as_str()?.to_owned())).collect();
    ensure!(count == joined.len() && ids == joined, "{count} nodes are shown where {nodes} joined, or others");
    let mut known = admin.all("/api/v1/tokens", 10)?.into_iter().filter_map(|token| serde_json::from_value(token).ok());
    let token: Option<Token> = known.find(|token: &Token| token.id == created.id);
    let spent = token.map(|token| (token.used, token.uses_left));
    ensure!(spent == Some((nodes, Some(0))), "the token's uses and what is left of them are {spent:?}");
    Ok(())
}

/// One more than the token has uses.
fn refused(runtime: &Runtime, plan: &EnrolPlan) -> Result<()> {
    let answer = runtime.block_on(async {
        let endpoint = Endpoint::client((Ipv4Addr::UNSPECIFIED, 0).into())?;
        let config = client_config(plan.token.pin);
        anyhow::Ok(Joiner::new()?.join(&endpoint, config, plan.collector, Some(&plan.token), "one-too-many").await?)
    })?;
    let is_refused = matches!(answer, JoinAnswer::Refused(JoinRefusal { reason: JoinReason::UsedUpToken, .. }));
    ensure!(is_refused, "one more than the token lets in: {answer:?}");
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^53 KiB")]
const fn f64_of(kib: u64) -> f64 {
    kib as f64
}
