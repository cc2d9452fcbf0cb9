//! An operator who cannot wait: asks for something, sees on the guest's screen that it is done, and at once writes another desired state as
//! the clients of 2019 do, whatever the key holds. What the daemons are about to answer to the first is old by then.
//!
//! Looks at the guests themselves, not at what a daemon says: the answer is what it wants to be faster than.

use std::{sync::Arc, time::Duration};

use pvc_core::model::{NodeName, VmId};
use tokio::time::{sleep, timeout};

use super::perform;
use crate::{
    cluster::Cluster,
    event::Phase,
    schedule::{Command, First, OldState},
    truth::Truth,
};

/// How long a guest is watched: longer than one that does not obey its power button takes to be started again.
const PATIENCE: Duration = Duration::from_mins(2);

/// Asks, watches, and asks again.
pub(super) async fn act(
    cluster: Arc<Cluster>,
    client: u32,
    vm: usize,
    (first, then): (First, OldState),
    after: Duration,
) {
    let (journal, id) = (Arc::clone(&cluster.around.journal), cluster.vms[vm]);
    let before = journal.truth(|truth| Before::of(truth, id));
    let command = match first {
        First::Restart => Command::Restart(vm),
        First::Shutdown => Command::Shutdown(vm),
        First::Migrate => Command::Migrate(vm, None),
    };
    let mut guests = journal.guests();
    perform(Arc::clone(&cluster), client, command).await;
    let done = async {
        // The sender lives as long as the journal.
        while !journal.truth(|truth| before.is_over(truth, id, first)) && guests.changed().await.is_ok() {}
    };
    if timeout(PATIENCE, done).await.is_err() {
        return;
    }
    sleep(after).await;
    // Nothing new is desired when it is calm.
    if journal.truth(|truth| truth.phase) == Phase::Chaos {
        perform(cluster, client, Command::WriteState(vm, then)).await;
    }
}

/// Where a VM executed when something was asked for.
struct Before {
    at: Duration,
    on: Option<NodeName>,
}

impl Before {
    fn of(truth: &Truth, vm: VmId) -> Self {
        Self { at: truth.now, on: truth.executing(vm).next().map(|(node, _)| node.clone()) }
    }

    /// Whether it is so, for all that one sees of the guest.
    fn is_over(&self, truth: &Truth, vm: VmId, first: First) -> bool {
        match first {
            First::Shutdown => !truth.guests.contains_key(&vm),
            First::Restart => truth.executing(vm).any(|(_, run)| run.began > self.at),
            First::Migrate => truth.executing(vm).any(|(node, _)| Some(node) != self.on.as_ref()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        checkers::testing::{node, vm},
        event::{Event, Guest, Machine, Stamped},
    };

    fn happen(truth: &mut Truth, at_s: u64, event: Event) {
        truth.apply(&Stamped { at: Duration::from_secs(at_s), event });
    }

    fn turns(name: &str, what: Guest) -> Event {
        Event::Guest { vm: vm(1), node: node(name), what }
    }

    /// A guest that executes on one of two machines, asked for something ten seconds later.
    fn guest_on_a() -> (Truth, Before) {
        let mut truth = Truth::default();
        for name in ["a", "b"] {
            happen(&mut truth, 0, Event::Machine { node: node(name), what: Machine::On { boot: 1 } });
        }
        happen(&mut truth, 1, turns("a", Guest::Executes));
        truth.now = Duration::from_secs(11);
        let before = Before::of(&truth, vm(1));
        (truth, before)
    }

    #[test]
    fn a_restart_is_over_when_another_guest_executes_and_a_shutdown_when_there_is_none() {
        let (mut truth, before) = guest_on_a();
        let over = |truth: &Truth, first| before.is_over(truth, vm(1), first);
        assert!(!over(&truth, First::Restart) && !over(&truth, First::Shutdown));
        happen(&mut truth, 20, turns("a", Guest::Gone));
        assert!(!over(&truth, First::Restart) && over(&truth, First::Shutdown));
        happen(&mut truth, 21, turns("a", Guest::Executes));
        assert!(over(&truth, First::Restart) && !over(&truth, First::Shutdown));
    }

    #[test]
    fn a_migration_is_over_when_it_executes_elsewhere() {
        let (mut truth, before) = guest_on_a();
        happen(&mut truth, 20, turns("b", Guest::Held));
        happen(&mut truth, 21, turns("a", Guest::Held));
        assert!(!before.is_over(&truth, vm(1), First::Migrate));
        happen(&mut truth, 22, turns("b", Guest::Executes));
        assert!(before.is_over(&truth, vm(1), First::Migrate));
    }
}
