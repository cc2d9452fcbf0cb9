//! Tells, as figures and once in the log, whether the cluster has memory left for what may happen. Runs on every coordinator; the primary counts.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use metrics::gauge;
use pvc_core::{
    model::{ClusterView, NodeName},
    plan::placement::{ClusterCapacity, Reserve},
};
use pvc_store::{Store, StoreError, mirror::Mirror};
use tokio::time::sleep;
use tracing::{debug, info, warn};

use crate::{
    metrics::{NOT_ABSORBED, OVERCOMMITTED},
    sizes::VmSizes,
};

const EVERY: Duration = Duration::from_mins(1);

/// Counts, for ever.
pub(crate) async fn run(me: NodeName, store: Arc<dyn Store>, mirror: Mirror) {
    let sizes = VmSizes::new(store);
    let mut last = Reserve::default();
    loop {
        sleep(EVERY).await;
        let view = mirror.view();
        if view.primary_holder.as_ref() != Some(&me) || !mirror.synced() {
            tell(&Reserve::default());
            last = Reserve::default();
            continue;
        }
        match count(&sizes, &view).await {
            Ok(reserve) => {
                say(&last, &reserve);
                tell(&reserve);
                last = reserve;
            }
            Err(error) => debug!("the cluster's memory could not be counted: {error}"),
        }
    }
}

async fn count(sizes: &VmSizes, view: &ClusterView) -> Result<Reserve, StoreError> {
    let sizes = sizes.of(view, &[]).await?;
    Ok(Reserve::count(view, &ClusterCapacity::count(view, &sizes, &BTreeSet::new()), &sizes))
}

fn say(last: &Reserve, now: &Reserve) {
    let over = |reserve: &Reserve| !reserve.overcommitted.is_empty();
    let lost = |reserve: &Reserve| !reserve.not_absorbed.is_empty();
    if over(now) && !over(last) {
        let nodes: Vec<&str> = now.overcommitted.iter().map(|over| over.node.as_str()).collect();
        warn!("VMs may take more memory than there is on {}; pvc status says more", nodes.join(", "));
    }
    if lost(now) && !lost(last) {
        let nodes: Vec<&str> = now.not_absorbed.iter().map(|(node, _)| node.as_str()).collect();
        warn!(
            "not every VM would find room if one of these died: {}; pvc status says more",
            nodes.join(", ")
        );
    }
    if !lost(now) && lost(last) {
        info!("the death of any node could be absorbed");
    }
}

#[allow(clippy::cast_precision_loss, reason = "nobody has 2^53 VMs")]
fn tell(reserve: &Reserve) {
    let most = reserve.not_absorbed.iter().map(|(_, vms)| vms.len()).max().unwrap_or(0);
    gauge!(NOT_ABSORBED).set(most as f64);
    gauge!(OVERCOMMITTED).set(reserve.overcommitted.len() as f64);
}
