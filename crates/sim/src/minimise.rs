//! Makes the schedule of a run that ended badly shorter, as long as it ends as badly (delta debugging, Zeller and Hildebrandt 2002).

use std::time::{Duration, Instant};

use crate::{
    journal::Account,
    options::Options,
    run,
    schedule::{Entry, Schedule},
};

/// How much longer than the first a shorter run may take to end badly.
const PATIENCE: Duration = Duration::from_mins(20);

/// What is left.
#[derive(Debug)]
pub struct Minimised {
    /// The schedule.
    pub schedule: Schedule,
    /// How it ended.
    pub account: Account,
    /// How many entries there were until the violation.
    pub before: usize,
    /// How many runs it took.
    pub runs: u32,
}

/// Leaves out what is not needed for the same invariant to be violated, for so long at most.
///
/// # Errors
/// If a cluster cannot be built.
pub fn minimise(
    options: &Options,
    schedule: &Schedule,
    account: &Account,
    within: Duration,
) -> anyhow::Result<Minimised> {
    let deadline = Instant::now() + within;
    let until = account.lasted + PATIENCE;
    let happened = |entry: &&Entry| Duration::from_millis(entry.at_ms) <= account.lasted;
    let mut entries: Vec<Entry> = schedule.entries.iter().filter(happened).cloned().collect();
    let (before, mut runs) = (entries.len(), 0);
    let mut last: Option<Account> = None;
    let invariant = account.violation.as_ref().map(|violation| violation.invariant);
    let mut parts = 2;
    while !entries.is_empty() && parts <= entries.len().max(2) && Instant::now() < deadline {
        let size = entries.len().div_ceil(parts);
        let mut shorter = None;
        for part in 0..parts {
            let (from, to) = ((part * size).min(entries.len()), ((part + 1) * size).min(entries.len()));
            if from == to || Instant::now() >= deadline {
                continue;
            }
            let left: Vec<Entry> = entries[..from].iter().chain(&entries[to..]).cloned().collect();
            runs += 1;
            let outcome = run::run(options, &Schedule { entries: left.clone() }, Some(until), false)?;
            if outcome.violation.is_some() && outcome.violation.as_ref().map(|v| v.invariant) == invariant {
                shorter = Some((left, outcome));
                break;
            }
        }
        match shorter {
            Some((left, outcome)) => {
                entries = left;
                last = Some(outcome);
                parts = (parts - 1).max(2);
            }
            None if size == 1 => break,
            None => parts = (parts * 2).min(entries.len()),
        }
    }
    let schedule = Schedule { entries };
    let account = match last {
        Some(account) => account,
        None => run::run(options, &schedule, Some(until), false)?,
    };
    Ok(Minimised { schedule, account, before, runs })
}
