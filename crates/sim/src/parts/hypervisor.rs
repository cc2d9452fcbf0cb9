//! A node's libvirt: what is asked of it arrives a moment later, and is done whether or not the asker lives. How VMs start and
//! travel is chance.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use pvc_core::{
    model::{DomainSpec, NodeName, VmId, VmName},
    plan::storage_fence::images,
};
use pvc_host::hypervisor::{
    Event, Hypervisor, HypervisorError, Kept, Migration, Peer, Seen, Suspension, Undefined, Versions,
    fake::{Answer, Behaviour, FakeHypervisor, Journey, Outcome, PowerButton, Switch},
};
use pvc_process::Process;
use tokio::{sync::mpsc, time::sleep};

use super::in_flight;
use crate::{
    event::{self, Ask},
    journal::Journal,
    physics::{ceph::CephCluster, network::Number},
    rng::Rng,
};

/// How often VMs make trouble.
#[derive(Debug, Clone, Copy)]
pub struct FaultRates {
    /// A start is refused.
    pub start_fails: f64,
    /// The guest does not obey its power button.
    pub button_ignored: f64,
    /// A migration never converges.
    pub never_converges: f64,
    /// A migration fails after copying.
    pub fails_at_switch: f64,
    /// The target's answer that all has arrived is lost, and the source lets its guest go on.
    pub reply_lost: f64,
    /// The answer to a start or power-off never comes.
    pub answer_lost: f64,
}

impl FaultRates {
    /// No trouble.
    pub const GOOD: Self = Self {
        start_fails: 0.0,
        button_ignored: 0.0,
        never_converges: 0.0,
        fails_at_switch: 0.0,
        reply_lost: 0.0,
        answer_lost: 0.0,
    };
}

/// See the module's documentation.
pub struct SimHypervisor {
    /// The world's process.
    pub world: Process,
    /// Whose it is.
    pub node: NodeName,
    /// Libvirt.
    pub fake: Arc<FakeHypervisor>,
    /// How it goes.
    pub rng: Arc<Mutex<Rng>>,
    /// How VMs behave now.
    pub fault_rates: Arc<Mutex<FaultRates>>,
    /// Whom it is told.
    pub journal: Arc<Journal>,
    /// Its machine's number, and where VMs' images are.
    pub ceph: Option<(Number, Arc<CephCluster>)>,
}

/// What libvirt says of a bridge that is missing.
const LACKS: &str = "Cannot get interface MTU on 'vmbr100': No such device";

impl SimHypervisor {
    /// Whether a node lacks what every guest needs.
    fn lacks(&self, node: &NodeName) -> bool {
        self.journal.truth(|truth| truth.machine(node).lacks.is_some())
    }

    fn roll<T>(&self, draw: impl FnOnce(&mut Rng, FaultRates) -> T) -> T {
        let fault_rates = *self.fault_rates.lock().unwrap_or_else(PoisonError::into_inner);
        draw(&mut self.rng.lock().unwrap_or_else(PoisonError::into_inner), fault_rates)
    }

    fn asked(&self, vm: VmId, what: Ask) {
        self.journal.tell(event::Event::Asked { node: self.node.clone(), vm, what });
    }

    /// The images that its process opens when it is made.
    fn opens(&self, spec: &DomainSpec) {
        if let Some((number, ceph)) = &self.ceph {
            ceph.prepare(*number, spec.id, images(&spec.rbd_images).0);
        }
    }

    /// Asks libvirt, a moment from now.
    async fn ask<T, F, W>(&self, work: W) -> T
    where
        T: Send + 'static,
        F: Future<Output = T> + Send,
        W: FnOnce(Arc<FakeHypervisor>) -> F + Send + 'static,
    {
        let (fake, pause) = (Arc::clone(&self.fake), self.roll(|rng, _| ms(rng, 1, 3)));
        in_flight(&self.world, async move {
            sleep(pause).await;
            work(fake).await
        })
        .await
    }

    fn behaviour(&self) -> Behaviour {
        let lacks = self.lacks(&self.node);
        self.roll(|rng, fault_rates| {
            let answer = |rng: &mut Rng, after: Duration| Answer {
                after,
                outcome: if rng.chance(fault_rates.answer_lost) { Outcome::Lost } else { Outcome::Done },
            };
            let (start, power_off) = (ms(rng, 300, 2500), ms(rng, 50, 800));
            let refused = rng.chance(fault_rates.start_fails);
            let mut start = answer(rng, start);
            if lacks {
                start.outcome = Outcome::Refused(LACKS.into());
            } else if refused {
                start.outcome = Outcome::Refused("cannot set up guest memory".into());
            }
            let button = ms(rng, 1000, 20_000);
            let obeys = !rng.chance(fault_rates.button_ignored);
            let copying = ms(rng, 500, 15_000);
            let converges = !rng.chance(fault_rates.never_converges);
            Behaviour {
                start,
                resume: Answer::default(),
                suspend: Answer::default(),
                power_off: answer(rng, power_off),
                power_button: if obeys { PowerButton::Obeyed(button) } else { PowerButton::Ignored },
                journey: Journey {
                    copying: converges.then_some(copying),
                    pause: ms(rng, 50, 300),
                    outcome: Outcome::Done,
                    fails_at_switch: rng.chance(fault_rates.fails_at_switch),
                    // As long as libvirts wait for each other, by their usual settings.
                    reply_lost: rng.chance(fault_rates.reply_lost).then(|| ms(rng, 100, 30_000)),
                    teardown: ms(rng, 0, 500),
                    cut_at_switch: if rng.chance(0.5) { Switch::Arrived } else { Switch::Lost },
                },
            }
        })
    }
}

fn ms(rng: &mut Rng, shortest: u64, longest: u64) -> Duration {
    rng.time(Duration::from_millis(shortest), Duration::from_millis(longest))
}

#[async_trait]
impl Hypervisor for SimHypervisor {
    async fn active(&self) -> Result<Vec<Seen>, HypervisorError> {
        self.ask(|fake| async move { fake.active().await }).await
    }

    async fn seen(&self, id: VmId) -> Result<Option<Seen>, HypervisorError> {
        self.ask(move |fake| async move { fake.seen(id).await }).await
    }

    async fn start(&self, spec: &DomainSpec) -> Result<(), HypervisorError> {
        self.asked(spec.id, Ask::Start);
        self.opens(spec);
        self.fake.behave(spec.id, self.behaviour());
        // Libvirt makes it paused, whoever lives then, and who has asked for it lets it go: nobody does when that is gone (decision 62).
        sleep(self.roll(|rng, _| ms(rng, 1, 3))).await;
        self.fake.start(spec).await
    }

    async fn prepare(&self, spec: &DomainSpec) -> Result<(), HypervisorError> {
        self.asked(spec.id, Ask::Start);
        self.opens(spec);
        self.fake.behave(spec.id, self.behaviour());
        sleep(self.roll(|rng, _| ms(rng, 1, 3))).await;
        self.fake.prepare(spec).await
    }

    async fn could_start(&self, spec: &DomainSpec) -> Result<(), HypervisorError> {
        let spec = spec.clone();
        match self.ask(|fake| async move { fake.could_start(&spec).await }).await {
            Ok(()) if self.lacks(&self.node) => Err(HypervisorError::Refused(LACKS.into())),
            answer => answer,
        }
    }

    async fn ask_to_shut_down(&self, id: VmId) -> Result<(), HypervisorError> {
        self.asked(id, Ask::ShutDown);
        self.ask(move |fake| async move { fake.ask_to_shut_down(id).await }).await
    }

    async fn power_off(&self, id: VmId) -> Result<(), HypervisorError> {
        self.asked(id, Ask::PowerOff);
        self.fake.behave(id, self.behaviour());
        self.ask(move |fake| async move { fake.power_off(id).await }).await
    }

    async fn migrate(&self, id: VmId, to: &Peer) -> Result<(), HypervisorError> {
        let target = to.host.split('.').next().and_then(|name| name.parse().ok());
        let mut behaviour = self.behaviour();
        if let Some(target) = target {
            if self.lacks(&target) {
                behaviour.journey.outcome = Outcome::Refused(LACKS.into());
            }
            self.asked(id, Ask::Migrate(target));
        }
        self.fake.behave(id, behaviour);
        let to = to.clone();
        let outcome = self.ask(move |fake| async move { fake.migrate(id, &to).await }).await;
        self.asked(id, Ask::Migrated(outcome.clone().map_err(|error| error.to_string())));
        outcome
    }

    async fn migration(&self, id: VmId) -> Result<Option<Migration>, HypervisorError> {
        self.ask(move |fake| async move { fake.migration(id).await }).await
    }

    async fn abort_migration(&self, id: VmId) -> Result<(), HypervisorError> {
        self.asked(id, Ask::Abort);
        self.ask(move |fake| async move { fake.abort_migration(id).await }).await
    }

    async fn suspend(&self, id: VmId, why: Suspension) -> Result<(), HypervisorError> {
        self.asked(id, Ask::Suspend);
        self.ask(move |fake| async move { fake.suspend(id, why).await }).await
    }

    async fn has_left(&self, id: VmId, name: &VmName) -> Result<bool, HypervisorError> {
        self.fake.has_left(id, name).await
    }

    async fn resume(&self, id: VmId) -> Result<(), HypervisorError> {
        self.asked(id, Ask::Resume);
        self.ask(move |fake| async move { fake.resume(id).await }).await
    }

    async fn note_executes(&self, id: VmId) -> Result<(), HypervisorError> {
        self.ask(move |fake| async move { fake.note_executes(id).await }).await
    }

    async fn seen_at(&self, peer: &Peer, id: VmId) -> Result<Option<Seen>, HypervisorError> {
        let peer = peer.clone();
        self.ask(move |fake| async move { fake.seen_at(&peer, id).await }).await
    }

    async fn pause_at(&self, peer: &Peer, id: VmId) -> Result<Option<Duration>, HypervisorError> {
        let peer = peer.clone();
        self.ask(move |fake| async move { fake.pause_at(&peer, id).await }).await
    }

    async fn versions(&self, at: Option<&Peer>) -> Result<Versions, HypervisorError> {
        let at = at.cloned();
        self.ask(move |fake| async move { fake.versions(at.as_ref()).await }).await
    }

    async fn kept(&self) -> Result<Vec<Kept>, HypervisorError> {
        self.ask(|fake| async move { fake.kept().await }).await
    }

    async fn end_autostart(&self, id: VmId) -> Result<(), HypervisorError> {
        self.ask(move |fake| async move { fake.end_autostart(id).await }).await
    }

    async fn undefine(&self, id: VmId) -> Result<Undefined, HypervisorError> {
        self.ask(move |fake| async move { fake.undefine(id).await }).await
    }

    fn events(&self) -> mpsc::UnboundedReceiver<Event> {
        self.fake.events()
    }
}
