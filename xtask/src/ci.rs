//! Every check of the project, as a list: what `./test` and continuous integration run.
//! Installs the cargo tools that are missing, nothing else; Debian packages are `./test`'s business.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::{memcheck, run, sim, tidy};

struct Step {
    name: &'static str,
    check: fn() -> Result<()>,
}

/// What needs no build comes first; the tests come last, so that their closing line is the output's.
const STEPS: &[Step] = &[
    Step { name: "fmt", check: || run::cargo(["fmt", "--all", "--check"]) },
    Step { name: "tidy", check: tidy::run },
    Step { name: "deny", check: deny },
    Step {
        name: "clippy",
        check: || {
            run::cargo([
                "clippy",
                "--workspace",
                "--all-targets",
                "--all-features",
                "--locked",
                "--",
                "-D",
                "warnings",
            ])
        },
    },
    Step { name: "doc", check: doc },
    // The end-to-end tests run the binaries of other crates, which `nextest run` alone would not build.
    Step { name: "build", check: || run::cargo(["build", "--workspace", "--all-targets", "--locked"]) },
    Step { name: "doctest", check: || run::cargo(["test", "--workspace", "--doc", "--locked"]) },
    Step { name: "memcheck", check: memcheck::run },
    Step { name: "mutants", check: || simulate(&["--mutants"]) },
    Step { name: "simulate", check: || simulate(PINNED).and_then(|()| simulate(PINNED_WITH_STORAGE)) },
    Step { name: "fresh", check: fresh },
    Step { name: "test", check: test },
];

/// Seeds that every commit has to pass.
const PINNED: &[&str] =
    &["--seeds", "1..41", "--vary", "--vms", "20", "--hours", "1", "--jobs", "2", "--no-fail-fast"];

/// … and those of them with a Ceph.
const PINNED_WITH_STORAGE: &[&str] = &[
    "--seeds",
    "1..13",
    "--vary",
    "--storage",
    "--vms",
    "20",
    "--hours",
    "1",
    "--jobs",
    "2",
    "--no-fail-fast",
];

/// Runs the steps named in `only`, or all.
pub(crate) fn run(only: &[String]) -> Result<()> {
    let unknown = only.iter().find(|name| STEPS.iter().all(|step| step.name != name.as_str()));
    if let Some(name) = unknown {
        let names: Vec<_> = STEPS.iter().map(|step| step.name).collect();
        bail!("no step {name}: the steps are {}", names.join(", "));
    }
    let chosen = |step: &&Step| only.is_empty() || only.iter().any(|name| name == step.name);

    let mut times: Vec<(&str, Duration)> = Vec::new();
    for step in STEPS.iter().filter(chosen) {
        if step.name == "test" {
            println!("{}", table(&times));
        }
        println!("== {}", step.name);
        let began = Instant::now();
        (step.check)().with_context(|| format!("step {} failed", step.name))?;
        times.push((step.name, began.elapsed()));
    }
    Ok(())
}

fn table(times: &[(&str, Duration)]) -> String {
    let cells: Vec<_> = times.iter().map(|(name, took)| format!("{name} {} s", took.as_secs())).collect();
    format!("== passed: {}", cells.join(", "))
}

/// Advisories are left out: their database comes from GitHub, which a build machine need not reach.
fn deny() -> Result<()> {
    installed("deny", "cargo-deny", "^0.20")?;
    run::cargo(["deny", "--all-features", "--log-level", "error", "check", "licenses", "bans", "sources"])
}

fn doc() -> Result<()> {
    let status = run::command(run::cargo_path())
        .args(["doc", "--workspace", "--no-deps", "--document-private-items", "--locked", "--quiet"])
        .env("RUSTDOCFLAGS", "-D warnings")
        .status()?;
    if !status.success() {
        bail!("cargo doc: {status}");
    }
    Ok(())
}

fn simulate(arguments: &[&str]) -> Result<()> {
    sim::run(&arguments.iter().map(|&argument| argument.to_owned()).collect::<Vec<_>>())
}

/// How many seeds `fresh` runs: some five minutes on two cores. A number, not a time: a faster machine would check other things.
const FRESH: u64 = 100;

/// Seeds that no other state of the code was asked for: what is red is red again when the same code is checked again, anywhere.
fn fresh() -> Result<()> {
    let first = of_the_code();
    let seeds = format!("{first}..{}", first + FRESH);
    simulate(&["--seeds", &seeds, "--vary", "--vms", "20", "--hours", "2", "--jobs", "2"])
}

/// A number that is another one for other code, and leaves room for the numbers that follow it.
fn of_the_code() -> u64 {
    // What has no history (an unpacked archive) has the same number each time, too.
    run::git(&["rev-parse", "HEAD:crates"]).and_then(|tree| of_a_tree(&tree)).unwrap_or(1 << 24)
}

fn of_a_tree(name: &str) -> Option<u64> {
    u64::from_str_radix(name.get(..8)?, 16).ok().map(|number| number << 24)
}

/// nextest, because the tests that own a lab or a service must not all run at once: see .config/nextest.toml.
fn test() -> Result<()> {
    installed("nextest", "cargo-nextest", "^0.9")?;
    let tests = ["nextest", "run", "--workspace", "--locked", "--no-fail-fast"];
    // Properties try other cases for other code, and the same for the same, so that what is red stays red.
    let cases = of_the_code().to_string();
    let status = run::command(run::cargo_path()).args(tests).env("PROPTEST_RNG_SEED", cases).status()?;
    if !status.success() {
        // The runner's closing line says it all and is to be the last one.
        std::process::exit(status.code().unwrap_or(1));
    }
    Ok(())
}

/// Makes sure that `cargo <subcommand>` exists. Building one takes minutes; cargo keeps it in its home.
fn installed(subcommand: &str, krate: &str, version: &str) -> Result<()> {
    let known = run::command(run::cargo_path()).args([subcommand, "--version"]).output()?;
    if known.status.success() {
        return Ok(());
    }
    println!("cargo {subcommand} is missing: building {krate} {version}, once");
    run::cargo(["install", "--quiet", "--locked", krate, "--version", version])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_trees_have_no_seed_in_common() {
        let of = |first| of_a_tree(&format!("{first:08x}00000000000000000000000000000000")).unwrap();
        assert_eq!(of(2), 2 << 24);
        assert!(of(2) + FRESH < of(3));
        assert_eq!(of_a_tree("fatal: not a git repository"), None);
        assert_eq!(of_a_tree(""), None);
    }
}
