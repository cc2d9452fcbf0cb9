//! From the death of a node to its VMs running elsewhere, and where the time goes.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use pvc_lab::{Cluster, Node, PATIENCE, Timings, Vm, wait_until};

use super::{in_lab, seconds};
use crate::{
    Arguments,
    report::{Row, Target},
};

/// What dies each time.
const VICTIM: &str = "node2";
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Since the death.
#[derive(Default)]
struct Steps {
    switched_on: Vec<Duration>,
    recovered: Vec<Duration>,
    counting: Vec<Duration>,
}

pub(super) fn measure(arguments: &Arguments, timings: &Timings) -> Result<Vec<Row>> {
    in_lab(arguments, "bench-failover", 3, timings.clone(), |cluster| lose(arguments, timings, cluster))
}

fn lose(arguments: &Arguments, timings: &Timings, cluster: &Cluster) -> Result<Vec<Row>> {
    let vms = [1, 2].map(Vm::number);
    cluster.start_vms(&vms, VICTIM)?;
    let mut steps = Steps::default();
    for round in 1..=arguments.repeat {
        one(cluster, &vms, &mut steps).with_context(|| format!("round {round}"))?;
        eprintln!("  {:.2} s", steps.recovered.last().map_or(0.0, Duration::as_secs_f64));
        bring_back(cluster, VICTIM, &vms)?;
    }
    let after = timings.keepalive_interval_s * timings.fence_intervals;
    let default = after == 30;
    let name = |what: &str| format!("{what}, {after} s of silence are death");
    let limit = Target::AtMost(if default { 40.0 } else { 8.0 });
    Ok(vec![
        Row::new(name("node dead → its VMs run elsewhere"), "s", seconds(&steps.recovered))
            .old(default.then_some(53.5))
            .target(Some(limit)),
        Row::new(name("… → proven dead and switched on again"), "s", seconds(&steps.switched_on)),
        Row::new(name("… → the guests' systems run"), "s", seconds(&steps.counting)),
    ])
}

/// Until all is as it was: the node is back, with its VMs on it.
pub(super) fn bring_back(cluster: &Cluster, node: &str, vms: &[Vm]) -> Result<()> {
    cluster.wait_node(node, "daemon_state", "run")?;
    cluster.wait_node(node, "domain_state", "flushed")?;
    cluster.pvc(&["node", "ready", "--wait", node])?;
    vms.iter().try_for_each(|vm| cluster.wait_settled(vm, node).map(drop))
}

fn one(cluster: &Cluster, vms: &[Vm], steps: &mut Steps) -> Result<()> {
    let node = cluster.node(VICTIM);
    let known: Vec<_> = vms.iter().map(|vm| newest_beats(cluster, vm)).collect();
    let over = AtomicBool::new(false);
    let died = Instant::now();
    node.kill()?;
    thread::scope(|scope| {
        // Watched beside each other: neither waits for the other.
        let switched_on = scope.spawn(|| first(&over, || node.machine().is_ok_and(|seen| seen.on)));
        let recovered = cluster.wait_elsewhere(vms, VICTIM).map(|at| at - died);
        let counting = wait_until("the guests' systems", PATIENCE, || {
            vms.iter().zip(&known).all(|(vm, known)| newest_beats(cluster, vm) != *known)
        })
        .map(|()| died.elapsed());
        over.store(true, Ordering::Relaxed);
        let switched_on = switched_on.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        steps.recovered.push(recovered?);
        steps.counting.push(counting?);
        let switched_on = switched_on.context("it was never switched on again")?;
        steps.switched_on.push(switched_on - died);
        cluster.check_never_twice_since(vms, Some(died))
    })
}

/// When `happened` first held.
fn first(over: &AtomicBool, happened: impl Fn() -> bool) -> Option<Instant> {
    while !over.load(Ordering::Relaxed) {
        if happened() {
            return Some(Instant::now());
        }
        thread::sleep(LOOK_EVERY);
    }
    None
}

/// The guest's lives on the nodes that survive.
fn newest_beats(cluster: &Cluster, vm: &Vm) -> Vec<Option<String>> {
    let survivors = cluster.lab.nodes().into_iter().filter(|node: &Node| node.name() != VICTIM);
    survivors.map(|node| vm.beats(&node).pop().map(|beat| beat.life)).collect()
}
