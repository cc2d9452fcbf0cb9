//! The cluster on one screen. What it says is [`pvc_core::command::status`]'s business; here is read what that looks at.

use pvc_core::command::status::{Facts, Status, survey};
use pvc_store::schema::{bmc, primary};

use crate::{Cluster, Failure, Nodes, network::explain, read::Looked};

/// Looks at everything.
pub async fn status(cluster: &Cluster, now_unix_s: u64) -> Result<Status, Failure> {
    look(cluster, now_unix_s, survey).await
}

/// Has somebody look at everything.
pub(crate) async fn look<T>(
    cluster: &Cluster,
    now_unix_s: u64,
    see: impl FnOnce(Facts<'_>) -> T,
) -> Result<T, Failure> {
    let view = cluster.view().await?;
    let flushes = cluster.flushes(&view).await?;
    let silent_s = Nodes::of(&view).silent(now_unix_s);
    let said = primary::read_explanation(&*cluster.store).await?.and_then(Result::ok);
    let Looked { sizes, damaged, bare } = cluster.looked(&view).await?;
    let reserve = cluster.ground(&view, sizes).await?.reserve(&view);
    let networks = explain::said(&*cluster.store, &view, now_unix_s).await?;
    let networks = networks.into_iter().map(|(node, said)| (node, said.troubles)).collect();
    let bmcs = bmc::read_all(&*cluster.store, view.nodes.keys()).await?;
    Ok(see(Facts {
        view: &view,
        flushes: &flushes,
        silent_s: &silent_s,
        damaged: &damaged,
        bare: &bare,
        bmcs: &bmcs,
        reserve: &reserve,
        networks: &networks,
        primary_says: said.as_ref(),
    }))
}
