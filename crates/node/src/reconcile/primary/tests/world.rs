//! Coordinators over one fake tree, each with a fake machine. Whenever time passes it is checked that at most one machine has the
//! floating addresses.

use std::net::IpAddr;

use ipnet::IpNet;
use pvc_core::model::{DaemonMode, DaemonState, NodeName, StaticData, link::Link};
use pvc_host::{
    links::fake::FakeLinks,
    machine::FakeMachine,
    services::{Services, UnitState, fake::FakeServices},
};
use pvc_store::{
    Store, Transaction,
    memory::{MemoryStore, MemoryTree},
    mirror::Mirror,
    schema::{
        self,
        node::{Ipmi, Registration, register, set_daemon_state},
    },
};
use tokio::time::sleep;

use super::super::*;

pub(super) const STEP: Duration = Duration::from_millis(5);
pub(super) const API: &str = "pvc-api.service";

pub(super) fn cidr(address: &str) -> IpNet {
    let address: IpAddr = address.parse().unwrap();
    IpNet::new(address, if address.is_ipv4() { 24 } else { 64 }).unwrap()
}

pub(super) fn cluster_ip() -> IpAddr {
    "10.255.0.254".parse().unwrap()
}

/// A client network's bridge, up.
pub(super) fn bridge(name: &str) -> Link {
    Link {
        name: name.to_owned(),
        mac: [2, 0, 0, 0, 1, 0],
        mtu: 1450,
        up: true,
        is_bridge: true,
        master: None,
        addresses: vec![],
    }
}

pub(super) struct Machine {
    pub(super) name: NodeName,
    pub(super) store: Arc<MemoryStore>,
    pub(super) links: Arc<FakeLinks>,
    pub(super) services: Arc<FakeServices>,
    pub(super) primary: Option<Primary>,
}

pub(super) struct World {
    pub(super) tree: MemoryTree,
    pub(super) operator: Arc<MemoryStore>,
    pub(super) machines: Vec<Machine>,
}

pub(super) fn floating_ips() -> Vec<Placed> {
    vec![
        Placed { device: "brcluster".into(), cidr: cidr("10.255.0.254") },
        Placed { device: "brcluster".into(), cidr: cidr("fd00:255::fe") },
        Placed { device: "ens3".into(), cidr: cidr("1.1.1.10") },
    ]
}

pub(super) fn cluster(machine: &Machine, store: Arc<dyn Store>) -> Cluster {
    let mirror = Mirror::start(Arc::clone(&store));
    Cluster::new(machine.name.clone(), store, mirror, Arc::new(FakeMachine::default()))
}

impl World {
    /// So many coordinators in `run`, none of them with a reconciler yet.
    pub(super) async fn new(count: usize) -> Self {
        let tree = MemoryTree::new();
        let operator = tree.client();
        schema::root::init(&*operator).await.unwrap();
        let mut machines = Vec::new();
        for name in ["a", "b", "c"].into_iter().take(count) {
            let machine = Machine {
                name: name.parse().unwrap(),
                store: tree.client(),
                links: FakeLinks::new(&["lo", "ens3", "brcluster"]),
                services: FakeServices::new(&[API]),
                primary: None,
            };
            machines.push(machine);
        }
        let world = Self { tree, operator, machines };
        for n in 0..count {
            world.register(n).await;
        }
        world
    }

    /// Coordinators that run, the first of them primary.
    pub(super) async fn running(count: usize) -> Self {
        let mut world = Self::new(count).await;
        world.start(0);
        world.until("a is primary", |w| w.is_primary(0)).await;
        for n in 1..count {
            world.start(n);
        }
        world.pass(Duration::from_secs(2)).await;
        assert!(world.is_primary(0));
        world
    }

    pub(super) async fn register(&self, n: usize) {
        let registration = Registration {
            name: self.machines[n].name.clone(),
            mode: DaemonMode::Coordinator,
            static_data: StaticData {
                cpu_count: 1,
                kernel: "6.1".into(),
                os: "GNU/Linux".into(),
                arch: "x86_64".into(),
            },
            boot: "boot".into(),
            keepalive_interval: std::time::Duration::from_secs(5),
            vtep: None,
            storage: true,
            ipmi: Ipmi::default(),
        };
        register(&*self.operator, &registration).await.unwrap();
        self.declare(n, DaemonState::Run).await;
    }

    pub(super) async fn declare(&self, n: usize, state: DaemonState) {
        self.operator.commit(set_daemon_state(&self.machines[n].name, state)).await.unwrap();
    }

    pub(super) fn start(&mut self, n: usize) {
        self.start_on(n, Arc::clone(&self.machines[n].links) as Arc<dyn Links>);
    }

    /// The same on a machine that differs in something.
    pub(super) fn start_on(&mut self, n: usize, links: Arc<dyn Links>) {
        let machine = &mut self.machines[n];
        let store = Arc::clone(&machine.store) as Arc<dyn Store>;
        machine.primary = Some(Primary::start(Dependencies {
            cluster: cluster(machine, store),
            links: Some(links),
            floating: floating_ips(),
            own_networks: vec![cidr("10.255.0.254")],
            services: vec![Unit::api(Arc::clone(&machine.services) as Arc<dyn Services>)],
        }));
    }

    /// kill -9: the session lives on until it is told to expire.
    pub(super) fn kill(&mut self, n: usize) {
        self.machines[n].primary = None;
    }

    /// A new run of a killed daemon: a new session; the old one is returned, to live until it is dropped.
    pub(super) async fn restart(&mut self, n: usize) -> Arc<MemoryStore> {
        let old = std::mem::replace(&mut self.machines[n].store, self.tree.client());
        self.register(n).await;
        self.start(n);
        old
    }

    pub(super) async fn ask_for(&self, text: &str) {
        let op = pvc_store::Op::Set { path: "/primary_node".into(), data: text.into(), version: None };
        self.operator.commit(Transaction { ops: vec![op] }).await.unwrap();
    }

    pub(super) fn get(&self, path: &str) -> Option<String> {
        self.tree.dump().get(path).map(|data| String::from_utf8(data.clone()).unwrap())
    }

    pub(super) fn router_state(&self, n: usize) -> String {
        self.get(&format!("/nodes/{}/routerstate", self.machines[n].name)).unwrap()
    }

    pub(super) fn holds(&self, n: usize) -> bool {
        floating_ips().iter().any(|f| self.machines[n].links.has(f.cidr.addr()))
    }

    /// In every respect that somebody can see.
    pub(super) fn is_primary(&self, n: usize) -> bool {
        let machine = &self.machines[n];
        let name = Some(machine.name.to_string());
        floating_ips().iter().all(|f| {
            machine.links.network().link(&f.device).unwrap().addresses.iter().any(|a| a.cidr == f.cidr)
        }) && self.get("/pvc/primary") == name
            && self.get("/primary_node") == name
            && self.router_state(n) == "primary"
            && machine.services.unit(API) == UnitState::Active
    }

    /// Lets time pass.
    pub(super) async fn pass(&self, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            sleep(STEP).await;
            let holders: Vec<usize> = (0..self.machines.len()).filter(|n| self.holds(*n)).collect();
            assert!(holders.len() < 2, "{holders:?} have the addresses");
        }
    }

    pub(super) async fn until(&self, what: &str, condition: impl Fn(&Self) -> bool) -> Duration {
        let began = Instant::now();
        while !condition(self) {
            assert!(
                began.elapsed() < Duration::from_mins(2),
                "not within two minutes: {what}\n{:#?}",
                self.tree.dump()
            );
            self.pass(STEP).await;
        }
        began.elapsed()
    }
}
