//! Measures the release builds of `pvcd` and `pvc` against a real ZooKeeper and a real libvirt, as docs/benchmarks.md says.
//!
//! It knows the daemon by its contract only: the configuration file, the keys of the state tree, the command line. So it
//! imports none of our crates but the lab, and the same program could measure another implementation.

mod awake;
mod bench;
mod capsule;
mod daemon;
mod events;
mod ha;
mod measure;
mod probe;
mod program;
mod report;
mod scale;
mod services;
mod tree;
mod wire;

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::Parser;

/// Measures the figures of docs/benchmarks.md.
#[derive(Parser, Clone)]
#[allow(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
struct Arguments {
    /// Folder with the binaries `pvcd` and `pvc`.
    #[arg(long, default_value = "target/release")]
    binaries: PathBuf,
    /// How many keepalives each idle measurement spans.
    #[arg(long, default_value_t = 20)]
    keepalives: u32,
    /// How often every other measurement is repeated.
    #[arg(long, default_value_t = 15)]
    repeat: usize,
    /// Numbers of defined VMs, ascending; otherwise 0, 100 and 1000, with --scale 0, 1000 and 10,000.
    #[arg(long, value_delimiter = ',')]
    vms: Option<Vec<usize>>,
    /// Measure an idle daemon beside many other nodes.
    #[arg(long, conflicts_with = "ha")]
    scale: bool,
    /// Numbers of other nodes, with --scale.
    #[arg(long, value_delimiter = ',', default_value = "3,30,100")]
    nodes: Vec<usize>,
    /// Measure high availability, in labs of several nodes.
    #[arg(long)]
    ha: bool,
    /// Keep the logs of all labs, not only of those in which something failed.
    #[arg(long)]
    logs: bool,
    /// How many VMs a node has that is flushed, with --ha.
    #[arg(long, default_value_t = 8)]
    flush_vms: u8,
    /// Measure only these: idle, start, list, running, console; with --ha: failover, fast, migration, overlay, flush, primary, names, networks, storage, disk.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Replace the table in this file, between its marks.
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
    /// Already inside its own namespaces.
    #[arg(long, hide = true)]
    inside: bool,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pvc-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    if arguments.ha {
        return told(arguments, &report::table(&ha::run(arguments)?), &report::HIGH_AVAILABILITY);
    }
    if !arguments.inside {
        return capsule::enter();
    }
    capsule::furnish()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    if arguments.scale {
        return told(arguments, &runtime.block_on(scale::run(arguments))?, &report::SCALE);
    }
    told(arguments, &report::table(&runtime.block_on(bench::run(arguments))?), &report::DAEMON)
}

fn told(arguments: &Arguments, table: &str, place: &report::Marks) -> Result<()> {
    println!("\n{table}");
    match &arguments.write {
        Some(file) => report::replace(file, table, place),
        None => Ok(()),
    }
}
