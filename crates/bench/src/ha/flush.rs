//! The flush of a node with several VMs, beside the migration of the same VMs one after another.

use std::time::{Duration, Instant};

use anyhow::Result;
use pvc_lab::{Cluster, Vm};

use super::{in_lab, intervals, seconds};
use crate::{
    Arguments,
    report::{Row, Target},
};

const NODE: &str = "node1";
/// How many guests boot at once.
const BOOTING: usize = 2;
/// Each costs as much as all the VMs' migrations.
const ROUNDS: usize = 3;

pub(super) fn measure(arguments: &Arguments) -> Result<Vec<Row>> {
    in_lab(arguments, "bench-flush", 3, intervals(5, 6), |cluster| in_turns(arguments, cluster))
}

fn in_turns(arguments: &Arguments, cluster: &Cluster) -> Result<Vec<Row>> {
    let vms: Vec<_> = (1..=arguments.flush_vms).map(Vm::number).collect();
    // Without hardware virtualisation a guest that boots takes a processor.
    for some in vms.chunks(BOOTING) {
        cluster.start_vms(some, NODE)?;
        eprintln!("  {} runs", some.last().map_or("nobody", |vm| &vm.name));
    }
    let (mut flushes, mut returns, mut singly) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..arguments.repeat.min(ROUNDS) {
        flushes.push(timed(|| cluster.pvc(&["node", "flush", "--wait", NODE]).map(drop))?);
        returns.push(timed(|| cluster.pvc(&["node", "ready", "--wait", NODE]).map(drop))?);
        at_home(cluster, &vms)?;
        singly.push(timed(|| {
            vms.iter().try_for_each(|vm| cluster.pvc(&["vm", "migrate", &vm.name]).map(drop))
        })?);
        for vm in &vms {
            cluster.pvc(&["vm", "unmigrate", &vm.name])?;
        }
        at_home(cluster, &vms)?;
    }
    let times: Vec<f64> =
        singly.iter().zip(&flushes).map(|(one, all)| one.as_secs_f64() / all.as_secs_f64()).collect();
    let n = vms.len();
    Ok(vec![
        Row::new(format!("flush of a node with {n} VMs"), "s", seconds(&flushes)),
        Row::new(format!("… the same {n} VMs migrated one after another"), "s", seconds(&singly)),
        Row::new("… times faster", "×", times).target(Some(Target::AtLeast(3.0))),
        Row::new(format!("unflush of a node with {n} VMs"), "s", seconds(&returns)),
    ])
}

fn timed(act: impl FnOnce() -> Result<()>) -> Result<Duration> {
    let began = Instant::now();
    act()?;
    Ok(began.elapsed())
}

fn at_home(cluster: &Cluster, vms: &[Vm]) -> Result<()> {
    vms.iter().try_for_each(|vm| cluster.wait_settled(vm, NODE).map(drop))
}
