//! Over the fake store and the fake Ceph, on a paused clock.

use std::{collections::BTreeMap, net::Ipv4Addr};

use async_trait::async_trait;
use pvc_core::model::{Claim, DomainSpec, VmChange, VmKey, VmSet};
use pvc_host::{
    ceph::fake::FakeCeph,
    hypervisor::{Activity, Seen},
    storage_fence::{CephFence, Void, Warrant},
};
use pvc_process::JoinSet;
use pvc_store::memory::{MemoryStore, MemoryTree};

use super::*;
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
    _recorder: JoinSet<()>,
}

fn node(name: &str) -> NodeName {
    name.parse().unwrap()
}

fn id() -> VmId {
    "11111111-0000-4000-8000-000000000001".parse().unwrap()
}

fn image(name: &str) -> ImageName {
    format!("vms/{name}").parse().unwrap()
}

impl World {
    /// A VM on this node `a` that has `list` in its list and `defined` in its definition, and is off.
    async fn new() -> Self {
        let store = MemoryTree::new().client();
        schema::root::init(&*store).await.unwrap();
        let xml = format!(
            "<domain type='qemu'><name>vm1</name><uuid>{}</uuid><memory unit='MiB'>64</memory><vcpu>1</vcpu>\
             <os><type>hvm</type></os><devices><disk type='network' device='disk'><source protocol='rbd' name='vms/defined'/>\
             <target dev='vda'/></disk></devices></domain>",
            id()
        );
        let rbd_images = vec!["vms/list".to_owned()];
        let define =
            VmChange::Define { id: id(), name: "vm1".parse().unwrap(), node: node("a"), xml, rbd_images };
        schema::vm::apply(&*store, &define).await.unwrap();
        let ceph = FakeCeph::new();
        ceph.create(&image("list"));
        ceph.create(&image("defined"));
        let mirror = Mirror::start(Arc::clone(&store) as Arc<dyn Store>);
        mirror.ready().await;
        let (active, seen) = watch::channel(Some(Arc::new(BTreeMap::new())));
        let recorder = Recorder {
            me: node("a"),
            store: Arc::clone(&store) as Arc<dyn Store>,
            mirror: mirror.clone(),
            ceph: Arc::clone(&ceph) as Arc<dyn Ceph>,
            active: seen,
        };
        let mut background = JoinSet::new();
        background.spawn(recorder.run());
        let fence = CephFence::new(Arc::clone(&ceph) as Arc<dyn Ceph>, || 0);
        Self { store, mirror, ceph, fence, active, _recorder: background }
    }

    fn runs(&self, runs: bool) {
        let seen =
            Seen { id: id(), name: "vm1".to_owned(), activity: Activity::Running, memory_mib: 64, vcpus: 1 };
        let active = if runs { BTreeMap::from([(id(), seen)]) } else { BTreeMap::new() };
        self.active.send_replace(Some(Arc::new(active)));
    }

    async fn spec(&self) -> DomainSpec {
        let (xml, _) = schema::vm::read_xml(&*self.store, id()).await.unwrap().unwrap();
        DomainSpec::parse(&xml).unwrap()
    }

    async fn ended(&self) -> Result<bool, NotShutOut> {
        shut_out_ended(&*self.store, &self.fence, &node("a"), &self.spec().await, &Always).await
    }

    async fn dead(&self, name: &str) -> Result<(), NotShutOut> {
        let view = self.mirror.view();
        shut_out_node(&*self.store, &self.fence, &node(name), &view, &Always).await
    }

    async fn records(&self) -> Vec<Recorded> {
        sleep(Duration::from_mins(5)).await;
        schema::vm_clients::read_all(&*self.store).await.unwrap().0
    }

    async fn claim(&self, by: &str) {
        self.mirror.caught_up(Duration::from_secs(10)).await.unwrap();
        let view = self.mirror.view();
        let set = vec![VmSet::Claim(by.parse::<Claim>().unwrap())];
        let change = VmChange::update(view.vm(id()).unwrap(), &[VmKey::Claim], set);
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
async fn a_record_of_a_dead_node_that_cannot_be_read_fences_nobody() {
    let world = World::new().await;
    let key = schema::vm_clients::path(id(), &node("x"));
    let mut txn = pvc_store::Transaction::default();
    let (data, mode) = (b"nonsense".to_vec(), pvc_store::CreateMode::Persistent);
    txn.ops.push(pvc_store::Op::Create { path: key.clone(), data, mode });
    world.store.commit(txn).await.unwrap();
    let why = world.dead("x").await.unwrap_err().to_string();
    assert!(why.contains(&key), "{why}");
    world.dead("y").await.expect("it is not about that one");
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
    let view = world.mirror.view();
    let dead = shut_out_node(&*world.store, &world.fence, &node("b"), &view, &warrant).await;
    assert!(matches!(dead, Err(NotShutOut::Overtaken(_))), "{dead:?}");
    assert!(new.write(1));
    assert_eq!(world.records().await.len(), 1);
}
