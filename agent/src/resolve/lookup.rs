//! One name asked of the nameservers: search domains, both families, aliases, attempts, servers in turn.
//! It decides what a failed answer means; the sockets are in `exchange`.
//! Invariant: no wait goes beyond the deadline, and every failed server is named in the error.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::time::{Instant, timeout, timeout_at};

use super::exchange::{Failure, exchange};
use super::message::{Answer, Family, MessageError, Question};
use super::name::Name;
use super::{Entropy, NameList, ResolveError, Tried, TriedList};
use crate::clock::deadline_in;

/// New questions for one name because an answer ended in an alias; chains within an answer count apart.
const ALIAS_QUESTIONS_MAX: usize = 8;
/// Some networks drop questions for one family. Once the other has answered, this is the wait for it:
/// more than a slow server needs, and less than a person notices.
const OTHER_FAMILY_WAIT: Duration = Duration::from_secs(1);

pub(super) struct Lookup {
    pub(super) servers: Vec<SocketAddr>,
    pub(super) attempts: usize,
    pub(super) timeout: Duration,
    pub(super) deadline: Instant,
    pub(super) entropy: Entropy,
}

/// Why a name has no address of a family. In order: a later one says more about what went wrong.
enum Miss {
    NoSuchName,
    NoData,
    AliasChain,
    Unanswered(Vec<Tried>),
    Entropy,
}

type Found = Result<Vec<IpAddr>, Miss>;

impl Lookup {
    /// The first of `names` that has addresses gives them: those of IPv6 first, then those of IPv4.
    pub(super) async fn run(&self, names: Vec<Name>) -> Result<Vec<IpAddr>, ResolveError> {
        let mut worst = Miss::NoSuchName;
        let mut asked = Vec::new();
        for name in names {
            let found = self.both_families(&name).await;
            asked.push(name);
            match found {
                Ok(ips) => return Ok(ips),
                Err(miss) => worst = worse(worst, miss),
            }
            // A server that says nothing will not say more about the next name.
            if !worst.lets_search_go_on() {
                break;
            }
        }
        Err(self.error(NameList(asked), worst))
    }

    async fn both_families(&self, name: &Name) -> Found {
        let v6 = self.family(name, Family::V6);
        let v4 = self.family(name, Family::V4);
        tokio::pin!(v6, v4);
        let (v6, v4) = tokio::select! {
            v6 = &mut v6 => { let v4 = other(&v6, v4).await; (v6, v4) }
            v4 = &mut v4 => { let v6 = other(&v4, v6).await; (v6, v4) }
        };
        match (v6, v4) {
            (Ok(mut ips), Ok(more)) => {
                ips.extend(more);
                Ok(ips)
            }
            (Ok(ips), Err(_)) | (Err(_), Ok(ips)) => Ok(ips),
            (Err(one), Err(two)) => Err(worse(one, two)),
        }
    }

    async fn family(&self, name: &Name, family: Family) -> Found {
        let mut name = name.clone();
        for _ in 0..ALIAS_QUESTIONS_MAX {
            match self.ask(&name, family).await? {
                Answer::Addresses(ips) => return Ok(ips),
                Answer::Alias(target) => name = target,
                Answer::NoSuchName => return Err(Miss::NoSuchName),
                _ => return Err(Miss::NoData),
            }
        }
        Err(Miss::AliasChain)
    }

    /// Asks the servers in turn until one of them gives an answer that settles the question.
    async fn ask(&self, name: &Name, family: Family) -> Result<Answer, Miss> {
        let mut tried: Vec<Tried> = Vec::new();
        for attempt in 0..self.attempts {
            for server in &self.servers {
                if attempt + tried.len() > 0 && deadline_in(Duration::ZERO) >= self.deadline {
                    return Err(Miss::Unanswered(tried));
                }
                // Rare servers drop what has mixed case, so later attempts go without.
                let failure = match self.ask_server(*server, name, family, attempt == 0).await? {
                    Ok(Answer::Failed(code)) => Failure::Code(code),
                    Ok(answer) => return Ok(answer),
                    Err(failure) => failure,
                };
                tried.retain(|earlier| earlier.server != *server);
                tried.push(Tried { server: *server, failure });
            }
        }
        Err(Miss::Unanswered(tried))
    }

    async fn ask_server(
        &self,
        server: SocketAddr,
        name: &Name,
        family: Family,
        mut mixed_case: bool,
    ) -> Result<Result<Answer, Failure>, Miss> {
        let limit = self.deadline.min(deadline_in(self.timeout));
        loop {
            let bits = (self.entropy)().ok_or(Miss::Entropy)?;
            let [high, low, ..] = bits.to_be_bytes();
            let question = Question {
                id: u16::from_be_bytes([high, low]),
                // The case takes the 48 bits that the id has left.
                name: name.with_mixed_case(if mixed_case { bits << 16 >> 16 } else { 0 }),
                family,
                exact_case: mixed_case,
            };
            match timeout_at(limit, exchange(server, &question)).await {
                Err(_) => return Ok(Err(Failure::Timeout)),
                Ok(Err(Failure::Malformed(MessageError::CaseChanged))) if mixed_case => {
                    mixed_case = false;
                }
                Ok(result) => return Ok(result),
            }
        }
    }

    fn error(&self, names: NameList, miss: Miss) -> ResolveError {
        let servers = self.servers.clone();
        match miss {
            Miss::NoSuchName => ResolveError::NoSuchName { names, servers },
            Miss::NoData => ResolveError::NoAddress { names, servers },
            Miss::AliasChain => ResolveError::AliasChain { names, servers },
            Miss::Unanswered(tried) => ResolveError::Unanswered { names, tried: TriedList(tried) },
            Miss::Entropy => ResolveError::Entropy,
        }
    }
}

impl Miss {
    fn rank(&self) -> u8 {
        match self {
            Self::NoSuchName => 0,
            Self::NoData => 1,
            Self::AliasChain => 2,
            Self::Unanswered(_) => 3,
            Self::Entropy => 4,
        }
    }

    fn lets_search_go_on(&self) -> bool {
        match self {
            Self::NoSuchName | Self::NoData | Self::AliasChain => true,
            // A server may well fail for one domain and know the next.
            Self::Unanswered(tried) => tried.iter().any(|tried| matches!(tried.failure, Failure::Code(_))),
            Self::Entropy => false,
        }
    }
}

fn worse(one: Miss, two: Miss) -> Miss {
    if two.rank() > one.rank() { two } else { one }
}

/// The slower family: in full if the faster one found nothing, else for a short while.
async fn other(first: &Found, slower: impl Future<Output = Found>) -> Found {
    if first.is_err() {
        return slower.await;
    }
    timeout(OTHER_FAMILY_WAIT, slower).await.unwrap_or_else(|_| Err(Miss::Unanswered(Vec::new())))
}
