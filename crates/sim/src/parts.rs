//! What a simulated daemon stands on: each part passes on what it is asked to the world, which does it whether or not the daemon is
//! still there, and answers when the daemon can hear it.

pub mod bridges;
pub mod ceph;
pub mod host;
pub mod hypervisor;
pub mod links;
pub mod power;
pub mod servers;
pub mod storage;
pub mod store;
pub mod watchdog;

use std::future::pending;

use pvc_process::Process;
use tokio::sync::oneshot;

/// Has the world do something: it goes on when its asker is frozen, was killed, or has given up.
async fn in_flight<T: Send + 'static>(world: &Process, work: impl Future<Output = T> + Send + 'static) -> T {
    let (answer, answered) = oneshot::channel();
    world.spawn(async move {
        let _asker_may_be_gone = answer.send(work.await);
    });
    match answered.await {
        Ok(answer) => answer,
        Err(_) => pending().await,
    }
}
