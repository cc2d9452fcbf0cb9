//! The death of a node whose VMs have a disk in Ceph, and none, side by side: what the storage fence adds, and whether the disk has all that was written.

use std::{
    slice,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use pvc_lab::{
    Cluster, LabOptions, Node, PATIENCE, Vm,
    guest::{Written, writing_guest_xml},
    wait_until,
};

use super::{failover::bring_back, in_lab_with, intervals, seconds};
use crate::{
    Arguments,
    report::{Row, Target},
};

/// What dies each time.
const VICTIM: &str = "node3";

/// Since the death.
#[derive(Default)]
struct Steps {
    bare: Vec<Duration>,
    disk: Vec<Duration>,
    writes: Vec<Duration>,
}

pub(super) fn measure(arguments: &Arguments) -> Result<Vec<Row>> {
    in_lab_with(arguments, "bench-disk", intervals(1, 3), LabOptions::with_storage, |cluster| {
        lose(arguments, cluster)
    })
}

fn lose(arguments: &Arguments, cluster: &Cluster) -> Result<Vec<Row>> {
    let vms = [1, 2].map(Vm::number);
    let [bare, disk] = &vms;
    cluster.start_vms(slice::from_ref(bare), VICTIM)?;
    let image = cluster.lab.create_image(&disk.name)?;
    cluster.define_and_start(disk, VICTIM, &writing_guest_xml(&disk.name, &disk.uuid, 96, &image))?;
    let mut steps = Steps::default();
    for round in 1..=arguments.repeat {
        one(cluster, bare, disk, &mut steps).with_context(|| format!("round {round}"))?;
        bring_back(cluster, VICTIM, &vms)?;
    }
    let more = steps.disk.iter().zip(&steps.bare).map(|(disk, bare)| disk.as_secs_f64() - bare.as_secs_f64());
    let more = more.collect();
    Ok(vec![
        Row::new("node dead → its VM without a disk runs elsewhere", "s", seconds(&steps.bare)),
        Row::new(
            "… its VM with a disk in Ceph, with all that it had acknowledged",
            "s",
            seconds(&steps.disk),
        ),
        Row::new("… more, pair by pair", "s", more).target(Some(Target::AtMost(1.0))),
        Row::new("… → it writes on", "s", seconds(&steps.writes)),
    ])
}

fn one(cluster: &Cluster, bare: &Vm, disk: &Vm, steps: &mut Steps) -> Result<()> {
    let node = cluster.node(VICTIM);
    let begun = acknowledged(disk, &node);
    wait_until("it to write", PATIENCE, || acknowledged(disk, &node) > begun + 5)?;
    let looked = found(cluster, disk).len();
    let died = Instant::now();
    node.kill()?;
    steps.bare.push(cluster.wait_elsewhere(slice::from_ref(bare), VICTIM)? - died);
    steps.disk.push(cluster.wait_elsewhere(slice::from_ref(disk), VICTIM)? - died);
    wait_until("it to look at its disk", PATIENCE, || found(cluster, disk).len() > looked)?;
    // The newest life is the one with the highest number.
    let found = found(cluster, disk).into_iter().max().context("it has looked")?;
    let before = acknowledged(disk, &node);
    ensure!(found >= before, "{before} was acknowledged, {found} was found");
    let new = cluster.node(&cluster.home(disk)?);
    wait_until("it to write on", PATIENCE, || acknowledged(disk, &new) > found)?;
    steps.writes.push(died.elapsed());
    eprintln!("  {:.2} s, {found} blocks", steps.disk.last().map_or(0.0, Duration::as_secs_f64));
    cluster.check_never_twice_since(&[bare.clone(), disk.clone()], Some(died))
}

/// The highest number that the disk has acknowledged to the guest on a node.
fn acknowledged(vm: &Vm, node: &Node) -> u64 {
    let written = Written::all(&node.guest_console(&vm.name)).into_iter();
    written
        .filter_map(|told| match told {
            Written::Acknowledged(number) => Some(number),
            Written::Found(_) => None,
        })
        .max()
        .unwrap_or(0)
}

/// What its lives on the nodes that survive have found.
fn found(cluster: &Cluster, vm: &Vm) -> Vec<u64> {
    let survivors = cluster.lab.nodes().into_iter().filter(|node| node.name() != VICTIM);
    let told = survivors.flat_map(|node| Written::all(&node.guest_console(&vm.name)));
    told.filter_map(|told| match told {
        Written::Found(number) => Some(number),
        Written::Acknowledged(_) => None,
    })
    .collect()
}
