//! A VM that is not defined, while a claim on it is left or a node runs it: who deleted its keys did not wait for whoever executed it, or
//! nobody in the cluster has ever known of it.

#![allow(missing_docs, reason = "the fields are named as the API names them")]

use pvc_core::{
    command::Refusal,
    model::{Claim, Entry, Explanation, NodeName, VmId},
};
use pvc_store::schema::vm;
use serde::{Deserialize, Serialize};

use super::{
    Daemon,
    conclusion::{daemon_trouble, way_out},
};
use crate::{Cluster, Failure, Nodes, Runners, explain::told, failure};

/// What is known of a UUID that is no VM.
#[derive(Debug, Serialize, Deserialize)]
pub struct Undefined {
    pub uuid: VmId,
    /// Who may be executing it.
    pub claim: Vec<NodeName>,
    #[serde(flatten)]
    pub runners: Runners,
    pub daemons: Vec<Daemon>,
    /// What a daemon says of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub explanation: Option<Explanation>,
    /// Why that cannot be read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
    pub conclusion: String,
}

/// Explains the claim on it, or who runs it without one, or says that there is no such VM.
pub(super) async fn explain(
    cluster: &Cluster,
    id: VmId,
    refusal: Refusal,
    now_unix_s: u64,
) -> Result<Undefined, Failure> {
    let view = cluster.view().await?;
    let nodes = Nodes::of(&view);
    let running = nodes.runners().remove(&id);
    let claim = match view.orphan_claims.get(&id).map(|entry| &**entry) {
        Some(Entry::Good(claim)) => claim.value.clone(),
        Some(Entry::Bad(problems)) => {
            let what = failure::list(problems);
            return Err(Failure::Failed(format!(
                "VM {id} is not defined, and its claim cannot be read: {what}"
            )));
        }
        None if running.is_some() => Claim::none(),
        None => return Err(refusal.into()),
    };
    let runners = running.unwrap_or_default();
    let reporting = runners.now.iter().chain(&runners.before).filter(|node| !claim.names(node));
    let concerned = claim.iter().chain(reporting);
    let daemons: Vec<Daemon> =
        concerned.map(|node| Daemon::of(&view, &nodes, node.clone(), now_unix_s)).collect();
    let (explanation, problem) = told(vm::read_explanation(&*cluster.store, id).await?);
    Ok(Undefined {
        uuid: id,
        conclusion: conclude(id, &claim, &runners, &daemons),
        claim: claim.iter().cloned().collect(),
        runners,
        daemons,
        explanation,
        problems: problem.into_iter().collect(),
    })
}

fn conclude(id: VmId, claim: &Claim, running: &Runners, daemons: &[Daemon]) -> String {
    if claim.is_empty() {
        return unclaimed(id, running, daemons);
    }
    let unheard =
        daemons.iter().find_map(|daemon| Some((&daemon.node, daemon_trouble(daemons, &daemon.node)?)));
    if let Some((node, trouble)) = unheard {
        let way_out = way_out(daemons, node);
        return format!(
            "Somebody has undefined it, and {node} may still be executing it, but {trouble}. Until that is settled no other node starts a VM of \
             this UUID.{way_out}"
        );
    }
    match claim.iter().find(|node| running.now.contains(node)) {
        Some(node) => format!(
            "Somebody has undefined it while it ran, and it runs on {node}, which leaves it alone. To have it in the cluster again, define it with \
             this UUID; to end it: `virsh destroy {id}` on {node}."
        ),
        None => {
            "It is not defined any more, and off: the claim on it is given up within a minute.".to_owned()
        }
    }
}

/// Nobody in the cluster has ever claimed it, or a daemon has given it up.
fn unclaimed(id: VmId, running: &Runners, daemons: &[Daemon]) -> String {
    let way = "To have it in the cluster, define it with this UUID, which takes it as it runs; to end it";
    let names = |nodes: &[NodeName]| nodes.iter().map(NodeName::as_str).collect::<Vec<_>>().join(", ");
    match (&running.now[..], &running.before[..]) {
        ([], [node, ..]) => {
            let trouble = daemon_trouble(daemons, node).unwrap_or_default();
            format!(
                "It is not in the state tree, and may still run on {node}, which said so last; {trouble}. No other node starts a VM of this UUID \
                 meanwhile.{}",
                way_out(daemons, node)
            )
        }
        ([node], _) => format!(
            "It runs on {node} and is not in the state tree: somebody has started it by hand, or the tree was lost. It is left alone: nobody \
             restarts, moves or recovers it. {way}: `virsh destroy {id}` on {node}."
        ),
        (nodes, _) => format!(
            "It is not in the state tree, and {} report to run it: look at them at once. {way}: `virsh destroy {id}` there.",
            names(nodes)
        ),
    }
}
