//! What becomes of a bridged network on a machine whose kernel has 802.1Q: the daemon's own reconciler over the kernel's netlink, and a switch outside
//! that speaks tagged frames. A test of the lab runs it in an emulated machine (`crates/lab/tests/generic_kernel.rs`); it would take the network of
//! any other apart.
//!
//! ```text
//!   guest ─ vnet0 ─► vmbr20 ◄─ vlan20 ◄─┐
//!                                       eth1 ◄── veth ──► eth1 outside: untagged, and VLANs 20, 21, 4094
//!                    brcluster ◄────────┘
//! ```
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "it is a test, which happens to run in a machine of its own"
)]

use std::{
    process::Command,
    sync::Arc,
    thread::sleep,
    time::{Duration, Instant},
};

use pvc_core::{
    model::{DaemonMode, Network, NetworkKind, NodeName, Vni},
    plan::client_network::Ground,
};
use pvc_host::{
    links::{Bridges, Netlink},
    machine::FakeMachine,
};
use pvc_store::{
    Store,
    memory::{MemoryStore, MemoryTree},
    mirror::{Mirror, Needs},
    schema::{self, node},
};
use pvcd::{
    controller::Cluster,
    network_troubles::Troubles,
    reconcile::client_network::{ClientNetworks, Definitions},
};

/// Generous: every instruction is emulated.
const SOON: Duration = Duration::from_secs(20);

/// What is printed last, and only then.
const WELL: &str = "bridged networks: all is well";

/// The output of a program that is a name and words.
fn run(line: &str) -> Result<String, String> {
    let mut words = line.split(' ');
    let ended = Command::new(words.next().unwrap()).args(words).output().unwrap();
    let said = String::from_utf8_lossy(&[ended.stdout, ended.stderr].concat()).into_owned();
    if ended.status.success() { Ok(said) } else { Err(format!("{line}: {said}")) }
}

fn ip(line: &str) -> String {
    run(&format!("ip {line}")).unwrap()
}

/// Whether the guest reaches an address with a packet of that size.
fn reaches(from: &str, address: &str, size: u16) -> bool {
    run(&format!("ip netns exec {from} ping -c 1 -W 1 -s {size} {address}")).is_ok()
}

fn until(what: &str, is_so: impl Fn() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(
            began.elapsed() < SOON,
            "never: {what}\n{}{}",
            ip("-d link"),
            run("bridge vlan show").unwrap()
        );
        sleep(Duration::from_millis(20));
    }
    println!("{what}: {:.1} s", began.elapsed().as_secs_f32());
}

/// What the kernel says of a device, empty without one.
fn device(name: &str) -> String {
    run(&format!("ip -d link show dev {name}")).unwrap_or_default()
}

/// Whether the devices of a VLAN are as they shall be.
fn stands(number: u16) -> bool {
    let (vlan, bridge) = (device(&format!("vlan{number}")), device(&format!("vmbr{number}")));
    vlan.contains(&format!("vlan protocol 802.1Q id {number} "))
        && vlan.contains(&format!("vlan{number}@eth1"))
        && vlan.contains(&format!("master vmbr{number} "))
        && [&vlan, &bridge].iter().all(|device| device.contains("mtu 1496 ") && device.contains(",UP"))
}

fn plug_in() {
    ip("link set vnet0 master vmbr20");
}

/// The switch outside, and the guest.
fn wire() {
    for name in ["outside", "guest"] {
        ip(&format!("netns add {name}"));
        ip(&format!("-n {name} link set lo up"));
    }
    ip("link add eth1 type veth peer name eth1 netns outside");
    ip("link add brcluster type bridge");
    for order in ["eth1 mtu 1496", "eth1 master brcluster", "eth1 up", "brcluster up"] {
        ip(&format!("link set {order}"));
    }
    ip("address add 10.255.1.1/24 dev brcluster");
    ip("-n outside link set eth1 up");
    ip("-n outside address add 10.255.1.99/24 dev eth1");
    for (number, net) in [(20, 20), (21, 21), (4094, 94)] {
        ip(&format!("-n outside link add link eth1 name tag{number} type vlan id {number}"));
        ip(&format!("-n outside link set tag{number} up"));
        ip(&format!("-n outside address add 10.{net}.0.1/24 dev tag{number}"));
    }
    ip("link add vnet0 type veth peer name eth0 netns guest");
    ip("link set vnet0 mtu 1496 up");
    ip("-n guest link set eth0 mtu 1496 up");
    for net in ["10.20.0.5/24", "10.21.0.5/24", "10.255.1.5/24"] {
        ip(&format!("-n guest address add {net} dev eth0"));
    }
}

fn bridged(number: u32) -> Network {
    let vni: Vni = number.to_string().parse().unwrap();
    Network { kind: Some(NetworkKind::Bridged), description: format!("vlan{number}"), ..Network::bare(vni) }
}

async fn define(store: &MemoryStore, number: u32) {
    store.commit(schema::network::define(&bridged(number))).await.unwrap();
}

async fn remove(store: &MemoryStore, number: u32) {
    let (seen, _) = schema::network::read_all(store).await.unwrap();
    let vni: Vni = number.to_string().parse().unwrap();
    schema::network::remove(store, &seen[&vni]).await.unwrap();
}

async fn register(store: &dyn Store, me: &NodeName) {
    schema::root::init(store).await.unwrap();
    let registration = node::Registration {
        name: me.clone(),
        mode: DaemonMode::Hypervisor,
        static_data: "1 6.1.0 GNU/Linux x86_64".parse().unwrap(),
        boot: "boot".into(),
        keepalive_interval: Duration::from_secs(5),
        vtep: None,
        storage: false,
        ipmi: node::Ipmi::default(),
    };
    node::register(store, &registration).await.unwrap();
}

/// What the daemon does on threads of its own, until all of this has been seen.
#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let me: NodeName = "hv1".parse().unwrap();
    let store = MemoryTree::new().client();
    register(&*store, &me).await;
    let shared: Arc<dyn Store> = store.clone();
    let needs = Needs { me: Some(me.clone()), networks: true, ..Needs::default() };
    let mirror = Mirror::start_on(Arc::clone(&shared), &needs);
    let cluster = Cluster::new(me.clone(), Arc::clone(&shared), mirror, Arc::new(FakeMachine::default()));
    let troubles = Troubles::start(cluster.clone());
    wire();
    let ground = Ground {
        me: me.clone(),
        uplink: "eth1".into(),
        mtu: 1496,
        address: Some("10.255.1.1".parse().unwrap()),
    };
    let bridges: Arc<dyn Bridges> = Netlink::start().unwrap();
    let definitions = Arc::new(Definitions::new(shared));
    let teller = troubles.teller("client networks");
    let _networks = ClientNetworks::start(cluster, bridges, definitions, ground, teller);

    define(&store, 20).await;
    until("the VLAN's device and bridge are made", || stands(20));
    plug_in();
    until("the guest reaches its VLAN outside", || reaches("guest", "10.20.0.1", 56));
    until("outside reaches the guest", || reaches("outside", "10.20.0.5", 56));
    assert!(reaches("guest", "10.20.0.1", 1468), "packets of full size");
    assert!(!reaches("guest", "10.21.0.1", 56), "a frame of one VLAN is in another");
    assert!(!reaches("guest", "10.255.1.99", 56), "a frame of a VLAN is on the nodes' wire");
    assert!(run("ping -c 1 -W 1 10.255.1.99").is_ok(), "the nodes' wire has no tags");

    // A cluster bridge that an operator has made one of VLANs: tags of ours never come to it.
    ip("link set brcluster type bridge vlan_filtering 1");
    let filtered = run("bridge vlan show dev eth1").unwrap();
    assert!(filtered.contains("PVID Egress Untagged") && !filtered.contains("20"), "{filtered}");
    until("tags pass beside a bridge that filters VLANs", || reaches("guest", "10.20.0.1", 56));
    assert!(run("ping -c 1 -W 1 10.255.1.99").is_ok(), "the nodes' wire");
    ip("link set vmbr20 type bridge vlan_filtering 1");
    until("a network's bridge that filters VLANs", || reaches("guest", "10.20.0.1", 56));

    ip("link del vlan20");
    until("a device that was deleted is back", || stands(20) && reaches("guest", "10.20.0.1", 56));
    ip("link set vlan20 mtu 1400");
    ip("link set vmbr20 mtu 1400");
    until("an MTU that was changed is back", || stands(20) && reaches("guest", "10.20.0.1", 1468));
    ip("link set vlan20 nomaster");
    until("a device that was unplugged is back", || stands(20) && reaches("guest", "10.20.0.1", 56));
    ip("link del vmbr20");
    until("a bridge that was deleted is back", || stands(20));
    plug_in();
    until("the guest is plugged in again", || reaches("guest", "10.20.0.1", 56));
    ip("link add link eth1 name vlan30 type vlan id 31");
    define(&store, 30).await;
    until("a network beside somebody else's device", || !device("vmbr30").is_empty());
    sleep(Duration::from_secs(1));
    assert!(device("vlan30").contains("id 31 ") && !device("vlan30").contains("master"), "it was taken over");
    ip("link del vlan30");
    until("its own device, when that has gone", || stands(30));

    define(&store, 4094).await;
    until("the last VLAN is made", || stands(4094));
    remove(&store, 4094).await;
    until("one without a guest is removed", || {
        device("vlan4094").is_empty() && device("vmbr4094").is_empty()
    });
    remove(&store, 20).await;
    sleep(Duration::from_secs(2));
    assert!(stands(20) && reaches("guest", "10.20.0.1", 56), "a network was cut under its guest");
    ip("link set vnet0 nomaster");
    until("it goes with the last guest", || device("vlan20").is_empty() && device("vmbr20").is_empty());
    assert!(run("ping -c 1 -W 1 10.255.1.99").is_ok(), "the nodes' wire");
    println!("{WELL}");
}
