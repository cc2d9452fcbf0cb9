//! Project chores that are programs rather than habits: `cargo xtask ci | tidy | faults | bench | sim | fuzz | deb`.
//! Never part of what is shipped.

mod ci;
mod deb;
mod faults;
mod memcheck;
mod run;
mod sim;
mod tidy;

use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::{Parser, Subcommand};

/// Project chores.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Every check, in the order in which it fails soonest; ends with the tests.
    Ci {
        /// Run only the steps of these names.
        #[arg(value_name = "STEP")]
        only: Vec<String>,
    },
    /// The rules of ARCHITECTURE.md that no other tool checks.
    Tidy,
    /// The whole fault menu on labs, with a table of outcomes. Needs root.
    Faults(faults::Faults),
    /// The figures of docs/benchmarks.md, measured on release builds and real services. Needs root.
    Bench {
        /// Passed on to pvc-bench; see `cargo xtask bench -- --help`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// `pvc` on state trees made from seeds: whatever they hold, it does not panic.
    Fuzz {
        /// How many trees.
        #[arg(long, default_value_t = 100_000)]
        trees: u64,
        /// The first seed.
        #[arg(long, default_value_t = 1)]
        first: u64,
    },
    /// Debian packages, of a release build.
    Deb(deb::Deb),
    /// Simulated clusters, seed after seed; see `cargo xtask sim --help`.
    #[command(disable_help_flag = true)]
    Sim {
        /// Passed on to pvc-sim.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

fn main() -> ExitCode {
    let done = match Arguments::parse().chore {
        Chore::Ci { only } => ci::run(&only),
        Chore::Tidy => tidy::run(),
        Chore::Faults(faults) => faults::run(&faults),
        Chore::Bench { arguments } => bench(&arguments),
        Chore::Fuzz { trees, first } => fuzz(trees, first),
        Chore::Deb(deb) => deb::run(&deb),
        Chore::Sim { arguments } => sim::run(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The test of every day with more trees, and as fast as it gets with every assertion.
fn fuzz(trees: u64, first: u64) -> Result<()> {
    let mut test = run::command(run::cargo_path());
    test.args(["test", "--profile", "sim", "-p", "pvc-cli", "--bin", "pvc", "no_tree_makes_a_command_panic"]);
    test.env("PVC_FUZZ_TREES", trees.to_string()).env("PVC_FUZZ_FIRST", first.to_string());
    let status = test.status()?;
    if !status.success() {
        bail!("cargo test: {status}");
    }
    Ok(())
}

fn bench(arguments: &[String]) -> Result<()> {
    run::cargo(["run", "--release", "-p", "pvc-core", "--example", "worst-definition"])?;
    run::cargo([
        "build",
        "--release",
        "-p",
        "pvcd",
        "-p",
        "pvc-cli",
        "-p",
        "pvc-api",
        "-p",
        "pvc-lab",
        "-p",
        "pvc-bench",
    ])?;
    run::program("target/release/pvc-bench", arguments)
}
