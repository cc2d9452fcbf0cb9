//! The program's command line: one seed, a range of them, or as many as fit into a time.

use std::{fs, path::PathBuf, process::ExitCode, str::FromStr, time::Duration};

use anyhow::{Context as _, bail};
use clap::Parser;

use crate::{
    campaign::{self, Campaign},
    options::{Options, Rates, Timing},
    report, run,
    schedule::Schedule,
};

/// Simulates clusters of whole daemons and looks for violations of docs/protocols.md, section 9.
#[derive(Debug, Parser)]
#[allow(clippy::struct_excessive_bools, reason = "switches of a command line")]
pub struct Arguments {
    /// The seed of one run; the same seed and options are the same run.
    #[arg(long, conflicts_with_all = ["seeds", "minutes"])]
    seed: Option<u64>,
    /// Seeds of many runs, `1..100` (without 100).
    #[arg(long, value_name = "A..B")]
    seeds: Option<Seeds>,
    /// Fresh seeds for so many minutes.
    #[arg(long, value_name = "MINUTES")]
    minutes: Option<f64>,
    /// Runs at a time.
    #[arg(long, default_value_t = 1)]
    jobs: usize,
    /// Every seed also chooses size, timing and rates; without, all runs are as said here.
    #[arg(long)]
    vary: bool,
    /// Nodes.
    #[arg(long, default_value_t = 5)]
    nodes: usize,
    /// VMs.
    #[arg(long, default_value_t = 40)]
    vms: usize,
    /// Simulated hours of a run.
    #[arg(long, default_value_t = 24.0)]
    hours: f64,
    /// Keepalives every 5 s, or every second.
    #[arg(long, value_enum, default_value = "default")]
    timing: Timing,
    /// `suicide_intervals`; with any, `failed_fence` is `migrate`.
    #[arg(long, default_value_t = 0)]
    suicide: u32,
    /// The longest session that ZooKeeper's servers grant, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 40)]
    longest_session: u32,
    /// Client networks.
    #[arg(long, default_value_t = 0)]
    networks: usize,
    /// VMs' images are in a Ceph of its own, which has its faults, too, unless some are given.
    #[arg(long)]
    storage: bool,
    /// `none`, `default`, `storm`, and `name=rate` of single faults (an hour), separated by commas.
    #[arg(long)]
    faults: Option<Rates>,
    /// Operators' commands an hour.
    #[arg(long, default_value_t = 60.0)]
    commands: f64,
    /// Runs this schedule instead of the seed's own.
    #[arg(long, value_name = "FILE", requires = "seed")]
    schedule: Option<PathBuf>,
    /// Runs every seed twice: the two must not differ.
    #[arg(long)]
    twice: bool,
    /// Goes on after a violation, and lists them all at the end.
    #[arg(long)]
    no_fail_fast: bool,
    /// Leaves the schedule of a run with a violation as it is.
    #[arg(long)]
    no_minimise: bool,
    /// The daemons have this deliberate bug.
    #[cfg(feature = "sabotage")]
    #[arg(long)]
    bug: Option<pvc_core::sabotage::Bug>,
    /// Runs seeds with each deliberate bug (or the one of `--bug`) until a checker catches it; without `--seeds` short runs of
    /// pinned ones.
    #[cfg(feature = "sabotage")]
    #[arg(long, conflicts_with_all = ["seed", "minutes"])]
    mutants: bool,
    /// Prints every event as it happens.
    #[arg(long, requires = "seed")]
    verbose: bool,
}

/// A range of seeds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seeds {
    from: u64,
    to: u64,
}

impl FromStr for Seeds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (from, to) = text.split_once("..").ok_or("seeds are given as A..B, without B")?;
        let number = |text: &str| text.parse::<u64>().map_err(|_| format!("{text:?} is no seed"));
        let (from, to) = (number(from)?, number(to)?);
        if from < to { Ok(Self { from, to }) } else { Err(format!("{from}..{to} is no seed at all")) }
    }
}

impl Arguments {
    fn options(&self) -> Options {
        let mut faults = self.faults.unwrap_or_default();
        if self.storage && self.faults.is_none() {
            faults.of_storage(1.0);
        }
        Options {
            seed: self.seed.unwrap_or(1),
            nodes: self.nodes,
            vms: self.vms,
            hours: self.hours,
            timing: self.timing,
            suicide_intervals: self.suicide,
            longest_session: self.longest_session,
            networks: self.networks,
            storage: self.storage,
            faults,
            commands: self.commands,
            ..Options::default()
        }
    }
}

/// The program.
///
/// # Errors
/// If nothing can be simulated.
pub fn main(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    run::witness_panics();
    let options = arguments.options();
    if options.nodes < 2 || options.nodes > 50 || options.vms == 0 {
        bail!("a simulated cluster has 2 to 50 nodes and at least one VM");
    }
    let options_of = |seed| {
        let options = Options { seed, ..options.clone() };
        if arguments.vary { options.varied() } else { options }
    };
    #[cfg(feature = "sabotage")]
    {
        use crate::mutants;
        use pvc_core::sabotage::{Bug, commit};
        if arguments.mutants {
            let bugs = arguments.bug.map_or_else(|| Bug::ALL.to_vec(), |bug| vec![bug]);
            let trials = match arguments.seeds {
                Some(Seeds { from, to }) => bugs
                    .iter()
                    .map(|bug| mutants::Trial {
                        bug: *bug,
                        seeds: from..to,
                        within: None,
                        options: &options_of,
                    })
                    .collect(),
                None => mutants::pinned(&bugs),
            };
            return mutants::all(&trials, arguments.jobs.max(1));
        }
        commit(arguments.bug);
    }
    let prepare = || {
        #[cfg(feature = "sabotage")]
        pvc_core::sabotage::commit(arguments.bug);
    };
    if let Some(file) = &arguments.schedule {
        let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        let schedule: Schedule =
            serde_json::from_str(&text).with_context(|| format!("{} is no schedule", file.display()))?;
        let options = options_of(options.seed);
        let account = run::run(&options, &schedule, None, arguments.verbose)?;
        return Ok(report::one(&options, &account));
    }
    let campaign = Campaign {
        options: &options_of,
        prepare: &prepare,
        twice: arguments.twice,
        fail_fast: !arguments.no_fail_fast,
        minimise: !arguments.no_minimise,
        jobs: arguments.jobs.max(1),
    };
    match (arguments.seeds, arguments.minutes) {
        (Some(Seeds { from, to }), minutes) => {
            campaign.run(from..to, minutes.map(|m| Duration::from_secs_f64(m * 60.0)))
        }
        (None, Some(minutes)) => {
            campaign.run(campaign::fresh().., Some(Duration::from_secs_f64(minutes * 60.0)))
        }
        (None, None) if arguments.verbose => {
            let options = options_of(options.seed);
            let account = run::run(&options, &Schedule::generate(&options), None, true)?;
            Ok(report::one(&options, &account))
        }
        (None, None) => campaign.run(options.seed..=options.seed, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_a_range() {
        assert_eq!("3..5".parse(), Ok(Seeds { from: 3, to: 5 }));
        for wrong in ["3", "5..5", "a..b", ".."] {
            assert!(wrong.parse::<Seeds>().is_err(), "{wrong}");
        }
    }
}
