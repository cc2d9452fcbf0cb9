//! A state tree with nodes and client networks, for tests of those who make client networks so.
#![allow(clippy::unwrap_used, clippy::panic, reason = "for tests")]

use std::{fmt::Debug, sync::Arc, time::Duration};

use pvc_core::model::{DaemonMode, Network, NetworkKind, NodeName, Trouble, Vni};
use pvc_host::machine::FakeMachine;
use pvc_store::{
    CreateMode, Op, Store, Transaction,
    memory::{MemoryStore, MemoryTree},
    mirror::{Mirror, Needs},
    schema::{self, node},
};
use tokio::time::{Instant, sleep};

use crate::{controller::Cluster, network_troubles::Troubles};

pub(crate) fn name(name: &str) -> NodeName {
    name.parse().unwrap()
}

pub(crate) fn vni(number: u32) -> Vni {
    number.to_string().parse().unwrap()
}

/// A managed network 10.NUMBER.0.0/24 with a gateway, whose DHCP gives out 10.NUMBER.0.100 to 10.NUMBER.0.199.
pub(crate) fn network(number: u32) -> Network {
    let mut network = Network {
        kind: Some(NetworkKind::Managed),
        description: "web".into(),
        domain: Some("web.local".parse().unwrap()),
        ..Network::bare(vni(number))
    };
    let address = |last| Some(format!("10.{number}.0.{last}").parse().unwrap());
    network.ip4.network = Some(format!("10.{number}.0.0/24").parse().unwrap());
    network.ip4.gateway = address(1);
    network.ip4.dhcp.enabled = true;
    (network.ip4.dhcp.start, network.ip4.dhcp.end) = (address(100), address(199));
    network
}

/// The tree, and hv1 as a tenant has it.
pub(crate) struct NetworkWorld {
    pub(crate) tree: MemoryTree,
    pub(crate) store: Arc<MemoryStore>,
    pub(crate) cluster: Cluster,
    pub(crate) troubles: Troubles,
}

impl NetworkWorld {
    /// hv1, beside hv2 and hv3.
    pub(crate) async fn new() -> Self {
        let tree = MemoryTree::new();
        let store = tree.client();
        schema::root::init(&*store).await.unwrap();
        for number in 1..=3 {
            register(&*store, number, true).await;
        }
        let shared: Arc<dyn Store> = store.clone();
        let needs = Needs { me: Some(name("hv1")), networks: true, ..Needs::default() };
        let mirror = Mirror::start_on(Arc::clone(&shared), &needs);
        let cluster = Cluster::new(name("hv1"), shared, mirror, Arc::new(FakeMachine::default()));
        let troubles = Troubles::start(cluster.clone());
        Self { tree, store, cluster, troubles }
    }

    pub(crate) async fn define(&self, network: &Network) {
        self.store.commit(schema::network::define(network)).await.unwrap();
    }

    /// Changes a network to this.
    pub(crate) async fn modify(&self, network: &Network) {
        let (seen, _) = schema::network::read_all(&*self.store).await.unwrap();
        self.store.commit(schema::network::modify(&seen[&network.vni], network)).await.unwrap();
    }

    /// As old clients do it, leaf by leaf.
    pub(crate) async fn remove(&self, number: u32) {
        let (seen, _) = schema::network::read_all(&*self.store).await.unwrap();
        schema::network::remove(&*self.store, &seen[&vni(number)]).await.unwrap();
    }

    pub(crate) async fn create(&self, keys: &[(&str, &str)]) {
        let mode = CreateMode::Persistent;
        let create =
            |(path, data): &(&str, &str)| Op::Create { path: (*path).to_owned(), data: (*data).into(), mode };
        self.commit(keys.iter().map(create).collect()).await;
    }

    pub(crate) async fn set(&self, path: &str, data: &str) {
        self.commit(vec![Op::Set { path: path.into(), data: data.into(), version: None }]).await;
    }

    pub(crate) async fn commit(&self, ops: Vec<Op>) {
        self.store.commit(Transaction { ops }).await.unwrap();
    }

    /// That node is primary from now on.
    pub(crate) async fn primary(&self, node: &str) {
        let mut ops = Vec::new();
        if let Some(holder) = self.store.get(schema::primary::HOLDER).await.unwrap() {
            let before = String::from_utf8(holder.data).unwrap();
            let [guard, holder] =
                [format!("{}/{before}", schema::primary::HELD), schema::primary::HOLDER.to_owned()];
            ops.extend([guard, holder].map(|path| Op::Delete { path, version: None }));
        }
        ops.extend(schema::primary::take(&name(node), false).ops);
        self.commit(ops).await;
    }

    /// Waits until hv1 says just these troubles of client networks.
    pub(crate) async fn until_told(&self, expected: &[&str]) {
        let mut told = Vec::new();
        for _ in 0..10_000 {
            let all = schema::explain::read_networks(&*self.store, [&name("hv1")]).await.unwrap();
            told = all.into_values().flat_map(|said| said.troubles).collect::<Vec<Trouble>>();
            let is_so = |(told, expected): (&Trouble, &&str)| told.to_string().starts_with(*expected);
            if told.len() == expected.len() && told.iter().zip(expected).all(is_so) {
                return;
            }
            sleep(Duration::from_millis(10)).await;
        }
        panic!("waited for {expected:?}: {told:#?}");
    }
}

/// A node registers, with an end of tunnels or without.
pub(crate) async fn register(store: &dyn Store, number: u8, vtep: bool) {
    let registration = node::Registration {
        name: name(&format!("hv{number}")),
        mode: DaemonMode::Hypervisor,
        static_data: "8 6.1.0 GNU/Linux x86_64".parse().unwrap(),
        boot: "boot".into(),
        keepalive_interval: Duration::from_secs(5),
        vtep: vtep.then(|| format!("10.255.1.{number}").parse().unwrap()),
        storage: true,
        ipmi: node::Ipmi::default(),
    };
    node::register(store, &registration).await.unwrap();
}

/// Waits until something is so, at most 100 s; answers how long it took.
pub(crate) async fn until<T: Debug>(
    what: &str,
    seen: impl Fn() -> T,
    is_so: impl Fn(&T) -> bool,
) -> Duration {
    let began = Instant::now();
    for _ in 0..10_000 {
        if is_so(&seen()) {
            return began.elapsed();
        }
        sleep(Duration::from_millis(10)).await;
    }
    panic!("waited for {what}: {:?}", seen());
}
