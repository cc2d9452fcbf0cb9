//! High availability, measured in labs: real ZooKeeper, libvirt, QEMU and BMCs on every node, seen by observers from outside.

mod disk;
mod door;
mod failover;
mod flush;
mod migration;
mod names;
mod networks;
mod overlay;
mod primary;
mod storage;

use std::time::Duration;

use anyhow::{Context, Result};
use pvc_lab::{Cluster, LabOptions, Timings};

use crate::{Arguments, report::Row};

type Measure = fn(&Arguments) -> Result<Vec<Row>>;

/// Runs what was asked for, each in a lab of its own.
pub(crate) fn run(arguments: &Arguments) -> Result<Vec<Row>> {
    let sections: [(&str, Measure); 10] = [
        ("failover", |arguments| failover::measure(arguments, &intervals(5, 6))),
        ("fast", |arguments| failover::measure(arguments, &intervals(1, 3))),
        ("migration", migration::measure),
        ("overlay", overlay::measure),
        ("flush", flush::measure),
        ("primary", primary::measure),
        ("names", names::measure),
        ("networks", networks::measure),
        ("storage", storage::measure),
        ("disk", disk::measure),
    ];
    let mut rows = Vec::new();
    for (name, measure) in sections {
        if arguments.only.is_empty() || arguments.only.iter().any(|only| only == name) {
            eprintln!("{name}");
            rows.extend(measure(arguments).with_context(|| format!("could not measure {name}"))?);
        }
    }
    Ok(rows)
}

fn intervals(keepalive_interval_s: u32, fence_intervals: u32) -> Timings {
    Timings { keepalive_interval_s, fence_intervals, ..Timings::default() }
}

/// Measures in a lab of the binaries that are to be measured. What it leaves to read is kept if that fails, or if it is asked for.
fn in_lab<T>(
    arguments: &Arguments,
    name: &str,
    nodes: u8,
    timings: Timings,
    measure: impl FnOnce(&Cluster) -> Result<T>,
) -> Result<T> {
    in_lab_with(arguments, name, timings, |options| options.nodes(nodes), measure)
}

/// The same in a lab of three nodes that differs from the usual.
fn in_lab_with<T>(
    arguments: &Arguments,
    name: &str,
    timings: Timings,
    differs: impl FnOnce(LabOptions) -> LabOptions,
    measure: impl FnOnce(&Cluster) -> Result<T>,
) -> Result<T> {
    let mut options = differs(LabOptions::new(name, arguments.binaries.join("pvc-lab")).timings(timings));
    options.binaries.clone_from(&arguments.binaries);
    let cluster = Cluster::up(options)?;
    let outcome = measure(&cluster);
    if outcome.is_ok() && !arguments.logs {
        return outcome;
    }
    let logs = format!("the lab's logs: {}", cluster.lab.collect_logs().display());
    eprintln!("{logs}");
    outcome.context(logs)
}

fn seconds(times: &[Duration]) -> Vec<f64> {
    times.iter().map(Duration::as_secs_f64).collect()
}

fn milliseconds(times: &[Duration]) -> Vec<f64> {
    times.iter().map(|time| time.as_secs_f64() * 1e3).collect()
}
