//! Defines a VM.

use pvc_core::{
    command::vm::{Define, define as decide},
    model::{DomainSpec, NodeName},
    plan::placement::Selector,
};
use pvc_store::schema::vm;

use crate::{
    Answer, Cluster, Failure,
    write::{ATTEMPTS, Tries},
};

/// Defines a VM on `target`, or on a node that the selector chooses; answers also with that.
pub async fn define(
    cluster: &Cluster,
    spec: &DomainSpec,
    target: Option<&str>,
    selector: Selector,
) -> Result<(NodeName, Answer), Failure> {
    let request = Define { spec, target, selector };
    let mut tries = Tries::of(ATTEMPTS);
    loop {
        // Names also of those whose other keys cannot be read: a view has none.
        let (roster, view) = (cluster.roster().await?, cluster.view().await?);
        let ground = cluster.capacity(&view).await?;
        let (node, accepted) = decide(request, &roster, view.all_nodes(), &ground.capacity)?;
        let message = format!("VM {} ({}) is defined on {node}", spec.name, spec.id);
        let answer = Answer { message, notes: accepted.notes };
        let Some(change) = &accepted.change else { return Ok((node, answer)) };
        // It is off: no memory is spoken for by it.
        if tries.wrote(vm::apply(&*cluster.store, change).await)? {
            return Ok((node, answer));
        }
    }
}
