//! One run: a cluster comes up, lives through its schedule, and is calm again and again.

use std::{cell::RefCell, panic, sync::Arc, time::Duration};

use tokio::{runtime::Builder, time::sleep_until};

use crate::{
    checkers::Violation,
    cluster::Cluster,
    event::{Event, Phase},
    faults,
    journal::{Account, Journal},
    log::Listener,
    options::Options,
    schedule::{self, BEGINNING, Chaos, Command, Entry, Schedule, What},
    workload,
};

/// How often an operator looks after a cluster that is calm.
const TIDY_EVERY: Duration = Duration::from_secs(45);
/// How often one looks after a cluster that is not.
const ATTEND_EVERY: Duration = Duration::from_mins(3);
/// How long nothing is asked of it before it is judged.
const LEFT_ALONE: Duration = Duration::from_mins(4);

thread_local! {
    /// Whom a panic on this thread is told.
    static WITNESS: RefCell<Option<Arc<Journal>>> = const { RefCell::new(None) };
}

/// Runs it, to its end or to `until`. With `print`, every event is written to the standard output at once.
///
/// # Errors
/// If the cluster cannot be built at all.
pub fn run(
    options: &Options,
    schedule: &Schedule,
    until: Option<Duration>,
    print: bool,
) -> anyhow::Result<Account> {
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build()?;
    let listener = Listener::default();
    let account = tracing::subscriber::with_default(listener.clone(), || {
        runtime.block_on(async {
            let cluster = Cluster::new(options, print)?;
            let journal = Arc::clone(&cluster.around.journal);
            listener.tell(&journal);
            WITNESS.set(Some(Arc::clone(&journal)));
            tokio::select! {
                biased;
                () = journal.violated() => {}
                () = tokio::time::sleep(until.unwrap_or(Duration::MAX)) => {}
                () = live(&cluster, options, schedule) => {}
            }
            anyhow::Ok(journal.account())
        })
    });
    WITNESS.set(None);
    account
}

/// Has panics on threads that simulate told to their journals: a daemon that panics is a bug. To be called once.
pub fn witness_panics() {
    let before = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        let journal = WITNESS.try_with(|witness| witness.try_borrow().ok().and_then(|w| w.clone()));
        match journal {
            Ok(Some(journal)) => journal.blame(Violation { invariant: 0, what: format!("panic: {info}") }),
            _ => before(info),
        }
    }));
}

async fn live(cluster: &Arc<Cluster>, options: &Options, schedule: &Schedule) {
    let journal = &cluster.around.journal;
    begin(cluster, options).await;
    cluster.around.world.spawn(attend(Arc::clone(cluster)));
    let mut entries = schedule.entries.iter().peekable();
    for Chaos { begins, ends } in schedule::phases(options) {
        sleep_until(journal.instant(begins)).await;
        journal.tell(Event::Phase(Phase::Chaos));
        while let Some(entry) = entries.next_if(|entry| Duration::from_millis(entry.at_ms) < ends) {
            sleep_until(journal.instant(Duration::from_millis(entry.at_ms))).await;
            happen(cluster, entry);
        }
        sleep_until(journal.instant(ends)).await;
        calm_down(cluster, ends, options).await;
    }
}

/// An operator who looks in while faults happen: what was fenced and is back takes VMs again.
async fn attend(cluster: Arc<Cluster>) {
    loop {
        tokio::time::sleep(ATTEND_EVERY).await;
        if cluster.around.journal.truth(|truth| truth.phase) == Phase::Chaos
            && cluster.around.ensemble.works()
        {
            workload::tidy_up(Arc::clone(&cluster), false).await;
        }
    }
}

fn happen(cluster: &Arc<Cluster>, entry: &Entry) {
    let own = Arc::clone(cluster);
    match entry.what {
        What::Fault(fault, lasts_ms) => {
            cluster.around.world.spawn(faults::happen(own, fault, Duration::from_millis(lasts_ms)));
        }
        What::Command(command) => {
            // Two in one instant are two clients.
            let client = u32::try_from(entry.at_ms % 7).unwrap_or(0) + 1;
            cluster.around.world.spawn(async move {
                workload::give(own, client, command).await;
            });
        }
    }
}

/// All nodes take VMs, all VMs run.
async fn begin(cluster: &Arc<Cluster>, options: &Options) {
    let journal = &cluster.around.journal;
    while !workload::all_run(cluster) && journal.now() < BEGINNING {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    for node in 0..cluster.nodes.len() {
        workload::perform(Arc::clone(cluster), 0, Command::Ready(node)).await;
    }
    tokio::time::sleep(Duration::from_secs(10)).await;
    workload::networks::define(cluster, options.vms).await;
    for vm in 0..options.vms {
        workload::perform(Arc::clone(cluster), 0, Command::Define(vm)).await;
        workload::perform(Arc::clone(cluster), 0, Command::Start(vm)).await;
    }
}

/// No fault any more; operators repair and tidy up, then leave the cluster alone, then it is judged.
async fn calm_down(cluster: &Arc<Cluster>, since: Duration, options: &Options) {
    let journal = &cluster.around.journal;
    journal.tell(Event::Phase(Phase::Calm));
    faults::repair(cluster);
    let end = since + options.calm();
    while journal.now() + LEFT_ALONE < end {
        tokio::time::sleep(TIDY_EVERY).await;
        workload::tidy_up(Arc::clone(cluster), true).await;
    }
    sleep_until(journal.instant(end)).await;
    journal.tell(Event::Phase(Phase::Settled));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::{Rates, Timing};

    fn small(seed: u64) -> Options {
        Options { seed, nodes: 3, vms: 6, hours: 0.5, timing: Timing::Fast, ..Options::default() }
    }

    fn minutes(options: &Options, minutes: u64) -> Account {
        run(options, &Schedule::generate(options), Some(Duration::from_mins(minutes)), false).unwrap()
    }

    #[test]
    fn the_same_seed_is_the_same_run_to_the_last_event() {
        let options = |seed| Options { faults: Rates::default().times(10.0), ..small(seed) };
        let (first, second) = (minutes(&options(1), 10), minutes(&options(1), 10));
        let faults = first.recent.iter().filter(|event| matches!(event.event, Event::Fault { .. })).count();
        assert!(faults > 20, "{faults} faults in {} events", first.events);
        assert_eq!((first.hash, first.events), (second.hash, second.events));
        assert_ne!(minutes(&options(2), 10).hash, first.hash);
    }

    #[test]
    fn without_faults_every_guest_of_a_client_network_is_given_an_address() {
        let options = Options { networks: 2, faults: Rates::none(), commands: 0.0, ..small(1) };
        let account = minutes(&options, 8);
        assert_eq!(account.violation, None);
        let told = account.recent.iter().filter_map(|event| match event.event {
            Event::Leased { vm, .. } => Some(vm),
            _ => None,
        });
        assert_eq!(told.collect::<std::collections::BTreeSet<_>>().len(), options.vms);
    }

    #[test]
    fn without_faults_every_vm_runs_and_the_run_lasts_as_long_as_it_should() {
        let options = Options { faults: Rates::none(), commands: 0.0, ..small(1) };
        let account = minutes(&options, 60);
        assert_eq!(account.violation, None);
        assert!(account.lasted >= Duration::from_mins(25), "{:?}", account.lasted);
        let settled = account.recent.iter().any(|event| event.event == Event::Phase(Phase::Settled));
        assert!(settled, "nobody has judged it");
    }
}
