//! What an idle daemon costs beside many other nodes and VMs: is it more beside a hundred nodes than beside three?
//!
//! The others are one client that writes what their daemons write at each keepalive, spread evenly over the interval; one of them holds the
//! primary's key, so that the measured node has nothing to do for the cluster. Counts are of the daemon's own connection.

mod others;

use std::{fmt::Write as _, time::Duration};

use anyhow::{Context, Result};
use tokio::time::{MissedTickBehavior, interval, sleep};

use self::others::Others;
use crate::{
    Arguments,
    awake::Awake,
    daemon::{Daemon, KEEPALIVE_S, log_end},
    probe,
    report::median,
    services::Services,
    tree::{Tree, definition},
    wire,
};

/// Time for what follows a start to calm down.
const SETTLE: Duration = Duration::from_secs(12);

/// One daemon beside so many nodes and VMs; figures are of one keepalive interval.
struct Cell {
    nodes: usize,
    vms: usize,
    cpu_ms: f64,
    wakes: f64,
    /// What the daemon asked of ZooKeeper: writes, reads and pings.
    requests: f64,
    /// What ZooKeeper told it: answers and events.
    told: f64,
    /// On the wire, both directions.
    packets: f64,
    bytes: f64,
    resident_mib: f64,
    zookeeper_ms: f64,
    /// The same without the daemon.
    zookeeper_alone_ms: f64,
    zookeeper_requests: f64,
}

/// Measures every combination of nodes and VMs; answers with the table.
pub(crate) async fn run(arguments: &Arguments) -> Result<String> {
    let services = Services::start().await?;
    match measure(arguments, services.zookeeper_pid()).await {
        Ok(cells) => Ok(table(&cells)),
        Err(error) => Err(error).with_context(|| format!("the daemon's log ends:\n{}", log_end())),
    }
}

async fn measure(arguments: &Arguments, zookeeper: i32) -> Result<Vec<Cell>> {
    let _awake = Awake::keep()?;
    let tree = Tree::connect().await?;
    // The first start makes the root keys.
    Daemon::start(&arguments.binaries, &tree).await?.0.stop().await?;
    let (mut cells, mut defined) = (Vec::new(), 0);
    for &vms in arguments.vms.as_deref().unwrap_or(&[0, 1000, 10_000]) {
        let new: Vec<_> = (defined..vms).map(definition).collect();
        tree.define_on(&new, |n| others::name((defined + n) % 3)).await?;
        defined = vms;
        for &nodes in &arguments.nodes {
            cells.push(cell(arguments, &tree, zookeeper, (nodes, vms)).await?);
            eprintln!("{}", table(&cells).lines().last().unwrap_or_default());
        }
    }
    Ok(cells)
}

async fn cell(
    arguments: &Arguments,
    tree: &Tree,
    zookeeper: i32,
    (nodes, vms): (usize, usize),
) -> Result<Cell> {
    let intervals = arguments.keepalives;
    let every = Duration::from_secs(KEEPALIVE_S);
    let others = Others::start(nodes, every).await?;
    sleep(every).await;
    let alone = probe::cpu(zookeeper)?;
    sleep(every * intervals).await;
    let alone = probe::cpu(zookeeper)?.saturating_sub(alone);

    let (daemon, _) = Daemon::start(&arguments.binaries, tree).await?;
    sleep(SETTLE).await;
    let before = (wire::of(daemon.pid())?, probe::cpu(zookeeper)?, probe::zookeeper()?.packets);
    let mut woken = probe::wakes(daemon.pid())?;
    let mut used = probe::cpu(daemon.pid())?;
    let (mut cpu_ms, mut wakes) = (Vec::new(), Vec::new());
    let mut tick = interval(every);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tick.tick().await;
    for _ in 0..intervals {
        tick.tick().await;
        let (now, woken_now) = (probe::cpu(daemon.pid())?, probe::wakes(daemon.pid())?);
        cpu_ms.push(now.saturating_sub(used).as_secs_f64() * 1e3);
        wakes.push(woken_now - woken);
        (used, woken) = (now, woken_now);
    }
    let after = (wire::of(daemon.pid())?, probe::cpu(zookeeper)?, probe::zookeeper()?.packets);
    let resident_mib = probe::size(daemon.pid())?.resident_mib;
    daemon.stop().await?;
    others.stop().await?;

    let each = |total: f64| total / f64::from(intervals);
    let wire = after.0 - before.0;
    Ok(Cell {
        nodes,
        vms,
        cpu_ms: median(&cpu_ms).unwrap_or_default(),
        wakes: median(&wakes).unwrap_or_default(),
        requests: each(wire.requests),
        told: each(wire.told),
        packets: each(wire.packets),
        bytes: each(wire.bytes),
        resident_mib,
        zookeeper_ms: each((after.1.saturating_sub(before.1)).as_secs_f64() * 1e3),
        zookeeper_alone_ms: each(alone.as_secs_f64() * 1e3),
        zookeeper_requests: each(after.2 - before.2),
    })
}

fn table(cells: &[Cell]) -> String {
    let mut text = String::from(
        "| other nodes | VMs | CPU, ms | wakes | requests | answers and events | packets | bytes | resident, MiB | \
         ZooKeeper's CPU, ms (without the daemon) | ZooKeeper's requests |\n|---|---|---|---|---|---|---|---|---|---|---|\n",
    );
    for c in cells {
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "| {} | {} | {:.2} | {:.0} | {:.1} | {:.1} | {:.1} | {:.0} | {:.1} | {:.1} ({:.1}) | {:.0} |",
            c.nodes,
            c.vms,
            c.cpu_ms,
            c.wakes,
            c.requests,
            c.told,
            c.packets,
            c.bytes,
            c.resident_mib,
            c.zookeeper_ms,
            c.zookeeper_alone_ms,
            c.zookeeper_requests
        );
    }
    text
}
