//! The floating addresses and client networks' gateways on this machine: added with a lifetime that the kernel enforces, renewed, announced, dropped.
//!
//! A guard of its own drops them when the store has taken no write for too long, whatever the reconciler is waiting for then.
//! They go to the kernel many at a time, and how long they may live is computed just before each time.

use std::{
    sync::{Arc, Mutex as StdMutex, PoisonError},
    time::Duration,
};

use pvc_core::{
    model::{
        Moment, Vni,
        link::{Assigned, HostNetwork, Link, Placed},
    },
    plan::primary::{Held, keep_until, lifetime_s},
    sabotage::{self, Bug},
    text::some,
};
use pvc_host::links::{ANNOUNCE_AFTER, Links, LinksError};
use pvc_process::JoinSet;
use pvc_store::Store;
use tokio::{
    sync::{Mutex, MutexGuard, watch},
    time::{Instant, sleep, sleep_until},
};
use tracing::{debug, info, warn};

/// The pause before a removal that failed is tried again.
const TRY_AGAIN: Duration = Duration::from_millis(100);

/// How long an address that cannot be added is not tried again: the others, and the services, do not wait for it.
const TRY_LATER: Duration = Duration::from_secs(5);

/// The same for one of which nothing was heard.
const TRY_SOON: Duration = Duration::from_millis(500);

/// The clock begins so long before this daemon does: its session may be older than this, a little.
const BEFORE: Duration = Duration::from_hours(1);

/// By [`Bug::KeepAddresses`] only.
const A_DAY: Duration = Duration::from_hours(24);

/// See the module's documentation.
pub(super) struct Addresses {
    links: Option<Arc<dyn Links>>,
    /// As configured.
    floating: Vec<Placed>,
    /// As the client networks were last seen.
    gateways: StdMutex<Vec<Placed>>,
    store: Arc<dyn Store>,
    origin: Instant,
    effects: Mutex<Effects>,
    /// This daemon has added them and not dropped them since.
    holding: watch::Sender<bool>,
    /// What is signalled where there are none.
    nothing: watch::Sender<()>,
}

#[derive(Default)]
struct Effects {
    /// What is there is this daemon's doing.
    touched: bool,
    /// Those that could not be added, and when to try again.
    failed: Vec<(Placed, Instant)>,
    /// Those that may have come without a word: nobody has announced them.
    unheard: Vec<Placed>,
    announcing: JoinSet<()>,
}

impl Addresses {
    pub(super) fn new(links: Option<Arc<dyn Links>>, floating: Vec<Placed>, store: Arc<dyn Store>) -> Self {
        let floating = if links.is_some() { floating } else { Vec::new() };
        let now = Instant::now();
        Self {
            links,
            floating,
            gateways: StdMutex::default(),
            store,
            origin: now.checked_sub(BEFORE).unwrap_or(now),
            effects: Mutex::default(),
            holding: watch::Sender::new(false),
            nothing: watch::Sender::new(()),
        }
    }

    /// Whether there are any to hold.
    pub(super) fn any(&self) -> bool {
        !self.floating.is_empty() || !self.gateways().is_empty()
    }

    /// From now on these are the gateways.
    pub(super) fn follow(&self, gateways: Vec<Placed>) {
        if self.links.is_some() {
            *self.gateways.lock().unwrap_or_else(PoisonError::into_inner) = gateways;
        }
    }

    fn gateways(&self) -> Vec<Placed> {
        self.gateways.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What is to be here while this node is primary: a gateway only where its network's bridge is. That comes by itself.
    fn wanted(&self, seen: &HostNetwork) -> Vec<Placed> {
        let gateways = self.gateways().into_iter().filter(|g| seen.link(&g.device).is_some());
        self.floating.iter().cloned().chain(gateways).collect()
    }

    /// Signals that they may not be as they were.
    pub(super) fn changes(&self) -> watch::Receiver<()> {
        match &self.links {
            Some(links) => links.changes(),
            None => self.nothing.subscribe(),
        }
    }

    /// Now, on this daemon's clock.
    pub(super) fn now(&self) -> Moment {
        Moment(self.origin.elapsed())
    }

    /// The instant of a moment on that clock.
    pub(super) fn instant(&self, moment: Moment) -> Instant {
        self.origin + moment.0
    }

    /// When the addresses must go unless the store takes another write; `None`: there is no session.
    pub(super) fn keep_until(&self) -> Option<Moment> {
        Some(keep_until(self.leader_heard()?, self.session_timeout()))
    }

    /// The same, while that has not come yet.
    fn kept_until(&self) -> Option<Moment> {
        self.keep_until().filter(|until| self.now() < *until)
    }

    fn lifetime_s(&self) -> Option<u32> {
        lifetime_s(self.leader_heard()?, self.session_timeout(), self.now())
    }

    /// For how long after the leader heard of this session nobody else can have been given the key.
    fn session_timeout(&self) -> Duration {
        if sabotage::commits(Bug::KeepAddresses) { A_DAY } else { self.store.session_timeout() }
    }

    fn leader_heard(&self) -> Option<Moment> {
        let at = Instant::from_std(self.store.leader_heard()?);
        at.checked_duration_since(self.origin).map(Moment)
    }

    /// What there is of them.
    pub(super) async fn held(&self, seen: Option<&HostNetwork>) -> Held {
        let Some(seen) = seen else {
            return Held { any: false, all: true, fresh: true, inherited: false };
        };
        let effects = self.effects.lock().await;
        let now = Instant::now();
        let given_up =
            |wanted: &Placed| effects.failed.iter().any(|(failed, until)| failed == wanted && now < *until);
        let new = self.lifetime_s().unwrap_or(0);
        let (wanted, strays) = (self.wanted(seen), self.strays(seen));
        let is_there = |f: &Placed| assigned(seen, f).is_some() && !effects.unheard.contains(f);
        let all = wanted.iter().all(|f| is_there(f) || given_up(f))
            && strays.iter().all(|stray| wanted.contains(stray));
        let there = wanted.iter().filter_map(|f| assigned(seen, f));
        let fresh = there.map(|a| a.lifetime_s).all(|lifetime| lifetime.is_some_and(|l| l * 2 > new));
        let bounded = strays.iter().filter_map(|stray| assigned(seen, stray)).all(|a| a.lifetime_s.is_some());
        Held { any: !strays.is_empty(), all, fresh, inherited: !effects.touched && bounded }
    }

    /// Adds those that are missing, renews the others, announces what is new.
    pub(super) async fn hold(&self) -> Result<(), String> {
        let effects = self.effects.lock().await;
        let seen = self.observe().await?;
        self.hold_as(effects, seen.as_ref()).await
    }

    /// The same by a look that was had while this node was not primary: who takes over does not look once more before the addresses are here. What
    /// has changed since is seen by the next look.
    pub(super) async fn hold_at_once(&self, seen: Option<&HostNetwork>) -> Result<(), String> {
        self.hold_as(self.effects.lock().await, seen).await
    }

    async fn hold_as(
        &self,
        mut effects: MutexGuard<'_, Effects>,
        seen: Option<&HostNetwork>,
    ) -> Result<(), String> {
        let (Some(links), Some(seen)) = (&self.links, seen) else { return Ok(()) };
        effects.failed.clear();
        let wanted = self.wanted(seen);
        let mut former = self.strays(seen);
        former.retain(|stray| !wanted.contains(stray));
        let (former_gateways, former): (Vec<Placed>, Vec<Placed>) = former.into_iter().partition(is_gateway);
        // The floating addresses are announced before anything is done to the first gateway: whoever looks for the cluster waits for them.
        let (floating, gateways) = wanted.split_at(self.floating.len());
        let mut failures = Vec::new();
        for (former, wanted) in [(former, floating), (former_gateways, gateways)] {
            for (former, outcome) in former.iter().zip(links.remove(&former).await) {
                match outcome {
                    Ok(()) => info!("primary: {}: it does not belong there any more", former.remove()),
                    Err(error) => failures.push(crate::log::chain(&error)),
                }
            }
            failures.extend(self.hold_some(links, &mut effects, seen, wanted).await?);
        }
        if failures.is_empty() { Ok(()) } else { Err(in_a_line(&failures)) }
    }

    /// The same for some of them; what has failed. It is an error if they may not stay.
    async fn hold_some(
        &self,
        links: &Arc<dyn Links>,
        effects: &mut Effects,
        seen: &HostNetwork,
        wanted: &[Placed],
    ) -> Result<Vec<String>, String> {
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        if self.lifetime_s().is_none() {
            return Err("the state store has taken no write lately: no address is added".into());
        }
        effects.touched = true;
        self.holding.send_replace(true);
        let outcomes = links.hold(wanted, &|| self.kept_until().and_then(|_| self.lifetime_s())).await;
        // It may have taken longer than was left.
        let Some(until) = self.kept_until() else {
            self.remove(effects).await?;
            return Err(
                "the state store stopped taking writes while addresses were added: dropped again".into()
            );
        };
        let (mut arrived, mut failures) = (Vec::new(), Vec::new());
        for (address, outcome) in wanted.iter().zip(outcomes) {
            let was_unheard = effects.unheard.iter().position(|unheard| unheard == address);
            let Err(error) = outcome else {
                let is_new = was_unheard.map(|at| effects.unheard.swap_remove(at)).is_some();
                arrived.extend((is_new || assigned(seen, address).is_none()).then(|| address.clone()));
                continue;
            };
            if error.is_refusal() {
                effects.failed.push((address.clone(), Instant::now() + TRY_LATER));
            } else if !matches!(error, LinksError::TooLate { .. }) {
                effects.failed.push((address.clone(), Instant::now() + TRY_SOON));
                let is_new = was_unheard.is_none() && assigned(seen, address).is_none();
                effects.unheard.extend(is_new.then(|| address.clone()));
            }
            failures.push(crate::log::chain(&error));
        }
        if !arrived.is_empty() {
            announce(&**links, &arrived, self.instant(until)).await;
            while effects.announcing.try_join_next().is_some() {}
            info!("primary: has the addresses {}", list(&arrived));
            effects.announcing.spawn(announce_again(Arc::clone(links), arrived, Instant::now()));
        }
        Ok(failures)
    }

    /// Removes them all, wherever they are.
    pub(super) async fn drop_all(&self) -> Result<(), String> {
        let mut effects = self.effects.lock().await;
        self.remove(&mut effects).await
    }

    async fn remove(&self, effects: &mut Effects) -> Result<(), String> {
        effects.announcing.abort_all();
        effects.touched = true;
        effects.unheard.clear();
        let Some(links) = &self.links else { return Ok(()) };
        let gateways = || self.gateways().into_iter().filter(|_| !sabotage::commits(Bug::LeaveGateways));
        let wanted = || self.floating.iter().cloned().chain(gateways());
        let seen = match self.observe().await {
            Ok(Some(seen)) => seen,
            Ok(None) => return Ok(()),
            Err(error) => {
                // What is to be here is known all the same.
                links.remove(&wanted().collect::<Vec<_>>()).await;
                return Err(error);
            }
        };
        let strays = self.strays(&seen);
        let mut all = strays.clone();
        if *self.holding.borrow() {
            // One of which nothing was heard may have come after the look.
            all.extend(wanted().filter(|wanted| !strays.contains(wanted)));
        }
        let outcomes = links.remove(&all).await;
        let failures: Vec<String> =
            outcomes.into_iter().filter_map(Result::err).map(|error| crate::log::chain(&error)).collect();
        if !failures.is_empty() {
            return Err(in_a_line(&failures));
        }
        self.holding.send_replace(false);
        if !strays.is_empty() {
            info!("primary: dropped the floating addresses {}", list(&strays));
        }
        Ok(())
    }

    /// Drops the addresses when their time is over, for ever.
    pub(super) async fn guard(self: Arc<Self>) {
        let mut holding = self.holding.subscribe();
        let mut session = self.store.session();
        loop {
            // The sender lives as long as `self`.
            let _ = holding.wait_for(|holding| *holding).await;
            match self.keep_until() {
                Some(until) if self.now() < until => {
                    tokio::select! {
                        biased;
                        () = sleep_until(self.instant(until)) => {}
                        _ = holding.changed() => {}
                        // Another server may have granted less.
                        Ok(()) = session.changed() => {}
                    }
                }
                _ => {
                    warn!(
                        "the state store has taken no write for two thirds of the session time-out: dropping the floating addresses, \
                         since another node may become primary"
                    );
                    if let Err(error) = self.drop_all().await {
                        warn!("{error}; the kernel removes them when their lifetime ends");
                        sleep(TRY_AGAIN).await;
                    }
                }
            }
        }
    }

    /// This machine's network; `None`: it is not managed.
    pub(super) async fn observe(&self) -> Result<Option<HostNetwork>, String> {
        match &self.links {
            None => Ok(None),
            Some(links) => links.observe(&[]).await.map(Some).map_err(|error| crate::log::chain(&error)),
        }
    }

    /// All that this machine has of them: floating addresses with whatever prefix and on whatever device, and of the addresses on client
    /// networks' bridges also those that were gateways before a network was changed. The floating ones first.
    fn strays(&self, seen: &HostNetwork) -> Vec<Placed> {
        let gateways = self.gateways();
        let is_ours = |link: &Link, a: &Assigned| {
            let is_gateway =
                || gateways.iter().any(|g| g.device == link.name && g.cidr.addr() == a.cidr.addr());
            self.floating.iter().any(|f| f.cidr.addr() == a.cidr.addr())
                || Vni::of_bridge(&link.name).is_some()
                    && (a.lifetime_s.is_some() || is_gateway())
                    && !sabotage::commits(Bug::LeaveGateways)
        };
        let its = |link: &'_ Link, a: &Assigned| Placed { device: link.name.clone(), cidr: a.cidr };
        let all = seen.links.iter().flat_map(|link| link.addresses.iter().map(move |a| (link, a)));
        let mut all: Vec<_> =
            all.filter(|(link, a)| is_ours(link, a)).map(|(link, a)| its(link, a)).collect();
        all.sort_by_key(is_gateway);
        all
    }
}

fn is_gateway(address: &Placed) -> bool {
    Vni::of_bridge(&address.device).is_some()
}

/// As many as a line of a log can show.
fn list(addresses: &[Placed]) -> String {
    let all: Vec<String> = addresses.iter().map(|f| format!("{} on {}", f.cidr, f.device)).collect();
    in_a_line(&all)
}

fn in_a_line(all: &[String]) -> String {
    some(&all.iter().map(String::as_str).collect::<Vec<_>>())
}

/// An address that is where it belongs.
fn assigned<'a>(seen: &'a HostNetwork, wanted: &Placed) -> Option<&'a Assigned> {
    seen.link(&wanted.device)?.addresses.iter().find(|a| a.cidr == wanted.cidr)
}

async fn announce(links: &dyn Links, arrived: &[Placed], not_after: Instant) {
    if let Err(error) = links.announce(arrived, not_after).await {
        debug!("{}", crate::log::chain(&error));
    }
}

async fn announce_again(links: Arc<dyn Links>, addresses: Vec<Placed>, arrived: Instant) {
    for after in ANNOUNCE_AFTER.into_iter().skip(1) {
        sleep_until(arrived + after).await;
        announce(&*links, &addresses, Instant::now() + TRY_SOON).await;
    }
}
