//! The order of the measurements, and what each is held against.

use anyhow::{Context, Result};

use crate::{
    Arguments,
    daemon::{Daemon, log_end},
    measure::{console, idle, list, running, start},
    report::{Row, Target},
    services::Services,
    tree::{Tree, definition},
};

/// What the 0.5 daemon needed with so many VMs, measured on a machine of the same kind; where it was measured.
fn attempts(table: &[(usize, f64)], vms: usize) -> Option<f64> {
    table.iter().find(|(n, _)| *n == vms).map(|(_, figure)| *figure)
}

/// Runs what was asked for and returns the figures.
pub(crate) async fn run(arguments: &Arguments) -> Result<Vec<Row>> {
    let _services = Services::start().await?;
    match measure(arguments).await {
        Ok(rows) => Ok(rows),
        Err(error) => Err(error).with_context(|| format!("the daemon's log ends:\n{}", log_end())),
    }
}

async fn measure(arguments: &Arguments) -> Result<Vec<Row>> {
    let wanted = |what: &str| arguments.only.is_empty() || arguments.only.iter().any(|only| only == what);
    let mut rows = Vec::new();
    let mut defined = 0;

    // The first start makes the root keys and is nobody's figure.
    let tree = Tree::connect().await?;
    Daemon::start(&arguments.binaries, &tree).await?.0.stop().await?;

    for &vms in arguments.vms.as_deref().unwrap_or(&[0, 100, 1000]) {
        eprintln!("with {vms} defined VMs");
        tree.define(&(defined..vms).map(definition).collect::<Vec<_>>()).await?;
        defined = vms;
        if wanted("start") {
            rows.extend(start_rows(arguments, &tree, vms).await?);
        }
        if wanted("idle") {
            rows.extend(idle_rows(arguments, vms).await?);
        }
        if wanted("list") && vms > 0 {
            rows.extend(list_rows(arguments, vms)?);
        }
    }
    if wanted("running") {
        rows.extend(desired_rows(arguments, &tree, defined).await?);
    }
    if wanted("console") {
        rows.extend(console_rows(arguments, &tree, defined).await?);
    }
    Ok(rows)
}

async fn start_rows(arguments: &Arguments, tree: &Tree, vms: usize) -> Result<Vec<Row>> {
    let seen = start::measure(&arguments.binaries, tree, arguments.repeat).await?;
    let seconds = attempts(&[(0, 5.3), (100, 5.9), (1000, 10.6)], vms);
    let requests = attempts(&[(0, 45.0), (100, 649.0), (1000, 6059.0)], vms);
    let target = (vms == 1000).then_some(Target::AtMost(0.5));
    Ok(vec![
        Row::new(format!("start → `run`, {vms} VMs"), "s", seen.seconds).old(seconds).target(target),
        Row::new(format!("… ZooKeeper requests, {vms} VMs"), "", seen.requests).old(requests),
        Row::new(format!("SIGTERM → ended, {vms} VMs"), "s", seen.stop_seconds),
    ])
}

async fn idle_rows(arguments: &Arguments, vms: usize) -> Result<Vec<Row>> {
    let seen = idle::measure(&arguments.binaries, arguments.keepalives).await?;
    let cpu = attempts(&[(0, 15.4), (100, 15.4), (1000, 15.4)], vms);
    let memory = attempts(&[(0, 48.6), (1000, 52.9)], vms);
    Ok(vec![
        Row::new(format!("CPU a keepalive, {vms} VMs"), "ms", seen.cpu_ms)
            .old(cpu)
            .target((vms == 100).then_some(Target::TimesBelow(20.0))),
        Row::new(format!("times woken a keepalive, {vms} VMs"), "", seen.wakes),
        Row::new(format!("ZooKeeper packets a keepalive, pings included, {vms} VMs"), "", vec![seen.packets])
            .old(Some(31.0))
            .target(Some(Target::AtMost(4.0))),
        Row::new(format!("bytes on the wire a keepalive, {vms} VMs"), "", vec![seen.bytes]),
        Row::new(format!("resident memory, {vms} VMs"), "MiB", vec![seen.size.resident_mib])
            .old(memory)
            .target((vms == 1000).then_some(Target::AtMost(20.0))),
        Row::new(format!("… its proportional share, {vms} VMs"), "MiB", vec![seen.size.proportional_mib]),
        Row::new(format!("threads, {vms} VMs"), "", vec![seen.size.threads]),
    ])
}

fn list_rows(arguments: &Arguments, vms: usize) -> Result<Vec<Row>> {
    let list = list::measure(&arguments.binaries, &["vm", "list"], arguments.repeat)?;
    let info =
        list::measure(&arguments.binaries, &["vm", "info", &definition(vms / 2).name], arguments.repeat)?;
    let target = (vms == 1000).then_some(Target::TimesBelow(50.0));
    Ok(vec![
        Row::new(format!("`pvc vm list`, {vms} VMs"), "s", list.seconds)
            .old(attempts(&[(100, 0.74), (1000, 4.41)], vms))
            .target(target),
        Row::new(format!("… ZooKeeper packets, {vms} VMs"), "", list.packets)
            .old(attempts(&[(100, 804.0), (1000, 8035.0)], vms)),
        Row::new(format!("`pvc vm info`, {vms} VMs"), "s", info.seconds).old(attempts(&[(1000, 1.04)], vms)),
        Row::new(format!("… ZooKeeper packets, {vms} VMs"), "", info.packets)
            .old(attempts(&[(1000, 2010.0)], vms)),
    ])
}

async fn desired_rows(arguments: &Arguments, tree: &Tree, defined: usize) -> Result<Vec<Row>> {
    let vm = definition(defined);
    tree.define(std::slice::from_ref(&vm)).await?;
    let seen = running::measure(&arguments.binaries, tree, &vm, arguments.repeat).await?;
    let overhead: Vec<f64> = seen.running.iter().zip(&seen.virsh).map(|(ours, plain)| ours - plain).collect();
    let strict = overhead.iter().map(|overhead| overhead + seen.virsh_itself).collect();
    Ok(vec![
        Row::new("`start` written → guest runs", "ms", seen.running).old(Some(440.0)),
        Row::new("… `virsh create` → guest runs, same XML", "ms", seen.virsh).old(Some(455.0)),
        Row::new("… difference, pair by pair", "ms", overhead).target(Some(Target::AtMost(30.0))),
        Row::new("… with virsh's own start-up given back", "ms", strict),
        Row::new("`stop` written → guest gone", "ms", seen.stop).old(Some(214.0)),
        Row::new("… `virsh destroy` → guest gone", "ms", seen.destroy).old(Some(232.0)),
    ])
}

async fn console_rows(arguments: &Arguments, tree: &Tree, defined: usize) -> Result<Vec<Row>> {
    let vm = definition(defined + 1);
    tree.define(std::slice::from_ref(&vm)).await?;
    let seen = console::measure(&arguments.binaries, tree, &vm, arguments.repeat).await?;
    Ok(vec![
        Row::new("guest prints a line → line in ZooKeeper", "ms", seen.line_ms).old(Some(269.0)),
        Row::new("CPU a keepalive at 20 lines a second", "ms", vec![seen.busy_cpu_ms]).old(Some(38.0)),
    ])
}
