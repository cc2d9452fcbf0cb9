//! What executes here although the state tree gives it to another node: an instance that libvirt started by itself when the machine
//! booted, or somebody by hand while no daemon ran, or one that a fence was to end and did not.
//!
//! Watches from the moment the tree can be read until the reconcilers do: before that the daemon may have to wait for the session of
//! its predecessor, and two instances must not execute all that while. Only ever suspends, which loses nothing: whether such an
//! instance ends or goes on is the plan's to say, once this daemon has its node's name. Touches nothing that the tree does not
//! give to another node for certain: a VM that is not in the tree, or cannot be read, is left alone.
//!
//! If the name that this daemon wants is another machine's, so are the claims that name it: what executes here for them was replaced
//! by that machine's, and is ended at once, since its disk may have been written by then. What is claimed by another name that this
//! machine has in this boot is its own: the configuration is wrong, and the daemon is about to say so.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use pvc_core::{
    model::{Entry, NodeName, Vm, VmId},
    plan::vm::belongs_elsewhere,
    sabotage::{self, Bug},
};
use pvc_host::hypervisor::{Activity, Event, Hypervisor};
use pvc_process::JoinSet;
use pvc_store::{Store, schema};
use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};
use tracing::{debug, warn};

use crate::ownership::Ownership;

/// The longest that the start of the daemon is held up for a first look.
const FIRST_LOOK: Duration = Duration::from_secs(3);

/// The pause after a look that did not succeed.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// The watch over them. It ends when this is dropped.
pub(crate) struct Strangers {
    _task: JoinSet<()>,
}

struct Look {
    me: NodeName,
    ownership: Arc<Ownership>,
    store: Arc<dyn Store>,
    hypervisor: Arc<dyn Hypervisor>,
}

/// Where an instance belongs that executes here.
enum Elsewhere {
    /// To another node, as the words say.
    Node(String),
    /// To another machine of this node's name.
    Machine(String),
}

impl Strangers {
    /// Begins to watch; returns when everything was looked at once, but after three seconds at the latest.
    pub(crate) async fn watch(
        me: NodeName,
        ownership: Arc<Ownership>,
        store: Arc<dyn Store>,
        hypervisor: Arc<dyn Hypervisor>,
    ) -> Self {
        let (looked, mut first) = watch::channel(false);
        let events = hypervisor.events();
        let look = Look { me, ownership, store, hypervisor };
        let mut task = JoinSet::new();
        task.spawn(async move { look.keep_looking(events, looked).await });
        if timeout(FIRST_LOOK, first.wait_for(|looked| *looked)).await.is_err() {
            debug!("what runs here could not be looked at yet: the start goes on meanwhile");
        }
        Self { _task: task }
    }
}

impl Look {
    async fn keep_looking(&self, mut events: mpsc::UnboundedReceiver<Event>, looked: watch::Sender<bool>) {
        loop {
            let news = match self.look().await {
                Ok(()) => {
                    looked.send_replace(true);
                    Ok(events.recv().await)
                }
                Err(error) => {
                    debug!(error, "could not look at what runs here");
                    // libvirt says so when it is there.
                    timeout(LOOK_AGAIN, events.recv()).await
                }
            };
            if news == Ok(None) {
                return;
            }
            while events.try_recv().is_ok() {}
        }
    }

    async fn look(&self) -> Result<(), String> {
        let active = self.hypervisor.active().await.map_err(|error| error.to_string())?;
        let running: BTreeSet<VmId> =
            active.iter().filter(|seen| seen.activity == Activity::Running).map(|seen| seen.id).collect();
        if running.is_empty() {
            return Ok(());
        }
        let keys = self.store.children(schema::vm::ROOT).await.map_err(|error| error.to_string())?;
        // The tree may spell an id otherwise than libvirt does.
        let (known, _) = schema::vm::ids(&keys.unwrap_or_default());
        for id in known.iter().filter(|id| running.contains(id)) {
            self.look_at(*id).await?;
        }
        Ok(())
    }

    async fn look_at(&self, id: VmId) -> Result<(), String> {
        if self.belongs_elsewhere(id).await?.is_none() || sabotage::commits(Bug::LeaveStrangersRunning) {
            return Ok(());
        }
        // The claim that names this node may not have come to the server that it reads from.
        self.store.sync().await.map_err(|error| error.to_string())?;
        match self.belongs_elsewhere(id).await? {
            Some((vm, Elsewhere::Node(why))) => self.suspend(&vm, &why).await,
            Some((vm, Elsewhere::Machine(machine))) => self.end(&vm, &machine).await,
            None => Ok(()),
        }
    }

    async fn belongs_elsewhere(&self, id: VmId) -> Result<Option<(Vm, Elsewhere)>, String> {
        let read = schema::vm::read(&*self.store, id).await.map_err(|error| error.to_string())?;
        let Some(Entry::Good(vm)) = read else { return Ok(None) };
        let elsewhere = match belongs_elsewhere(&self.me, &vm) {
            Some(why) => {
                for name in vm.claim.value.iter() {
                    if self.ownership.is_called(name).await.map_err(|error| error.to_string())? {
                        return Ok(None);
                    }
                }
                Some(Elsewhere::Node(why))
            }
            None if vm.claim.value.names(&self.me) => {
                let whose = self.ownership.claims_are_of().await.map_err(|error| error.to_string())?;
                whose.map(Elsewhere::Machine)
            }
            None => None,
        };
        Ok(elsewhere.map(|elsewhere| (vm, elsewhere)))
    }

    async fn end(&self, vm: &Vm, machine: &str) -> Result<(), String> {
        let me = &self.me;
        warn!(vm = %vm.name, "powering off: its claim names {me}, and the name {me} belongs to {machine}");
        self.hypervisor.power_off(vm.id).await.map_err(|error| error.to_string())
    }

    async fn suspend(&self, vm: &Vm, why: &str) -> Result<(), String> {
        self.hypervisor.suspend(vm.id).await.map_err(|error| error.to_string())?;
        warn!(
            vm = %vm.name,
            "it executed here though it belongs elsewhere ({why}): suspended until this daemon has its name"
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests;
