//! What a daemon on a machine stands on: each part of the world as its calls see it.

use std::sync::Arc;

use pvc_core::model::MachineId;
use pvc_host::{
    boot_note::BootNote,
    ceph::{Ceph, CephAdmin},
    dhcp::DhcpPort,
    hypervisor::Hypervisor,
    links::{Bridges, Links},
    machine::Machine as _,
    power::Power,
    programs::{Programs, fake::FakePrograms},
    services::Services,
    storage_fence::{CephFence, StorageFence},
    watchdog::Watchdog,
};
use pvc_store::{schema::owner::Owner, servers::Servers};
use pvcd::{Dependencies, notify::Notify};

use super::{Boot, Node};
use crate::{
    event::Author,
    parts::{
        bridges::SimBridges,
        ceph::SimCeph,
        host::{SimMachine, pid},
        hypervisor::SimHypervisor,
        links::SimLinks,
        power::SimPower,
        servers::SimServers,
        storage::SimStorage,
        store::{Place, SimStore},
        watchdog::SimWatchdog,
    },
};

impl Node {
    /// Its firmware is its own, its installation that of its disk; both outlive its boots.
    fn identity(&self) -> MachineId {
        let (number, disk_of) = (self.number, self.disk_of);
        let installed = self.lock().installed;
        MachineId::of(
            Some(&format!("5e7ab1e5-0000-4000-8000-{number:012x}")),
            None,
            None,
            Some(&format!("{installed:016x}{:016x}", 0x1d00_0000_0000_u64 + disk_of as u64)),
        )
    }

    pub(super) fn parts(&self, boot: &Boot, run: u32) -> Dependencies {
        let around = &self.around;
        let place = Place {
            world: around.world.clone(),
            network: Arc::clone(&around.network),
            ensemble: Arc::clone(&around.ensemble),
            node: self.number,
        };
        let author = Author::Daemon { node: self.name.clone(), run: run.into() };
        let hypervisor = SimHypervisor {
            world: around.world.clone(),
            node: self.name.clone(),
            fake: Arc::clone(&boot.hypervisor),
            rng: Arc::clone(&self.rng),
            fault_rates: Arc::clone(&around.fault_rates),
            journal: Arc::clone(&around.journal),
            ceph: around.ceph.clone().map(|ceph| (self.number, ceph)),
        };
        let links = SimLinks {
            world: around.world.clone(),
            node: self.name.clone(),
            fake: Arc::clone(&boot.links),
            floating: Arc::clone(&around.floating),
            journal: Arc::clone(&around.journal),
            over: Arc::clone(&boot.over),
        };
        let bridges = SimBridges {
            world: around.world.clone(),
            node: self.name.clone(),
            fake: Arc::clone(&boot.bridges),
            links: Arc::clone(&boot.links),
            wires: Arc::clone(&around.wires),
            journal: Arc::clone(&around.journal),
            over: Arc::clone(&boot.over),
        };
        let has_networks = around.wires.any();
        let power = SimPower {
            world: around.world.clone(),
            me: self.number,
            names: Arc::clone(&around.names),
            network: Arc::clone(&around.network),
            fake: Arc::clone(&around.power),
            journal: Arc::clone(&around.journal),
        };
        let servers = SimServers {
            world: around.world.clone(),
            me: self.number,
            names: Arc::clone(&around.names),
            network: Arc::clone(&around.network),
            ensemble: Arc::clone(&around.ensemble),
        };
        let machine = Arc::new(SimMachine {
            memory_mib: self.memory_mib,
            id: self.identity(),
            hardware: Arc::clone(&self.hardware),
            hypervisor: Arc::clone(&boot.hypervisor),
            journal: Arc::clone(&around.journal),
        });
        let (ceph, storage) = self.storage(&machine);
        let watchdog = SimWatchdog { fake: Arc::clone(&boot.watchdog), armed: Arc::clone(&boot.armed) };
        let guarded = self.config.intervals.suicide_after().is_some();
        Dependencies {
            store: SimStore::start(place, author, self.config.intervals.session_timeout()),
            hypervisor: Some(Arc::new(hypervisor) as Arc<dyn Hypervisor>),
            consoles: None,
            screens: None,
            links: Some(Arc::new(links) as Arc<dyn Links>),
            bridges: has_networks.then(|| Arc::new(bridges) as Arc<dyn Bridges>),
            firewall: None,
            routing: None,
            zones: None,
            database_cluster: None,
            programs: has_networks.then(|| Arc::new(FakePrograms::default()) as Arc<dyn Programs>),
            dhcp: has_networks.then(|| Arc::new(boot.port.clone()) as Arc<dyn DhcpPort>),
            services: Some(Arc::clone(&boot.services) as Arc<dyn Services>),
            power: Arc::new(power) as Arc<dyn Power>,
            servers: Arc::new(servers) as Arc<dyn Servers>,
            ceph,
            osds: None,
            storage,
            watchdog: guarded.then(|| Arc::new(watchdog) as Arc<dyn Watchdog>),
            machine,
            boot_note: Arc::clone(&boot.note) as Arc<dyn BootNote>,
            process: Owner {
                host: self.name.to_string(),
                boot: format!("{}-{}", self.name, boot.number),
                pid_namespace: "pid:[4026531836]".into(),
                pid: pid(run),
                started: run.into(),
                instance: format!("{}-{run}", self.name),
                version: None,
            },
            metrics: None,
            notify: Notify::default(),
            lifeline: pvc_process::Place::here(),
        }
    }
    /// Its connection to Ceph, and the fence over that; where nobody writes, a storage that does what it is asked.
    fn storage(&self, machine: &Arc<SimMachine>) -> (Option<Arc<dyn CephAdmin>>, Arc<dyn StorageFence>) {
        let around = &self.around;
        let Some(cluster) = &around.ceph else {
            let storage = SimStorage {
                world: around.world.clone(),
                node: self.name.clone(),
                rng: Arc::clone(&self.rng),
                journal: Arc::clone(&around.journal),
            };
            return (None, Arc::new(storage));
        };
        let ceph = Arc::new(SimCeph {
            world: around.world.clone(),
            node: self.name.clone(),
            machine: self.number,
            cluster: Arc::clone(cluster),
            knows: Arc::default(),
        });
        let clock = Arc::clone(machine);
        let fence = CephFence::new(Arc::clone(&ceph) as Arc<dyn Ceph>, move || clock.unix_s());
        (Some(ceph), Arc::new(fence))
    }
}
