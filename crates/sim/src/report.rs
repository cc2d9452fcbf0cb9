//! What is printed of runs: a line each, and of a violation all that is needed to understand it and to see it again.

use std::{env, fs, process::ExitCode, time::Duration};

use crate::{
    event::{Event, Stamped},
    journal::Account,
    minimise::Minimised,
    options::{Options, Timing},
};

/// How much of the past is printed.
const TIMELINE: Duration = Duration::from_mins(4);

/// A run.
pub fn one(options: &Options, account: &Account) -> ExitCode {
    let hours = account.lasted.as_secs_f64() / 3600.0;
    println!(
        "seed {}: {} nodes, {} VMs, {:.1} h, {} events, hash {:016x}",
        options.seed, options.nodes, options.vms, hours, account.events, account.hash
    );
    let Some(violation) = &account.violation else { return ExitCode::SUCCESS };
    println!("VIOLATION of {violation}");
    println!("  commit {}; see it again: {}", commit(), command(options));
    timeline(account);
    println!("VIOLATION of {violation}");
    ExitCode::FAILURE
}

/// A run whose schedule was made shorter.
pub fn minimised(options: &Options, minimised: &Minimised) {
    let Minimised { schedule, account, before, runs } = minimised;
    println!("== after {runs} runs {} of {before} entries are left:", schedule.entries.len());
    for entry in &schedule.entries {
        println!("  {:>9.3} s {:?}", Duration::from_millis(entry.at_ms).as_secs_f64(), entry.what);
    }
    timeline(account);
    if let Some(violation) = &account.violation {
        println!("VIOLATION of {violation}");
    }
    let file = env::temp_dir().join(format!("pvc-sim-{}.json", options.seed));
    let written = serde_json::to_string_pretty(schedule).map_err(|e| e.to_string());
    match written.and_then(|text| fs::write(&file, text).map_err(|e| e.to_string())) {
        Ok(()) => println!("  replay: {} --verbose --schedule {}", command(options), file.display()),
        Err(why) => println!("  (the schedule could not be kept: {why})"),
    }
}

/// The last minutes, without what is said every few seconds.
fn timeline(account: &Account) {
    let from = account.lasted.saturating_sub(TIMELINE);
    for event in account.recent.iter().filter(|event| event.at >= from && !is_routine(event)) {
        println!("  {event}");
    }
}

fn is_routine(event: &Stamped) -> bool {
    let commit = match &event.event {
        Event::Commit(commit) => commit,
        // The fault says it in one line.
        Event::Link { .. } => return true,
        _ => return false,
    };
    let figure = |path: &str| {
        let key = path.strip_prefix("/nodes/").and_then(|rest| rest.split_once('/')).map(|(_, key)| key);
        key.is_some_and(|key| {
            key.starts_with("mem")
                || ["keepalive", "cpuload", "vcpualloc", "networkscount", "domainscount", "runningdomains"]
                    .contains(&key)
        })
    };
    commit.changes.iter().all(|change| figure(&change.path))
}

fn commit() -> String {
    env::var("PVC_COMMIT").unwrap_or_else(|_| "unknown".to_owned())
}

fn command(options: &Options) -> String {
    // Each of them, so that none is forgotten; the last has no argument.
    let Options {
        seed,
        nodes,
        vms,
        hours,
        timing,
        suicide_intervals,
        longest_session,
        networks,
        storage,
        faults,
        commands,
        contradictions: _,
    } = options;
    let timing = match timing {
        Timing::Default => "default",
        Timing::Fast => "fast",
        Timing::Mixed => "mixed",
    };
    let storage = if *storage { " --storage" } else { "" };
    let mut faults = *faults;
    let mut rates = Vec::new();
    faults.each(|name, rate| rates.push(format!("{name}={rate}")));
    let plain = if options.faults == crate::options::Rates::default() {
        "default".to_owned()
    } else {
        rates.join(",")
    };
    format!(
        "cargo xtask sim --seed {seed} --nodes {nodes} --vms {vms} --hours {hours} --timing {timing} --suicide {suicide_intervals} \
         --longest-session {longest_session} --networks {networks}{storage} --commands {commands} --faults {plain}"
    )
}
