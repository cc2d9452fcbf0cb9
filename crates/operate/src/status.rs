//! The cluster on one screen. What it says is [`pvc_core::command::status`]'s business; here is read what that looks at.

use pvc_core::{
    command::status::{Facts, Status, survey},
    model::DomainSpec,
};
use pvc_store::schema::{bmc, primary};

use crate::{Cluster, Failure, Nodes, network::explain};

/// Looks at everything.
pub async fn status(cluster: &Cluster, now_unix_s: u64) -> Result<Status, Failure> {
    let view = cluster.view().await?;
    let flushes = cluster.flushes(&view).await?;
    let silent_s = Nodes::of(&view).silent(now_unix_s);
    let said = primary::read_explanation(&*cluster.store).await?.and_then(Result::ok);
    let definitions = cluster.definitions(view.good_vms().map(|vm| (vm.id, &vm.name))).await?;
    let reserve = cluster.ground(&view, &definitions).await?.reserve(&view);
    let lacks = |spec: &DomainSpec| spec.completed().is_ok_and(|completed| !completed.filled_in.is_empty());
    let bare =
        definitions.iter().filter(|(_, spec)| spec.as_ref().is_ok_and(lacks)).map(|(id, _)| *id).collect();
    let damaged = definitions.into_iter().filter_map(|(id, spec)| Some((id, spec.err()?))).collect();
    let networks = explain::said(&*cluster.store, &view, now_unix_s).await?;
    let networks = networks.into_iter().map(|(node, said)| (node, said.troubles)).collect();
    let bmcs = bmc::read_all(&*cluster.store, view.nodes.keys()).await?;
    Ok(survey(Facts {
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
