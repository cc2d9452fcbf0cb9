//! What storage costs an idle primary: it reads Ceph's figures every keepalive and writes them to the tree.

use std::{collections::HashMap, time::Duration};

use anyhow::{Context as _, Result};
use pvc_lab::{Cluster, LabOptions, Node};

use super::{in_lab_with, intervals};
use crate::{
    Arguments,
    report::{Row, Target},
};

const KEEPALIVE: Duration = Duration::from_secs(5);

/// CPU of the seven programs that 0.5 starts for it, milliseconds.
const OLD_MS: f64 = 1270.0;

/// What a node's pvcd and all that it has started has used so far.
struct Used {
    cpu_ms: f64,
    memory_mib: f64,
}

pub(super) fn measure(arguments: &Arguments) -> Result<Vec<Row>> {
    let without = in_lab_with(
        arguments,
        "bench-bare",
        intervals(5, 6),
        |options| options,
        |cluster| idle(arguments, cluster),
    )?;
    let with =
        in_lab_with(arguments, "bench-storage", intervals(5, 6), LabOptions::with_storage, |cluster| {
            idle(arguments, cluster)
        })?;
    let refresh = with.0.iter().zip(&without.0).map(|(with, without)| with - without).collect();
    Ok(vec![
        Row::new("idle primary: CPU a keepalive, no storage", "ms", without.0),
        Row::new("… with storage", "ms", with.0),
        Row::new("… more, a refresh of Ceph's figures", "ms", refresh)
            .old(Some(OLD_MS))
            .target(Some(Target::TimesBelow(250.0))),
        Row::new("… its memory, no storage", "MiB", vec![without.1]),
        Row::new("… with storage", "MiB", vec![with.1]),
    ])
}

/// CPU of each keepalive, and memory in the end.
fn idle(arguments: &Arguments, cluster: &Cluster) -> Result<(Vec<f64>, f64)> {
    let node = cluster.node(&cluster.primary()?);
    // What a start does is over.
    std::thread::sleep(4 * KEEPALIVE);
    let (mut samples, mut before) = (Vec::new(), used(&node)?);
    for _ in 0..arguments.keepalives {
        std::thread::sleep(KEEPALIVE);
        let now = used(&node)?;
        samples.push(now.cpu_ms - before.cpu_ms);
        before = now;
    }
    Ok((samples, before.memory_mib))
}

fn used(node: &Node) -> Result<Used> {
    let program = ["/bin/systemctl", "show", "-p", "CPUUsageNSec", "-p", "MainPID", "pvcd.service"];
    let told = node.run(&program, Duration::from_secs(10))?;
    let told: HashMap<&str, &str> = told.lines().filter_map(|line| line.split_once('=')).collect();
    let number = |key: &str| -> Result<f64> {
        told.get(key).and_then(|value| value.parse().ok()).with_context(|| format!("{key}: {told:?}"))
    };
    let status =
        node.run(&["/bin/cat", &format!("/proc/{}/status", number("MainPID")?)], Duration::from_secs(10))?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
    let kib: f64 = resident.trim().trim_end_matches(" kB").parse().context("VmRSS")?;
    Ok(Used { cpu_ms: number("CPUUsageNSec")? / 1e6, memory_mib: kib / 1024.0 })
}
