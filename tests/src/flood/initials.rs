//! First packets from addresses that are not the sender's own: three of five as an agent sends them, one with a token
//! that nobody gave out, one of noise behind the right head.
//!
//! Nobody waits for the answers; the wire takes them and they are gone.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use dunlin_collector::shape::Event;
use rustix::io::IoSlice;
use rustix::net::addr::SocketAddrArg as _;
use rustix::net::{AddressFamily, MMsgHdr, SendAncillaryBuffer, SendFlags, SocketType, ipproto, sendmmsg, socket};

use super::ground::Ground;
use super::initial::{self, DATAGRAM_BYTES, Forge};
use super::worker::{End, Worker};
use crate::random::Random;

const SEED: u64 = 50_000;
/// Of each kind; a packet is sent again and again, always from another address.
const VARIETY: usize = 512;
const TOKEN_BYTES: usize = 64;
const IP_BYTES: usize = 20;
const UDP_BYTES: usize = 8;
const HEAD_BYTES: usize = IP_BYTES + UDP_BYTES;
/// Sent by one system call.
const BATCH: usize = 32;
/// Carrier-grade NAT's addresses: four million that nobody has here.
const FIRST_SOURCE: u32 = u32::from_be_bytes([100, 64, 0, 0]);
const SOURCES: u64 = 1 << 22;
/// Sequences of one of each.
const SHARES: [Kind; 5] = [Kind::Plain, Kind::Plain, Kind::Token, Kind::Plain, Kind::Noise];

#[derive(Clone, Copy, Debug)]
enum Kind {
    Plain,
    Token,
    Noise,
}

pub(super) fn start(ground: &Ground<'_>) -> Result<Worker> {
    let mut random = Random::new(SEED);
    let packets = packets(ground.target, &mut random)?;
    let open = || socket(AddressFamily::INET, SocketType::RAW, Some(ipproto::RAW));
    let out = ground.attacker.enter(open)?.context("a raw socket in the namespace")?;
    let (target, per_second) = (ground.target, ground.plan.initials_per_second);
    Worker::start("initials", move |end| flood(&out, target, packets, per_second, random, end))
}

/// The flood itself, with its rate: those who send it cannot be named.
pub(super) fn names(event: &Event, _: &Ground<'_>) -> bool {
    event.kind == "uplink.flooded" && event.more.get("per_second").is_some_and(|rate| rate.as_u64() > Some(0))
}

fn packets(target: SocketAddrV4, random: &mut Random) -> Result<Vec<Vec<u8>>> {
    let forge = Forge::new()?;
    let mut packets = Vec::with_capacity(SHARES.len() * VARIETY);
    for _ in 0..VARIETY {
        for kind in SHARES {
            let (to, own) = (initial::id(random), initial::id(random));
            let mut noise = |bytes: usize| {
                let words = (0..bytes.div_ceil(8)).map(|_| random.next_u64().to_be_bytes());
                words.collect::<Vec<_>>().concat()
            };
            let datagram = match kind {
                Kind::Plain => forge.initial(to, own, &[])?,
                Kind::Token => forge.initial(to, own, &noise(TOKEN_BYTES))?,
                Kind::Noise => {
                    let whole = forge.initial(to, own, &[])?;
                    [&whole[..32], &noise(DATAGRAM_BYTES - 32)].concat()
                }
            };
            packets.push([head(target).to_vec(), datagram].concat());
        }
    }
    Ok(packets)
}

fn flood(
    out: &OwnedFd,
    target: SocketAddrV4,
    mut packets: Vec<Vec<u8>>,
    per_second: u64,
    mut random: Random,
    end: &End,
) -> Result<String> {
    let (began, mut sent, mut next) = (Instant::now(), 0_u64, 0);
    let address = target.as_any();
    while !end.has_come() {
        let due = due(began.elapsed(), per_second).saturating_sub(sent);
        if due == 0 {
            std::thread::sleep(Duration::from_micros(300));
            continue;
        }
        let first = next;
        next = if first + BATCH >= packets.len() { 0 } else { first + BATCH };
        let batch = &mut packets[first..][..usize::try_from(due)?.min(BATCH)];
        batch.iter_mut().for_each(|packet| readdress(packet, &mut random));
        let slices: Vec<_> = batch.iter().map(|packet| [IoSlice::new(packet)]).collect();
        let mut controls: Vec<_> = slices.iter().map(|_| SendAncillaryBuffer::default()).collect();
        let mut messages: Vec<_> = slices
            .iter()
            .zip(&mut controls)
            .map(|(slice, control)| MMsgHdr::new_with_addr(&address, slice, control))
            .collect();
        sent += sendmmsg(out, &mut messages, SendFlags::empty())? as u64;
    }
    let rate = sent * 1_000 / u64::try_from(began.elapsed().as_millis())?.max(1);
    Ok(format!("{rate} a second from as many addresses, {sent} in all"))
}

fn due(passed: Duration, per_second: u64) -> u64 {
    u64::try_from(passed.as_micros()).unwrap_or(u64::MAX).saturating_mul(per_second) / 1_000_000
}

/// Of IPv4 and UDP. The kernel fills in the sum of the one; of the other there need be none.
fn head(target: SocketAddrV4) -> [u8; HEAD_BYTES] {
    let mut head = [0; HEAD_BYTES];
    let len = |bytes: usize| u16::try_from(bytes).unwrap_or(u16::MAX).to_be_bytes();
    head[0] = 0x45;
    head[2..4].copy_from_slice(&len(HEAD_BYTES + DATAGRAM_BYTES));
    head[8] = 64;
    head[9] = 17;
    head[16..20].copy_from_slice(&target.ip().octets());
    head[22..24].copy_from_slice(&target.port().to_be_bytes());
    head[24..26].copy_from_slice(&len(UDP_BYTES + DATAGRAM_BYTES));
    head
}

fn readdress(packet: &mut [u8], random: &mut Random) {
    let drawn = random.next_u64();
    let source = FIRST_SOURCE + u32::try_from(drawn % SOURCES).unwrap_or(0);
    let [.., high, low] = (drawn >> 40).to_be_bytes();
    packet[12..16].copy_from_slice(&Ipv4Addr::from(source).octets());
    packet[20..22].copy_from_slice(&[high | 0x80, low]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_names_its_target_and_each_time_another_sender() {
        let target = SocketAddrV4::new(Ipv4Addr::new(10, 97, 1, 1), 9_737);
        let mut packet = head(target).to_vec();
        let mut random = Random::new(1);
        readdress(&mut packet, &mut random);
        let first = packet.clone();
        readdress(&mut packet, &mut random);
        assert_ne!(first[12..16], packet[12..16]);
        for packet in [&first, &packet] {
            assert_eq!((packet[12], packet[13] & 0xc0), (100, 64));
            assert_eq!(packet[16..20], [10, 97, 1, 1]);
            assert_eq!(u16::from_be_bytes([packet[2], packet[3]]), 1_228);
        }
    }

    #[test]
    fn what_is_due_follows_the_rate() {
        assert_eq!(due(Duration::from_millis(250), 50_000), 12_500);
        assert_eq!(due(Duration::ZERO, 50_000), 0);
    }
}
