//! A VM that is not defined, while a claim on it is left or a node runs it: who deleted its keys did not wait for whoever executed it, or
//! nobody in the cluster has ever known of it.

use pvc_core::{
    command::Refusal,
    model::{Claim, Entry, NodeName, VmId},
};
use pvc_store::schema::vm;
use serde::Serialize;

use super::{
    Daemon, DaemonJson,
    conclusion::{daemon_trouble, way_out},
    daemon, daemon_cell, daemon_json, fence_words, or_nobody,
};
use crate::{
    cmd::explain,
    connect::Connection,
    failure::Failure,
    print::{
        Out,
        table::{Cell, Look},
    },
    read::{Nodes, Runners},
};

/// Explains the claim on it, or who runs it without one, or says that there is no such VM.
pub(super) async fn explain(
    cluster: &Connection,
    out: &Out,
    id: VmId,
    refusal: Refusal,
) -> Result<(), Failure> {
    let view = cluster.view().await?;
    let nodes = Nodes::of(&view);
    let running = nodes.runners().remove(&id);
    let claim = match view.orphan_claims.get(&id).map(|entry| &**entry) {
        Some(Entry::Good(claim)) => claim.value.clone(),
        Some(Entry::Bad(problems)) => {
            let list: Vec<String> = problems.iter().map(ToString::to_string).collect();
            let what = format!("VM {id} is not defined, and its claim cannot be read: {}", list.join("; "));
            return Err(Failure::Failed(what));
        }
        None if running.is_some() => Claim::none(),
        None => return Err(refusal.into()),
    };
    let running = running.unwrap_or_default();
    let reporting = running.now.iter().chain(&running.before).filter(|node| !claim.names(node));
    let mut daemons: Vec<Daemon> =
        claim.iter().chain(reporting).map(|node| daemon(&nodes, node.clone())).collect();
    for daemon in &mut daemons {
        daemon.fence = view.fences.get(&daemon.node).map(fence_words);
    }
    let said = vm::read_explanation(&*cluster.store, id).await?;
    let conclusion = conclude(id, &claim, &running, &daemons);
    if out.is_json() {
        return out.json(&UndefinedJson {
            uuid: id,
            claim: claim.iter().map(NodeName::as_str).collect(),
            running_on: running.now.iter().map(NodeName::as_str).collect(),
            daemons: daemons.iter().map(daemon_json).collect(),
            conclusion,
        });
    }
    let mut lines = vec![
        ("uuid", Cell::from(id.to_string())),
        ("asked", Cell::new("nothing: it is not defined", Look::Bad)),
        ("claimed by", or_nobody(claim.iter()).into()),
        ("seen running on", running.words().into()),
    ];
    lines.extend(daemons.iter().map(|daemon| ("daemon of", daemon_cell(daemon))));
    if said.is_some() {
        lines.extend(explain::said(&said));
    }
    out.write(&explain::screen(&lines, &conclusion, out.colour()))
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

/// The same in JSON.
#[derive(Serialize)]
struct UndefinedJson<'a> {
    uuid: VmId,
    claim: Vec<&'a str>,
    running_on: Vec<&'a str>,
    daemons: Vec<DaemonJson<'a>>,
    conclusion: String,
}
