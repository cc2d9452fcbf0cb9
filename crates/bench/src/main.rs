//! Measures the release builds of `pvcd` and `pvc` against a real ZooKeeper and a real libvirt, as docs/benchmarks.md says.
//!
//! It knows the daemon by its contract only: the configuration file, the keys of the state tree, the command line. So it
//! imports none of our crates, and the same program could measure another implementation.

mod bench;
mod capsule;
mod daemon;
mod events;
mod measure;
mod probe;
mod program;
mod report;
mod services;
mod tree;

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::Parser;

/// Measures the figures of docs/benchmarks.md.
#[derive(Parser, Clone)]
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
    /// Numbers of defined VMs, ascending.
    #[arg(long, value_delimiter = ',', default_value = "0,100,1000")]
    vms: Vec<usize>,
    /// Measure only these: idle, start, list, wish, console.
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
    if !arguments.inside {
        return capsule::enter();
    }
    capsule::furnish()?;
    let rows = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?
        .block_on(bench::run(arguments))?;
    let table = report::table(&rows);
    println!("\n{table}");
    if let Some(file) = &arguments.write {
        report::replace(file, &table)?;
    }
    Ok(())
}
