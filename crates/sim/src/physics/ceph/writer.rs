//! A guest that writes to an image for as long as it executes, by one client of its QEMU process.

use std::{sync::Arc, time::Duration};

use pvc_core::model::ceph::ClientAddress;
use tokio::time::{sleep, sleep_until, timeout};

use super::{CephCluster, OBJECTS, Way, locks::Locking};
use crate::rng::Rng;

/// Between two writes.
const EVERY: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(12)];
/// From a client to an OSD.
const TRAVELS: [Duration; 2] = [Duration::from_millis(1), Duration::from_millis(30)];
/// How often it is looked whether it goes on, if nothing tells.
const LOOK: Duration = Duration::from_secs(5);
/// How often what is in a kernel's buffer is sent again.
const SEND_AGAIN: Duration = Duration::from_millis(500);

/// What a guest does now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Now {
    /// There is no process.
    Gone,
    /// It does not execute.
    Stands,
    Executes,
}

/// Its life, to the end of its process.
pub(super) async fn live(cluster: Arc<CephCluster>, client: ClientAddress, mut rng: Rng) {
    let mut turns = cluster.turned.subscribe();
    loop {
        // What is due while its machine is frozen is written as soon as that goes on.
        sleep(rng.time(EVERY[0], EVERY[1])).await;
        loop {
            drop(turns.borrow_and_update());
            match cluster.now(client) {
                Now::Gone => return,
                Now::Executes => break,
                Now::Stands => drop(timeout(LOOK, turns.changed()).await),
            }
        }
        match cluster.lock(client) {
            Locking::Gone => return,
            Locking::Again(after) => sleep(after).await,
            Locking::Has => {
                let (object, travels) = (rng.below(OBJECTS), rng.time(TRAVELS[0], TRAVELS[1]));
                if cluster.send(client) {
                    let cluster = Arc::clone(&cluster);
                    let world = cluster.world.clone();
                    world.spawn(travel(cluster, client, object, travels));
                }
            }
        }
    }
}

/// A write on its way: in the kernel's buffer of its machine, whatever becomes of the process, then at the OSD.
async fn travel(cluster: Arc<CephCluster>, client: ClientAddress, object: usize, travels: Duration) {
    sleep(travels).await;
    let lands = loop {
        match cluster.way(client, object) {
            Way::Lost => return,
            Way::Waits => sleep(SEND_AGAIN).await,
            Way::Lands(at) => break at,
        }
    };
    sleep_until(cluster.journal.instant(lands)).await;
    cluster.land(client, object);
}
