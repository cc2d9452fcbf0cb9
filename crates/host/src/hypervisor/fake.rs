//! A hypervisor in memory, for tests and simulations: it does what it is told to, including going wrong.
//!
//! Keeps the contract of the real one (`tests/hypervisor/contract.rs` runs on both). As with the real one, a change that
//! was begun goes on when its caller gives up. Time is tokio's, so a paused clock makes it deterministic.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::pending,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use pvc_core::model::{DomainSpec, VmId, VmName};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::sleep,
};

mod behaviour;
mod console;
mod fabric;
mod kept;
mod marks;
mod screen;
mod versions;

use super::{
    Activity, Event, Hypervisor, HypervisorError, Kept, Migration, Peer, Seen, Suspension, Undefined,
    Versions,
    libvirt::{Deadlines, MIGRATION_BACKSTOP},
};
pub use behaviour::{Answer, Behaviour, Counts, Journey, Outcome, PowerButton, Reach, Switch};
pub use console::{FakeConsoles, FakeGuest};
pub use fabric::FakeFabric;
pub use kept::Disk;
pub use screen::{FakeDisplay, FakeScreens, Look, look};

/// The fake.
pub struct FakeHypervisor {
    state: Arc<Mutex<State>>,
    reach: watch::Sender<Reach>,
    /// The peers, and what they call this one.
    fabric: Mutex<Option<(Arc<FakeFabric>, String)>>,
}

/// Told what a VM does here now, or that it is gone. Must not use the fake.
type Observer = Box<dyn FnMut(VmId, Option<Activity>) + Send>;

#[derive(Default)]
struct State {
    observer: Option<Observer>,
    versions: Option<Versions>,
    /// Counts the machine's lives: what one has begun, the next does not end.
    life: u64,
    active: BTreeMap<VmId, Domain>,
    behaviours: BTreeMap<VmId, Behaviour>,
    counts: Counts,
    starts: u64,
    subscribers: Vec<mpsc::UnboundedSender<Event>>,
    jobs: BTreeMap<VmId, fabric::Job>,
    /// How long guests were held by the migrations that brought them here.
    pauses: BTreeMap<VmId, Duration>,
    /// Definitions that outlive the machine's lives.
    kept: BTreeMap<VmId, kept::Definition>,
    /// What is on record as migrated from here; outlives libvirt and the machine.
    left: BTreeSet<VmId>,
    /// What has left and whose process is being ended: libvirt answers nothing about it until then, see [`FakeHypervisor::ended`].
    ending: BTreeMap<VmId, watch::Receiver<()>>,
}

/// Whether a change's caller has given it up by the time it is done.
#[derive(Clone, Copy)]
struct GivenUp(bool);

struct Domain {
    seen: Seen,
    /// Tells one run of a VM from the next, so that a late power-off ends only the run that it was meant for.
    run: u64,
    /// What it is taken for while it is paused, whoever has paused it.
    mark: Option<Activity>,
}

impl Default for FakeHypervisor {
    fn default() -> Self {
        Self { state: Arc::default(), reach: watch::Sender::new(Reach::Up), fabric: Mutex::default() }
    }
}

impl FakeHypervisor {
    /// One that can be reached and has no VM.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// How this VM behaves from now on.
    pub fn behave(&self, id: VmId, behaviour: Behaviour) {
        self.state().behaviours.insert(id, behaviour);
    }

    /// Whether calls arrive from now on. Changes under way fail if they no longer do; guests go on. `Down` is the end of its
    /// libvirt: migrations from and to here fail.
    pub fn set_reach(&self, reach: Reach) {
        let before = self.reach.send_replace(reach);
        if reach == Reach::Down {
            self.state().libvirt_is_gone();
        }
        match (before, reach) {
            (Reach::Down | Reach::Frozen, Reach::Up) => self.state().tell(&Event::Connected),
            (Reach::Up | Reach::Frozen, Reach::Down) => self.state().tell(&Event::Disconnected),
            _ => {}
        }
    }

    /// Has `observer` told of each VM that comes, turns to another activity or goes, in that moment.
    pub fn observe(&self, observer: impl FnMut(VmId, Option<Activity>) + Send + 'static) {
        self.state().observer = Some(Box::new(observer));
    }

    /// A VM that runs without our having started it.
    pub fn put(&self, seen: Seen) {
        self.state().insert(seen);
    }

    /// The VM ends behind everybody's back: a crash, `virsh destroy`, the guest's own doing.
    pub fn vanish(&self, id: VmId) {
        self.state().remove(id);
    }

    /// The VM turns to another activity.
    pub fn turn(&self, id: VmId, activity: Activity) {
        self.state().turn(id, activity);
    }

    /// What a VM does here, without counting as a call and whether or not calls arrive.
    pub fn activity(&self, id: VmId) -> Option<Activity> {
        self.state().active.get(&id).map(|domain| domain.seen.activity)
    }

    /// What runs, without counting as a call and whether or not calls arrive.
    pub fn running(&self) -> Vec<VmId> {
        self.state().active.keys().copied().collect()
    }

    /// Memory given to all that is here, MiB.
    pub fn memory_mib(&self) -> u64 {
        self.state().active.values().map(|domain| domain.seen.memory_mib).sum()
    }

    /// How often each method was called.
    pub fn counts(&self) -> Counts {
        self.state().counts
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Waits until calls arrive, then for `work`; as the real one, gives up after `within` and when reach is lost.
    async fn reached<T>(
        &self,
        within: Duration,
        doing: impl FnOnce() -> String,
        work: impl Future<Output = Result<T, HypervisorError>>,
    ) -> Result<T, HypervisorError> {
        let (mut thaw, mut loss) = (self.reach.subscribe(), self.reach.subscribe());
        let work = async {
            // The sender lives as long as `self`.
            let _ = thaw.wait_for(|reach| *reach == Reach::Up).await;
            work.await
        };
        tokio::select! {
            biased;
            _ = loss.wait_for(|reach| *reach == Reach::Down) => {
                Err(HypervisorError::Unavailable("the fake is told to be down".into()))
            }
            result = work => result,
            () = sleep(within) => Err(HypervisorError::Deadline { after: within, doing: doing() }),
        }
    }

    /// A change that goes on when nobody waits for it any more, which `apply` is told. What a frozen one was asked it does when it
    /// goes on, unless it ends first.
    async fn change(
        &self,
        within: Duration,
        doing: String,
        answer: Answer,
        apply: impl FnOnce(&mut State, GivenUp) -> Result<(), HypervisorError> + Send + 'static,
    ) -> Result<(), HypervisorError> {
        let (state, mut reach) = (self.state.clone(), self.reach.subscribe());
        let (mut sender, receiver) = oneshot::channel();
        let life = lock(&state).life;
        let is_down = *reach.borrow_and_update() == Reach::Down;
        if !is_down {
            tokio::spawn(async move {
                if reach
                    .wait_for(|reach| *reach != Reach::Frozen)
                    .await
                    .is_ok_and(|reach| *reach == Reach::Down)
                {
                    return;
                }
                let apply = |sender: &mut oneshot::Sender<_>| {
                    let mut state = lock(&state);
                    if state.life == life {
                        apply(&mut state, GivenUp(sender.is_closed()))
                    } else {
                        Err(gone())
                    }
                };
                let result = perform(answer, || apply(&mut sender)).await;
                let _ = sender.send(result);
            });
        }
        let work = async move {
            match receiver.await {
                Ok(result) => result,
                Err(_) => pending().await,
            }
        };
        self.reached(within, || doing, work).await
    }

    /// Returns when nobody is ending the process of this VM.
    async fn ended(&self, id: VmId) {
        let ending = self.state().ending.get(&id).cloned();
        if let Some(mut ending) = ending {
            let _ = ending.changed().await;
        }
    }

    fn behaviour(&self, id: VmId) -> Behaviour {
        self.state().behaviours.get(&id).cloned().unwrap_or_default()
    }
}

fn gone() -> HypervisorError {
    HypervisorError::Unavailable("the machine has lost power meanwhile".into())
}

async fn perform(
    answer: Answer,
    apply: impl FnOnce() -> Result<(), HypervisorError>,
) -> Result<(), HypervisorError> {
    if !answer.after.is_zero() {
        sleep(answer.after).await;
    }
    match answer.outcome {
        Outcome::Done => apply(),
        Outcome::Refused(why) => Err(HypervisorError::Refused(why)),
        Outcome::Hangs => pending().await,
        Outcome::Lost => {
            let _ = apply();
            pending().await
        }
    }
}

#[async_trait]
impl Hypervisor for FakeHypervisor {
    async fn active(&self) -> Result<Vec<Seen>, HypervisorError> {
        self.state().counts.active += 1;
        let look = async { Ok(self.state().active.values().map(|domain| domain.seen.clone()).collect()) };
        self.reached(Deadlines::default().ask, || "listing VMs".into(), look).await
    }

    async fn seen(&self, id: VmId) -> Result<Option<Seen>, HypervisorError> {
        self.state().counts.seen += 1;
        let look = async {
            self.ended(id).await;
            Ok(self.state().active.get(&id).map(|domain| domain.seen.clone()))
        };
        self.reached(Deadlines::default().ask, || format!("looking at VM {id}"), look).await
    }

    async fn start(&self, spec: &DomainSpec) -> Result<(), HypervisorError> {
        self.state().counts.start += 1;
        let (spec, answer) = (spec.clone(), self.behaviour(spec.id).start);
        let doing = format!("starting VM {}", spec.id);
        let start = move |state: &mut State, given_up| state.start(&spec, given_up);
        self.change(Deadlines::default().start, doing, answer, start).await
    }

    async fn prepare(&self, spec: &DomainSpec) -> Result<(), HypervisorError> {
        self.state().counts.start += 1;
        let (spec, answer) = (spec.clone(), self.behaviour(spec.id).start);
        let doing = format!("making the process of VM {}", spec.id);
        let prepare = move |state: &mut State, _| state.start(&spec, GivenUp(true));
        self.change(Deadlines::default().start, doing, answer, prepare).await
    }

    async fn could_start(&self, spec: &DomainSpec) -> Result<(), HypervisorError> {
        let outcome = match self.behaviour(spec.id).start.outcome {
            Outcome::Refused(why) => Err(HypervisorError::Refused(why)),
            Outcome::Done | Outcome::Lost | Outcome::Hangs => Ok(()),
        };
        self.reached(Deadlines::default().ask, || format!("asking about a start of VM {}", spec.id), async {
            outcome
        })
        .await
    }

    async fn ask_to_shut_down(&self, id: VmId) -> Result<(), HypervisorError> {
        self.state().counts.ask_to_shut_down += 1;
        let (state, button) = (self.state.clone(), self.behaviour(id).power_button);
        let press = async {
            if let PowerButton::Obeyed(after) = button {
                let run = lock(&state).active.get(&id).map(|domain| domain.run);
                tokio::spawn(async move {
                    sleep(after).await;
                    let mut state = lock(&state);
                    if state.active.get(&id).map(|domain| domain.run) == run {
                        state.remove(id);
                    }
                });
            }
            Ok(())
        };
        self.reached(Deadlines::default().ask, || format!("asking VM {id} to shut down"), press).await
    }

    async fn power_off(&self, id: VmId) -> Result<(), HypervisorError> {
        self.state().counts.power_off += 1;
        let (answer, doing) = (self.behaviour(id).power_off, format!("powering off VM {id}"));
        let end = move |state: &mut State, _| {
            state.remove(id);
            Ok(())
        };
        self.change(Deadlines::default().power_off, doing, answer, end).await
    }

    async fn migrate(&self, id: VmId, to: &Peer) -> Result<(), HypervisorError> {
        self.state().counts.migrate += 1;
        let work = async { self.begin_migration(id, to)?.await };
        self.reached(MIGRATION_BACKSTOP, || format!("migrating VM {id} to {to}"), work).await
    }

    async fn migration(&self, id: VmId) -> Result<Option<Migration>, HypervisorError> {
        self.state().counts.migration += 1;
        let look = async {
            self.ended(id).await;
            Ok(self.state().migration(id))
        };
        self.reached(Deadlines::default().ask, || format!("asking how VM {id} migrates"), look).await
    }

    async fn abort_migration(&self, id: VmId) -> Result<(), HypervisorError> {
        self.state().counts.abort_migration += 1;
        let abort = async {
            self.state().abort(id);
            Ok(())
        };
        self.reached(Deadlines::default().ask, || format!("aborting the migration of VM {id}"), abort).await
    }

    async fn suspend(&self, id: VmId, why: Suspension) -> Result<(), HypervisorError> {
        self.state().counts.suspend += 1;
        let suspend = perform(self.behaviour(id).suspend, || {
            let mut state = self.state();
            if state.active.get(&id).is_some_and(|domain| domain.seen.activity == Activity::Running) {
                state.turn(id, Activity::Suspended(why));
            }
            Ok(())
        });
        self.reached(Deadlines::default().ask, || format!("suspending VM {id}"), suspend).await
    }

    async fn has_left(&self, id: VmId, _: &VmName) -> Result<bool, HypervisorError> {
        self.state().counts.has_left += 1;
        // A file: whether libvirt can be reached makes no difference.
        Ok(self.state().left.contains(&id))
    }

    async fn resume(&self, id: VmId) -> Result<(), HypervisorError> {
        self.state().counts.resume += 1;
        let resume = perform(self.behaviour(id).resume, || {
            let mut state = self.state();
            if state.jobs.contains_key(&id) {
                return Err(HypervisorError::Refused("a migration is under way".into()));
            }
            let held = |domain: &Domain| domain.seen.activity.is_held();
            if state.active.get(&id).is_some_and(held) {
                state.turn(id, Activity::Running);
                state.unmark(id);
            }
            Ok(())
        });
        self.reached(Deadlines::default().ask, || format!("resuming VM {id}"), resume).await
    }

    async fn note_executes(&self, id: VmId) -> Result<(), HypervisorError> {
        let note = async {
            let mut state = self.state();
            if state.active.get(&id).is_some_and(|domain| domain.seen.activity == Activity::Running) {
                state.unmark(id);
            }
            Ok(())
        };
        self.reached(Deadlines::default().ask, || format!("noting that VM {id} executes"), note).await
    }

    async fn seen_at(&self, peer: &Peer, id: VmId) -> Result<Option<Seen>, HypervisorError> {
        self.state().counts.seen_at += 1;
        let look = async { Ok(self.peer(peer)?.state().active.get(&id).map(|domain| domain.seen.clone())) };
        self.reached(Deadlines::default().ask, || format!("looking for VM {id} at {peer}"), look).await
    }

    async fn pause_at(&self, peer: &Peer, id: VmId) -> Result<Option<Duration>, HypervisorError> {
        let look = async { Ok(self.peer(peer)?.state().pauses.get(&id).copied()) };
        self.reached(Deadlines::default().ask, || format!("asking {peer} how VM {id} arrived"), look).await
    }

    async fn versions(&self, at: Option<&Peer>) -> Result<Versions, HypervisorError> {
        let look = async { self.installed(at) };
        self.reached(Deadlines::default().ask, || "asking for a version".into(), look).await
    }

    async fn kept(&self) -> Result<Vec<Kept>, HypervisorError> {
        let look = async { Ok(self.state().kept()) };
        self.reached(Deadlines::default().ask, || "listing definitions".into(), look).await
    }

    async fn end_autostart(&self, id: VmId) -> Result<(), HypervisorError> {
        let end = async {
            self.state().end_autostart(id);
            Ok(())
        };
        self.reached(Deadlines::default().ask, || format!("ending the autostart of VM {id}"), end).await
    }

    async fn undefine(&self, id: VmId) -> Result<Undefined, HypervisorError> {
        let undefine = async { Ok(self.state().undefine(id)) };
        self.reached(Deadlines::default().ask, || format!("undefining VM {id}"), undefine).await
    }

    fn events(&self) -> mpsc::UnboundedReceiver<Event> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let mut state = self.state();
        if *self.reach.borrow() == Reach::Up {
            // The receiver is in our hands: this cannot fail.
            let _ = sender.send(Event::Connected);
        }
        state.subscribers.push(sender);
        receiver
    }
}

impl State {
    fn start(&mut self, spec: &DomainSpec, given_up: GivenUp) -> Result<(), HypervisorError> {
        if self.active.contains_key(&spec.id) {
            return Ok(());
        }
        if let Some(other) = self.active.values().find(|domain| domain.seen.name == spec.name.as_str()) {
            let (name, id) = (&other.seen.name, other.seen.id);
            return Err(HypervisorError::Refused(format!("domain '{name}' already exists with uuid {id}")));
        }
        let xml = spec.xml.trim();
        if !(xml.starts_with("<domain") && (xml.ends_with("</domain>") || xml.ends_with("/>"))) {
            return Err(HypervisorError::Unusable("XML error: this is no domain definition".into()));
        }
        let name = spec.name.as_str().to_owned();
        let (memory_mib, vcpus) = (spec.memory_mib, spec.vcpus);
        let activity = if given_up.0 { Activity::Unstarted } else { Activity::Running };
        self.insert(Seen { id: spec.id, name, activity, memory_mib, vcpus });
        Ok(())
    }

    fn insert(&mut self, seen: Seen) {
        self.starts += 1;
        self.left.remove(&seen.id);
        let (id, run) = (seen.id, self.starts);
        let activity = seen.activity;
        self.active.insert(id, Domain { mark: marks::of(activity), seen, run });
        self.news(id, Some(activity));
    }

    fn remove(&mut self, id: VmId) {
        if self.active.remove(&id).is_some() {
            self.job_is_gone(id);
            self.news(id, None);
        }
    }

    fn news(&mut self, id: VmId, activity: Option<Activity>) {
        if let Some(observer) = &mut self.observer {
            observer(id, activity);
        }
        self.tell(&Event::Domain(id));
    }

    fn tell(&mut self, event: &Event) {
        self.subscribers.retain(|subscriber| subscriber.send(event.clone()).is_ok());
    }
}

fn lock<T>(state: &Mutex<T>) -> MutexGuard<'_, T> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
