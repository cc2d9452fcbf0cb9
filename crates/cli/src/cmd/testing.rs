//! A cluster in memory for commands: nodes that were registered, VMs that were defined.

use std::sync::Arc;

use pvc_core::model::{
    DaemonMode, DaemonState, DomainState, Node, NodeName, NodeReport, VmChange, VmId, VmKey, VmSet,
};
use pvc_store::{
    Op, Store, Transaction,
    memory::{MemoryStore, MemoryTree},
    schema::{node, owner, root, vm},
};

use crate::connect::Connection;

pub(crate) fn name(text: &str) -> NodeName {
    text.parse().unwrap()
}

pub(crate) fn id(number: u8) -> VmId {
    format!("11111111-0000-4000-8000-0000000000{number:02x}").parse().unwrap()
}

/// A node as [`Cluster`] makes it.
pub(crate) fn node(name: &str) -> Node {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { Cluster::with(&[name]).await.connection.nodes().await.unwrap().all.remove(0) })
}

/// The cluster and a client of it.
pub(crate) struct Cluster {
    pub(crate) tree: MemoryTree,
    pub(crate) client: Arc<MemoryStore>,
    pub(crate) connection: Connection,
}

impl Cluster {
    /// One with nodes that work, take VMs and have 1000 MiB each.
    pub(crate) async fn with(nodes: &[&str]) -> Self {
        let tree = MemoryTree::new();
        let client = tree.client();
        let store: Arc<dyn Store> = client.clone();
        root::init(&*store).await.unwrap();
        let cluster = Self { tree, client, connection: Connection { store, addresses: "memory".into() } };
        for node in nodes {
            cluster.add_node(&name(node)).await;
        }
        cluster
    }

    fn store(&self) -> &dyn Store {
        &*self.connection.store
    }

    async fn add_node(&self, name: &NodeName) {
        let registration = node::Registration {
            name: name.clone(),
            mode: DaemonMode::Coordinator,
            static_data: "8 6.1 GNU/Linux x86_64".parse().unwrap(),
            boot: "boot".into(),
            keepalive_interval: std::time::Duration::from_secs(5),
            ipmi: node::Ipmi::default(),
        };
        node::register(self.store(), &registration).await.unwrap();
        self.store().commit(node::set_daemon_state(name, DaemonState::Run)).await.unwrap();
        self.store().commit(node::set_domain_state(name, DomainState::Ready, None)).await.unwrap();
        // Its daemon's session is this client's.
        self.store().commit(owner::take(name, &owner(), None)).await.unwrap();
        self.report(name, &[]).await;
    }

    /// The session of a node's daemon ends.
    pub(crate) async fn daemon_ends(&self, node: &str) {
        let mut gone = Transaction::default();
        gone.ops.push(Op::Delete { path: owner::path(&name(node)), version: None });
        self.store().commit(gone).await.unwrap();
    }

    /// A keepalive of a node that runs these VMs.
    pub(crate) async fn report(&self, name: &NodeName, running: &[VmId]) {
        let report = NodeReport { mem_total_mib: 1000, running: running.to_vec(), ..NodeReport::default() };
        self.store().commit(node::report(name, &report, None)).await.unwrap();
    }

    /// Defines a VM of 100 MiB that is off.
    pub(crate) async fn define(&self, number: u8, called: &str, node: &str) {
        let id = id(number);
        let xml = format!(
            "<domain type='kvm'><name>{called}</name><uuid>{id}</uuid><memory unit='MiB'>100</memory><devices/></domain>"
        );
        let define = VmChange::Define {
            id,
            name: called.parse().unwrap(),
            node: name(node),
            xml,
            rbd_images: Vec::new(),
        };
        vm::apply(self.store(), &define).await.unwrap();
    }

    /// Changes a VM's keys, whoever else did.
    pub(crate) async fn change(&self, number: u8, set: Vec<VmSet>) {
        let vm = self.connection.vm(id(number)).await.unwrap();
        vm::apply(self.store(), &VmChange::update(&vm, &[VmKey::State], set)).await.unwrap();
    }

    /// Reads a key as text.
    pub(crate) async fn get(&self, path: &str) -> Option<String> {
        self.store().get(path).await.unwrap().map(|v| String::from_utf8(v.data).unwrap())
    }
}

fn owner() -> owner::Owner {
    owner::Owner {
        host: String::new(),
        boot: String::new(),
        pid_namespace: String::new(),
        pid: 1,
        started: 1,
        instance: "i7".into(),
    }
}
