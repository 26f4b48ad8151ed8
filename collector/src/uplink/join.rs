//! One connection that enrols: a question, what the registry says to it, and the answer.
//!
//! It gets a few KiB, a few seconds and one stream. The key must be proved on this very connection before
//! anybody is asked; nobody learns from an answer more than whether its own token is good.

use std::net::IpAddr;
use std::sync::Arc;

use dunlin_shared::limits::{HANDSHAKE_MS, JOIN_BYTES_MAX};
use dunlin_shared::time::MonoMs;
use dunlin_shared::wire::join::{
    Join, JoinAnswer, JoinReason, JoinRefusal, JoinRequest, Joined, PROOF_LABEL, PROOF_SECRET_BYTES,
};
use dunlin_shared::wire::{CloseCode, Deframer, WIRE_VERSION_MAX, WIRE_VERSION_MIN, WireError};
use quinn_proto::{Connection, Dir, StreamId, WriteError};
use tracing::{error, info};

use super::mailbox::{Place, Slip};
use super::peer::{Chunk, Next, chunk};
use super::shared::Shared;
use super::talk::End;
use crate::access::hash_of;
use crate::authority::PublicKey;
use crate::registry::{Answer, JoinWish, KeyHash, Refused};

/// How long the registry may take. The disk may be slow, and hundreds may be before it.
const REGISTRY_MS: u64 = 10_000;
/// When an agent may come again that found no room.
const RETRY_MS: u32 = 2_000;
/// When an agent may come again that asked what cannot be done for now.
const LATER_MS: u32 = 60_000;

#[derive(Debug)]
pub(super) struct Joining {
    place: Place,
    from: IpAddr,
    stream: Option<StreamId>,
    deframer: Deframer,
    bytes_left: usize,
    stage: Stage,
    /// This stage is over by then.
    by: MonoMs,
}

#[derive(Debug)]
enum Stage {
    Listening,
    /// For its turn to have its key checked.
    Asked(Box<Join>),
    /// For the registry.
    Waiting {
        key: PublicKey,
        has_token: bool,
        slip: Arc<Slip>,
    },
    /// For its turn to be signed for.
    Granted {
        key: PublicKey,
        answer: Answer,
    },
    Speaking(Vec<u8>),
    /// For the agent to have it all.
    Flushing,
}

impl Joining {
    pub(super) fn new(place: Place, from: IpAddr, started_at: MonoMs) -> Self {
        Self {
            place,
            from,
            stream: None,
            deframer: Deframer::default(),
            bytes_left: JOIN_BYTES_MAX,
            stage: Stage::Listening,
            by: started_at.plus(HANDSHAKE_MS),
        }
    }

    pub(super) const fn deadline(&self) -> MonoMs {
        self.by
    }

    /// The stream on which everything was said, once the agent has it all.
    pub(super) fn is_done_with(&self, stream: StreamId) -> bool {
        matches!(self.stage, Stage::Flushing) && self.stream == Some(stream)
    }

    pub(super) fn attend(&mut self, quic: &mut Connection, shared: &mut Shared) -> Result<Next, End> {
        let now = shared.clock.mono();
        if self.by <= now {
            match self.stage {
                Stage::Waiting { .. } => self.refuse(now, JoinReason::NotNow, LATER_MS, shared),
                Stage::Flushing => return Err(End::Close(CloseCode::Done)),
                _ => return Err(End::Close(CloseCode::TooSlow)),
            }
        }
        if quic.streams().accept(Dir::Uni).is_some() {
            return Err(End::Close(CloseCode::Unexpected));
        }
        self.listen(quic)?;
        if let Stage::Asked(_) | Stage::Granted { .. } = self.stage
            && !shared.may_sign()
        {
            return Ok(Next::Again);
        }
        match std::mem::replace(&mut self.stage, Stage::Flushing) {
            Stage::Asked(join) => self.judge(now, *join, quic, shared),
            Stage::Waiting { key, has_token, slip } => self.hear(now, key, has_token, slip, shared),
            Stage::Granted { key, answer } => self.grant(now, &key, &answer, shared),
            stage => self.stage = stage,
        }
        let has_more = matches!(self.stage, Stage::Granted { .. });
        self.speak(now, quic)?;
        Ok(if has_more { Next::Again } else { Next::Idle })
    }

    /// Until the question is whole; what follows it is nothing that we know.
    fn listen(&mut self, quic: &mut Connection) -> Result<(), End> {
        while matches!(self.stage, Stage::Listening) {
            if self.stream.is_none() {
                self.stream = quic.streams().accept(Dir::Bi);
            }
            let Some(stream) = self.stream else { return Ok(()) };
            let bytes = match chunk(quic, stream) {
                Chunk::Bytes(bytes) => bytes,
                Chunk::None => return Ok(()),
                Chunk::End => return Err(End::Close(CloseCode::Unexpected)),
            };
            self.bytes_left = self.bytes_left.checked_sub(bytes.len()).ok_or(End::Close(CloseCode::TooLarge))?;
            self.deframer.push(&bytes);
            let broken = |error: WireError| End::Close(error.close_code());
            if let Some(body) = self.deframer.next_message().map_err(broken)? {
                let JoinRequest::Join(join) = JoinRequest::decode(body).map_err(broken)?;
                self.deframer = Deframer::default();
                self.stage = Stage::Asked(Box::new(join));
            }
        }
        Ok(())
    }

    fn judge(&mut self, now: MonoMs, join: Join, quic: &Connection, shared: &mut Shared) {
        if join.wire_max < WIRE_VERSION_MIN || join.wire_min > WIRE_VERSION_MAX {
            return self.refuse(now, JoinReason::Version, 0, shared);
        }
        let pause_ms = if join.token.is_some() { shared.join_pause_ms(self.from) } else { 0 };
        if pause_ms > 0 {
            let pause_ms = u32::try_from(pause_ms).unwrap_or(u32::MAX).max(LATER_MS);
            return self.refuse(now, JoinReason::TooMany, pause_ms, shared);
        }
        let mut secret = [0; PROOF_SECRET_BYTES];
        let has_secret = quic.crypto_session().export_keying_material(&mut secret, PROOF_LABEL, b"").is_ok();
        let key = PublicKey::parse(&join.public_key).filter(|key| has_secret && key.has_signed(&secret, &join.proof));
        let Some(key) = key else {
            shared.join_refused(self.from, JoinReason::BadProof, true);
            return self.answer(now, &refusal(JoinReason::BadProof, 0));
        };
        if shared.authority.pin().is_none() {
            return self.refuse(now, JoinReason::NotNow, LATER_MS, shared);
        }
        let token = join.token.map(|secret| hash_of(&secret));
        let has_token = token.is_some();
        let wish = JoinWish { key: KeyHash(key.hash()), token, name: join.name, version: join.agent_version };
        match shared.ask_join(self.place, self.from, wish) {
            Some(slip) => {
                self.by = now.plus(REGISTRY_MS);
                self.stage = Stage::Waiting { key, has_token, slip };
            }
            None => self.refuse(now, JoinReason::NotNow, RETRY_MS, shared),
        }
    }

    fn hear(&mut self, now: MonoMs, key: PublicKey, has_token: bool, slip: Arc<Slip>, shared: &mut Shared) {
        match slip.take() {
            None => self.stage = Stage::Waiting { key, has_token, slip },
            Some(Ok(answer)) => self.stage = Stage::Granted { key, answer },
            Some(Err(Refused::Join { reason, retry_after_ms })) => {
                shared.join_refused(self.from, reason, has_token && is_guess(reason));
                self.answer(now, &refusal(reason, retry_after_ms));
            }
            Some(Err(refused)) => {
                info!("a join is put off: {refused}");
                self.refuse(now, JoinReason::NotNow, RETRY_MS, shared);
            }
        }
    }

    fn grant(&mut self, now: MonoMs, key: &PublicKey, answer: &Answer, shared: &mut Shared) {
        let Answer::Joined { node, is_approved } = *answer else {
            return self.refuse(now, JoinReason::NotNow, LATER_MS, shared);
        };
        match shared.authority.sign(node, key, shared.clock.wall()) {
            Ok(chain) => {
                shared.stats.joins.one();
                let authorities = shared.authority.authorities();
                self.answer(now, &JoinAnswer::Joined(Joined { node, chain, authorities, is_approved }));
            }
            Err(failed) => {
                if let Some(times) = shared.note_failure("sign") {
                    error!(times, "a node's certificate could not be made: {failed}");
                }
                self.refuse(now, JoinReason::NotNow, LATER_MS, shared);
            }
        }
    }

    /// For a reason that is not held against anybody.
    fn refuse(&mut self, now: MonoMs, reason: JoinReason, retry_after_ms: u32, shared: &mut Shared) {
        shared.join_refused(self.from, reason, false);
        self.answer(now, &refusal(reason, retry_after_ms));
    }

    fn answer(&mut self, now: MonoMs, answer: &JoinAnswer) {
        self.by = now.plus(HANDSHAKE_MS);
        self.stage = Stage::Speaking(answer.encode());
    }

    fn speak(&mut self, now: MonoMs, quic: &mut Connection) -> Result<(), End> {
        let (Stage::Speaking(unsent), Some(stream)) = (&mut self.stage, self.stream) else { return Ok(()) };
        while !unsent.is_empty() {
            match quic.send_stream(stream).write(unsent) {
                Ok(written) => drop(unsent.drain(..written)),
                Err(WriteError::Blocked) => return Ok(()),
                Err(_) => return Err(End::Gone),
            }
        }
        quic.send_stream(stream).finish().map_err(|_| End::Gone)?;
        self.stage = Stage::Flushing;
        self.by = now.plus(HANDSHAKE_MS);
        Ok(())
    }
}

const fn refusal(reason: JoinReason, retry_after_ms: u32) -> JoinAnswer {
    JoinAnswer::Refused(JoinRefusal { reason, retry_after_ms })
}

/// What somebody hears who tries tokens. That a token is busy or the disk is full is nobody's fault.
const fn is_guess(reason: JoinReason) -> bool {
    !matches!(reason, JoinReason::TooMany | JoinReason::NotNow | JoinReason::Version)
}
