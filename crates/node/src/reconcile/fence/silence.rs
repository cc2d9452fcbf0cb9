//! How long each node has been silent. A task of its own looks in time, whatever the fences wait for, and has the nodes looked at after
//! each look.
//!
//! It waits for signals and for the clock only: neither the store nor a BMC holds it up.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use pvc_core::{
    model::{ClusterView, Moment, NodeName, Subject},
    plan::{
        fence::Settings,
        liveness::{Liveness, longest_gap},
    },
    sabotage::{self, Bug},
};
use tokio::{sync::watch, time::Instant};

use crate::{controller::Cluster, until::until, write_streak::WriteStreak};

/// How often it is looked whether this node's keepalives are written again.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// How long the mirror may take to read what a silent node said last.
const FIGURES_WITHIN: Duration = Duration::from_secs(1);

/// See the module's documentation.
pub(super) struct Silence {
    cluster: Cluster,
    settings: Settings,
    /// For how long this node's keepalives were written without a gap.
    write_streak: watch::Receiver<Option<WriteStreak>>,
    measured: Mutex<Measured>,
}

struct Measured {
    liveness: Liveness,
    /// As the last look left it.
    known: Arc<Liveness>,
}

/// What a look has found.
pub(super) struct Look {
    pub(super) view: Arc<ClusterView>,
    /// Whether the view is current, and silence means something.
    pub(super) current: bool,
    pub(super) liveness: Arc<Liveness>,
    pub(super) now: Moment,
}

impl Silence {
    pub(super) fn new(
        cluster: Cluster,
        settings: Settings,
        write_streak: watch::Receiver<Option<WriteStreak>>,
    ) -> Self {
        let liveness = Liveness::new(settings.keepalive);
        let measured = Mutex::new(Measured { known: Arc::new(liveness.clone()), liveness });
        Self { cluster, settings, write_streak, measured }
    }

    /// Looks whenever something has changed, and by the time by which it must, for ever; calls `looked` each time.
    pub(super) async fn measure(self: Arc<Self>, looked: impl Fn()) {
        let me = self.cluster.me.clone();
        let mut news = self.cluster.mirror.signal(move |subject, view| concerns(&me, subject, view));
        let mut session = self.cluster.store.session();
        loop {
            session.mark_unchanged();
            news.mark_unchanged();
            if sabotage::commits(Bug::TrustWallClock) {
                let _ = self.cluster.mirror.figures(FIGURES_WITHIN).await;
            }
            let (_, next) = self.look();
            looked();
            tokio::select! {
                biased;
                changed = session.changed() => if changed.is_err() { return },
                changed = news.changed() => if changed.is_err() { return },
                () = until(next) => {}
            }
        }
    }

    /// Looks now, for a plan about this node. What is done about a silent node is done only if its last keepalive is still the one that
    /// was seen.
    pub(super) async fn look_at(&self, node: &NodeName) -> Look {
        let (look, _) = self.look();
        if look.current && self.is_late(node, &look) {
            let its = BTreeSet::from([node.clone()]);
            if self.cluster.mirror.figures_of(its, FIGURES_WITHIN).await.is_ok() {
                return self.look().0;
            }
        }
        look
    }

    /// What is known without a look: the time that has passed since the last one counts.
    pub(super) fn known(&self) -> Look {
        let current = self.is_current();
        let liveness = Arc::clone(&self.measured().known);
        Look { view: self.cluster.view(), current, liveness, now: self.cluster.now() }
    }

    /// Whether a node should speak, and has lately: it is looked at in time by the one who measures.
    pub(super) fn speaks(&self, node: &NodeName, look: &Look) -> bool {
        look.view.node(node).is_some_and(|seen| {
            let silence = look.liveness.silence(node, look.now);
            seen.should_speak() && silence < self.settings.patience(seen) / 4
        })
    }

    /// Takes note of who is silent. Answers when to look again at the latest, too, though nothing is signalled.
    fn look(&self) -> (Look, Option<Instant>) {
        let cluster = &self.cluster;
        let mut measured = self.measured();
        let (streak, gaps_count) = (self.write_streak(), sabotage::commits(Bug::CountGapAsSilence));
        let current = self.is_current();
        let (view, heard, now) = (cluster.view(), cluster.heard(), cluster.now());
        let liveness = &mut measured.liveness;
        liveness.observe(&view, &heard, current, now);
        if let Some(streak) = streak.filter(|_| !gaps_count) {
            liveness.writes_were_taken(cluster.moment(streak.since), cluster.moment(streak.until));
        }
        if sabotage::commits(Bug::TrustWallClock) {
            liveness.trust_wall_clocks(&view, cluster.machine.unix_s(), now);
        }
        let look_by = liveness.look_by(&cluster.me, &view, |node| self.settings.patience(node), now);
        // Nobody says so when this node's next keepalive is written.
        let again = || (!current && streak.is_none()).then(|| Instant::now() + LOOK_AGAIN);
        let next = look_by.map(|at| cluster.at(at)).or_else(again);
        measured.known = Arc::new(measured.liveness.clone());
        let liveness = Arc::clone(&measured.known);
        (Look { view, current, liveness, now }, next)
    }

    fn is_current(&self) -> bool {
        let gaps_count = sabotage::commits(Bug::CountGapAsSilence);
        self.cluster.is_current() && (self.write_streak().is_some() || gaps_count)
    }

    fn write_streak(&self) -> Option<WriteStreak> {
        self.write_streak.borrow().filter(|streak| streak.lasts(self.settings.keepalive))
    }

    /// Whether a node has been silent for so long that something may follow from it.
    fn is_late(&self, node: &NodeName, look: &Look) -> bool {
        look.view.node(node).is_some_and(|seen| {
            let patience = self.settings.patience(seen).min(longest_gap(self.settings.interval(seen)));
            look.liveness.silence(node, look.now) >= patience
        })
    }

    fn measured(&self) -> MutexGuard<'_, Measured> {
        self.measured.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What says that another node lives or works, and, while there is a fence, what its recovery waits for. This node's own keepalive is no
/// news to it.
fn concerns(me: &NodeName, subject: &Subject, view: &ClusterView) -> bool {
    match subject {
        Subject::Keepalive(name) => name != me,
        Subject::Node(_) | Subject::Fence(_) | Subject::Cluster => true,
        Subject::Vm(_) if !view.fences.is_empty() => true,
        _ => false,
    }
}
