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

/// What the 0.5 daemon needed with so many VMs, where it was measured: side by side with ours, taking turns, with one ZooKeeper, one libvirtd
/// and one configuration, on cores that were kept awake.
fn old(table: &[(usize, f64)], vms: usize) -> Option<f64> {
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
    let seconds = old(&[(0, 5.25), (1000, 8.12)], vms);
    let requests = old(&[(0, 48.0), (1000, 6050.0)], vms);
    let target = (vms == 1000).then_some(Target::AtMost(0.5));
    let few = (vms == 0).then_some(Target::AtMost(30.0));
    Ok(vec![
        Row::new(format!("start → `run`, {vms} VMs"), "s", seen.seconds).old(seconds).target(target),
        Row::new(format!("… ZooKeeper requests, {vms} VMs"), "", seen.requests).old(requests).target(few),
        Row::new(format!("SIGTERM → ended, {vms} VMs"), "s", seen.stop_seconds),
    ])
}

async fn idle_rows(arguments: &Arguments, vms: usize) -> Result<Vec<Row>> {
    let seen = idle::measure(&arguments.binaries, arguments.keepalives).await?;
    let cpu = old(&[(0, 10.9), (100, 7.3), (1000, 6.8)], vms);
    let memory = old(&[(0, 53.5), (1000, 57.6)], vms);
    Ok(vec![
        Row::new(format!("CPU a keepalive, {vms} VMs"), "ms", seen.cpu_ms)
            .old(cpu)
            .target((vms == 100).then_some(Target::AtMost(0.4))),
        Row::new(format!("times woken a keepalive, {vms} VMs"), "", seen.wakes).old(Some(124.0)),
        Row::new(
            format!("ZooKeeper requests a keepalive, pings included, {vms} VMs"),
            "",
            vec![seen.requests],
        )
        .old(Some(31.0))
        .target(Some(Target::AtMost(4.0))),
        Row::new(format!("bytes over its connection a keepalive, {vms} VMs"), "", vec![seen.bytes]),
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
            .old(old(&[(100, 0.33), (1000, 2.48)], vms))
            .target(target),
        Row::new(format!("… ZooKeeper packets, {vms} VMs"), "", list.packets)
            .old(old(&[(100, 804.0), (1000, 8035.0)], vms)),
        Row::new(format!("`pvc vm info`, {vms} VMs"), "s", info.seconds).old(old(&[(1000, 0.65)], vms)),
        Row::new(format!("… ZooKeeper packets, {vms} VMs"), "", info.packets)
            .old(old(&[(1000, 2010.0)], vms)),
    ])
}

async fn desired_rows(arguments: &Arguments, tree: &Tree, defined: usize) -> Result<Vec<Row>> {
    let vm = definition(defined);
    tree.define(std::slice::from_ref(&vm)).await?;
    let seen = running::measure(&arguments.binaries, tree, &vm, arguments.repeat).await?;
    let overhead: Vec<f64> = seen.running.iter().zip(&seen.virsh).map(|(ours, plain)| ours - plain).collect();
    let strict = overhead.iter().map(|overhead| overhead + seen.virsh_itself).collect();
    Ok(vec![
        Row::new("`start` written → guest runs", "ms", seen.running).old(Some(213.0)),
        Row::new("… `virsh create` → guest runs, same XML", "ms", seen.virsh).old(Some(221.0)),
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
        Row::new("guest prints a line → line in ZooKeeper", "ms", seen.line_ms).old(Some(195.0)),
        Row::new("CPU a keepalive at 20 lines a second", "ms", vec![seen.busy_cpu_ms])
            .old(Some(25.6))
            .target(Some(Target::AtMost(3.0))),
    ])
}
