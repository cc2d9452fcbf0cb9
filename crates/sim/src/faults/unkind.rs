//! Faults that depend on what the cluster says: a machine that loses power in the middle of its daemon's start or stop, a key that holds
//! what nobody can read.

use std::time::Duration;

use pvc_core::model::VmId;
use pvc_store::{Op, Store as _, Transaction, schema::machine};
use tokio::time::{sleep, timeout};

use super::{out_of_power, plug, set_bmc};
use crate::{
    cluster::Cluster,
    event::{self, Phase, VANDAL},
    parts::power::bmc,
    physics::network::Number,
    schedule::{Bmc, Fault, Halfway, Key, Rubbish},
};

/// How long a daemon's start is waited for: a boot and the end of its last run's session.
const STARTS_WITHIN: Duration = Duration::from_mins(3);
/// … and its stop.
const STOPS_WITHIN: Duration = Duration::from_secs(10);
/// Between two looks at what it says.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// One of them, from its beginning to its end.
pub(super) async fn happen(cluster: &Cluster, fault: Fault, lasts: Duration) {
    match fault {
        Fault::DieHalfway(node, when) => die_halfway(cluster, node, when, lasts).await,
        Fault::Gone(node, with_bmc) => break_for_good(cluster, node, with_bmc),
        Fault::Garble(key, rubbish) => garble(cluster, key, rubbish, lasts).await,
        Fault::Ceph(matter) => {
            if let Some(ceph) = &cluster.around.ceph {
                ceph.suffers(matter, true);
                sleep(lasts).await;
                ceph.suffers(matter, false);
            }
        }
        Fault::Clone(node) => clone_boots(cluster, node, lasts).await,
        Fault::Reinstall(node) => {
            plug(cluster, node, false);
            sleep(lasts).await;
            cluster.nodes[node].install_anew();
            // Somebody may have switched it on meanwhile.
            plug(cluster, node, false);
            plug(cluster, node, true);
        }
        _ => super::halted::happen(cluster, fault, lasts).await,
    }
}

/// Nothing of it works again.
fn break_for_good(cluster: &Cluster, node: Number, with_bmc: bool) {
    if !cluster.breaks(node) {
        return;
    }
    plug(cluster, node, false);
    if with_bmc {
        set_bmc(cluster, node, Some(Bmc::Silent));
    }
}

/// A copy of a node's disk boots in another machine, which calls itself by the node's name. Where it gets that because nothing claims the
/// name any more, it has taken the node's place by right: that is not simulated, and it is switched off at once.
async fn clone_boots(cluster: &Cluster, node: Number, lasts: Duration) {
    let (name, clone) = (&cluster.nodes[node].name, &cluster.clones[node]);
    let plug = |on| cluster.around.power.plug(&bmc(&clone.name), on);
    let store = cluster.around.ensemble.operator(VANDAL);
    let mut records = store.watch(&machine::path(name));
    clone.boots_quickly();
    plug(true);
    let by_right = || {
        cluster.around.journal.tree(|tree| {
            let is_clones =
                tree.text(&machine::path(name)).is_some_and(|had| had.contains(clone.name.as_str()));
            let names = |claim: &event::Key| {
                String::from_utf8_lossy(&claim.data).split_whitespace().any(|n| n == name.as_str())
            };
            is_clones && !tree.below("/pvc/claim/").any(|(_, claim)| names(claim))
        })
    };
    let takes_the_place = async { while records.recv().await.is_some() && !by_right() {} };
    let _ = timeout(lasts, takes_the_place).await;
    plug(false);
}

/// Has a machine lose its power when its daemon says that it starts, or stops.
async fn die_halfway(cluster: &Cluster, node: Number, when: Halfway, lasts: Duration) {
    let (word, within) = match when {
        Halfway::Init => {
            plug(cluster, node, false);
            plug(cluster, node, true);
            ("init", STARTS_WITHIN)
        }
        Halfway::Shutdown => {
            cluster.nodes[node].stop_daemon();
            ("shutdown", STOPS_WITHIN)
        }
    };
    let name = &cluster.nodes[node].name;
    let says = || cluster.around.journal.tree(|tree| tree.node(name, "daemonstate") == word);
    let said = async {
        while !says() {
            sleep(LOOK_EVERY).await;
        }
    };
    let said = timeout(within, said).await.is_ok();
    if said && cluster.around.journal.truth(|truth| truth.phase) == Phase::Chaos {
        out_of_power(cluster, &[node], lasts).await;
    }
    if when == Halfway::Shutdown {
        cluster.nodes[node].start_daemon();
    }
}

/// Makes a key unreadable for a while. Whatever is written there meanwhile stays.
async fn garble(cluster: &Cluster, key: Key, rubbish: Rubbish, lasts: Duration) {
    let (parents, which) = match key {
        Key::Node(node, which) => {
            let name = &cluster.nodes[node].name;
            (vec![format!("/nodes/{name}/"), format!("/pvc/machine/{name}")], which)
        }
        Key::Vm(vm, which) => {
            let id = cluster.vms[vm];
            (vec![format!("/domains/{id}/"), format!("/pvc/claim/{id}")], which)
        }
        Key::ClaimOn(node, which) => {
            let name = &cluster.nodes[node].name;
            let here = cluster.around.journal.tree(|tree| {
                let claimed = |vm: &VmId| tree.claim(*vm).eq([name.as_str()]);
                tree.vms().filter(claimed).map(|vm| format!("/pvc/claim/{vm}")).collect()
            });
            (here, which)
        }
    };
    let paths: Vec<String> = cluster.around.journal.tree(|tree| {
        parents.iter().flat_map(|parent| tree.below(parent).map(|(path, _)| path.to_owned())).collect()
    });
    let Some(path) = paths.get(which % paths.len().max(1)).cloned() else { return };
    // Who spoilt it first puts it right.
    if cluster.around.journal.truth(|truth| truth.is_spoilt(&path)) {
        return;
    }
    let store = cluster.around.ensemble.operator(VANDAL);
    let Ok(Some(before)) = store.get(&path).await else { return };
    // Empty is a word there: nobody, nothing.
    let means_something = path.contains("claim") || path.ends_with("/runningdomains");
    let data = match rubbish {
        Rubbish::Empty if !means_something => Vec::new(),
        Rubbish::NoText => vec![0xff, 0xfe, 0],
        Rubbish::NoWord | Rubbish::Empty => b"what / is this?".to_vec(),
        Rubbish::Long => vec![b'x'; 70_000],
    };
    let set =
        |data: Vec<u8>, version| Transaction { ops: vec![Op::Set { path: path.clone(), data, version }] };
    if store.commit(set(data.clone(), Some(before.version))).await.is_err() {
        return;
    }
    sleep(lasts).await;
    if let Ok(Some(now)) = store.get(&path).await
        && now.data == data
    {
        let _ = store.commit(set(before.data, Some(now.version))).await;
    }
}
