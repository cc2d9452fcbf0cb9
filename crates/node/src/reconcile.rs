//! Runs the reconcilers: what pokes them, when they begin, how they end.
//!
//! ```text
//!   mirror ─────────┐
//!   libvirt events ─┼─► queue ──► one look a subject at a time ──► vm::VmReconciler
//!   safety net ─────┘
//! ```
//!
//! Begins with what runs here: libvirt is read and running VMs are adopted before anything else is done.

mod definitions;
mod explain;
pub mod fence;
pub mod flush;
mod inventory;
mod kept;
mod migration;
pub mod network;
pub mod primary;
#[cfg(test)]
mod tests;
mod vm;

use std::{sync::Arc, time::Duration};

use pvc_core::{
    model::{NodeName, Subject},
    plan::placement::Selector,
};
use pvc_host::{
    hypervisor::{Event, Hypervisor},
    machine::Machine,
};
use pvc_process::JoinSet;
use pvc_store::{Store, mirror::Mirror};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, MissedTickBehavior, interval, sleep, sleep_until},
};
use tracing::{debug, info, warn};

use crate::{ability::Trouble, console::ConsoleLogs, queue::Queue};
pub use inventory::{Active, Inventory};
pub use migration::Peers;
use vm::VmReconciler;

/// How often everything is read again, in case an event was lost.
const SAFETY_NET: Duration = Duration::from_mins(1);

/// The pause before the mirror is asked once more whether it has caught up.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// How long one wait for the mirror's new listing may take before it is looked at again.
const CAUGHT_UP_WITHIN: Duration = Duration::from_secs(10);

/// What they stand on.
pub struct Parts {
    /// This node.
    pub me: NodeName,
    /// How the other nodes' hypervisors are reached.
    pub peers: Peers,
    /// The state tree.
    pub store: Arc<dyn Store>,
    /// The view of it.
    pub mirror: Mirror,
    /// This machine, for its clock.
    pub machine: Arc<dyn Machine>,
    /// Its hypervisor.
    pub hypervisor: Arc<dyn Hypervisor>,
    /// How a node is chosen for a VM whose wish names none.
    pub selector: Selector,
    /// What publishes consoles; `None`: nobody.
    pub consoles: Option<Arc<ConsoleLogs>>,
}

/// The running reconcilers of a node.
pub struct Reconcilers {
    active: watch::Receiver<Active>,
    trouble: watch::Receiver<Trouble>,
    queue: Arc<Queue>,
    tasks: JoinSet<()>,
}

impl Reconcilers {
    /// Starts them; returns at once.
    pub fn start(parts: Parts) -> Self {
        let queue = Arc::new(Queue::default());
        let events = parts.hypervisor.events();
        let changes = parts.mirror.changes(|subject, _| matches!(subject, Subject::Vm(_)));
        let vms = Arc::new(VmReconciler::new(parts));
        let (active, trouble) = (vms.inventory.subscribe(), vms.inventory.trouble());
        let mut tasks = JoinSet::new();
        tasks.spawn(listen_to_libvirt(Arc::clone(&vms), Arc::clone(&queue), events));
        tasks.spawn(listen_to_the_mirror(Arc::clone(&queue), changes));
        tasks.spawn(listen_to_the_session(Arc::clone(&vms), Arc::clone(&queue)));
        tasks.spawn(keep_a_safety_net(Arc::clone(&vms), Arc::clone(&queue)));
        tasks.spawn(work(vms, Arc::clone(&queue)));
        Self { active, trouble, queue, tasks }
    }

    /// What runs here, signalled whenever it changes.
    pub fn active(&self) -> watch::Receiver<Active> {
        self.active.clone()
    }

    /// Why libvirt does not answer, if so, signalled whenever it changes.
    pub fn trouble(&self) -> watch::Receiver<Trouble> {
        self.trouble.clone()
    }

    /// Takes up nothing new and lets what is being done end, for so long at most. Nothing that runs is touched.
    pub async fn stop(mut self, within: Duration) {
        self.tasks.abort_all();
        self.queue.idle(Instant::now() + within).await;
        let left = self.queue.busy();
        if left > 0 {
            warn!(
                "{left} operation(s) on VMs were still going on at the stop; the next start looks at them anew"
            );
        }
        while self.tasks.join_next().await.is_some() {}
    }
}

async fn work(vms: Arc<VmReconciler>, queue: Arc<Queue>) {
    begin(&vms, &queue).await;
    loop {
        let look = queue.next().await;
        let Subject::Vm(id) = *look.subject() else { continue };
        if vms.is_settled(id) {
            continue;
        }
        let vms = Arc::clone(&vms);
        // Detached on purpose: a step that has begun is not cut in the middle by the daemon's stop; see `stop`.
        pvc_process::spawn(async move {
            let again = vms.reconcile(id).await;
            look.again_at(again);
        });
    }
}

/// Waits for what libvirt and the state tree say, then looks at what runs here first: it is adopted before others start.
async fn begin(vms: &VmReconciler, queue: &Queue) {
    let begin = Instant::now();
    vms.mirror.ready().await;
    // Ends only with the daemon: the inventory lives as long as `vms`.
    let _ = vms.inventory.subscribe().wait_for(Option::is_some).await;
    vms.explanations().take_over().await;
    let running = vms.inventory.ids();
    info!("{} VM(s) run here; known after {:.2} s", running.len(), begin.elapsed().as_secs_f32());
    for id in running {
        queue.poke(Subject::Vm(id));
    }
    poke_all(vms, queue);
    vms.tidy().await;
}

fn poke_all(vms: &VmReconciler, queue: &Queue) {
    for id in vms.concerned().into_iter().chain(vms.inventory.ids()) {
        queue.poke(Subject::Vm(id));
    }
}

async fn listen_to_the_mirror(queue: Arc<Queue>, mut changes: mpsc::UnboundedReceiver<Subject>) {
    while let Some(subject) = changes.recv().await {
        queue.poke(subject);
    }
}

/// What waits for the store to come back is poked when it is back and listed anew.
async fn listen_to_the_session(vms: Arc<VmReconciler>, queue: Arc<Queue>) {
    let mut session = vms.store.session();
    while session.changed().await.is_ok() {
        while session.borrow_and_update().is_healthy() {
            match vms.mirror.caught_up(CAUGHT_UP_WITHIN).await {
                Ok(()) => {
                    poke_all(&vms, &queue);
                    break;
                }
                Err(error) => {
                    debug!(%error, "waiting for the view after a reconnection");
                    sleep(LOOK_AGAIN).await;
                }
            }
        }
    }
}

async fn listen_to_libvirt(
    vms: Arc<VmReconciler>,
    queue: Arc<Queue>,
    mut events: mpsc::UnboundedReceiver<Event>,
) {
    read_all(&vms, &queue).await;
    while let Some(event) = events.recv().await {
        match event {
            Event::Domain(id) => {
                if let Err(error) = vms.inventory.read(id).await {
                    debug!(vm = %id, %error, "could not read it after an event");
                }
                queue.poke(Subject::Vm(id));
            }
            Event::Connected => read_all(&vms, &queue).await,
            Event::Disconnected => vms.inventory.forget("the connection to libvirt is lost"),
        }
    }
}

async fn read_all(vms: &VmReconciler, queue: &Queue) {
    match vms.inventory.read_all().await {
        Ok(_) => poke_all(vms, queue),
        Err(error) => debug!(%error, "could not list what runs here"),
    }
}

async fn keep_a_safety_net(vms: Arc<VmReconciler>, queue: Arc<Queue>) {
    sleep(SAFETY_NET).await;
    let mut tick = interval(SAFETY_NET);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        match vms.inventory.read_all().await {
            Ok(changed) => changed.into_iter().for_each(|id| queue.poke(Subject::Vm(id))),
            Err(error) => debug!(%error, "could not list what runs here"),
        }
        poke_all(&vms, &queue);
        vms.tidy().await;
    }
}

/// Waits for a moment that may never come.
async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}
