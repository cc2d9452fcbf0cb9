//! Guests that stop executing while their processes live.

use std::time::Duration;

use pvc_host::hypervisor::Halt;
use tokio::time::sleep;

use crate::{cluster::Cluster, schedule::Fault};

/// How often somebody tries to let a guest go on, and how soon again.
const TRIES: u32 = 36;
const AGAIN: Duration = Duration::from_secs(5);

pub(super) async fn happen(cluster: &Cluster, fault: Fault, lasts: Duration) {
    match fault {
        Fault::PanicGuest(vm) => halt(cluster, vm, Halt::Crashed),
        Fault::PauseGuest(vm) => stand_for_a_while(cluster, vm, Halt::Paused, lasts).await,
        Fault::IoError(vm) => stand_for_a_while(cluster, vm, Halt::IoError, lasts).await,
        _ => {}
    }
}

fn halt(cluster: &Cluster, vm: usize, halt: Halt) {
    for node in &cluster.nodes {
        node.halt_guest(cluster.vms[vm], halt);
    }
}

/// A guest stands still until somebody lets it go on, wherever it is by then.
async fn stand_for_a_while(cluster: &Cluster, vm: usize, why: Halt, lasts: Duration) {
    halt(cluster, vm, why);
    sleep(lasts).await;
    for _ in 0..TRIES {
        let stands = cluster.nodes.iter().filter(|node| node.let_go(cluster.vms[vm])).count();
        if stands == 0 {
            return;
        }
        // It is on its way.
        sleep(AGAIN).await;
    }
}
