//! What executes here although nobody in the cluster has started it: an instance that libvirt started by itself when the machine
//! booted, or somebody by hand while no daemon ran, or one that a fence was to end and did not.
//!
//! Watches from the start of the daemon until the reconcilers do: before that it may have to wait for ZooKeeper, and for the session of
//! its predecessor, and two instances must not execute all that while. Suspends, which loses nothing: whether an instance of the
//! cluster's ends or goes on is the plan's to say, once this daemon has its node's name.
//!
//! In a boot in which a daemon has read the tree before, it touches nothing that the tree does not give to another node for certain: a VM that is not
//! in the tree, or cannot be read, is left alone, and so is everything while the tree cannot be read. In the first life of a boot it is the other way
//! round: none of the cluster's daemons has started anything here yet, and the boot before may be proven dead at any moment, whatever the claims
//! say now. So until this boot is registered all is suspended but what is certainly not in the tree
//! ([decision 173](../../../docs/decisions/0173-the-first-daemon-of-a-boot.md)). What was suspended because the tree could not be read goes on
//! as soon as it can and has neither the VM nor a claim of it, whether this daemon ever gets its name or not.
//!
//! If the name that this daemon wants is another machine's, so are the claims that name it: what executes here for them was replaced
//! by that machine's, and is ended at once, since its disk may have been written by then. What is claimed by another name that this
//! machine has in this boot is its own: the configuration is wrong, and the daemon is about to say so.

use std::{
    collections::BTreeSet,
    fmt::Display,
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use pvc_core::{
    model::{Entry, NodeName, Vm, VmId, VmKey},
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
use tracing::{debug, error, info, warn};

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

/// Why a look was not completed.
enum Failed {
    /// It is not known what runs here, or what the tree says of it.
    Look(String),
    /// An instance could not be suspended, ended or let go on.
    Guest(String),
}

impl Failed {
    fn look(error: impl Display) -> Self {
        Self::Look(error.to_string())
    }

    fn guest(error: impl Display) -> Self {
        Self::Guest(error.to_string())
    }

    fn why(&self) -> &str {
        match self {
            Self::Look(why) | Self::Guest(why) => why,
        }
    }
}

/// What there is in the tree.
struct Tree {
    /// Whether it is prepared for a cluster.
    is_there: bool,
    known: BTreeSet<VmId>,
    claimed: BTreeSet<VmId>,
}

impl Tree {
    fn has(&self, id: VmId) -> bool {
        self.known.contains(&id) || self.claimed.contains(&id)
    }
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
                Err(Failed::look("ZooKeeper does not answer"))
            };
            let outcome = match outcome {
                Err(Failed::Look(why)) if self.is_unread() => self.suspend_all(&why).await,
                // Nothing is to be done before there is a session.
                Err(Failed::Look(_)) if !session.borrow().is_healthy() => Ok(()),
                outcome => outcome,
            };
            let failed = outcome
                .inspect_err(|failed| debug!(error = failed.why(), "could not look at all that runs here"))
                .is_err();
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
    async fn suspend_all(&self, why: &str) -> Result<(), Failed> {
        let here = self.here().await?;
        let executing = here.iter().filter(|guest| guest.activity == Activity::Running);
        all(executing.map(|guest| self.suspend_unread(guest, why))).await
    }

    /// What executes here, and what a daemon has suspended.
    async fn here(&self) -> Result<Vec<Seen>, Failed> {
        let mut here = self.on.hypervisor.active().await.map_err(Failed::look)?;
        here.retain(|seen| matches!(seen.activity, Activity::Running | Activity::Suspended(_)));
        Ok(here)
    }

    async fn look(&self) -> Result<(), Failed> {
        let here = self.here().await?;
        if here.is_empty() {
            return Ok(());
        }
        let tree = in_time(self.listed()).await?;
        // Whatever has to be suspended first: what comes after it may take its time.
        let looked = all(here.iter().map(|guest| self.look_at(guest, &tree))).await;
        let unread = here.iter().filter(|guest| guest.activity == Activity::Suspended(Suspension::Unread));
        let left: Vec<&Seen> = unread.filter(|guest| !tree.has(guest.id)).collect();
        if !tree.is_there || left.is_empty() {
            return looked;
        }
        looked.and(all(left.into_iter().map(|guest| self.let_go_on(guest))).await)
    }

    /// What there is in the tree. In a boot that is registered it has been read, by another daemon of this node.
    async fn listed(&self) -> Result<Tree, Failed> {
        let Dependencies { me, store, boot, .. } = &self.on;
        let names = async |root| store.children(root).await.map_err(Failed::look);
        let (keys, claims) = (names(schema::vm::ROOT).await?, names(schema::vm::CLAIM_ROOT).await?);
        let is_there = keys.is_some();
        // The tree may spell an id otherwise than libvirt does.
        let (known, _) = schema::vm::ids(&keys.unwrap_or_default());
        let claims = claims.unwrap_or_default();
        let claimed = claims.iter().filter_map(|name| schema::vm::claimed(name).ok()).collect();
        if self.is_unread() {
            let registered = schema::node::boot_of(&**store, me).await.map_err(Failed::look)?;
            if registered.as_ref() == Some(boot) {
                self.unread.store(false, Ordering::Relaxed);
            }
        }
        Ok(Tree { is_there, known: known.into_iter().collect(), claimed })
    }

    async fn look_at(&self, guest: &Seen, tree: &Tree) -> Result<(), Failed> {
        let executes = guest.activity == Activity::Running;
        if !tree.known.contains(&guest.id) {
            if executes && self.is_unread() && tree.claimed.contains(&guest.id) {
                return self.suspend_unread(guest, "it is not in the state tree, and claimed").await;
            }
            return Ok(());
        }
        match in_time(self.asked_twice(guest.id)).await {
            Ok(Some(_)) if sabotage::commits(Bug::LeaveStrangersRunning) => Ok(()),
            Ok(Some((vm, Elsewhere::Machine(machine)))) => self.end(&vm, &machine).await,
            Ok(Some((vm, Elsewhere::Node(why)))) if executes => self.suspend(&vm, &why).await,
            Ok(None) if executes && self.is_unread() => {
                self.suspend_unread(guest, "its node has yet to register this boot").await
            }
            Ok(_) => Ok(()),
            Err(failed) => {
                if executes && self.is_unread() {
                    self.suspend_unread(guest, failed.why()).await?;
                }
                // The others are known all the same.
                Err(Failed::Guest(failed.why().to_owned()))
            }
        }
    }

    /// The claim that names this node may not have come to the server that it reads from.
    async fn asked_twice(&self, id: VmId) -> Result<Option<(Vm, Elsewhere)>, Failed> {
        if self.belongs_elsewhere(id).await?.is_none() {
            return Ok(None);
        }
        self.on.store.sync().await.map_err(Failed::look)?;
        self.belongs_elsewhere(id).await
    }

    async fn belongs_elsewhere(&self, id: VmId) -> Result<Option<(Vm, Elsewhere)>, Failed> {
        let read = schema::vm::read(&*self.on.store, id).await.map_err(Failed::look)?;
        let Some(Entry::Good(vm)) = read else { return Ok(None) };
        let elsewhere = match belongs_elsewhere(&self.on.me, &vm) {
            Some(why) => {
                for name in vm.claim.value.iter() {
                    if self.on.ownership.is_called(name).await.map_err(Failed::look)? {
                        return Ok(None);
                    }
                }
                Some(Elsewhere::Node(why))
            }
            None if vm.claim.value.names(&self.on.me) => {
                let whose = self.on.ownership.claims_are_of().await.map_err(Failed::look)?;
                whose.map(Elsewhere::Machine)
            }
            None => None,
        };
        Ok(elsewhere.map(|elsewhere| (vm, elsewhere)))
    }

    async fn end(&self, vm: &Vm, machine: &str) -> Result<(), Failed> {
        let me = &self.on.me;
        warn!(vm = %vm.name, "powering off: its claim names {me}, and the name {me} belongs to {machine}");
        self.on.hypervisor.power_off(vm.id).await.map_err(Failed::guest)
    }

    async fn suspend(&self, vm: &Vm, why: &str) -> Result<(), Failed> {
        let suspend = self.on.hypervisor.suspend(vm.id, Suspension::Elsewhere);
        suspend.await.map_err(Failed::guest)?;
        warn!(
            vm = %vm.name,
            "it executed here though it belongs elsewhere ({why}): suspended until this daemon has its name"
        );
        Ok(())
    }

    async fn suspend_unread(&self, guest: &Seen, why: &str) -> Result<(), Failed> {
        let suspend = self.on.hypervisor.suspend(guest.id, Suspension::Unread);
        suspend.await.map_err(Failed::guest)?;
        warn!(
            vm = %guest.name,
            "it executed here, and no daemon has read the state tree since this machine's boot ({why}): suspended, since another node may \
             have it by now. It goes on, or is ended, as soon as the tree can be read"
        );
        Ok(())
    }

    /// One that the tree does not have, if it still is so by all that was written.
    async fn let_go_on(&self, guest: &Seen) -> Result<(), Failed> {
        let (id, store) = (guest.id, &*self.on.store);
        store.sync().await.map_err(Failed::guest)?;
        let claim = store.get(&schema::vm::key_path(id, VmKey::Claim)).await.map_err(Failed::guest)?;
        let vm = schema::vm::read(store, id).await.map_err(Failed::guest)?;
        let seen = self.on.hypervisor.seen(id).await.map_err(Failed::guest)?;
        let suspended = |seen: Seen| seen.activity == Activity::Suspended(Suspension::Unread);
        if claim.is_some() || vm.is_some() || !seen.is_some_and(suspended) {
            return Ok(());
        }
        self.on.hypervisor.resume(id).await.map_err(Failed::guest)?;
        info!(vm = %guest.name, "it goes on: the state tree, which can be read now, does not have it");
        Ok(())
    }
}

/// What cannot be read within that time is not waited for.
async fn in_time<T>(read: impl Future<Output = Result<T, Failed>>) -> Result<T, Failed> {
    timeout(FIRST_LOOK, read).await.unwrap_or_else(|_| Err(Failed::look("ZooKeeper does not answer in time")))
}

/// Does all of them, each whatever becomes of the others. A failed look says more than a failed guest.
async fn all(each: impl Iterator<Item = impl Future<Output = Result<(), Failed>>>) -> Result<(), Failed> {
    let failures = join_all(each).await.into_iter().filter_map(Result::err);
    match failures.min_by_key(|failed| matches!(failed, Failed::Guest(_))) {
        Some(failed) => Err(failed),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
