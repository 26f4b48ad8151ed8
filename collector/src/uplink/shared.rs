//! What all connections share: the way to the writer and to the registry, who is which node, counts.
//!
//! The driver owns it and lends it to one connection at a time, so nothing here needs a lock. No queue
//! is ever waited for: what the writer has no room for goes back to its connection.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use dunlin_shared::id::NodeId;
use dunlin_shared::limits::HANDSHAKES_PER_PREFIX_MAX;
use dunlin_shared::repeat::Repeats;
use dunlin_shared::time::MonoMs;
use dunlin_shared::wire::CloseCode;
use dunlin_shared::wire::join::JoinReason;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tracing::{info, warn};

use super::admission::{Admission, Prefix, Refusal};
use super::claims::{Claimant, Claimed, Claims, Entrance};
use super::desk::Desk;
use super::guesses::Guesses;
use super::mailbox::{Bell, Mailbox, Place, Slip};
use super::strain::Strain;
use crate::authority::Authority;
use crate::clock::Clock;
use crate::gate::{Gate, Verdict};
use crate::offences::{Offences, Told};
use crate::orders::Orders;
use crate::registry::{JoinWish, KeyHash, What};
use crate::stats::Stats;
use crate::store::NewEvent;
use crate::writer::{Arrival, SessionId};

/// Connections that enrol at a time. Each is there for a handshake, a commit and the way back.
const JOINING_MAX: usize = 256;
/// Signatures and checks of signatures in one turn of the driver: 2 ms of work.
const CRYPTO_PER_TURN: u32 = 16;
/// How long a node that flooded is kept out: its burst in this time is no more than ten nodes send, and it is not yet
/// taken for down.
const REST_MS: u64 = 10_000;
/// A network is told of when so many of its handshakes are refused in a row: twice what may be under way.
const REFUSALS_TOLD: u64 = 2 * HANDSHAKES_PER_PREFIX_MAX as u64;

#[derive(Debug)]
pub struct Shared {
    pub(super) clock: Clock,
    pub(super) stats: Arc<Stats>,
    pub(super) bell: Arc<Bell>,
    pub(super) admission: Admission,
    pub(super) authority: Arc<Authority>,
    pub(super) gate: Arc<Gate>,
    /// The collector goes away: every session is told so.
    pub(super) draining: bool,
    /// Somebody waits for the writer already: whoever comes now waits behind.
    pub(super) crowded: bool,
    pub(super) strain: Strain,
    /// Of messages and frames that are begun on all connections and not whole.
    pub(super) unfinished_bytes: usize,
    writer: mpsc::Sender<Arrival>,
    desk: Desk,
    claims: Claims,
    mailboxes: HashMap<SessionId, Arc<Mailbox>>,
    guesses: Guesses,
    refused_last: Option<IpAddr>,
    /// Networks that are refused handshakes, with the address that was last.
    networks: Offences<(Prefix, Refusal), IpAddr>,
    /// Nodes whose connections were closed for what they sent, and where they were; by the code, so that many of one kind
    /// do not keep another from being told.
    cut_off: HashMap<CloseCode, Offences<NodeId, IpAddr>>,
    /// Nodes that were cut off for flooding, and until when they are let in no more.
    resting: HashMap<NodeId, MonoMs>,
    /// Where a node that has just entered came from.
    entered: Option<Prefix>,
    joining: usize,
    crypto_left: u32,
    last_session: u64,
    failures: HashMap<&'static str, Repeats>,
}

/// Who is asked about nodes, besides the log.
#[derive(Debug)]
pub struct Keepers {
    pub authority: Arc<Authority>,
    pub gate: Arc<Gate>,
    pub orders: Orders,
}

/// Why the writer did not take an arrival.
#[derive(Debug)]
pub(super) enum NotTaken {
    Full(Arrival),
    /// The writer has ended, and the collector with it.
    Gone,
}

/// What becomes of a Hello.
#[derive(Debug)]
pub(super) enum Entry {
    Enters(Arc<Mailbox>),
    /// Until another session has answered, or it is time to go on.
    Waits(Arc<Mailbox>, MonoMs),
    Refused(CloseCode),
}

impl Shared {
    #[must_use]
    pub fn new(clock: Clock, stats: Arc<Stats>, writer: mpsc::Sender<Arrival>, keepers: Keepers) -> Self {
        let Keepers { authority, gate, orders } = keepers;
        let strain = Strain::new(clock.now());
        Self {
            clock,
            stats,
            bell: Arc::default(),
            admission: Admission::default(),
            authority,
            gate,
            draining: false,
            crowded: false,
            strain,
            unfinished_bytes: 0,
            writer,
            desk: Desk::new(orders),
            claims: Claims::default(),
            mailboxes: HashMap::new(),
            guesses: Guesses::default(),
            refused_last: None,
            networks: Offences::new(REFUSALS_TOLD),
            cut_off: HashMap::new(),
            resting: HashMap::new(),
            entered: None,
            joining: 0,
            crypto_left: CRYPTO_PER_TURN,
            last_session: 0,
            failures: HashMap::new(),
        }
    }

    pub(super) fn writer(&self) -> &mpsc::Sender<Arrival> {
        &self.writer
    }

    pub(super) fn hand_over(&self, arrival: Arrival) -> Result<(), NotTaken> {
        if self.crowded {
            return Err(NotTaken::Full(arrival));
        }
        self.writer.try_send(arrival).map_err(|error| match error {
            TrySendError::Full(arrival) => NotTaken::Full(arrival),
            TrySendError::Closed(_) => NotTaken::Gone,
        })
    }

    pub(super) fn new_session(&mut self) -> SessionId {
        self.last_session += 1;
        SessionId(self.last_session)
    }

    /// Whether a node with this key may say Hello, and whether at once: somebody else may be that node.
    pub(super) fn enter(
        &mut self,
        node: NodeId,
        key: KeyHash,
        claimant: Claimant,
        (place, name): (Place, &str),
    ) -> Entry {
        match self.gate.judge(node, &key, &claimant.boot_id) {
            Verdict::Enter => {}
            Verdict::Close(code) => return Entry::Refused(code),
            Verdict::Stranger => {
                self.desk.tell(None, What::Stranger { node, key, name: name.to_owned() });
                return Entry::Refused(CloseCode::NotEnrolled);
            }
        }
        let Some(nonce) = Clock::random().map(u64::from_le_bytes) else { return Entry::Refused(CloseCode::Internal) };
        let mailbox = Arc::new(Mailbox::new(place, Arc::clone(&self.bell), name));
        match self.claims.claim(self.clock.mono(), node, claimant, nonce) {
            Claimed::Refused(code) => Entry::Refused(code),
            Claimed::Enters(entrance) => {
                self.mailboxes.insert(claimant.session, Arc::clone(&mailbox));
                self.entered(node, claimant.session, entrance);
                Entry::Enters(mailbox)
            }
            Claimed::Waits { challenged, nonce, until, replaced } => {
                self.mailboxes.insert(claimant.session, Arc::clone(&mailbox));
                if let Some(replaced) = replaced {
                    self.send_away(replaced, CloseCode::Superseded);
                } else if let Some(live) = self.mailboxes.get(&challenged) {
                    live.challenge(nonce);
                }
                Entry::Waits(mailbox, until)
            }
        }
    }

    /// The live session of a node has shown that it is there.
    pub(super) fn present(&mut self, node: NodeId, session: SessionId, nonce: u64) {
        let Some(impostor) = self.claims.present(node, session, nonce) else { return };
        let Some(mailbox) = self.mailboxes.get(&impostor.session) else { return };
        let name = mailbox.name().to_owned();
        mailbox.close(CloseCode::Quarantined);
        warn!(%node, name, "another machine says that it is this node; it is kept out");
        if let Some(boot_id) = impostor.boot_id {
            self.desk.tell(None, What::Quarantine { node, boot_id, name });
        }
    }

    /// Whether a session that waits goes on now.
    pub(super) fn waited(&mut self, node: NodeId, session: SessionId) -> bool {
        let Some(entrance) = self.claims.expired(self.clock.mono(), node, session) else { return false };
        self.entered(node, session, entrance);
        true
    }

    pub(super) fn leave(&mut self, node: NodeId, session: SessionId) {
        self.mailboxes.remove(&session);
        if let Some((next, entrance)) = self.claims.leave(self.clock.mono(), node, session) {
            self.entered(node, next, entrance);
            if let Some(mailbox) = self.mailboxes.get(&next) {
                mailbox.enter();
            }
        }
    }

    /// Closes the sessions of nodes that may not send any more.
    pub(super) fn evict(&mut self) {
        for (node, code) in self.gate.take_evicted() {
            for session in self.claims.sessions(node) {
                self.send_away(session, code);
            }
        }
    }

    /// Passes on who is to tell the whole of its inventory. Whoever has no session is asked in the next one.
    pub(super) fn ask_inventories(&self) {
        for node in self.gate.take_asked() {
            for session in self.claims.sessions(node) {
                if let Some(mailbox) = self.mailboxes.get(&session) {
                    mailbox.ask_inventory();
                }
            }
        }
    }

    /// Whether one more may enrol at the same time; then `joined` has to follow.
    pub(super) const fn begin_join(&mut self) -> bool {
        let has_room = self.joining < JOINING_MAX;
        self.joining += has_room as usize;
        has_room
    }

    pub(super) const fn end_join(&mut self) {
        self.joining = self.joining.saturating_sub(1);
    }

    /// Asks the registry; `None` when it has too much to do.
    pub(super) fn ask_join(&self, place: Place, from: IpAddr, wish: JoinWish) -> Option<Arc<Slip>> {
        let slip = Arc::new(Slip::new(place, Arc::clone(&self.bell)));
        self.desk.ask_join(from, wish, Arc::clone(&slip)).then_some(slip)
    }

    /// How long joins with a token from there have to wait.
    pub(super) fn join_pause_ms(&self, from: IpAddr) -> u64 {
        self.guesses.pause_ms(self.clock.mono(), Prefix::of(from))
    }

    /// Counts a join that is refused; `is_guess` when it is held against the network that it came from.
    pub(super) fn join_refused(&mut self, from: IpAddr, reason: JoinReason, is_guess: bool) {
        let now = self.clock.mono();
        self.stats.join_refused(reason);
        if is_guess {
            self.guesses.refused(now, Prefix::of(from));
        }
        self.guesses.note(now, reason);
        self.refused_last = Some(from);
    }

    /// When the registry wants to hear of refused joins, or the feed of who does wrong.
    pub(super) fn next_note(&self) -> Option<MonoMs> {
        let cut_off = self.cut_off.values().filter_map(Offences::next).min();
        [self.guesses.next(), self.networks.next(), cut_off].into_iter().flatten().min()
    }

    /// Tells the feed; `node` is whom it is about.
    pub(super) fn tell(&self, kind: &'static str, node: Option<NodeId>, body: Value) {
        self.desk.tell_event(NewEvent { at: self.clock.wall(), kind, node, body: body.to_string() });
    }

    pub(super) fn handshake_refused(&mut self, from: IpAddr, why: Refusal) {
        self.stats.handshakes_refused.one();
        // When there is no room for anybody it is nobody's own fault.
        if why != Refusal::Full {
            self.networks.note(self.clock.mono(), (Prefix::of(from), why), 1, from);
        }
    }

    /// Counts a connection that this side closed; who closes it for nothing pays for the work that it was.
    pub(super) fn closed(&mut self, code: CloseCode, from: IpAddr) {
        self.stats.closed(code);
        if is_blamed(code) || code == CloseCode::NotEnrolled {
            self.admission.failed(self.clock.mono(), Prefix::of(from));
        }
    }

    /// A node's connection was closed.
    pub(super) fn cut_off(&mut self, node: NodeId, code: CloseCode, from: IpAddr) {
        let now = self.clock.mono();
        if is_blamed(code) {
            self.cut_off.entry(code).or_insert_with(|| Offences::new(1)).note(now, node, 1, from);
        }
        if code == CloseCode::Flooding {
            self.resting.retain(|_, until| now < *until);
            self.resting.entry(node).or_insert(now.plus(REST_MS));
        }
    }

    /// Whether it flooded lately: a new connection would only bring it a new burst.
    pub(super) fn has_to_rest(&self, node: NodeId) -> bool {
        self.resting.get(&node).is_some_and(|until| self.clock.mono() < *until)
    }

    /// One that may be a node came from there.
    pub(super) fn note_entered(&mut self, from: IpAddr) {
        self.entered = Some(Prefix::of(from));
    }

    /// Where the node came from that has just entered, if one has.
    pub(super) const fn take_entered(&mut self) -> Option<Prefix> {
        self.entered.take()
    }

    fn tell_offenders(&mut self, now: MonoMs) {
        while let Some(Told { who: (network, why), times, last }) = self.networks.take_due(now) {
            warn!(%network, times, reason = why.as_str(), "a network is refused handshakes");
            let (network, address) = (network.to_string(), last.to_canonical().to_string());
            let body = json!({ "network": network, "address": address, "count": times, "reason": why.as_str() });
            self.tell("network.refused", None, body);
        }
        for (code, node, times, from) in self.take_cut_off(now) {
            let (reason, address) = (code.as_str(), from.to_canonical().to_string());
            self.tell("node.cut_off", Some(node), json!({ "reason": reason, "count": times, "address": address }));
        }
    }

    fn take_cut_off(&mut self, now: MonoMs) -> Vec<(CloseCode, NodeId, u64, IpAddr)> {
        let due = |(code, offences): (&CloseCode, &mut Offences<NodeId, IpAddr>)| {
            let (code, taken) = (*code, std::iter::from_fn(|| offences.take_due(now)));
            taken.map(move |Told { who, times, last }| (code, who, times, last)).collect::<Vec<_>>()
        };
        self.cut_off.iter_mut().flat_map(due).collect()
    }

    pub(super) fn begin_turn(&mut self) {
        self.crypto_left = CRYPTO_PER_TURN;
        let now = self.clock.mono();
        self.tell_offenders(now);
        while let Some((reason, times)) = self.guesses.take_due(now) {
            let (action, why) = (String::from("join.refused"), reason.as_str().to_owned());
            let target = self.refused_last.map(|from| from.to_string()).unwrap_or_default();
            self.desk.tell(self.refused_last, What::NoteRefused { action, target, why, times });
        }
    }

    /// Tells who watches, and says when it changes what agents may send.
    pub(super) fn look_at_strain(&mut self) {
        let Some(outcome) = self.strain.look(self.clock.now()) else { return };
        if let Some(permille) = outcome.busy_permille {
            self.stats.busy_permille.set(permille.into());
        }
        if let Some(is_behind) = outcome.turned {
            self.stats.backlog_held.set(is_behind.into());
            match is_behind {
                true => warn!(
                    "more comes than there is time for: agents keep what they have from before, and send what is new"
                ),
                false => info!("there is time again: agents send what they have kept"),
            }
        }
    }

    /// Whether this turn has time for one more signature.
    pub(super) const fn may_sign(&mut self) -> bool {
        let may = self.crypto_left > 0;
        self.crypto_left -= may as u32;
        may
    }

    /// Connections whose handshake is done and which have not ended.
    pub(super) fn open(&self) -> u64 {
        self.stats.connections_accepted.value().saturating_sub(self.stats.connections_ended.value())
    }

    /// How often such a failure happened in a row, when that is worth a line.
    pub(super) fn note_failure(&mut self, what: &'static str) -> Option<u64> {
        self.failures.entry(what).or_default().note(what)
    }

    fn entered(&self, node: NodeId, session: SessionId, entrance: Entrance) {
        let Entrance { superseded, challenge, alternates } = entrance;
        if let Some(superseded) = superseded {
            self.send_away(superseded, CloseCode::Superseded);
        }
        let Some(mailbox) = self.mailboxes.get(&session) else { return };
        if let Some(nonce) = challenge {
            mailbox.challenge(nonce);
        }
        if let Some(boot_id) = alternates {
            let name = mailbox.name().to_owned();
            warn!(%node, name, "two machines take turns at being this node; the later one is kept out");
            self.desk.tell(None, What::Quarantine { node, boot_id, name });
        }
    }

    fn send_away(&self, session: SessionId, code: CloseCode) {
        if let Some(mailbox) = self.mailboxes.get(&session) {
            mailbox.close(code);
        }
    }
}

/// Whether it is closed for what it sent or did not, and not for who it is or how the collector is.
const fn is_blamed(code: CloseCode) -> bool {
    matches!(
        code,
        CloseCode::Malformed
            | CloseCode::TooLarge
            | CloseCode::Flooding
            | CloseCode::TooSlow
            | CloseCode::Unexpected
            | CloseCode::WrongNode
    )
}
