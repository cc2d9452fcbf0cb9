//! What cannot be as desired of the client networks on this node: each tenant of theirs tells its troubles here, and one key in the state tree
//! says them all.
//!
//! Best effort: nobody waits for it, and it is written only when it is news.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use pvc_core::model::Trouble;
use pvc_process::JoinSet;
use pvc_store::schema::explain::{NetworkTroubles, write_networks};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tracing::{debug, info, warn};

use crate::controller::Cluster;

/// How long it may take to be written.
const WITHIN: Duration = Duration::from_secs(5);

/// The least time between two publications: what comes and goes within it is not told.
const AT_LEAST_BETWEEN: Duration = Duration::from_millis(500);

type ByTenant = BTreeMap<&'static str, Told>;

/// What a tenant has told.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Told {
    /// What its plan cannot do.
    planned: BTreeSet<Trouble>,
    /// What failed when it was done.
    failed: BTreeSet<Trouble>,
}

/// All that is told. It is published no more when this is dropped.
pub struct Troubles {
    all: Arc<watch::Sender<ByTenant>>,
    _task: JoinSet<()>,
}

impl Troubles {
    /// Starts it; returns at once.
    pub fn start(cluster: Cluster) -> Self {
        let all = Arc::new(watch::Sender::default());
        let mut task = JoinSet::new();
        task.spawn(publish(cluster, all.subscribe()));
        Self { all, _task: task }
    }

    /// For one tenant, whose name logs say.
    pub fn teller(&self, tenant: &'static str) -> Teller {
        Teller { tenant, all: Arc::clone(&self.all) }
    }
}

/// One tenant's way to tell.
#[derive(Clone)]
pub struct Teller {
    tenant: &'static str,
    all: Arc<watch::Sender<ByTenant>>,
}

impl Teller {
    /// For another, beside this one.
    #[must_use]
    pub fn of(&self, tenant: &'static str) -> Self {
        Self { tenant, all: Arc::clone(&self.all) }
    }

    /// What its plan cannot do, whatever it was before.
    pub fn plans(&self, troubles: impl IntoIterator<Item = Trouble>) {
        let troubles: BTreeSet<Trouble> = troubles.into_iter().collect();
        self.change(|told| &mut told.planned, troubles);
    }

    /// What failed, until something else does or all works.
    pub fn failed(&self, troubles: impl IntoIterator<Item = Trouble>) {
        self.change(|told| &mut told.failed, troubles.into_iter().collect());
    }

    /// What was planned has been done.
    pub fn works(&self) {
        self.failed([]);
    }

    /// Says in the log what is news.
    fn change(&self, part: fn(&mut Told) -> &mut BTreeSet<Trouble>, troubles: BTreeSet<Trouble>) {
        self.all.send_if_modified(|all| {
            let part = part(all.entry(self.tenant).or_default());
            if *part == troubles {
                return false;
            }
            for trouble in troubles.difference(part) {
                warn!("{}: {trouble}", self.tenant);
            }
            for trouble in part.difference(&troubles) {
                info!("{}: no longer so: {trouble}", self.tenant);
            }
            *part = troubles;
            true
        });
    }
}

async fn publish(cluster: Cluster, mut told: watch::Receiver<ByTenant>) {
    // What an earlier run has left is not known: it is written over.
    let mut published = None;
    loop {
        let now: NetworkTroubles = {
            let told = told.borrow_and_update();
            let each = told.values().flat_map(|told| told.planned.iter().chain(&told.failed));
            each.collect::<BTreeSet<_>>().into_iter().cloned().collect()
        };
        if published.as_ref() != Some(&now) {
            match timeout(WITHIN, write_networks(&*cluster.store, &cluster.me, &now)).await {
                Ok(Ok(())) => published = Some(now),
                Ok(Err(error)) => debug!("what is wrong with networks is not published: {error}"),
                Err(_) => debug!("what is wrong with networks is not published in time"),
            }
        }
        sleep(AT_LEAST_BETWEEN).await;
        if published.is_some() && told.changed().await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use pvc_host::machine::FakeMachine;
    use pvc_store::{Store, memory::MemoryTree, mirror::Mirror, schema};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn troubles_of_all_tenants_are_one_key_that_is_written_when_there_is_news() {
        let tree = MemoryTree::new();
        let store: Arc<dyn Store> = tree.client();
        schema::root::init(&*store).await.unwrap();
        let me: pvc_core::model::NodeName = "hv1".parse().unwrap();
        let mirror = Mirror::start(Arc::clone(&store));
        let cluster = Cluster::new(me.clone(), Arc::clone(&store), mirror, Arc::new(FakeMachine::default()));
        let left: NetworkTroubles = [Trouble::of_all("of an earlier run")].into_iter().collect();
        write_networks(&*store, &me, &left).await.unwrap();

        let troubles = Troubles::start(cluster);
        let said = async || {
            sleep(Duration::from_secs(2)).await;
            let all = schema::explain::read_networks(&*store, [&me]).await.unwrap();
            let mine = all.into_values().flat_map(|said| said.troubles);
            mine.map(|trouble| trouble.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(said().await, [""; 0]);
        let (walls, names) = (troubles.teller("firewall"), troubles.teller("names"));
        let of = |what| Trouble::of("100".parse().unwrap(), what);
        walls.plans([of("b"), of("a")]);
        names.failed([Trouble::of_all("the database is away")]);
        assert_eq!(said().await, ["the database is away", "network 100: a", "network 100: b"]);
        let zxid = tree.zxid();
        walls.plans([of("a"), of("b")]);
        assert_eq!((said().await.len(), tree.zxid()), (3, zxid), "that is no news");
        names.works();
        walls.plans([of("b")]);
        assert_eq!(said().await, ["network 100: b"]);
        walls.plans([]);
        assert_eq!(said().await, [""; 0]);
    }
}
