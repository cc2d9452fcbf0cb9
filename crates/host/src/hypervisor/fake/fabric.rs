//! Fakes that know each other as peers, and migrations between them.
//!
//! ```text
//!   source  Running ───copying───► Held ──pause────────────► on record as left ──teardown──► gone
//!   target      Held ──────────────────────────► Arrived
//! ```
//! Every failure but two: the source is Running again, the target gone. The two: the target's answer that all has arrived is lost, so the
//! source is Running again, too; and the source's libvirt ends while the guest is held on both sides, see [`Switch`]. As with the real thing, a
//! migration is libvirt's own business: it goes on when nobody waits for it, and each node's crash ends its part of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::pending,
    sync::{Arc, Mutex, Weak},
    time::Duration,
};

use pvc_core::model::VmId;
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use super::{
    super::{Activity, Halt, HypervisorError, Migration, Peer, Progress, Seen},
    FakeHypervisor, State,
    behaviour::{Journey, Outcome, Reach, Switch},
    lock,
};

/// The network between fakes.
#[derive(Default)]
pub struct FakeFabric {
    hosts: Mutex<BTreeMap<String, Weak<FakeHypervisor>>>,
    cuts: Mutex<BTreeSet<(String, String)>>,
}

impl FakeFabric {
    /// One without members.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Makes `fake` the hypervisor that others reach as `host`.
    pub fn join(self: &Arc<Self>, host: &str, fake: &Arc<FakeHypervisor>) {
        lock(&self.hosts).insert(host.to_owned(), Arc::downgrade(fake));
        *lock(&fake.fabric) = Some((self.clone(), host.to_owned()));
    }

    /// Nothing passes between the two any more: migrations between them fail.
    pub fn cut(&self, a: &str, b: &str) {
        lock(&self.cuts).extend([(a.to_owned(), b.to_owned()), (b.to_owned(), a.to_owned())]);
        let hosts = lock(&self.hosts).clone();
        for fake in [a, b].iter().filter_map(|host| hosts.get(*host)?.upgrade()) {
            fake.state().end_jobs("the connection between the nodes was lost", |job| {
                [a, b].contains(&job.peer.as_str())
            });
        }
    }

    /// It passes again.
    pub fn mend(&self, a: &str, b: &str) {
        let mut cuts = lock(&self.cuts);
        cuts.remove(&(a.to_owned(), b.to_owned()));
        cuts.remove(&(b.to_owned(), a.to_owned()));
    }

    fn passes(&self, a: &str, b: &str) -> bool {
        !lock(&self.cuts).contains(&(a.to_owned(), b.to_owned()))
    }
}

/// One end of a migration.
#[derive(Clone)]
pub(super) struct Job {
    peer: String,
    outgoing: bool,
    /// It did not execute when it left; so it stays.
    halt: Option<Halt>,
    copying: Option<Duration>,
    began: Instant,
    total: u64,
    /// Why it is to end before its time.
    end: Arc<watch::Sender<Option<End>>>,
}

#[derive(Debug, Clone)]
enum End {
    /// It fails, for this reason.
    Failure(String),
    /// The source's libvirt is gone.
    SourceLibvirt,
    /// One of the machines is gone, or the VM is.
    Gone,
}

impl Job {
    fn progress(&self) -> Progress {
        let elapsed = self.began.elapsed();
        let (sent, remaining) = match self.copying {
            Some(copying) if !copying.is_zero() => {
                let done = (elapsed.as_secs_f64() / copying.as_secs_f64()).min(1.0);
                #[allow(
                    clippy::cast_precision_loss,
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "a share of a size"
                )]
                let sent = (self.total as f64 * done) as u64;
                (sent, self.total - sent)
            }
            Some(_) => (self.total, 0),
            // One second for a copy of all of it, again and again.
            None => (self.total.saturating_mul(elapsed.as_secs()), self.total / 2),
        };
        Progress { elapsed, total: self.total, sent, remaining }
    }
}

impl State {
    /// The VM's migration, seen from here.
    pub(super) fn migration(&self, id: VmId) -> Option<Migration> {
        let job = self.jobs.get(&id)?;
        Some(if job.outgoing { Migration::Leaving(job.progress()) } else { Migration::Arriving })
    }

    pub(super) fn abort(&self, id: VmId) {
        if let Some(job) = self.jobs.get(&id).filter(|job| job.outgoing) {
            job.end.send_replace(Some(End::Failure("operation aborted: canceled by client".into())));
        }
    }

    pub(super) fn job_is_gone(&mut self, id: VmId) {
        if let Some(job) = self.jobs.remove(&id) {
            job.end.send_if_modified(|end| end.is_none() && end.replace(End::Gone).is_none());
        }
    }

    fn end_jobs(&self, why: &str, which: impl Fn(&Job) -> bool) {
        for job in self.jobs.values().filter(|job| which(job)) {
            job.end.send_replace(Some(End::Failure(why.to_owned())));
        }
    }

    /// This node's libvirt has ended.
    pub(super) fn libvirt_is_gone(&self) {
        for job in self.jobs.values() {
            let end = if job.outgoing {
                End::SourceLibvirt
            } else {
                End::Failure("end of file from the target's libvirt".into())
            };
            job.end.send_replace(Some(end));
        }
    }
}

impl FakeHypervisor {
    /// The other side, if it can be reached from here, within the time that a look at it may take.
    pub(super) fn peer(&self, peer: &Peer) -> Result<Arc<FakeHypervisor>, HypervisorError> {
        let unreachable =
            || HypervisorError::Unavailable(format!("unable to connect to server at '{}:16509'", peer.host));
        let Some((fabric, own)) = lock(&self.fabric).clone() else { return Err(unreachable()) };
        let other = lock(&fabric.hosts).get(&peer.host).and_then(Weak::upgrade).ok_or_else(unreachable)?;
        let up = *other.reach.borrow() == Reach::Up && fabric.passes(&own, &peer.host);
        if up { Ok(other) } else { Err(unreachable()) }
    }

    /// Begins a migration and answers what waits for its end.
    pub(super) fn begin_migration(
        &self,
        id: VmId,
        to: &Peer,
    ) -> Result<impl Future<Output = Result<(), HypervisorError>> + Send + 'static, HypervisorError> {
        let refused = |why: &str| HypervisorError::Refused(why.to_owned());
        let other = self.peer(to).map_err(|e| refused(&e.to_string()))?;
        let own = lock(&self.fabric).as_ref().map(|(_, own)| own.clone()).unwrap_or_default();
        let journey = self.journey(id);
        if let Outcome::Refused(why) = &journey.outcome {
            return Err(refused(why));
        }
        let seen: Seen = match self.state().active.get(&id) {
            Some(domain) if domain.seen.activity.is_held() => {
                return Err(refused("domain is not running"));
            }
            Some(domain) => domain.seen.clone(),
            None => return Err(refused("domain not found")),
        };
        let job = Job {
            peer: to.host.clone(),
            outgoing: true,
            halt: seen.activity.halt(),
            copying: journey.copying,
            began: Instant::now(),
            total: seen.memory_mib * 1024 * 1024,
            end: Arc::new(watch::Sender::new(None)),
        };
        {
            let mut target = other.state();
            if target.active.contains_key(&id) {
                return Err(refused("domain is already active on the target"));
            }
            target.insert(Seen { activity: Activity::Held, ..seen });
            target.jobs.insert(id, Job { peer: own, outgoing: false, ..job.clone() });
        }
        self.state().jobs.insert(id, job.clone());
        let run = Run { id, job, journey, source: self.state.clone(), target: other.state.clone() };
        Ok(run.finish())
    }

    fn journey(&self, id: VmId) -> Journey {
        self.state().behaviours.get(&id).map(|b| b.journey.clone()).unwrap_or_default()
    }

    /// The whole machine loses power: its guests are gone, and so is its libvirt until [`FakeHypervisor::set_reach`].
    pub fn die(&self) {
        self.set_reach(Reach::Down);
        let mut state = self.state();
        state.life += 1;
        let ids: Vec<VmId> = state.active.keys().copied().collect();
        for id in ids {
            state.remove(id);
        }
    }

    /// What executes here: not what is held. Not a call.
    pub fn executing(&self) -> Vec<VmId> {
        let state = self.state();
        let executing = state.active.values().filter(|domain| !domain.seen.activity.is_held());
        executing.map(|domain| domain.seen.id).collect()
    }
}

/// A migration between two fakes.
struct Run {
    id: VmId,
    job: Job,
    journey: Journey,
    source: Arc<Mutex<State>>,
    target: Arc<Mutex<State>>,
}

impl Run {
    async fn finish(self) -> Result<(), HypervisorError> {
        let lost = matches!(self.journey.outcome, Outcome::Lost);
        let (answer, answered) = tokio::sync::oneshot::channel();
        tokio::spawn(async move {
            let _ = answer.send(self.run().await);
        });
        let result = answered.await;
        match result {
            Ok(result) if !lost => result,
            _ => pending().await,
        }
    }

    async fn run(self) -> Result<(), HypervisorError> {
        let copying = async {
            match (&self.journey.outcome, self.journey.copying) {
                (Outcome::Hangs, _) | (_, None) => pending().await,
                (_, Some(copying)) => sleep(copying).await,
            }
        };
        if let Some(end) = self.unless_ended(copying).await {
            return self.fail(&end);
        }
        lock(&self.source).turn(self.id, Activity::Held);
        if let Some(end) = self.unless_ended(sleep(self.journey.pause)).await {
            return match end {
                End::SourceLibvirt => self.cut(),
                end => self.fail(&end),
            };
        }
        if self.journey.fails_at_switch {
            return self.fail(&End::Failure("the guest could not be resumed on the target".into()));
        }
        self.arrive();
        if let Some(silence) = self.journey.reply_lost {
            // Whatever ends the wait: what the target has, the source does not know of.
            return match self.unless_ended(sleep(silence)).await {
                Some(End::SourceLibvirt) => self.forget(),
                Some(end) => self.go_on_at_the_source(&end),
                None => self.go_on_at_the_source(&End::Failure("client socket is closed".into())),
            };
        }
        {
            let mut source = lock(&self.source);
            if !source.jobs.contains_key(&self.id) {
                // It ended in this very moment.
                drop(source);
                return self.go_on_at_the_source(&End::Gone);
            }
            source.left.insert(self.id);
            source.jobs.remove(&self.id);
        }
        if !self.journey.teardown.is_zero() {
            let (_ending, until_dropped) = watch::channel(());
            lock(&self.source).ending.insert(self.id, until_dropped);
            sleep(self.journey.teardown).await;
        }
        let mut source = lock(&self.source);
        source.ending.remove(&self.id);
        if source.left.contains(&self.id) {
            source.remove(self.id);
        }
        Ok(())
    }

    /// All of it is at the target.
    fn arrive(&self) {
        let mut target = lock(&self.target);
        target.jobs.remove(&self.id);
        target.pauses.insert(self.id, self.journey.pause);
        // As libvirt, whose target knows only that it shall not go on.
        let arrived = self.job.halt.map_or(Activity::Arrived, |_| Activity::Halted(Halt::Paused));
        target.turn(self.id, arrived);
    }

    /// Waits for `work`, or for the reason to end before that.
    async fn unless_ended(&self, work: impl Future<Output = ()>) -> Option<End> {
        let mut ends = self.job.end.subscribe();
        tokio::select! {
            biased;
            end = ends.wait_for(Option::is_some) => end.ok().and_then(|end| end.clone()),
            () = work => None,
        }
    }

    /// It goes on at the source, if that lives, and is gone at the target.
    fn fail(&self, end: &End) -> Result<(), HypervisorError> {
        let mut target = lock(&self.target);
        target.jobs.remove(&self.id);
        if target.active.get(&self.id).is_some_and(|domain| domain.seen.activity == Activity::Held) {
            target.remove(self.id);
        }
        drop(target);
        self.go_on_at_the_source(end)
    }

    fn go_on_at_the_source(&self, end: &End) -> Result<(), HypervisorError> {
        let mut source = lock(&self.source);
        source.jobs.remove(&self.id);
        if source.active.get(&self.id).is_some_and(|domain| domain.seen.activity == Activity::Held) {
            let as_before = self.job.halt.map_or(Activity::Running, Activity::Halted);
            source.turn(self.id, as_before);
        }
        Err(HypervisorError::Refused(match end {
            End::Failure(why) => why.clone(),
            End::SourceLibvirt => "libvirt went away".into(),
            End::Gone => "the VM or its other side is gone".into(),
        }))
    }

    /// The source's libvirt ended while the guest was held on both sides.
    fn cut(&self) -> Result<(), HypervisorError> {
        match self.journey.cut_at_switch {
            Switch::Arrived => self.arrive(),
            Switch::Lost => {
                let mut target = lock(&self.target);
                target.jobs.remove(&self.id);
                target.remove(self.id);
            }
        }
        self.forget()
    }

    /// What is held at the source stays so: the libvirt that knew why has ended.
    fn forget(&self) -> Result<(), HypervisorError> {
        lock(&self.source).jobs.remove(&self.id);
        Err(HypervisorError::Unavailable("libvirt went away".into()))
    }
}
