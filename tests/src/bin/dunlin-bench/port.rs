//! What a tick costs for the ports of a host: with few listeners, with many, and beside many connections.
//!
//! The sampler runs in this program, in a network of its own; the cost is what a tick with ports takes beyond one without.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Child;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use dunlin_agent::clock::{Clock, process_cpu};
use dunlin_agent::config::Collect;
use dunlin_agent::sample::Sampler;
use dunlin_agent::stats::Stats;
use dunlin_shared::inventory::Item;
use dunlin_tests::netns::Namespace;
use dunlin_tests::tool;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, getsockname, listen, socket, socket_with};

use dunlin_tests::table::Table;

const PART: &str = "ports";
/// Enough for a mean that does not move.
const TICKS: u32 = 100;
/// Connections that one process holds, below what any host lets it; and below the ports that the kernel draws from.
const HELD: usize = 12_500;
/// The longest queue of a listener: its end of a connection stays there, connected.
const QUEUE: i32 = 65_535;

/// Processes that hold connections, and do nothing else.
#[derive(Debug, Default)]
struct Holders(Vec<Child>);

pub(crate) fn measure(table: &mut Table, short: bool) -> Result<()> {
    let namespace = Namespace::new("ports")?;
    namespace.sysctl("net/core/somaxconn", &QUEUE.to_string())?;
    for (listeners, connections) in [(60, 0), (2_000, 0), (60, if short { HELD } else { 4 * HELD })] {
        let each_us = namespace.enter(|| cost_us(listeners, connections))??;
        let what = format!("a tick's ports, {listeners} listeners, {} connected sockets", 2 * connections);
        table.note(PART, what, format!("{each_us} CPU-us, this build"));
    }
    Ok(())
}

fn cost_us(listeners: usize, connections: usize) -> Result<i128> {
    let long = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    bind(&long, &SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
    listen(&long, QUEUE)?;
    let to = SocketAddr::try_from(getsockname(&long)?)?;
    let short = |_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let _others: Vec<_> = (1..listeners).map(short).collect::<Result<_, _>>()?;
    let mut holders = Holders::default();
    for number in 0..connections / HELD {
        let from = Ipv4Addr::new(127, 0, 1, u8::try_from(number)?);
        holders.hold(from, to)?;
    }
    let with = tick_us(true, listeners)?;
    Ok(with - tick_us(false, 0)?)
}

impl Holders {
    /// What is open when a program starts, and is not closed on it, is the program's as well.
    fn hold(&mut self, from: Ipv4Addr, to: SocketAddr) -> Result<()> {
        let _connections: Vec<OwnedFd> = (0..HELD).map(|_| connected(from, to)).collect::<Result<_>>()?;
        self.0.push(tool::command("sleep")?.arg("infinity").spawn()?);
        Ok(())
    }
}

impl Drop for Holders {
    fn drop(&mut self) {
        for holder in &mut self.0 {
            if let Err(error) = holder.kill().and_then(|()| holder.wait()) {
                tracing::warn!(%error, "a process that holds connections stays behind");
            }
        }
    }
}

fn connected(from: Ipv4Addr, to: SocketAddr) -> Result<OwnedFd> {
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None)?;
    bind(&socket, &SocketAddr::from((from, 0)))?;
    connect(&socket, &to).context("a connection over loopback")?;
    Ok(socket)
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
