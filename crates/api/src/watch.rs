//! Watches the cluster for what the service remembers of it.

use std::{sync::Arc, time::Duration};

use pvc_core::model::Moment;
use pvc_operate::node;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tracing::debug;

use crate::{
    api::{Api, Shared},
    clock,
};

/// Between two samples.
const EVERY: Duration = Duration::from_secs(15);
/// An answer that takes longer is none.
const WITHIN: Duration = Duration::from_secs(10);

/// Remembers what becomes of the cluster, for ever.
pub async fn watch(api: &Arc<Api>) {
    tokio::join!(sample(api), follow(api));
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
        api.past.sampled(now, took, &nodes);
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
        api.past.saw(now, &view, silence);
        if views.changed().await.is_err() {
            return;
        }
    }
}
