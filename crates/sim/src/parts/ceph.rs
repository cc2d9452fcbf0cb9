//! A daemon's connection to Ceph: what is asked of it arrives a moment later, and is done whether or not anybody waits for the answer, as with
//! `pvc_host::ceph::Librados`. Never decides who is shut out: the daemon's own fence does, over this.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use pvc_core::model::{
    NodeName,
    ceph::{ClientAddress, Figures, ImageName, Lock, OsdId, OsdStats, PoolName, Users},
    osd::{OsdUuid, Osds},
    storage::{CephChange, Hidden, ObservedImage, ObservedPool, OsdMap},
};
use pvc_host::ceph::{Ceph, CephAdmin, CephError, OnlyIf, Progress};
use pvc_process::Process;
use tokio::{
    sync::oneshot,
    time::{sleep, timeout},
};

use super::host::EPOCH_S;
use crate::physics::{
    ceph::{Asked, CephCluster},
    network::Number,
};

/// After so long the library gives up.
const DEADLINE: Duration = Duration::from_secs(5);
/// Tells a daemon's own client from those of QEMU processes.
const OWN_NONCE: u32 = 1_000_000;

/// See the module's documentation.
pub struct SimCeph {
    /// The world's process.
    pub world: Process,
    /// Who asks.
    pub node: NodeName,
    /// Its machine.
    pub machine: Number,
    /// What is asked.
    pub cluster: Arc<CephCluster>,
    /// The latest map that this connection knows; `None`: it has not been made.
    pub knows: Arc<Mutex<Option<u64>>>,
}

/// What a call is done with: the cluster, who calls, and the map that its connection knows.
struct Call<'a> {
    cluster: &'a CephCluster,
    by: &'a NodeName,
    knows: &'a mut u64,
}

impl SimCeph {
    async fn ask<T: Send + 'static>(
        &self,
        doing: String,
        asked: Asked<'_>,
        work: impl FnOnce(Call<'_>) -> Result<T, CephError> + Send + 'static,
    ) -> Result<T, CephError> {
        let (takes, is_lost) = self.cluster.takes(self.machine, asked);
        let Some(takes) = takes else {
            sleep(DEADLINE).await;
            return Err(CephError::Late { doing });
        };
        let (cluster, knows, by) = (Arc::clone(&self.cluster), Arc::clone(&self.knows), self.node.clone());
        let (answer, answered) = oneshot::channel();
        self.world.spawn(async move {
            sleep(takes).await;
            let mut knows = knows.lock().unwrap_or_else(PoisonError::into_inner);
            let knows = knows.get_or_insert_with(|| cluster.epoch());
            let done = work(Call { cluster: &cluster, by: &by, knows });
            if is_lost {
                drop(answer);
            } else {
                let _asker_may_be_gone = answer.send(done);
            }
        });
        let answered = async {
            match answered.await {
                Ok(done) => done,
                Err(_) => std::future::pending().await,
            }
        };
        timeout(DEADLINE, answered).await.unwrap_or(Err(CephError::Late { doing }))
    }
}

fn refused(doing: &str, why: &str) -> CephError {
    CephError::Refused { doing: doing.to_owned(), why: why.to_owned() }
}

/// As of a key without `profile rbd`.
fn may_shut_out(cluster: &CephCluster) -> Result<(), CephError> {
    if cluster.refuses_blocklist() { Err(refused("osd blocklist", "access denied")) } else { Ok(()) }
}

#[async_trait]
impl Ceph for SimCeph {
    async fn own_address(&self) -> Result<ClientAddress, CephError> {
        let host = SocketAddr::from((CephCluster::host(self.machine), 0));
        let work = move |_: Call<'_>| {
            format!("{host}/{OWN_NONCE}").parse().map_err(|error| CephError::Strange(format!("{error}")))
        };
        self.ask("where this client is".into(), Asked::Monitors, work).await
    }

    async fn own_hosts(&self) -> Result<BTreeSet<IpAddr>, CephError> {
        let host = IpAddr::V4(CephCluster::host(self.machine));
        self.ask("where this host is".into(), Asked::Nobody, move |_| Ok([host].into())).await
    }

    async fn users(&self, image: &ImageName) -> Result<Option<Users>, CephError> {
        let name = image.clone();
        let work = move |call: Call<'_>| Ok(call.cluster.users(&name, call.knows));
        self.ask(format!("who uses {image}"), Asked::Header(image), work).await
    }

    async fn blocklist(&self, client: &ClientAddress) -> Result<(), CephError> {
        let client = *client;
        let work = move |call: Call<'_>| {
            may_shut_out(call.cluster)?;
            call.cluster.blocklist(call.by, client);
            Ok(())
        };
        self.ask(format!("shutting out {client}"), Asked::Decision, work).await
    }

    async fn lift(&self, client: &ClientAddress) -> Result<(), CephError> {
        let client = *client;
        let work = move |call: Call<'_>| {
            may_shut_out(call.cluster)?;
            call.cluster.lift(client);
            Ok(())
        };
        self.ask(format!("letting in {client}"), Asked::Decision, work).await
    }

    async fn blocklisted(&self) -> Result<BTreeMap<ClientAddress, u64>, CephError> {
        let work = move |call: Call<'_>| {
            let entries = call.cluster.blocklisted().into_iter();
            Ok(entries.map(|(client, until)| (client, EPOCH_S + until.as_secs())).collect())
        };
        self.ask("who is shut out".into(), Asked::Monitors, work).await
    }

    async fn await_latest_map(&self) -> Result<(), CephError> {
        let work = move |call: Call<'_>| {
            *call.knows = call.cluster.epoch();
            Ok(())
        };
        self.ask("waiting for the latest OSD map".into(), Asked::Monitors, work).await
    }

    async fn figures(&self) -> Result<Figures, CephError> {
        self.ask("what the cluster holds".into(), Asked::Monitors, |_| Ok(Figures::default())).await
    }

    async fn osd_stats(&self) -> Result<BTreeMap<OsdId, OsdStats>, CephError> {
        self.ask("how its OSDs are".into(), Asked::Monitors, |_| Ok(BTreeMap::new())).await
    }

    async fn break_lock(&self, image: &ImageName, lock: &Lock) -> Result<(), CephError> {
        let (name, holder) = (image.clone(), lock.address);
        let work = move |call: Call<'_>| {
            may_shut_out(call.cluster)?;
            call.cluster.break_lock(call.by, &name, holder, call.knows);
            Ok(())
        };
        self.ask(format!("taking the lock of {image} from {holder}"), Asked::Decision, work).await
    }
}

/// Nothing is made or changed: a cluster has its images from the beginning.
#[async_trait]
impl CephAdmin for SimCeph {
    async fn pool(&self, _pool: &PoolName) -> Result<Option<ObservedPool>, CephError> {
        self.ask("looking at a pool".into(), Asked::Monitors, |_| Ok(None)).await
    }

    async fn images(&self, pool: &PoolName) -> Result<Vec<String>, CephError> {
        let name = pool.to_string();
        self.ask(format!("listing {pool}"), Asked::Monitors, move |call| Ok(call.cluster.images(&name))).await
    }

    async fn image(&self, _image: &ImageName) -> Result<Option<ObservedImage>, CephError> {
        self.ask("looking at an image".into(), Asked::Monitors, |_| Ok(None)).await
    }

    async fn osds(&self) -> Result<OsdMap, CephError> {
        self.ask("looking at OSDs".into(), Asked::Monitors, |_| Ok(OsdMap::default())).await
    }

    async fn osd_map(&self) -> Result<Osds, CephError> {
        self.ask("looking at OSDs".into(), Asked::Monitors, |_| Ok(Osds::default())).await
    }

    async fn take_osd_number(&self, _uuid: &OsdUuid) -> Result<(), CephError> {
        Err(refused("making an OSD", "the simulated Ceph changes nothing"))
    }

    async fn unsafe_to_destroy(&self, _osd: OsdId) -> Result<Option<String>, CephError> {
        self.ask("looking at an OSD".into(), Asked::Monitors, |_| Ok(None)).await
    }

    async fn osd_key(&self) -> Result<String, CephError> {
        Err(refused("making an OSD", "the simulated Ceph changes nothing"))
    }

    async fn hidden(&self, _pool: &PoolName) -> Result<Hidden, CephError> {
        self.ask("looking at a pool".into(), Asked::Monitors, |_| Ok(Hidden::default())).await
    }

    /// Nobody changes an image here.
    async fn retire(&self, _client: &ClientAddress, _images: &[ImageName]) -> Result<(), CephError> {
        self.ask("whether a client changes anything".into(), Asked::Monitors, |_| Ok(())).await
    }

    async fn change(
        &self,
        change: &CephChange,
        _only_if: OnlyIf<'_>,
        _progress: &Progress,
    ) -> Result<(), CephError> {
        Err(refused(&change.to_string(), "the simulated Ceph changes nothing"))
    }
}
