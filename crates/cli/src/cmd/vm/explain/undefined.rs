//! A VM that is not defined any more, while a claim on it is left: who deleted its keys did not wait for whoever executed it.

use pvc_core::{
    command::Refusal,
    model::{Claim, Entry, NodeName, VmId},
};
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

/// Explains the claim on it, or says that there is no such VM.
pub(super) async fn explain(
    cluster: &Connection,
    out: &Out,
    id: VmId,
    refusal: Refusal,
) -> Result<(), Failure> {
    let view = cluster.view().await?;
    let Some(entry) = view.orphan_claims.get(&id) else { return Err(refusal.into()) };
    let claim = match &**entry {
        Entry::Good(claim) => claim.value.clone(),
        Entry::Bad(problems) => {
            let list: Vec<String> = problems.iter().map(ToString::to_string).collect();
            let what = format!("VM {id} is not defined, and its claim cannot be read: {}", list.join("; "));
            return Err(Failure::Failed(what));
        }
    };
    let nodes = Nodes::of(&view);
    let running = nodes.runners().remove(&id).unwrap_or_default();
    let mut daemons: Vec<Daemon> = claim.iter().map(|node| daemon(&nodes, node.clone())).collect();
    for daemon in &mut daemons {
        daemon.fence = view.fences.get(&daemon.node).map(fence_words);
    }
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
    out.write(&explain::screen(&lines, &conclusion, out.colour()))
}

fn conclude(id: VmId, claim: &Claim, running: &Runners, daemons: &[Daemon]) -> String {
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

/// The same in JSON.
#[derive(Serialize)]
struct UndefinedJson<'a> {
    uuid: VmId,
    claim: Vec<&'a str>,
    running_on: Vec<&'a str>,
    daemons: Vec<DaemonJson<'a>>,
    conclusion: String,
}
