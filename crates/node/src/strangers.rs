//! What executes here although nobody in the cluster has started it: an instance that libvirt started by itself when the machine
//! booted, or somebody by hand while no daemon ran, or one that a fence was to end and did not.
//!
//! Watches from the start of the daemon until the reconcilers do: before that it may have to wait for ZooKeeper, and for the session of
//! its predecessor, and two instances must not execute all that while. Only ever suspends, which loses nothing: whether such an
//! instance ends or goes on is the plan's to say, once this daemon has its node's name.
//!
//! In a boot in which a daemon has read the tree before, it touches nothing that the tree does not give to another node for certain: a VM that is not
//! in the tree, or cannot be read, is left alone, and so is everything while the tree cannot be read. In the first life of a boot it is the other way
//! round: none of the cluster's daemons has started anything here yet, and the boot before may be proven dead at any moment, whatever the claims
//! say now. So until this boot is registered all is suspended but what is certainly not in the tree
//! ([decision 173](../../../docs/decisions/0173-the-first-daemon-of-a-boot.md)).
//!
//! If the name that this daemon wants is another machine's, so are the claims that name it: what executes here for them was replaced
//! by that machine's, and is ended at once, since its disk may have been written by then. What is claimed by another name that this
//! machine has in this boot is its own: the configuration is wrong, and the daemon is about to say so.

use std::{
    collections::BTreeSet,
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use pvc_core::{
    model::{Entry, NodeName, Vm, VmId},
    plan::vm::belongs_elsewhere,
    sabotage::{self, Bug},
};
use pvc_host::{
    boot_note::BootNote,
    hypervisor::{Activity, Event, Hypervisor, Seen, Suspension},
};
use pvc_process::JoinSet;
use pvc_store::{Store, schema};
use tokio::{
    sync::{mpsc, watch},
    time::{sleep, timeout},
};
use tracing::{debug, error, warn};

use crate::ownership::Ownership;

/// How long ZooKeeper may take to answer before what runs in a new boot is suspended without having asked it.
const TREE_WITHIN: Duration = Duration::from_secs(1);

/// The longest that the start of the daemon is held up for a first look.
const FIRST_LOOK: Duration = Duration::from_secs(3);

/// The pause after a look that did not succeed.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// What they are watched with.
pub(crate) struct Dependencies {
    /// This node.
    pub(crate) me: NodeName,
    /// This boot of its machine.
    pub(crate) boot: String,
    /// Remembers whether the tree was read in it.
    pub(crate) note: Arc<dyn BootNote>,
    /// Whose the name is.
    pub(crate) ownership: Arc<Ownership>,
    /// The state tree.
    pub(crate) store: Arc<dyn Store>,
    /// What runs here.
    pub(crate) hypervisor: Arc<dyn Hypervisor>,
}

/// The watch over them. It ends when this is dropped.
pub(crate) struct Strangers {
    look: Arc<Look>,
    looked: watch::Receiver<bool>,
    _task: JoinSet<()>,
}

struct Look {
    on: Dependencies,
    /// No daemon has read the tree in this boot, as far as this one knows.
    unread: AtomicBool,
}

/// Where an instance belongs that executes here.
enum Elsewhere {
    /// To another node, as the words say.
    Node(String),
    /// To another machine of this node's name.
    Machine(String),
}

impl Strangers {
    /// Begins to watch.
    pub(crate) fn watch(on: Dependencies) -> Self {
        let noted = on.note.is_there().unwrap_or_else(|error| {
            warn!(%error, "cannot tell whether a daemon has read the state tree since this machine's boot: taken for not");
            false
        });
        let unread = AtomicBool::new(!noted && !sabotage::commits(Bug::TrustTheNewBoot));
        let (tell, looked) = watch::channel(false);
        let (events, look) = (on.hypervisor.events(), Arc::new(Look { on, unread }));
        let mut task = JoinSet::new();
        task.spawn({
            let look = Arc::clone(&look);
            async move { look.keep_looking(events, tell).await }
        });
        Self { look, looked, _task: task }
    }

    /// Returns when everything was looked at once with the tree, but after three seconds at the latest.
    pub(crate) async fn first_look(&mut self) {
        if timeout(FIRST_LOOK, self.looked.wait_for(|looked| *looked)).await.is_err() {
            debug!("what runs here could not be looked at yet: the start goes on meanwhile");
        }
    }

    /// This boot is registered, and the tree was read since: whoever is to prove this node dead has to prove it of this boot. That is so until the
    /// machine boots anew, whatever becomes of the daemon.
    pub(crate) fn tree_is_read(&self) {
        self.look.unread.store(false, Ordering::Relaxed);
        if let Err(error) = self.look.on.note.leave() {
            error!(%error, "cannot note that the state tree was read: a daemon that starts in this boot while ZooKeeper is away would suspend what runs here");
        }
    }
}

impl Look {
    async fn keep_looking(&self, mut events: mpsc::UnboundedReceiver<Event>, looked: watch::Sender<bool>) {
        let mut session = self.on.store.session();
        let _ = timeout(TREE_WITHIN, session.wait_for(|session| session.is_healthy())).await;
        loop {
            let outcome = if session.borrow_and_update().is_healthy() {
                self.look().await.map(|()| {
                    looked.send_replace(true);
                })
            } else {
                Err("ZooKeeper does not answer".to_owned())
            };
            let outcome = match outcome {
                Err(why) if self.is_unread() => self.suspend_all(&why).await,
                // Nothing is to be done before there is a session.
                Err(_) if !session.borrow().is_healthy() => Ok(()),
                outcome => outcome,
            };
            let failed =
                outcome.inspect_err(|error| debug!(error, "could not look at what runs here")).is_err();
            // libvirt says so when it is there, and the store when it is.
            let again = async { if failed { sleep(LOOK_AGAIN).await } else { pending().await } };
            let goes_on = tokio::select! {
                biased;
                event = events.recv() => event.is_some(),
                session = session.changed() => session.is_ok(),
                () = again => true,
            };
            if !goes_on {
                return;
            }
            while events.try_recv().is_ok() {}
        }
    }

    fn is_unread(&self) -> bool {
        self.unread.load(Ordering::Relaxed)
    }

    /// Nothing is known of the tree, and nobody in the cluster has started anything here.
    async fn suspend_all(&self, why: &str) -> Result<(), String> {
        for guest in self.here().await?.iter().filter(|guest| guest.activity == Activity::Running) {
            self.suspend_unread(guest, why).await?;
        }
        Ok(())
    }

    /// What executes here, and what a daemon has suspended.
    async fn here(&self) -> Result<Vec<Seen>, String> {
        let mut here = self.on.hypervisor.active().await.map_err(|error| error.to_string())?;
        here.retain(|seen| matches!(seen.activity, Activity::Running | Activity::Suspended(_)));
        Ok(here)
    }

    async fn look(&self) -> Result<(), String> {
        let here = self.here().await?;
        if here.is_empty() {
            return Ok(());
        }
        let Dependencies { me, store, .. } = &self.on;
        let keys = store.children(schema::vm::ROOT).await.map_err(|error| error.to_string())?;
        // The tree may spell an id otherwise than libvirt does.
        let (known, _) = schema::vm::ids(&keys.unwrap_or_default());
        let known: BTreeSet<VmId> = known.into_iter().collect();
        if self.is_unread() {
            let registered = schema::node::boot_of(&**store, me).await.map_err(|error| error.to_string())?;
            if registered.as_ref() == Some(&self.on.boot) {
                self.unread.store(false, Ordering::Relaxed);
            }
        }
        for guest in here.iter().filter(|guest| known.contains(&guest.id)) {
            self.look_at(guest).await?;
        }
        Ok(())
    }

    async fn look_at(&self, guest: &Seen) -> Result<(), String> {
        let elsewhere = match self.belongs_elsewhere(guest.id).await? {
            Some(_) if sabotage::commits(Bug::LeaveStrangersRunning) => return Ok(()),
            Some(_) => {
                // The claim that names this node may not have come to the server that it reads from.
                self.on.store.sync().await.map_err(|error| error.to_string())?;
                self.belongs_elsewhere(guest.id).await?
            }
            None => None,
        };
        let executes = guest.activity == Activity::Running;
        match elsewhere {
            Some((vm, Elsewhere::Machine(machine))) => self.end(&vm, &machine).await,
            Some((vm, Elsewhere::Node(why))) if executes => self.suspend(&vm, &why).await,
            None if executes && self.is_unread() => {
                self.suspend_unread(guest, "its node has yet to register this boot").await
            }
            _ => Ok(()),
        }
    }

    async fn belongs_elsewhere(&self, id: VmId) -> Result<Option<(Vm, Elsewhere)>, String> {
        let read = schema::vm::read(&*self.on.store, id).await.map_err(|error| error.to_string())?;
        let Some(Entry::Good(vm)) = read else { return Ok(None) };
        let elsewhere = match belongs_elsewhere(&self.on.me, &vm) {
            Some(why) => {
                for name in vm.claim.value.iter() {
                    if self.on.ownership.is_called(name).await.map_err(|error| error.to_string())? {
                        return Ok(None);
                    }
                }
                Some(Elsewhere::Node(why))
            }
            None if vm.claim.value.names(&self.on.me) => {
                let whose = self.on.ownership.claims_are_of().await.map_err(|error| error.to_string())?;
                whose.map(Elsewhere::Machine)
            }
            None => None,
        };
        Ok(elsewhere.map(|elsewhere| (vm, elsewhere)))
    }

    async fn end(&self, vm: &Vm, machine: &str) -> Result<(), String> {
        let me = &self.on.me;
        warn!(vm = %vm.name, "powering off: its claim names {me}, and the name {me} belongs to {machine}");
        self.on.hypervisor.power_off(vm.id).await.map_err(|error| error.to_string())
    }

    async fn suspend(&self, vm: &Vm, why: &str) -> Result<(), String> {
        let suspend = self.on.hypervisor.suspend(vm.id, Suspension::Elsewhere);
        suspend.await.map_err(|error| error.to_string())?;
        warn!(
            vm = %vm.name,
            "it executed here though it belongs elsewhere ({why}): suspended until this daemon has its name"
        );
        Ok(())
    }

    async fn suspend_unread(&self, guest: &Seen, why: &str) -> Result<(), String> {
        let suspend = self.on.hypervisor.suspend(guest.id, Suspension::Unread);
        suspend.await.map_err(|error| error.to_string())?;
        warn!(
            vm = %guest.name,
            "it executed here, and no daemon has read the state tree since this machine's boot ({why}): suspended, since another node may \
             have it by now. It goes on, or is ended, as soon as the tree can be read"
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests;
