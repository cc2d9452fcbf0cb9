use std::time::Duration;

use pvc_core::{
    command::status::Level,
    model::{DaemonMode, DaemonState, NO_HYPERVISOR, NodeName, NodeReport},
};
use pvc_host::{
    ceph::{CephError, fake::FakeCeph},
    certificate::{CertificateError, Pair, Validity},
    hypervisor::{
        Version,
        fake::{FakeFabric, FakeHypervisor, Reach as Libvirt},
    },
    machine::FakeMachine,
    power::fake::FakePower,
    surroundings::{Carried, fake::FakeSurroundings},
    zones::fake::FakeZones,
};
use pvc_store::{
    memory::{MemoryStore, MemoryTree},
    schema::{node, owner, root},
    servers::FakeServers,
};

use super::*;

fn name(text: &str) -> NodeName {
    text.parse().unwrap()
}

/// An address in the cluster network.
const VTEP: &str = "10.0.1.9";

/// How migrations know a node.
fn in_cluster(config: &Config, host: &str) -> String {
    format!("{host}.{}", config.networks.as_ref().unwrap().cluster.domain.clone().unwrap())
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
    /// The other two's, and the network in between.
    others: [Arc<FakeHypervisor>; 2],
    fabric: Arc<FakeFabric>,
    api_tls: Option<Result<TlsFiles, String>>,
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
                vtep: Some(VTEP.parse().unwrap()),
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
        let config = pvc_config::check(include_str!("../../../../packaging/pvcd.yaml"), "pvcd.yaml")
            .config
            .expect("the sample is valid");
        let fabric = FakeFabric::new();
        let hypervisors = NODES.map(|_| FakeHypervisor::new());
        for (host, hypervisor) in NODES.iter().zip(&hypervisors) {
            fabric.join(&in_cluster(&config, host), hypervisor);
        }
        let [libvirt, two, three] = hypervisors;
        Self {
            config,
            store,
            tree,
            is_cut_off: false,
            servers: Arc::new(servers),
            libvirt,
            others: [two, three],
            fabric,
            api_tls: None,
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
            api_tls: self.api_tls.clone(),
            machine: Arc::new(FakeMachine { stopped_at_unix_s: Some(NOW), ..FakeMachine::default() }),
            surroundings: Arc::new(self.surroundings.clone()),
        };
        examine(&self.config, &parts).await
    }
}

/// What is said of it, as one text a line.
fn wrong(checkup: &Checkup) -> Vec<String> {
    told(checkup, Level::Wrong)
}

fn told(checkup: &Checkup, level: Level) -> Vec<String> {
    let told = checkup.findings.iter().filter(|finding| finding.level == level);
    told.map(|finding| format!("{} ({})", finding.what, finding.todo.as_deref().unwrap_or_default()))
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
        "libvirt and QEMU of pvc-hv3 are of the same release as here",
        "pvcd of pvc-hv2, for guests' screens",
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

#[tokio::test(start_paused = true)]
async fn a_certificate_is_told_of_before_it_ends_and_when_nobody_can_show_it() {
    const DAY_S: u64 = 24 * 3600;
    let mut world = World::new().await;
    let files = TlsFiles { certificate: "/etc/pvc/api.crt".into(), key: "/etc/pvc/api.key".into() };
    let api = Pair { certificate: files.certificate.clone(), key: Some(files.key.clone()) };
    let libvirt = Pair { certificate: "/etc/pki/libvirt/servercert.pem".into(), key: None };
    world.api_tls = Some(Ok(files));
    world.surroundings.migration_certificates = vec![libvirt.clone()];
    let found = world.examine().await;
    assert_eq!(wrong(&found), Vec::<String>::new());
    for fine in
        ["the API's certificate /etc/pvc/api.crt", "libvirt's certificate /etc/pki/libvirt/servercert.pem"]
    {
        assert!(found.fine.iter().any(|found| found == fine), "{:#?}", found.fine);
    }
    let mismatch = CertificateError::Mismatch { certificate: "api.crt".into(), key: "api.key".into() };
    let missing = CertificateError::Unreadable { file: "api.crt".into(), why: "No such file".into() };
    let until = |until_s| Ok(Validity { from_s: 0, until_s });
    for (looked, level, words) in [
        (until(NOW + 30 * DAY_S + 1), None, ""),
        (until(NOW + 30 * DAY_S), Some(Level::Notice), "ends in 30 days: then "),
        (until(NOW + 1), Some(Level::Notice), "ends in 0 days: then "),
        (until(NOW), Some(Level::Wrong), "has ended 0 days ago: "),
        (until(NOW - 3 * DAY_S), Some(Level::Wrong), "has ended 3 days ago: "),
        (
            Ok(Validity { from_s: NOW + 60, until_s: u64::MAX }),
            Some(Level::Wrong),
            "begins in 60 s: until then ",
        ),
        (Err(mismatch), Some(Level::Wrong), "api.key is not the key of api.crt"),
        (Err(missing), Some(Level::Wrong), "api.crt cannot be read: No such file"),
    ] {
        for (pair, what, loss) in [
            (&api, "the API's certificate ", "clients refuse the API"),
            (&libvirt, "libvirt's certificate ", "VMs are not migrated from or to this node"),
        ] {
            world.surroundings.certificates = [(pair.clone(), looked.clone())].into();
            let found = world.examine().await;
            // Ceph says nothing of itself here, which is told, too.
            let both = [told_of(&found, "certificate"), wrong(&found)];
            let expected = [Level::Notice, Level::Wrong].map(|other| usize::from(level == Some(other)));
            assert_eq!([both[0].len(), both[1].len()], expected, "{words}: {both:#?}");
            let told = both.concat().concat();
            for words in level.map_or([""; 3], |_| [what, words, loss]) {
                assert!(told.contains(words), "{words} is not in {told}");
            }
        }
    }
    world.surroundings.certificates.clear();
    world.api_tls = Some(Err("api.listen_port is missing".into()));
    let told = wrong(&world.examine().await);
    assert_eq!(
        told,
        ["the API cannot be served from here: api.listen_port is missing (pvc-api --check-config)"]
    );
    // Who runs no guests shows libvirt's to nobody.
    world.api_tls = None;
    world.config.functions.hypervisor = false;
    world.surroundings.certificates = [(libvirt, until(0))].into();
    assert_eq!(wrong(&world.examine().await), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn what_a_release_keeps_from_migrating_is_told_whichever_side_is_older() {
    let world = World::new().await;
    let same = world.libvirt.versions(None).await.unwrap();
    let [two, three] = &world.others;
    two.has(Versions { qemu: Version(same.qemu.0 - 1_000), ..same });
    three.has(Versions { qemu: Version(same.qemu.0 + 1_000_000), ..same });
    let found = world.examine().await;
    assert_eq!(wrong(&found), Vec::<String>::new());
    assert_eq!(
        told_of(&found, "QEMU"),
        [
            "pvc-hv2 has QEMU 7.1.13, this node 7.2.13: pvc-hv2 may refuse VMs that were started here (on pvc-hv2: apt install --only-upgrade qemu-system-x86)",
            "pvc-hv3 has QEMU 8.2.13, this node 7.2.13: this node may refuse VMs that were started there (here: apt install --only-upgrade qemu-system-x86)",
        ]
    );
    // What only mends changes nothing; an older libvirt may refuse.
    two.has(Versions { qemu: Version(same.qemu.0 + 1), libvirt: Version(same.libvirt.0 + 1) });
    three.has(Versions { libvirt: Version(same.libvirt.0 + 1_000), ..same });
    let found = world.examine().await;
    assert_eq!(wrong(&found), Vec::<String>::new());
    let notices = told_of(&found, "libvirt");
    assert!(
        notices.len() == 1 && notices[0].starts_with("pvc-hv3 has libvirt 9.1.0, this node 9.0.0"),
        "{notices:#?}"
    );
    assert!(
        found.fine.iter().any(|fine| fine == "libvirt and QEMU of pvc-hv2 are of the same release as here")
    );
}

fn told_of(found: &Checkup, word: &str) -> Vec<String> {
    told(found, Level::Notice).into_iter().filter(|told| told.contains(word)).collect()
}

#[tokio::test(start_paused = true)]
async fn a_libvirt_that_takes_connections_and_says_nothing_is_told_of() {
    let world = World::new().await;
    let [one, two] = [NODES[0], NODES[1]].map(|host| in_cluster(&world.config, host));
    world.fabric.cut(&one, &two);
    let told = wrong(&world.examine().await);
    assert!(
        told.len() == 1
            && told[0].starts_with("no VM can be migrated to pvc-hv2: its libvirt at pvc-hv2.")
            && told[0].contains(":16509 does not answer: ")
            && told[0].contains("(on pvc-hv2: systemctl status libvirtd-tcp.socket libvirtd)"),
        "{told:#?}"
    );
}

#[tokio::test(start_paused = true)]
async fn daemons_of_other_versions_are_told_of_and_one_that_was_not_started_anew() {
    let world = World::new().await;
    let own = env!("CARGO_PKG_VERSION");
    let clients = NODES.map(|_| world.tree.client());
    // One of the 0.5 generation has no record: of the third nothing is said.
    for ((host, store), version) in NODES.iter().zip(&clients).zip([Some("0.0.1"), None]) {
        let owner = owner::Owner {
            host: String::new(),
            boot: String::new(),
            pid_namespace: String::new(),
            pid: 1,
            started: 1,
            instance: (*host).into(),
            version: version.map(str::to_owned),
        };
        store.commit(owner::take(&name(host), &owner, None)).await.unwrap();
    }
    let found = world.examine().await;
    assert_eq!(wrong(&found), Vec::<String>::new());
    assert_eq!(
        told_of(&found, "pvcd"),
        [
            format!(
                "pvcd {own} is installed, and the one that runs is 0.0.1 (systemctl restart pvcd; guests run on meanwhile)"
            ),
            format!(
                "pvcd of pvc-hv2 is an older one, which does not say its version, this node's is {own} (on the node with the older one: apt install --only-upgrade pvcd)"
            ),
        ]
    );
    for (host, store) in NODES.iter().zip(&clients) {
        let held = owner::read(&**store, &name(host)).await.unwrap();
        let owner = crate::ownership::this_process((*host).into()).unwrap();
        store.commit(owner::take(&name(host), &owner, held.as_ref())).await.unwrap();
    }
    let found = world.examine().await;
    assert_eq!(told_of(&found, "pvcd"), Vec::<String>::new());
    for host in NODES {
        assert!(found.fine.contains(&format!("pvcd {own} on {host}")), "{:#?}", found.fine);
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_whose_screens_cannot_be_reached_is_told_of() {
    let mut world = World::new().await;
    world.surroundings.closed.insert(format!("{VTEP}:7371"));
    world.store.commit(node::set_daemon_state(&name("pvc-hv3"), DaemonState::Stop)).await.unwrap();
    world.power.plug("pvc-hv3-lom", false);
    let told = wrong(&world.examine().await);
    assert_eq!(
        told,
        [
            "no screen of a guest on pvc-hv2 can be seen from here: its pvcd at 10.0.1.9, port 7371, cannot be reached: Connection refused (on pvc-hv2: ss -ltn 'sport = :7371'; if it listens, a packet filter is in between)"
        ]
    );
    // Who runs no guests shows none.
    let report = NodeReport { cannot_start: Some(NO_HYPERVISOR.into()), ..NodeReport::default() };
    world.store.commit(node::report(&name("pvc-hv2"), &report, None)).await.unwrap();
    assert_eq!(wrong(&world.examine().await), Vec::<String>::new());
}
