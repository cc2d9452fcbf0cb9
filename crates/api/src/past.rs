//! What the service has seen since it began: figures of the nodes and of ZooKeeper over some hours, and the course of the last fences. Kept in
//! memory and bounded; the service of the next primary begins anew.

mod failovers;
mod figures;

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use pvc_core::model::Moment;
use pvc_operate::node;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tracing::debug;

use crate::{api::Shared, clock};
pub(crate) use failovers::Failover;
use failovers::Failovers;
use figures::Figures;
pub(crate) use figures::History;

/// Between two samples.
const EVERY: Duration = Duration::from_secs(15);
/// An answer that takes longer is none.
const WITHIN: Duration = Duration::from_secs(10);

/// What was seen.
#[derive(Default)]
pub(crate) struct Past(Mutex<Seen>);

#[derive(Default)]
struct Seen {
    figures: Figures,
    failovers: Failovers,
}

impl Past {
    fn with<T>(&self, act: impl FnOnce(&mut Seen) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// All samples.
    pub(crate) fn history(&self) -> History {
        self.with(|seen| seen.figures.history())
    }

    /// The last fences, the newest first.
    pub(crate) fn failovers(&self) -> Vec<Failover> {
        self.with(|seen| seen.failovers.newest_first())
    }

    /// Watches the cluster, for ever.
    pub(crate) async fn watch(api: &Shared) {
        tokio::join!(sample(api), follow(api));
    }
}

async fn sample(api: &Shared) {
    let mut times = interval(EVERY);
    times.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        times.tick().await;
        let asked = Instant::now();
        let answer = timeout(WITHIN, api.cluster.store.get("/primary_node")).await;
        let took = matches!(answer, Ok(Ok(_))).then(|| asked.elapsed());
        let now = clock::now_unix_s();
        let nodes = match timeout(WITHIN, node::list(api.seen(), now, |_| true)).await {
            Ok(Ok(list)) => list.nodes,
            Ok(Err(error)) => {
                debug!("no figures of the nodes: {error}");
                Vec::new()
            }
            Err(_) => Vec::new(),
        };
        api.past.with(|seen| seen.figures.add(now, took, &nodes));
    }
}

async fn follow(api: &Shared) {
    let Some(mirror) = api.mirror() else { return };
    mirror.ready().await;
    let (origin, mut views) = (Instant::now(), mirror.views());
    loop {
        let view = views.borrow_and_update().clone();
        let (heard, now) = (mirror.heard(origin), clock::now_unix_ms());
        let elapsed = Moment(origin.elapsed());
        let silence = |name: &_| heard.last.get(name).map(|(_, at)| elapsed.since(*at));
        api.past.with(|seen| seen.failovers.see(now, &view, silence));
        if views.changed().await.is_err() {
            return;
        }
    }
}
