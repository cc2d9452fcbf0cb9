//! Builds the simulator, as fast as it gets, and runs it.

use anyhow::{Result, bail};

use crate::run;

/// Runs it with these arguments.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    // The daemons' deliberate bugs are in no other build.
    let sabotage = arguments.iter().any(|argument| argument == "--mutants" || argument.starts_with("--bug"));
    let features = if sabotage { "sabotage" } else { "" };
    run::cargo([
        "build",
        "--quiet",
        "--locked",
        "--profile",
        "sim",
        "-p",
        "pvc-sim",
        "--features",
        features,
    ])?;
    let commit = run::git(&["rev-parse", "--short", "HEAD"]);
    let program = run::root().join("target/sim/pvc-sim");
    let mut simulator = run::command(program);
    simulator.args(arguments).env("PVC_COMMIT", commit.unwrap_or_default());
    let status = simulator.status()?;
    // What it found is on the terminal.
    if !status.success() {
        bail!("pvc-sim: {status}");
    }
    Ok(())
}
