//! What a tick costs for the ports of a host: with few listeners, with many, and beside many connections.
//!
//! The sampler runs in this program, in a network of its own; the cost is what a tick with ports takes beyond one without.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use dunlin_agent::clock::{Clock, process_cpu};
use dunlin_agent::config::Collect;
use dunlin_agent::sample::Sampler;
use dunlin_agent::stats::Stats;
use dunlin_shared::inventory::Item;
use dunlin_tests::netns::Namespace;
use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::table::Table;

const PART: &str = "ports";
/// Enough for a mean that does not move.
const TICKS: u32 = 100;
/// Both ends of each connection, and some.
const DESCRIPTORS: u64 = 110_000;
/// Connections from one address to one port: below the number of ports that the kernel draws from.
const FROM_ONE: usize = 20_000;

pub(crate) fn measure(table: &mut Table, short: bool) -> Result<()> {
    let hard = getrlimit(Resource::Nofile).maximum;
    let limit = Rlimit { current: Some(DESCRIPTORS), maximum: hard.map(|hard| hard.max(DESCRIPTORS)) };
    setrlimit(Resource::Nofile, limit).context("more descriptors for this program; run as root")?;
    let namespace = Namespace::new("ports")?;
    for (listeners, connections) in [(60, 0), (2_000, 0), (60, if short { 5_000 } else { 50_000 })] {
        let each_us = namespace.enter(|| cost_us(listeners, connections))??;
        let what = format!("a tick's ports, {listeners} listeners, {connections} connections");
        table.note(PART, what, format!("{each_us} CPU-us, this build"));
    }
    Ok(())
}

fn cost_us(listeners: usize, connections: usize) -> Result<i128> {
    let listen = |_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let listening: Vec<_> = (0..listeners).map(listen).collect::<Result<_, _>>()?;
    let mut streams = Vec::with_capacity(2 * connections);
    for number in 0..connections {
        let from = Ipv4Addr::new(127, 0, 1, u8::try_from(number / FROM_ONE)?);
        let to = &listening[0];
        streams.push(connected(from, to.local_addr()?)?);
        streams.push(to.accept()?.0);
    }
    let with = tick_us(true, listeners)?;
    Ok(with - tick_us(false, 0)?)
}

fn connected(from: Ipv4Addr, to: SocketAddr) -> Result<TcpStream> {
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None)?;
    bind(&socket, &SocketAddr::from((from, 0)))?;
    connect(&socket, &to)?;
    Ok(TcpStream::from(socket))
}

/// Once everything is known: holders are looked for only when something new listens.
fn tick_us(ports: bool, expected: usize) -> Result<i128> {
    let clock = Clock::start();
    let collect = Collect { ports, containers: false, processes: false, units: false, ..Collect::default() };
    let mut sampler = Sampler::new(Path::new("/"), clock, Arc::new(Stats::default())).collecting(collect);
    let mut told = 0;
    for _ in 0..TICKS / 10 {
        let stock = sampler.sample(clock.mono(), clock.wall()).stock;
        told = stock.items().filter(|item| matches!(item, Item::Port(_))).count();
    }
    ensure!(told == expected, "{told} of {expected} ports are told");
    let before = process_cpu();
    for _ in 0..TICKS {
        sampler.sample(clock.mono(), clock.wall());
    }
    let each = (process_cpu() - before) / TICKS;
    Ok(i128::try_from(each.as_micros())?)
}
