//! A simulated cluster: its network, its ZooKeeper, its machines, put together.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use pvc_core::model::{NodeName, VmId};
use pvc_host::{hypervisor::fake::FakeFabric, power::fake::FakePower};
use pvc_process::Scheduler;
use tempfile::TempDir;

use crate::{
    config,
    event::Net,
    journal::Journal,
    machine::{Node, Surroundings},
    options::{Options, SPARE, disks, vm_memory_mib},
    parts::{hypervisor::FaultRates, power::bmc},
    physics::{
        ceph::CephCluster,
        ensemble::Ensemble,
        guest::Guest,
        network::{Network, Number},
        wires::Wires,
    },
    rng::Rng,
};

/// See the module's documentation.
pub struct Cluster {
    /// What the machines have in common.
    pub around: Surroundings,
    /// The machines, by number.
    pub nodes: Vec<Arc<Node>>,
    /// A copy of each machine's disk in other hardware, by the same number: off until a fault has it boot.
    pub clones: Vec<Arc<Node>>,
    /// The VMs that there may be, by number.
    pub vms: Vec<VmId>,
    gone: Mutex<Option<Number>>,
    /// Where daemons of primaries write their guests' names: the only files of a run.
    _folder: Option<TempDir>,
}

impl Cluster {
    /// Machines that are about to boot. To be called in a paused runtime.
    ///
    /// # Errors
    /// If the nodes' configuration is refused.
    pub fn new(options: &Options, print: bool) -> anyhow::Result<Arc<Self>> {
        let rng = Rng::new(options.seed);
        let mut order = rng.fork("order");
        let scheduler = Scheduler::new(move |wanting| order.below(wanting));
        let world = scheduler.process("world");
        let mut configs =
            (0..options.nodes).map(|n| config::of(options, n)).collect::<Result<Vec<_>, _>>()?;
        let folder = (options.networks > 0).then(tempfile::tempdir).transpose()?;
        if let Some(folder) = &folder {
            for config in &mut configs {
                config.directories.dynamic = folder.path().join(config.node.as_str());
            }
        }
        let journal = Arc::new(Journal::new(config::timing(options)?, print));
        let names: Vec<NodeName> = configs.iter().map(|config| config.node.clone()).collect();
        let clones = names.iter().map(crate::keys::clone_name).collect::<anyhow::Result<Vec<_>>>()?;
        let names: Vec<NodeName> = names.into_iter().chain(clones).collect();
        let network = Arc::new(Network::new(names.clone(), Arc::clone(&journal)));
        let servers: Vec<Number> = (0..options.coordinators()).collect();
        let ensemble = Ensemble::new(
            &servers,
            names.clone(),
            Arc::clone(&network),
            Arc::clone(&journal),
            world.clone(),
            rng.fork("ensemble"),
            Duration::from_secs(options.longest_session.into()),
        );
        let wires = Wires::new(options.networks, Arc::clone(&network), Arc::clone(&journal));
        let names = Arc::new(names);
        let disks = (0..options.vms + SPARE).flat_map(|vm| disks(vm, options.storage));
        let images = disks.map(|image| image.parse()).collect::<Result<Vec<_>, _>>()?;
        let ceph = options.storage.then(|| {
            let (names, journal) = (Arc::clone(&names), Arc::clone(&journal));
            CephCluster::new(images, names, journal, world.clone(), rng.fork("storage"))
        });
        let around = Surroundings {
            journal,
            scheduler,
            world,
            network,
            ensemble,
            power: FakePower::new(),
            fabric: FakeFabric::new(),
            names,
            floating: Arc::new(configs.first().map(config::floating).unwrap_or_default()),
            wires,
            ceph,
            fault_rates: Arc::new(Mutex::new(FaultRates::GOOD)),
        };
        let node = |number: Number, disk_of: Number| {
            let rng = rng.fork(&format!("node {number}"));
            let config = configs[disk_of].clone();
            Node::new([number, disk_of], config, memory_mib(options), around.clone(), rng)
        };
        let nodes: Vec<Arc<Node>> = (0..options.nodes).map(|n| node(n, n)).collect();
        let clones: Vec<Arc<Node>> = (0..options.nodes).map(|n| node(options.nodes + n, n)).collect();
        for clone in &clones {
            around.power.plug(&bmc(&clone.name), false);
        }
        for node in nodes.iter().chain(&clones) {
            around.world.spawn(Arc::clone(node).live());
        }
        let id = |n: usize| format!("11111111-0000-4000-8000-{n:012x}").parse();
        let vms = (0..options.vms + SPARE).map(id).collect::<Result<Vec<VmId>, _>>()?;
        let cluster = Arc::new(Self { around, nodes, clones, vms, gone: Mutex::default(), _folder: folder });
        cluster.around.world.spawn(follow_cuts(Arc::clone(&cluster)));
        for (number, vm) in cluster.vms.iter().enumerate().filter(|_| options.networks > 0) {
            let (wires, journal) = (Arc::clone(&cluster.around.wires), Arc::clone(&cluster.around.journal));
            let rng = rng.fork(&format!("guest {number}"));
            cluster.around.world.spawn(Guest { vm: *vm, number, wires, journal, rng }.live());
        }
        Ok(cluster)
    }

    /// The machine that is broken for good, if one is.
    pub fn gone(&self) -> Option<Number> {
        *self.gone.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It is broken for good, unless another one is already.
    pub fn breaks(&self, node: Number) -> bool {
        *self.gone.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(node) == node
    }

    /// The nodes but one.
    pub fn others(&self, number: Number) -> impl Iterator<Item = Number> {
        (0..self.nodes.len()).filter(move |other| *other != number)
    }
}

/// Each machine's memory: with all machines there is room for every VM, with two of five less there is not.
fn memory_mib(options: &Options) -> u64 {
    let of_all: u64 = (0..options.vms + SPARE).map(vm_memory_mib).sum();
    let machines = u64::try_from(options.nodes.max(1)).unwrap_or(u64::MAX);
    // One of many may break for good.
    let tenths = if options.nodes >= 5 && options.faults.gone > 0.0 { 16 } else { 14 };
    (of_all * tenths / 10).div_ceil(machines)
}

/// Has libvirt's connections between nodes end where the network is cut.
async fn follow_cuts(cluster: Arc<Cluster>) {
    let mut changes = cluster.around.network.changes();
    let host = |n: Number| format!("{}.pvc.local", cluster.around.names[n]);
    let mut cut = std::collections::BTreeSet::new();
    while changes.changed().await.is_ok() {
        for a in 0..cluster.nodes.len() {
            for b in a + 1..cluster.nodes.len() {
                let passes = cluster.around.network.passes_both_ways(Net::Cluster, a, b);
                if !passes && cut.insert((a, b)) {
                    cluster.around.fabric.cut(&host(a), &host(b));
                } else if passes && cut.remove(&(a, b)) {
                    cluster.around.fabric.mend(&host(a), &host(b));
                }
            }
        }
    }
}
