//! Many runs, several at a time, and what they came to together.

use std::{
    process::ExitCode,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use crate::{
    checkers::Violation, journal::Account, minimise::minimise, options::Options, report, run,
    schedule::Schedule,
};

/// How long a schedule may take to be made shorter.
const MINIMISE_WITHIN: Duration = Duration::from_mins(3);

/// See the module's documentation.
pub struct Campaign<'a> {
    /// What the run of a seed is.
    pub options: &'a (dyn Fn(u64) -> Options + Sync),
    /// What a thread does before its first run.
    pub prepare: &'a (dyn Fn() + Sync),
    /// Every run is done twice, and the two must be the same.
    pub twice: bool,
    /// A violation is the end of it, and its schedule is made shorter.
    pub fail_fast: bool,
    /// … unless that is not wanted.
    pub minimise: bool,
    /// Runs at a time.
    pub jobs: usize,
}

/// What all runs came to.
#[derive(Debug, Default)]
struct Sum {
    runs: u64,
    simulated: Duration,
    events: u64,
    /// Time spent in runs, all threads together.
    spent: Duration,
    violations: Vec<(u64, Violation)>,
}

/// A seed that nobody has tried before, so to speak.
pub fn fresh() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| since.as_secs()) * 1000
}

impl Campaign<'_> {
    /// Runs seeds until there are none left, the time is over, or one has failed that is the end of it.
    ///
    /// # Errors
    /// If a cluster cannot be built.
    pub fn run(
        &self,
        seeds: impl Iterator<Item = u64> + Send,
        within: Option<Duration>,
    ) -> anyhow::Result<ExitCode> {
        let (began, over) = (Instant::now(), AtomicBool::new(false));
        let (seeds, sum) = (Mutex::new(seeds), Mutex::new(Sum::default()));
        let work = || -> anyhow::Result<()> {
            (self.prepare)();
            loop {
                if over.load(Ordering::Relaxed) || within.is_some_and(|within| began.elapsed() >= within) {
                    return Ok(());
                }
                let next = seeds.lock().unwrap_or_else(PoisonError::into_inner).next();
                let Some(seed) = next else { return Ok(()) };
                let options = (self.options)(seed);
                let schedule = Schedule::generate(&options);
                let since = Instant::now();
                let account = self.once(&options, &schedule)?;
                let mut sum = sum.lock().unwrap_or_else(PoisonError::into_inner);
                sum.add(seed, &account, since.elapsed());
                report::one(&options, &account);
                drop(sum);
                if account.violation.is_some() && self.fail_fast {
                    over.store(true, Ordering::Relaxed);
                    if self.minimise {
                        report::minimised(
                            &options,
                            &minimise(&options, &schedule, &account, MINIMISE_WITHIN)?,
                        );
                    }
                    return Ok(());
                }
            }
        };
        thread::scope(|scope| {
            let threads: Vec<_> = (0..self.jobs).map(|_| scope.spawn(work)).collect();
            threads.into_iter().try_for_each(|thread| {
                thread.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a thread of the simulator panicked")))
            })
        })?;
        let sum = sum.into_inner().unwrap_or_else(PoisonError::into_inner);
        sum.print();
        Ok(if sum.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    fn once(&self, options: &Options, schedule: &Schedule) -> anyhow::Result<Account> {
        let mut account = run::run(options, schedule, None, false)?;
        if self.twice && account.violation.is_none() {
            let again = run::run(options, schedule, None, false)?;
            if again.hash != account.hash {
                let what =
                    format!("the same seed ran differently: {:016x}, {:016x}", account.hash, again.hash);
                account.violation = Some(Violation { invariant: 0, what });
            }
        }
        Ok(account)
    }
}

impl Sum {
    fn add(&mut self, seed: u64, account: &Account, spent: Duration) {
        self.runs += 1;
        self.simulated += account.lasted;
        self.events += account.events;
        self.spent += spent;
        self.violations.extend(account.violation.clone().map(|violation| (seed, violation)));
    }

    fn print(&self) {
        let hours = self.simulated.as_secs_f64() / 3600.0;
        let speed = hours / self.spent.as_secs_f64();
        println!(
            "{} runs, {hours:.0} cluster-hours, {} events, {:.0} s of runs: {speed:.2} cluster-hours a second; {} violations",
            self.runs,
            self.events,
            self.spent.as_secs_f64(),
            self.violations.len()
        );
        for (seed, violation) in &self.violations {
            println!("  seed {seed}: {violation}");
        }
    }
}
