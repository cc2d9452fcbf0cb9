//! High availability on whole clusters of real daemons where nothing is broken, or ZooKeeper is away. What else breaks: tests/faults.

mod api;
mod cancelled;
mod console;
mod define;
mod doctor;
mod flush;
mod migrate;
mod names;
mod networks;
mod osds;
mod primary;
mod screen;
mod selffence;
mod services;
mod storage;
mod storage_tasks;
mod worked_example;

use anyhow::Result;
use pvc_lab::{Cluster, LabOptions, Timings};

/// The manual's usual intervals: silence of 30 s is death.
fn default_timings() -> Timings {
    Timings { keepalive_interval_s: 5, fence_intervals: 6, ..Timings::default() }
}

/// Three seconds of silence are death.
fn fast_timings() -> Timings {
    Timings { keepalive_interval_s: 1, fence_intervals: 3, ..Timings::default() }
}

/// Runs a test on a cluster of its own. Fails while that still is up, so that its logs are kept.
fn on(name: &str, nodes: u8, timings: Timings, test: impl FnOnce(&Cluster) -> Result<()>) {
    on_lab(options(name).nodes(nodes).timings(timings), test);
}

fn options(name: &str) -> LabOptions {
    LabOptions::new(name, env!("CARGO_BIN_EXE_pvc-lab"))
}

/// The same on a lab as it is described.
fn on_lab(options: LabOptions, test: impl FnOnce(&Cluster) -> Result<()>) {
    let cluster = Cluster::up(options).unwrap_or_else(|e| panic!("{e:?}"));
    if let Err(e) = test(&cluster) {
        panic!("{e:?}");
    }
}
