//! Over the fake store and the fake Ceph, on a paused clock.

use std::net::Ipv4Addr;

use async_trait::async_trait;
use pvc_core::model::{Claim, DomainSpec, VmChange, VmKey, VmSet};
use pvc_host::{
    ceph::fake::{FakeCeph, FakeWriter},
    hypervisor::Activity,
    storage_fence::CephFence,
    warrant::{Void, Warrant},
};
use pvc_process::JoinSet;
use pvc_store::memory::{MemoryStore, MemoryTree};
use tokio::time::sleep;

use super::*;
use crate::reconcile::vm::tests::register;
use crate::sizes::VmSizes;
use crate::vm_clients::{AsDecided, NotShutOut, shut_out_ended, shut_out_node};

struct Always;

#[async_trait]
impl Warrant for Always {
    async fn holds(&self) -> Result<(), Void> {
        Ok(())
    }
}

struct World {
    store: Arc<MemoryStore>,
    mirror: Mirror,
    ceph: Arc<FakeCeph>,
    fence: CephFence,
    active: watch::Sender<Active>,
    events: watch::Sender<LastEvents>,
    _recorder: JoinSet<()>,
}

fn node(name: &str) -> NodeName {
    name.parse().unwrap()
}

fn id() -> VmId {
    number(1)
}

fn number(n: u8) -> VmId {
    format!("11111111-0000-4000-8000-0000000000{n:02x}").parse().unwrap()
}

fn image(name: &str) -> ImageName {
    format!("vms/{name}").parse().unwrap()
}

/// A VM that is off, with `list` (of the pool `vms`, if none is named) in its list and `defined` in its definition.
async fn define(store: &MemoryStore, n: u8, list: &[&str]) {
    let xml = format!(
        "<domain type='qemu'><name>vm{n}</name><uuid>{}</uuid><memory unit='MiB'>64</memory><vcpu>1</vcpu>\
         <os><type>hvm</type></os><devices><disk type='network' device='disk'><source protocol='rbd' name='vms/defined'/>\
         <target dev='vda'/></disk></devices></domain>",
        number(n)
    );
    let rbd_images =
        list.iter().map(|name| if name.contains('/') { (*name).to_owned() } else { image(name).to_string() });
    let rbd_images = rbd_images.collect();
    let name = format!("vm{n}").parse().unwrap();
    let define = VmChange::Define { id: number(n), name, node: node("a"), xml, rbd_images };
    schema::vm::apply(store, &define).await.unwrap();
}

impl World {
    /// A VM on this node `a` that has `list` in its list and `defined` in its definition, and is off.
    async fn new() -> Self {
        let store = MemoryTree::new().client();
        schema::root::init(&*store).await.unwrap();
        for name in ["a", "b", "x", "y"] {
            register(&store, &node(name)).await;
        }
        define(&store, 1, &["list"]).await;
        let ceph = FakeCeph::new();
        ceph.create(&image("list"));
        ceph.create(&image("defined"));
        let mirror = Mirror::start(Arc::clone(&store) as Arc<dyn Store>);
        mirror.ready().await;
        let (active, seen) = watch::channel(Some(Arc::new(BTreeMap::new())));
        let events = watch::Sender::<LastEvents>::default();
        let recorder = Recorder {
            me: node("a"),
            store: Arc::clone(&store) as Arc<dyn Store>,
            mirror: mirror.clone(),
            ceph: Arc::clone(&ceph) as Arc<dyn Ceph>,
            active: seen,
            events: events.subscribe(),
        };
        let mut background = JoinSet::new();
        background.spawn(recorder.run());
        let fence = CephFence::new(Arc::clone(&ceph) as Arc<dyn Ceph>, || 0);
        Self { store, mirror, ceph, fence, active, events, _recorder: background }
    }

    fn runs(&self, runs: bool) {
        self.run(if runs { &[1] } else { &[] });
    }

    /// These are what runs here.
    fn run(&self, vms: &[u8]) {
        let seen = |n: &u8| {
            let (id, name) = (number(*n), format!("vm{n}"));
            (id, Seen { id, name, activity: Activity::Running, memory_mib: 64, vcpus: 1 })
        };
        self.active.send_replace(Some(Arc::new(vms.iter().map(seen).collect())));
    }

    async fn spec(&self) -> DomainSpec {
        let (xml, _) = schema::vm::read_xml(&*self.store, id()).await.unwrap().unwrap();
        DomainSpec::parse(&xml).unwrap()
    }

    async fn ended(&self) -> Result<bool, NotShutOut> {
        shut_out_ended(&*self.store, &self.fence, &node("a"), &self.spec().await, &Always).await
    }

    async fn dead(&self, name: &str) -> Result<BTreeMap<VmId, String>, NotShutOut> {
        self.dead_by(name, &Always).await
    }

    async fn dead_by(&self, name: &str, warrant: &dyn Warrant) -> Result<BTreeMap<VmId, String>, NotShutOut> {
        self.mirror.caught_up(Duration::from_secs(10)).await.unwrap();
        let view = self.mirror.view();
        let sizes = VmSizes::new(Arc::clone(&self.store) as Arc<dyn Store>);
        let images = sizes.images(&view).await.unwrap();
        let node = view.node(&node(name)).unwrap();
        shut_out_node(&*self.store, &self.fence, node, &view, &images, warrant).await
    }

    /// As what opens them has them recorded.
    async fn record(&self, n: u8, on: &str, clients: &VmClients) {
        let (new, also) = ((clients, None), Transaction::default());
        schema::vm_clients::record(&*self.store, number(n), &node(on), new, &also).await.unwrap();
    }

    async fn records(&self) -> Vec<Recorded> {
        sleep(Duration::from_mins(5)).await;
        schema::vm_clients::read_all(&*self.store).await.unwrap().0
    }

    async fn claim(&self, by: &str) {
        self.claim_of(1, by).await;
    }

    async fn claim_of(&self, n: u8, by: &str) {
        self.mirror.caught_up(Duration::from_secs(10)).await.unwrap();
        let view = self.mirror.view();
        let set = vec![VmSet::Claim(by.parse::<Claim>().unwrap())];
        let change = VmChange::update(view.vm(number(n)).unwrap(), &[VmKey::Claim], set);
        schema::vm::apply(&*self.store, &change).await.unwrap();
        self.mirror.caught_up(Duration::from_secs(10)).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn what_executes_is_recorded_and_what_has_closed_its_images_is_not() {
    let world = World::new().await;
    assert!(world.records().await.is_empty());
    let writers = ["list", "defined"].map(|name| world.ceph.open(&image(name), Ipv4Addr::LOCALHOST));
    let elsewhere = world.ceph.open(&image("list"), Ipv4Addr::new(10, 0, 0, 2));
    world.runs(true);
    let records = world.records().await;
    assert_eq!(records.len(), 1, "{records:?}");
    assert_eq!(records[0].clients.clients, writers.each_ref().map(|writer| writer.address).into());
    assert!(!records[0].clients.clients.contains(&elsewhere.address), "it is on another host");
    assert_eq!(records[0].clients.images, [image("list"), image("defined")].into());

    world.ceph.fail(Some(CephError::Unavailable("down".to_owned())));
    world.runs(false);
    assert_eq!(world.records().await, records, "nothing is known of its images");
    world.ceph.fail(None);
    assert_eq!(world.records().await, records, "it has not closed them");
    for writer in writers {
        writer.close();
    }
    assert!(world.records().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_has_not_closed_its_images_is_shut_out_before_the_next_one() {
    let world = World::new().await;
    let old = world.ceph.open(&image("list"), Ipv4Addr::LOCALHOST);
    world.ceph.open(&image("defined"), Ipv4Addr::LOCALHOST);
    assert!(old.write(1));
    world.runs(true);
    assert_eq!(world.records().await.len(), 1);
    old.freeze();
    world.runs(false);

    world.ceph.refuse_blocklist(true);
    let why = world.ended().await.unwrap_err().to_string();
    assert!(why.contains("refused"), "{why}");
    assert_eq!(world.records().await.len(), 1, "it is tried again");
    world.ceph.refuse_blocklist(false);
    assert!(world.ended().await.unwrap());
    assert!(!world.ended().await.unwrap(), "nobody is left");
    assert!(world.records().await.is_empty());
    let new = world.ceph.open(&image("list"), Ipv4Addr::LOCALHOST);
    assert!(new.write(2));
    old.thaw();
    assert!(!old.write(3));
    assert_eq!(world.ceph.contents(&image("list")), Some(2));
}

#[tokio::test(start_paused = true)]
async fn a_dead_node_is_shut_out_of_what_its_vms_list_and_their_definitions_say() {
    let world = World::new().await;
    world.claim("x").await;
    let there = Ipv4Addr::new(10, 0, 0, 9);
    let writers = ["list", "defined"].map(|name| world.ceph.open(&image(name), there));
    assert!(writers.iter().all(|writer| writer.write(1)));
    // It died before it could record anything.
    world.dead("x").await.unwrap();
    assert!(!writers.iter().any(|writer| writer.write(2)));
    for name in ["list", "defined"] {
        assert_eq!(world.ceph.users(&image(name)).await.unwrap().unwrap().addresses().count(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_record_of_a_dead_node_that_cannot_be_read_frees_its_vm_by_no_fence() {
    let world = World::new().await;
    let key = schema::vm_clients::path(id(), &node("x"));
    let mut txn = Transaction::default();
    let (data, mode) = (b"nonsense".to_vec(), pvc_store::CreateMode::Persistent);
    txn.ops.push(pvc_store::Op::Create { path: key.clone(), data, mode });
    world.store.commit(txn).await.unwrap();
    let not = world.dead("x").await.unwrap();
    assert!(not[&id()].contains(&key), "{not:?}");
    assert!(world.dead("y").await.unwrap().is_empty(), "it is not about that one");
}

#[tokio::test(start_paused = true)]
async fn an_image_that_cannot_be_looked_at_keeps_its_vm_from_starting_and_no_other() {
    let world = World::new().await;
    let spec = DomainSpec { rbd_images: vec!["vms/space/one".to_owned()], ..world.spec().await };
    let ended = shut_out_ended(&*world.store, &world.fence, &node("a"), &spec, &Always).await;
    let why = ended.unwrap_err().to_string();
    assert!(why.contains("vms/space/one"), "{why}");
    world.claim("x").await;
    world.mirror.caught_up(Duration::from_secs(10)).await.unwrap();
    world.dead("x").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn whoever_was_overtaken_shuts_nobody_out_and_leaves_the_records() {
    let world = World::new().await;
    let new = world.ceph.open(&image("list"), Ipv4Addr::LOCALHOST);
    world.ceph.open(&image("defined"), Ipv4Addr::LOCALHOST);
    world.runs(true);
    assert_eq!(world.records().await.len(), 1);
    let decided_from = VmChange::update(world.mirror.view().vm(id()).unwrap(), &[VmKey::Claim], vec![]);
    let checks = schema::vm::transaction(&decided_from);
    let warrant = AsDecided { store: &*world.store, checks };
    // Another node has started it since, and recorded its clients.
    world.claim("b").await;
    let spec = world.spec().await;
    let ended = shut_out_ended(&*world.store, &world.fence, &node("a"), &spec, &warrant).await;
    assert!(matches!(ended, Err(NotShutOut::Overtaken(_))), "{ended:?}");
    let dead = world.dead_by("b", &warrant).await;
    assert!(matches!(dead, Err(NotShutOut::Overtaken(_))), "{dead:?}");
    assert!(new.write(1));
    assert_eq!(world.records().await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_node_says_where_its_clients_are_while_it_lives() {
    let world = World::new().await;
    world.records().await;
    let me = schema::node::read(&*world.store, &node("a")).await.unwrap().unwrap();
    assert_eq!(me.storage_host, Some(Ipv4Addr::LOCALHOST.into()));
}

#[tokio::test(start_paused = true)]
async fn a_dead_target_of_which_nothing_is_recorded_takes_nobody_with_it_who_lives() {
    let world = World::new().await;
    let (source, target) = (Ipv4Addr::new(10, 0, 0, 2), Ipv4Addr::new(10, 0, 0, 9));
    world.claim("b x").await;
    let lives = world.ceph.open(&image("list"), source);
    let held = world.ceph.open(&image("list"), target);
    world.dead("x").await.unwrap();
    assert!(lives.write(1) && held.write(2), "where its clients are is not known");
    schema::node::say_storage_host(&*world.store, &node("x"), target.into()).await.unwrap();
    world.dead("x").await.unwrap();
    assert!(lives.write(3) && !held.write(4));
    // The guest that a dead source was sending is started anew.
    world.claim("x b").await;
    world.dead("x").await.unwrap();
    assert!(!lives.write(5));
}

#[tokio::test(start_paused = true)]
async fn who_shares_an_image_on_the_same_node_lives_through_the_restart_of_the_other() {
    let world = World::new().await;
    define(&world.store, 2, &[]).await;
    world.mirror.caught_up(Duration::from_secs(10)).await.unwrap();
    let [own, shared, others] =
        ["list", "defined", "defined"].map(|name| world.ceph.open(&image(name), Ipv4Addr::LOCALHOST));
    world.run(&[1, 2]);
    assert_eq!(world.records().await.len(), 2);
    world.run(&[2]);
    assert_eq!(world.records().await.len(), 2, "it has closed nothing");
    assert!(world.ended().await.unwrap());
    assert!(!own.write(1), "nobody else has it");
    assert!(others.write(2), "the other VM's");
    assert!(shared.write(3), "whose it is nobody knows");
    assert_eq!(world.records().await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn who_shares_an_image_on_another_node_lives_through_the_death_of_the_first() {
    let world = World::new().await;
    define(&world.store, 2, &[]).await;
    let (there, elsewhere) = (Ipv4Addr::new(10, 0, 0, 9), Ipv4Addr::new(10, 0, 0, 2));
    schema::node::say_storage_host(&*world.store, &node("x"), there.into()).await.unwrap();
    world.claim("x").await;
    world.claim_of(2, "b").await;
    let [own, dead] = ["list", "defined"].map(|name| world.ceph.open(&image(name), there));
    let lives = world.ceph.open(&image("defined"), elsewhere);
    world.dead("x").await.unwrap();
    assert!(!own.write(1) && !dead.write(2));
    assert!(lives.write(3), "it is not recorded yet");
}

#[tokio::test(start_paused = true)]
async fn an_image_that_cannot_be_looked_at_leaves_the_others_recorded() {
    let world = World::new().await;
    define(&world.store, 2, &["other"]).await;
    world.ceph.create(&image("other"));
    world.mirror.caught_up(Duration::from_secs(10)).await.unwrap();
    world.ceph.spoil(&image("defined"), true);
    let writers = ["list", "other"].map(|name| world.ceph.open(&image(name), Ipv4Addr::LOCALHOST));
    world.run(&[1, 2]);
    let recorded: BTreeSet<_> = world.records().await.into_iter().flat_map(|r| r.clients.clients).collect();
    assert_eq!(recorded, writers.map(|writer| writer.address).into());
}

#[tokio::test(start_paused = true)]
async fn an_image_of_a_dead_node_that_cannot_be_looked_at_keeps_its_own_vms_and_their_records_only() {
    let world = World::new().await;
    define(&world.store, 2, &["other"]).await;
    world.ceph.create(&image("other"));
    let there = Ipv4Addr::new(10, 0, 0, 9);
    let writers = ["list", "defined", "other"].map(|name| world.ceph.open(&image(name), there));
    for (n, images, client) in [(1, ["list"], &writers[0]), (2, ["other"], &writers[2])] {
        let images = images.map(image).into();
        let clients = VmClients { clients: [client.address].into(), images, boot: None };
        world.record(n, "x", &clients).await;
        world.claim_of(n, "x").await;
    }
    world.ceph.spoil(&image("other"), true);
    let not = world.dead("x").await.unwrap();
    assert_eq!(not.keys().collect::<Vec<_>>(), [&number(2)]);
    assert!(not[&number(2)].contains("vms/other"), "{not:?}");
    let locks = async |name: &str| world.ceph.users(&image(name)).await.unwrap().unwrap().locks.len();
    assert!(writers.iter().all(|writer| !writer.write(1)) && locks("list").await == 0);
    let left: Vec<VmId> = world.records().await.iter().map(|record| record.vm).collect();
    assert_eq!(left, [number(2)]);
    world.ceph.spoil(&image("other"), false);
    assert!(world.dead("x").await.unwrap().is_empty());
    assert!(world.records().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_goes_and_comes_again_between_two_looks_is_recorded_at_once() {
    let world = World::new().await;
    let open = || ["list", "defined"].map(|name| world.ceph.open(&image(name), Ipv4Addr::LOCALHOST));
    let first = open();
    world.run(&[1]);
    assert_eq!(world.records().await.len(), 1);
    first.into_iter().for_each(FakeWriter::close);
    let second = open();
    world.events.send_modify(|events| events.had(id()));
    sleep(Duration::from_secs(1)).await;
    let (records, _) = schema::vm_clients::read_all(&*world.store).await.unwrap();
    assert!(second.iter().all(|writer| records[0].clients.clients.contains(&writer.address)));
}

#[tokio::test(start_paused = true)]
async fn what_a_start_has_recorded_during_a_look_stays_recorded() {
    let world = World::new().await;
    let seen = ["list", "defined"].map(|name| world.ceph.open(&image(name), Ipv4Addr::LOCALHOST));
    // Each image is looked at for a second, after this node's own address.
    world.ceph.take(Duration::from_secs(1));
    world.runs(true);
    sleep(Duration::from_millis(2_500)).await;
    let frozen = "127.0.0.1:0/99".parse().unwrap();
    let clients = VmClients { clients: [frozen].into(), images: [image("list")].into(), boot: None };
    world.record(1, "a", &clients).await;
    let expected = seen.iter().map(|writer| writer.address).chain([frozen]).collect();
    assert_eq!(world.records().await[0].clients.clients, expected);
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_hangs_holds_up_the_records_of_no_other_pool() {
    let world = World::new().await;
    let healthy: ImageName = "healthy/one".parse().unwrap();
    for n in 2..=20 {
        define(&world.store, n, &["hung/one"]).await;
    }
    define(&world.store, 21, &["healthy/one"]).await;
    world.ceph.create(&healthy);
    world.mirror.caught_up(Duration::from_secs(10)).await.unwrap();
    world.ceph.hang(&"hung".parse().unwrap());
    world.run(&(2..=20).collect::<Vec<_>>());
    sleep(Duration::from_secs(1)).await;
    let writer = world.ceph.open(&healthy, Ipv4Addr::LOCALHOST);
    world.run(&(2..=21).collect::<Vec<_>>());
    sleep(Duration::from_secs(1)).await;
    let (records, _) = schema::vm_clients::read_vm(&*world.store, number(21)).await.unwrap();
    assert_eq!(records[0].clients.clients, [writer.address].into());
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_only_records_name_holds_up_nobody_but_whom_they_are_of() {
    let world = World::new().await;
    let (healthy, hung): (ImageName, ImageName) =
        ("healthy/one".parse().unwrap(), "hung/one".parse().unwrap());
    world.ceph.create(&healthy);
    let writer = world.ceph.open(&healthy, Ipv4Addr::LOCALHOST);
    for n in 2..=21 {
        define(&world.store, n, &["healthy/one"]).await;
    }
    world.mirror.caught_up(Duration::from_secs(10)).await.unwrap();
    // What is recorded of a VM that is off is removed: they run already when their records name the other pool.
    let first: Vec<u8> = (2..=20).collect();
    world.run(&first);
    sleep(Duration::from_secs(1)).await;
    let (records, _) = schema::vm_clients::read_all(&*world.store).await.unwrap();
    assert_eq!(records.len(), first.len());
    world.ceph.hang(&hung.pool);
    for record in &records {
        let mut former = record.clients.clone();
        former.images.insert(hung.clone());
        let (new, also) = ((&former, Some(record)), Transaction::default());
        schema::vm_clients::record(&*world.store, record.vm, &record.node, new, &also).await.unwrap();
    }
    world.events.send_modify(|events| first.iter().for_each(|n| events.had(number(*n))));
    sleep(Duration::from_secs(1)).await;
    assert_eq!(world.ceph.asked("hung"), 4, "that pool was asked, by as many as have turns");
    world.run(&(2..=21).collect::<Vec<_>>());
    sleep(Duration::from_secs(1)).await;
    let (records, _) = schema::vm_clients::read_vm(&*world.store, number(21)).await.unwrap();
    assert_eq!(records[0].clients.clients, [writer.address].into());
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_who_asks_where_this_host_is() {
    let world = World::new().await;
    world.ceph.hang_own_address();
    let writers = ["list", "defined"].map(|name| world.ceph.open(&image(name), Ipv4Addr::LOCALHOST));
    world.runs(true);
    sleep(Duration::from_secs(1)).await;
    let (records, _) = schema::vm_clients::read_vm(&*world.store, id()).await.unwrap();
    assert_eq!(records[0].clients.clients, writers.map(|writer| writer.address).into());
}

#[tokio::test(start_paused = true)]
async fn clients_of_each_address_of_this_host_are_recorded() {
    let world = World::new().await;
    let other = Ipv4Addr::new(10, 0, 0, 1);
    world.ceph.has_address(other);
    let writers = [("list", other), ("defined", Ipv4Addr::LOCALHOST)];
    let writers = writers.map(|(name, from)| world.ceph.open(&image(name), from));
    world.runs(true);
    let records = world.records().await;
    assert_eq!(records[0].clients.clients, writers.map(|writer| writer.address).into());
}
