//! Whether the checkers bite: runs clusters whose daemons have a deliberate bug, until a checker catches it.
//!
//! A catch counts only if it is of an invariant that the bug breaks. The same seed without the bug has to pass: otherwise there is
//! another bug, in a daemon or in a checker, and that is a failure of its own.

use std::{
    ops::Range,
    process::ExitCode,
    sync::{Mutex, PoisonError},
    thread,
    time::Duration,
};

use pvc_core::sabotage::{self, Bug};

use crate::{
    checkers::Violation,
    options::{Options, Rates, Timing},
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
    /// A seed that goes wrong without the bug, too.
    pub unclean: Option<(u64, Violation)>,
    /// Seeds that were tried.
    pub seeds: u64,
    /// Seeds that went wrong in another way.
    pub unfit: u64,
    /// How long clusters with the bug lived until then.
    pub simulated: Duration,
}

/// Which runs are to show a bug.
pub struct Trial<'a> {
    /// Which.
    pub bug: Bug,
    /// One after the other, until one does.
    pub seeds: Range<u64>,
    /// How long each run lasts at most; `None`: to its end.
    pub within: Option<Duration>,
    /// What the run of a seed is.
    pub options: &'a (dyn Fn(u64) -> Options + Sync),
}

/// The first seed that shows each bug within [`WITHIN`], in small clusters with the default rates. Any change of a daemon may give it
/// another course; then the seeds that follow are tried, and this list is brought up to date when that takes too long.
const PINNED: [(Bug, u64); 47] = [
    (Bug::StartWithoutClaim, 1),
    (Bug::TrustWallClock, 7),
    (Bug::CountGapAsSilence, 7),
    (Bug::ResetAsProof, 2),
    (Bug::BreakLocksFirst, 2),
    (Bug::ForgetDeadFencer, 7),
    (Bug::AnswerUnchecked, 9),
    (Bug::KeepAddresses, 5),
    (Bug::IgnoreReservations, 2),
    (Bug::ReleaseFirst, 1),
    (Bug::AdoptThenStop, 1),
    (Bug::LeaveStrangersRunning, 1),
    (Bug::TrustTheNewBoot, 26),
    (Bug::OwnInterval, 2),
    (Bug::UnreadableIsUnfenced, 11),
    (Bug::WordOutlivesLife, 1),
    (Bug::ForgetTold, 11),
    (Bug::ArriveRunning, 8),
    (Bug::ClaimDiesWithItsVm, 1),
    (Bug::IgnoreLastWord, 2),
    (Bug::ReadsFeedPrimary, 26),
    (Bug::EndForAStaleClaim, 40),
    (Bug::StoppedIsOff, 1),
    (Bug::AnyMachine, 1),
    (Bug::LeaveCrashed, 1),
    (Bug::RecoverUnproven, 2),
    (Bug::RecoverInHalves, 1),
    (Bug::KeepShooting, 2),
    (Bug::EndAtTheSource, 1),
    (Bug::MigrateToTheAbsent, 2),
    (Bug::ForgetTheStop, 5),
    (Bug::LeaveUntried, 1),
    (Bug::FlushInSilence, 1),
    (Bug::SayPrimaryFirst, 3),
    (Bug::PlaceAtTheUnable, 1),
    (Bug::KeepTheUnable, 2),
    (Bug::KeepTheRefused, 1),
    (Bug::MoveUnasked, 1),
    (Bug::ShootTheLast, 42),
    (Bug::LeaveGateways, 1),
    (Bug::TellUnwritten, 1),
    (Bug::ForgetLeases, 1),
    (Bug::KeepForwards, 1),
    (Bug::LocksBeforeBlocklist, 1),
    (Bug::LiftEarly, 1),
    (Bug::ClaimWhileDead, 87),
    (Bug::OldProof, 1),
];
/// How many seeds are tried from a pinned one on …
const TRIES: u64 = 40;
/// … and for how long each.
const WITHIN: Duration = Duration::from_mins(30);

/// The trials of the pinned seeds of these bugs.
pub fn pinned(bugs: &[Bug]) -> Vec<Trial<'static>> {
    let trial = |(bug, seed): (Bug, u64)| Trial {
        bug,
        seeds: seed..seed + TRIES,
        // What an operator asked for, and where frames go, is judged when it has been calm.
        within: (!matches!(bug, Bug::ForgetTheStop | Bug::KeepForwards | Bug::ClaimWhileDead))
            .then_some(WITHIN),
        options: &|seed| Options { seed, vms: 20, hours: 1.0, ..Options::default() },
    };
    PINNED.into_iter().filter(|(bug, _)| bugs.contains(bug)).map(trial).collect()
}

/// Makes trials, `jobs` at a time, and prints a table. It is a failure if a bug is not caught.
///
/// # Errors
/// If a cluster cannot be built.
pub fn all(trials: &[Trial<'_>], jobs: usize) -> anyhow::Result<ExitCode> {
    let left = Mutex::new(trials.iter());
    let bitten = Mutex::new(Vec::new());
    let work = || -> anyhow::Result<()> {
        loop {
            let Some(trial) = left.lock().unwrap_or_else(PoisonError::into_inner).next() else {
                return Ok(());
            };
            let outcome = one(trial)?;
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
    let good = |one: &Bitten| one.caught.is_some() && one.unclean.is_none();
    Ok(if bitten.iter().all(good) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Tries seeds with one bug until it is caught.
///
/// # Errors
/// If a cluster cannot be built.
pub fn one(trial: &Trial<'_>) -> anyhow::Result<Bitten> {
    let bug = trial.bug;
    let mut bitten =
        Bitten { bug, caught: None, unclean: None, seeds: 0, unfit: 0, simulated: Duration::ZERO };
    for seed in trial.seeds.clone() {
        let options = led_to(bug, (trial.options)(seed));
        let schedule = Schedule::generate(&options);
        sabotage::commit(Some(bug));
        let account = run::run(&options, &schedule, trial.within, false);
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
        bitten.unclean =
            run::run(&options, &schedule, Some(until), false)?.violation.map(|violation| (seed, violation));
        bitten.caught = Some((seed, violation));
        break;
    }
    Ok(bitten)
}

/// Some bugs show in a moment that is rare in an ordinary day.
#[allow(clippy::too_many_lines, reason = "a table: an arm a bug")]
fn led_to(bug: Bug, options: Options) -> Options {
    match bug {
        // A node that is powered off while it executes.
        Bug::ResetAsProof => {
            let faults = Rates { isolate: 6.0, ..options.faults };
            Options { faults, ..options }
        }
        // What runs before the cluster knows it.
        Bug::AdoptThenStop => {
            let faults = Rates { define_running: 12.0, ..options.faults };
            Options { faults, ..options }
        }
        // A second instance while the daemon waits for its predecessor's session.
        Bug::LeaveStrangersRunning => {
            let faults = Rates { autostart: 20.0, ..options.faults };
            Options { faults, ..options }
        }
        // A node that boots anew, cut off, while the others wait for it to have reset itself.
        Bug::TrustTheNewBoot => {
            let faults = Rates {
                autostart: 40.0,
                start_by_hand: 40.0,
                reset: 24.0,
                cut_store: 60.0,
                mute_bmc: 40.0,
                ..options.faults
            };
            Options { faults, suicide_intervals: 4, longest_session: 8, ..options }
        }
        // A node that speaks less often than those that listen.
        Bug::OwnInterval => Options { timing: Timing::Mixed, ..options },
        // What only its node knows of.
        Bug::IgnoreLastWord => {
            let faults = Rates { silent_stranger: 12.0, ..options.faults };
            Options { faults, ..options }
        }
        // A command that is taken back while the node's server lags.
        Bug::EndForAStaleClaim => {
            let faults = Rates { fall_behind: 60.0, ..options.faults };
            Options { faults, commands: 240.0, contradictions: 2.0, ..options }
        }
        // Its server answers for some seconds after it has lost its leader, which is long against a short session.
        Bug::ReadsFeedPrimary => {
            let faults = Rates { deaf_primary: 12.0, ..options.faults };
            Options { faults, longest_session: 8, timing: Timing::Mixed, ..options }
        }
        // A machine that comes back as soon as somebody has said that it is dead.
        Bug::WordOutlivesLife => {
            let faults = Rates { early_word: 12.0, ..options.faults };
            Options { faults, longest_session: 8, ..options }
        }
        // A promise that a node does not know that it has given.
        Bug::ForgetTold => {
            let faults = Rates { lost_promise: 12.0, ..options.faults };
            Options { faults, suicide_intervals: 2, ..options }
        }
        // A silent node with such a key, and otherwise not much.
        Bug::UnreadableIsUnfenced => {
            let faults = Rates { garble_node: 12.0, ..options.faults.times(0.2) };
            Options { faults, ..options }
        }
        // A daemon alone that has stopped.
        Bug::StoppedIsOff => {
            let faults = Rates { shut_down: 12.0, ..options.faults.times(0.2) };
            Options { faults, ..options }
        }
        // Another machine while the first one is not heard.
        Bug::AnyMachine => {
            let faults = Rates { clone: 6.0, ..options.faults };
            Options { faults, ..options }
        }
        // A guest that panics where all is well.
        Bug::LeaveCrashed => {
            let faults = Rates { panic_guest: 20.0, ..options.faults };
            Options { faults, ..options }
        }
        // Operators who stop what a flush has shut down.
        Bug::ForgetTheStop => {
            let faults = Rates { stop_in_flush: 12.0, ..options.faults };
            Options { faults, ..options }
        }
        // A claim that cannot be read when its node is flushed.
        Bug::FlushInSilence => {
            let faults = Rates { unreadable_in_flush: 12.0, ..options.faults };
            Options { faults, ..options }
        }
        // A node without libvirt for a while, and otherwise not much.
        Bug::PlaceAtTheUnable | Bug::KeepTheUnable => {
            let faults = Rates { lose_libvirt: 12.0, ..options.faults.times(0.2) };
            Options { faults, ..options }
        }
        // A node that refuses every start.
        Bug::KeepTheRefused | Bug::MoveUnasked => {
            let faults = Rates { lack: 12.0, ..options.faults.times(0.2) };
            Options { faults, ..options }
        }
        Bug::LeaveGateways | Bug::KeepForwards => Options { networks: 2, ..options },
        // Guests that ask for addresses while ZooKeeper takes its time, and primaries come and go.
        Bug::TellUnwritten | Bug::ForgetLeases => {
            let faults = Rates { crash_guest: 120.0, slow_store: 30.0, kill_daemon: 24.0, ..options.faults };
            Options { faults, networks: 1, ..options }
        }
        // A silent node that writes on, whose BMC says that it is off.
        Bug::LocksBeforeBlocklist | Bug::LiftEarly => {
            let mut faults = options.faults;
            faults.of_storage(1.0);
            Options { faults: Rates { liar: 20.0, ..faults }, storage: true, ..options }
        }
        // A node whose BMC says that it is off, which comes back while it is recovered.
        Bug::ClaimWhileDead => {
            let mut faults = options.faults;
            faults.of_storage(1.0);
            let faults = Rates {
                liar: 20.0,
                refuse_blocklist: 300.0,
                cut_store: 60.0,
                lying_bmc: 60.0,
                lose_answers: 300.0,
                slow_store: 60.0,
                kill_daemon: 60.0,
                lift: 0.0,
                ..faults
            };
            Options { faults, storage: true, timing: Timing::Mixed, nodes: 7, ..options }
        }
        // A machine that boots unheard while its VMs wait for room.
        Bug::OldProof => {
            Options { faults: Rates { boots_unheard: 12.0, ..options.faults.times(0.2) }, ..options }
        }
        // A coordinator that does not speak while another one is off.
        Bug::ShootTheLast => {
            let faults = Rates { power: 12.0, freeze_daemon: 24.0, ..options.faults };
            Options { faults, ..options }
        }
        // A node that is back while its BMC does nothing.
        Bug::KeepShooting => {
            let faults = Rates { isolate: 12.0, flap: 6.0, stubborn_bmc: 30.0, ..options.faults };
            Options { faults, ..options }
        }
        // Migrations that take their time, and fail.
        Bug::EndAtTheSource => {
            let faults = Rates { bad_guests: 12.0, cut_cluster: 12.0, ..options.faults };
            Options { faults, commands: 240.0, ..options }
        }
        // A node whose libvirt answers, and whose daemon has lost its session.
        Bug::MigrateToTheAbsent => {
            let faults = Rates { cut_store: 12.0, expire: 12.0, ..options.faults };
            Options { faults, commands: 240.0, longest_session: 8, ..options }
        }
        _ => options,
    }
}

/// The invariants that a bug breaks.
fn broken_by(bug: Bug) -> &'static [u8] {
    match bug {
        // Number 2 judges claims: it sees the missing one before a VM runs twice.
        Bug::StartWithoutClaim
        | Bug::ResetAsProof
        | Bug::ReleaseFirst
        | Bug::TrustTheNewBoot
        | Bug::ClaimDiesWithItsVm
        | Bug::IgnoreLastWord
        | Bug::OldProof => &[1, 2],
        Bug::TrustWallClock
        | Bug::CountGapAsSilence
        | Bug::OwnInterval
        | Bug::KeepShooting
        | Bug::ShootTheLast => &[6],
        Bug::BreakLocksFirst | Bug::WordOutlivesLife | Bug::ForgetTold | Bug::RecoverUnproven => &[2],
        Bug::EndAtTheSource | Bug::MigrateToTheAbsent | Bug::MoveUnasked => &[9],
        // Declared dead, and taken for dead, in one transaction.
        Bug::StoppedIsOff => &[2, 6],
        // Or it ends again before the source goes on, and claims say what is wrong.
        Bug::ArriveRunning => &[1, 2, 9],
        Bug::ForgetDeadFencer | Bug::RecoverInHalves | Bug::ClaimWhileDead => &[5],
        Bug::AnswerUnchecked => &[4, 14],
        Bug::KeepAddresses | Bug::ReadsFeedPrimary | Bug::LeaveGateways => &[3],
        Bug::TellUnwritten | Bug::ForgetLeases => &[11],
        Bug::KeepForwards => &[16],
        Bug::LocksBeforeBlocklist | Bug::LiftEarly => &[17],
        Bug::IgnoreReservations => &[8],
        Bug::ForgetTheStop => &[15],
        Bug::LeaveUntried | Bug::FlushInSilence | Bug::SayPrimaryFirst => &[14],
        Bug::AdoptThenStop => &[12],
        Bug::EndForAStaleClaim => &[1, 9, 12],
        Bug::LeaveStrangersRunning | Bug::AnyMachine => &[1],
        // Nobody takes care of its VMs.
        Bug::UnreadableIsUnfenced
        | Bug::LeaveCrashed
        | Bug::PlaceAtTheUnable
        | Bug::KeepTheUnable
        | Bug::KeepTheRefused => &[13],
    }
}

fn line(bitten: &Bitten) -> String {
    let hours = bitten.simulated.as_secs_f64() / 3600.0;
    let seeds = match bitten.unfit {
        0 => bitten.seeds.to_string(),
        unfit => format!("{} ({unfit} unfit)", bitten.seeds),
    };
    let (by, how) = match &bitten.caught {
        _ if let Some((seed, violation)) = &bitten.unclean => {
            ("**none**".to_owned(), format!("seed {seed} without the bug: {violation}"))
        }
        Some((seed, violation)) => {
            (violation.invariant.to_string(), format!("seed {seed}: {}", violation.what))
        }
        None => ("**none**".to_owned(), String::new()),
    };
    format!("| {} | {by} | {seeds} | {hours:.1} | {how} |", bitten.bug)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bug_has_a_pinned_seed() {
        assert_eq!(PINNED.map(|(bug, _)| bug), Bug::ALL);
    }

    #[test]
    fn a_bug_that_a_run_does_not_show_is_not_caught_and_one_that_it_shows_at_once_is() {
        let caught = |within| {
            let mut trial = pinned(&[Bug::StartWithoutClaim]).remove(0);
            (trial.seeds, trial.within) = (1..2, Some(within));
            one(&trial).unwrap()
        };
        assert!(caught(Duration::from_secs(1)).caught.is_none());
        let bitten = caught(Duration::from_mins(3));
        assert!(bitten.caught.is_some() && bitten.unclean.is_none(), "{bitten:?}");
    }
}
