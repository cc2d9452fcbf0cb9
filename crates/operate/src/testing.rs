//! A cluster in memory for commands: nodes that were registered, VMs that were defined.
#![allow(clippy::unwrap_used, reason = "for tests")]

use std::sync::Arc;

use pvc_core::model::{
    DaemonMode, DaemonState, DomainState, Node, NodeName, NodeReport, VmChange, VmId, VmKey, VmSet,
};
use pvc_store::{
    Op, Store, Transaction,
    memory::{MemoryStore, MemoryTree},
    schema::{node, owner, root, vm},
};

use crate::Cluster;

/// A node's name.
pub fn name(text: &str) -> NodeName {
    text.parse().unwrap()
}

/// The UUID of a VM.
pub fn id(number: u8) -> VmId {
    format!("11111111-0000-4000-8000-0000000000{number:02x}").parse().unwrap()
}

/// A node as [`Fake`] makes it.
pub fn node(name: &str) -> Node {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { Fake::with(&[name]).await.cluster.nodes().await.unwrap().all.remove(0) })
}

/// The cluster and a client of it.
pub struct Fake {
    /// Its state tree.
    pub tree: MemoryTree,
    /// A client of that.
    pub client: Arc<MemoryStore>,
    /// The same, for commands.
    pub cluster: Cluster,
}

impl Fake {
    /// One with nodes that work, take VMs and have 1000 MiB each.
    pub async fn with(nodes: &[&str]) -> Self {
        let tree = MemoryTree::new();
        let client = tree.client();
        let store: Arc<dyn Store> = client.clone();
        root::init(&*store).await.unwrap();
        let fake = Self { tree, client, cluster: Cluster::new(store, "memory") };
        for node in nodes {
            fake.add_node(&name(node)).await;
        }
        fake
    }

    fn store(&self) -> &dyn Store {
        &*self.cluster.store
    }

    async fn add_node(&self, name: &NodeName) {
        let registration = node::Registration {
            name: name.clone(),
            mode: DaemonMode::Coordinator,
            static_data: "8 6.1 GNU/Linux x86_64".parse().unwrap(),
            boot: "boot".into(),
            keepalive_interval: std::time::Duration::from_secs(5),
            vtep: None,
            storage: true,
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
    pub async fn daemon_ends(&self, node: &str) {
        let mut gone = Transaction::default();
        gone.ops.push(Op::Delete { path: owner::path(&name(node)), version: None });
        self.store().commit(gone).await.unwrap();
    }

    /// A keepalive of a node that runs these VMs.
    pub async fn report(&self, name: &NodeName, running: &[VmId]) {
        let report = NodeReport { mem_total_mib: 1000, running: running.to_vec(), ..NodeReport::default() };
        self.store().commit(node::report(name, &report, None)).await.unwrap();
    }

    /// Defines a VM of 100 MiB that is off.
    pub async fn define(&self, number: u8, called: &str, node: &str) {
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
    pub async fn change(&self, number: u8, set: Vec<VmSet>) {
        let vm = self.cluster.vm(id(number)).await.unwrap();
        vm::apply(self.store(), &VmChange::update(&vm, &[VmKey::State], set)).await.unwrap();
    }

    /// Reads a key as text.
    pub async fn get(&self, path: &str) -> Option<String> {
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
        version: None,
    }
}
