//! Whether the checkers bite: runs clusters whose daemons have a deliberate bug, until a checker catches it.
//!
//! A catch counts only if it is of an invariant that the bug breaks, and the same seed without the bug passes: otherwise the checker
//! has caught something else.

use std::{
    process::ExitCode,
    sync::{Mutex, PoisonError},
    thread,
    time::Duration,
};

use pvc_core::sabotage::{self, Bug};

use crate::{
    checkers::Violation,
    options::{Options, Rates},
    run,
    schedule::Schedule,
};

/// What became of one bug.
#[derive(Debug)]
pub struct Bitten {
    /// Which.
    pub bug: Bug,
    /// The seed that showed it, and as what; `None`: none did.
    pub caught: Option<(u64, Violation)>,
    /// Seeds that were tried.
    pub seeds: u64,
    /// Seeds that went wrong in another way, or without the bug, too.
    pub unfit: u64,
    /// How long clusters with the bug lived until then.
    pub simulated: Duration,
}

/// Tries seeds with each bug, `jobs` bugs at a time, and prints a table.
///
/// # Errors
/// If a cluster cannot be built.
pub fn all(
    bugs: &[Bug],
    seeds: impl Iterator<Item = u64> + Clone + Send + Sync,
    jobs: usize,
    options: &(dyn Fn(u64) -> Options + Sync),
) -> anyhow::Result<ExitCode> {
    let left = Mutex::new(bugs.iter());
    let bitten = Mutex::new(Vec::new());
    let work = || -> anyhow::Result<()> {
        loop {
            let Some(bug) = left.lock().unwrap_or_else(PoisonError::into_inner).next() else { return Ok(()) };
            let outcome = one(*bug, seeds.clone(), options)?;
            println!("{}", line(&outcome));
            bitten.lock().unwrap_or_else(PoisonError::into_inner).push(outcome);
        }
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..jobs).map(|_| scope.spawn(work)).collect();
        threads.into_iter().try_for_each(|thread| {
            thread.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a thread of the simulator panicked")))
        })
    })?;
    let mut bitten = bitten.into_inner().unwrap_or_else(PoisonError::into_inner);
    bitten.sort_by_key(|one| one.bug);
    println!("\n| bug | caught by invariant | seeds | simulated hours | as |\n|---|---|---|---|---|");
    for one in &bitten {
        println!("{}", line(one));
    }
    Ok(if bitten.iter().all(|one| one.caught.is_some()) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Tries seeds with one bug until it is caught.
///
/// # Errors
/// If a cluster cannot be built.
pub fn one(
    bug: Bug,
    seeds: impl Iterator<Item = u64>,
    options: &dyn Fn(u64) -> Options,
) -> anyhow::Result<Bitten> {
    let mut bitten = Bitten { bug, caught: None, seeds: 0, unfit: 0, simulated: Duration::ZERO };
    for seed in seeds {
        let options = led_to(bug, options(seed));
        let schedule = Schedule::generate(&options);
        sabotage::commit(Some(bug));
        let account = run::run(&options, &schedule, None, false);
        sabotage::commit(None);
        let account = account?;
        bitten.seeds += 1;
        bitten.simulated += account.lasted;
        let Some(violation) = account.violation else { continue };
        if !broken_by(bug).contains(&violation.invariant) {
            bitten.unfit += 1;
            continue;
        }
        // A little longer: without the bug the same moment comes a little later, or sooner.
        let until = account.lasted + Duration::from_mins(1);
        if run::run(&options, &schedule, Some(until), false)?.violation.is_some() {
            bitten.unfit += 1;
            continue;
        }
        bitten.caught = Some((seed, violation));
        break;
    }
    Ok(bitten)
}

/// Some bugs show in a moment that is rare in an ordinary day.
fn led_to(bug: Bug, options: Options) -> Options {
    match bug {
        // A command that comes while an older one's answer is on its way.
        Bug::AnswerUnchecked => {
            let faults = Rates { slow_store: 20.0, ..options.faults };
            Options { contradictions: 6.0, faults, ..options }
        }
        // A node that is shot while it executes.
        Bug::ResetAsProof => {
            let faults = Rates { isolate: 6.0, ..options.faults };
            Options { faults, ..options }
        }
        _ => options,
    }
}

/// The invariants that a bug breaks.
fn broken_by(bug: Bug) -> &'static [u8] {
    match bug {
        // Number 2 judges claims: it sees the missing one before a VM runs twice.
        Bug::StartWithoutClaim | Bug::ResetAsProof | Bug::ReleaseFirst => &[1, 2],
        Bug::TrustWallClock | Bug::CountGapAsSilence => &[6],
        Bug::BreakLocksFirst => &[2],
        Bug::ForgetDeadFencer => &[5],
        Bug::AnswerUnchecked => &[4, 14],
        Bug::KeepAddresses => &[3],
        Bug::IgnoreReservations => &[8],
    }
}

fn line(bitten: &Bitten) -> String {
    let hours = bitten.simulated.as_secs_f64() / 3600.0;
    let seeds = match bitten.unfit {
        0 => bitten.seeds.to_string(),
        unfit => format!("{} ({unfit} unfit)", bitten.seeds),
    };
    let (by, how) = match &bitten.caught {
        Some((seed, violation)) => {
            (violation.invariant.to_string(), format!("seed {seed}: {}", violation.what))
        }
        None => ("**none**".to_owned(), String::new()),
    };
    format!("| {} | {by} | {seeds} | {hours:.1} | {how} |", bitten.bug)
}
