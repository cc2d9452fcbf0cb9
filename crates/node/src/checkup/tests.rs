use std::time::Duration;

use pvc_core::{
    command::status::Level,
    model::{DaemonMode, DaemonState, NO_HYPERVISOR, NodeName, NodeReport},
};
use pvc_host::{
    ceph::{CephError, fake::FakeCeph},
    hypervisor::fake::{FakeHypervisor, Reach as Libvirt},
    machine::FakeMachine,
    power::fake::FakePower,
    surroundings::{Carried, fake::FakeSurroundings},
    zones::fake::FakeZones,
};
use pvc_store::{
    memory::{MemoryStore, MemoryTree},
    schema::{node, root},
    servers::FakeServers,
};

use super::*;

fn name(text: &str) -> NodeName {
    text.parse().unwrap()
}

/// The sample's three coordinators, of which this is the first.
const NODES: [&str; 3] = ["pvc-hv1", "pvc-hv2", "pvc-hv3"];

/// What the clock of the examined node shows.
const NOW: u64 = 1_560_000_000;

struct World {
    config: Config,
    store: Arc<MemoryStore>,
    tree: MemoryTree,
    /// Whether the examination has no way to the tree.
    is_cut_off: bool,
    servers: Arc<FakeServers>,
    libvirt: Arc<FakeHypervisor>,
    power: Arc<FakePower>,
    ceph: Arc<FakeCeph>,
    zones: Arc<FakeZones>,
    surroundings: FakeSurroundings,
}

impl World {
    async fn new() -> Self {
        let tree = MemoryTree::new();
        let store = tree.client();
        root::init(&*store).await.unwrap();
        let (servers, power) = (FakeServers::default(), FakePower::new());
        for host in NODES {
            servers.set(&name(host), true);
            drop(power.add(&format!("{host}-lom"), "admin", "secret"));
            let registration = node::Registration {
                name: name(host),
                mode: DaemonMode::Coordinator,
                static_data: "8 6.1 GNU/Linux x86_64".parse().unwrap(),
                boot: "boot".into(),
                keepalive_interval: Duration::from_secs(5),
                vtep: None,
                storage: true,
                ipmi: node::Ipmi {
                    hostname: format!("{host}-lom"),
                    username: "admin".into(),
                    password: "secret".into(),
                },
            };
            node::register(&*store, &registration).await.unwrap();
            store.commit(node::set_daemon_state(&name(host), DaemonState::Run)).await.unwrap();
        }
        Self {
            config: pvc_config::check(include_str!("../../../../packaging/pvcd.yaml"), "pvcd.yaml")
                .config
                .expect("the sample is valid"),
            store,
            tree,
            is_cut_off: false,
            servers: Arc::new(servers),
            libvirt: FakeHypervisor::new(),
            power,
            ceph: FakeCeph::new(),
            zones: FakeZones::new(),
            surroundings: FakeSurroundings::default(),
        }
    }

    /// A node says that it lives, by its own clock.
    async fn speaks(&self, node: &str, unix_s: u64) {
        let report = NodeReport { keepalive_unix_s: unix_s, ..NodeReport::default() };
        self.store.commit(node::report(&name(node), &report, None)).await.unwrap();
    }

    async fn examine(&self) -> Checkup {
        let store = self.tree.client();
        if self.is_cut_off {
            store.suspend();
        }
        let parts = Parts {
            store,
            servers: self.servers.clone(),
            hypervisor: Some(Ok(self.libvirt.clone())),
            power: self.power.clone(),
            ceph: Some(self.ceph.clone()),
            zones: Some(self.zones.clone()),
            machine: Arc::new(FakeMachine { stopped_at_unix_s: Some(NOW), ..FakeMachine::default() }),
            surroundings: Arc::new(self.surroundings.clone()),
        };
        examine(&self.config, &parts).await
    }
}

/// What is said of it, as one text a line.
fn wrong(checkup: &Checkup) -> Vec<String> {
    let wrong = checkup.findings.iter().filter(|finding| finding.level == Level::Wrong);
    wrong
        .map(|finding| format!("{} ({})", finding.what, finding.todo.as_deref().unwrap_or_default()))
        .collect()
}

#[tokio::test(start_paused = true)]
async fn where_all_is_well_everything_was_looked_at() {
    let world = World::new().await;
    let found = world.examine().await;
    assert_eq!(wrong(&found), Vec::<String>::new());
    for looked in [
        "the program ipmitool",
        "ZooKeeper at pvc-hv3:2181",
        "libvirt, with 0 guests",
        "the state tree, with 3 nodes",
        "the BMC of pvc-hv2",
        "libvirt of pvc-hv3, for migrations",
    ] {
        assert!(found.fine.iter().any(|fine| fine == looked), "{looked}: {:#?}", found.fine);
    }
    assert!(found.fine.iter().any(|fine| fine.starts_with("packets of ")), "{:#?}", found.fine);
    assert!(found.fine.iter().any(|fine| fine.starts_with("PostgreSQL at ")), "{:#?}", found.fine);
}

#[tokio::test(start_paused = true)]
async fn each_thing_that_is_wrong_is_told_with_what_mends_it() {
    let mut world = World::new().await;
    world.surroundings.missing.insert("ipmitool".into());
    world.surroundings.closed.insert("pvc-hv2".into());
    world.servers.set(&name("pvc-hv3"), false);
    world.libvirt.set_reach(Libvirt::Down);
    world.ceph.fail(Some(CephError::Unavailable("no monitor answers".into())));
    world.zones.away(true);
    let domain = world.config.networks.as_ref().unwrap().cluster.domain.clone().unwrap();
    world.surroundings.carried.insert(format!("pvc-hv2.{domain}"), Carried::OnlySmaller);
    world.surroundings.closed.insert(format!("pvc-hv3.{domain}"));
    world.speaks("pvc-hv2", NOW + 60).await;
    world.speaks("pvc-hv3", NOW - 1).await;
    let told = wrong(&world.examine().await).join("\n");
    for words in [
        "ipmitool is not installed: no node can be fenced from here (apt install ipmitool)",
        "ZooKeeper at pvc-hv2:2181 cannot be reached: Connection refused (on pvc-hv2: systemctl status zookeeper)",
        "ZooKeeper at pvc-hv3:2181 does not say that it is member of a quorum",
        "libvirt does not answer: ",
        "no monitor answers (ceph -s)",
        "coordinator.dns.database",
        "do not reach pvc-hv2, smaller ones do: guests' frames will be lost",
        "no VM can be migrated to pvc-hv3: its libvirt at",
        "the clock of pvc-hv2 is 60 s ahead of this node's",
    ] {
        assert!(told.contains(words), "{words} is not in\n{told}");
    }
}

#[tokio::test(start_paused = true)]
async fn of_a_node_that_is_off_only_its_bmc_is_asked() {
    let world = World::new().await;
    world.store.commit(node::set_daemon_state(&name("pvc-hv2"), DaemonState::Stop)).await.unwrap();
    world.power.plug("pvc-hv2-lom", false);
    let found = world.examine().await;
    assert_eq!(wrong(&found), Vec::<String>::new());
    assert!(
        !found
            .fine
            .iter()
            .any(|fine| fine.contains("to pvc-hv2") || fine == "libvirt of pvc-hv2, for migrations")
    );
}

#[tokio::test(start_paused = true)]
async fn a_tree_that_cannot_be_read_hides_nothing_else() {
    let mut world = World::new().await;
    world.is_cut_off = true;
    let found = world.examine().await;
    let told = wrong(&found);
    assert!(
        told.len() == 1 && told[0].starts_with("the state tree could not be read within 20 s"),
        "{told:#?}"
    );
    assert!(found.fine.iter().any(|fine| fine == "libvirt, with 0 guests"));
}

#[tokio::test(start_paused = true)]
async fn a_bmc_that_says_off_belongs_to_another_machine_only_if_its_node_speaks() {
    let world = World::new().await;
    world.power.plug("pvc-hv2-lom", false);
    let told = wrong(&world.examine().await);
    assert_eq!(
        told,
        [
            "pvc-hv2 is off by its BMC, is silent, and nobody has declared it dead yet (pvc node explain pvc-hv2)"
        ]
    );
    let speak = async {
        for second in 0.. {
            world.speaks("pvc-hv2", NOW - 60 + second).await;
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    let told = tokio::select! {
        biased;
        found = world.examine() => wrong(&found),
        () = speak => unreachable!(),
    };
    assert!(
        told.len() == 1 && told[0].contains("while pvc-hv2 speaks: it is another machine's"),
        "{told:#?}"
    );
}

#[tokio::test(start_paused = true)]
async fn libvirt_may_take_a_moment_to_connect() {
    let world = World::new().await;
    world.libvirt.set_reach(Libvirt::Down);
    let (found, ()) = tokio::join!(world.examine(), async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        world.libvirt.set_reach(Libvirt::Up);
    });
    assert_eq!(wrong(&found), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_node_that_runs_no_vms_has_no_libvirt_to_be_reached() {
    let mut world = World::new().await;
    let domain = world.config.networks.as_ref().unwrap().cluster.domain.clone().unwrap();
    world.surroundings.closed.insert(format!("pvc-hv3.{domain}"));
    let report = NodeReport { cannot_start: Some(NO_HYPERVISOR.into()), ..NodeReport::default() };
    world.store.commit(node::report(&name("pvc-hv3"), &report, None)).await.unwrap();
    assert_eq!(wrong(&world.examine().await), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_neighbour_without_a_way_is_wrong_and_one_that_was_not_tried_is_told() {
    let mut world = World::new().await;
    let domain = world.config.networks.as_ref().unwrap().cluster.domain.clone().unwrap();
    let carried =
        [("pvc-hv2", Carried::Nothing("Network is unreachable".into())), ("pvc-hv3", Carried::NotTried)];
    world.surroundings.carried = carried.map(|(node, carried)| (format!("{node}.{domain}"), carried)).into();
    let found = world.examine().await;
    let told = wrong(&found);
    assert!(told.len() == 1 && told[0].contains("does not answer a ping"), "{told:#?}");
    assert!(found.findings.iter().any(|finding| finding.todo.as_deref() == Some("apt install iputils-ping")));
}
