//! The mirror on the fake store, faults included.

mod anything;
mod faults;
mod told;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use pvc_core::model::{
    ClusterView, DaemonMode, DaemonState, Entry, FenceJob, FenceStep, NodeName, NodeReport, Proof,
    RouterState, StaticData, Subject, VmChange, VmId, VmKey, VmSet, VmState,
};
use tokio::{sync::mpsc::UnboundedReceiver, time::timeout};

use super::{Mirror, Needs};
use crate::{
    CreateMode, Op, Store, Transaction,
    memory::{MemoryStore, MemoryTree},
    schema::{fence, maintenance, node, placement, primary, root, vm},
};

const SOON: Duration = Duration::from_secs(30);

fn id(n: u8) -> VmId {
    format!("11111111-0000-4000-8000-0000000000{n:02x}").parse().unwrap()
}

fn name(n: u8) -> NodeName {
    format!("node{n}").parse().unwrap()
}

fn define(n: u8) -> VmChange {
    let name = format!("vm{n}").parse().unwrap();
    VmChange::Define { id: id(n), name, node: self::name(1), xml: "<domain/>".into(), rbd_images: vec![] }
}

fn registration(n: u8) -> node::Registration {
    node::Registration {
        name: name(n),
        mode: DaemonMode::Coordinator,
        static_data: "8 6.1.0 GNU/Linux x86_64".parse::<StaticData>().unwrap(),
        boot: "boot".into(),
        keepalive_interval: std::time::Duration::from_secs(5),
        vtep: None,
        storage: true,
        ipmi: node::Ipmi::default(),
    }
}

fn job(step: FenceStep) -> FenceJob {
    FenceJob {
        step,
        instance: None,
        by: "node1".into(),
        at_unix_s: 1,
        confirmed_dead: None,
        asked: None,
        boot: Some("boot".into()),
        freed: std::collections::BTreeSet::new(),
        earlier: Vec::new(),
        keepalive_version: None,
    }
}

/// A tree with one node and two VMs, a client for the mirror and one for others.
async fn world() -> (Arc<MemoryStore>, Arc<MemoryStore>, MemoryTree) {
    let tree = MemoryTree::new();
    let (own, other) = (tree.client(), tree.client());
    root::init(&*other).await.unwrap();
    node::register(&*other, &registration(1)).await.unwrap();
    for n in [1, 2] {
        vm::apply(&*other, &define(n)).await.unwrap();
    }
    (own, other, tree)
}

async fn set(store: &dyn Store, path: &str, data: &str) {
    let op = Op::Set { path: path.into(), data: data.into(), version: None };
    store.commit(Transaction { ops: vec![op] }).await.unwrap();
}

async fn subjects(changes: &mut UnboundedReceiver<Subject>) -> BTreeSet<Subject> {
    let first = timeout(SOON, changes.recv()).await.expect("a change in time").expect("the mirror runs");
    let mut all = BTreeSet::from([first]);
    while let Ok(subject) = changes.try_recv() {
        all.insert(subject);
    }
    all
}

async fn shows(mirror: &Mirror, what: &str, condition: impl Fn(&ClusterView) -> bool) {
    let mut views = mirror.views();
    let seen = timeout(SOON, views.wait_for(|view| condition(view))).await;
    assert!(
        seen.is_ok_and(|s| s.is_ok()),
        "gave up waiting until the view shows {what}: {:?}",
        mirror.view()
    );
}

async fn claim(store: &dyn Store, n: u8, by: &str) {
    let set = vec![VmSet::Claim(by.parse().unwrap())];
    vm::apply(store, &VmChange::Update { id: id(n), expect: vec![], set }).await.unwrap();
}

fn state(view: &ClusterView, n: u8) -> Option<VmState> {
    view.vm(id(n)).map(|vm| vm.state.value)
}

#[tokio::test(start_paused = true)]
async fn the_first_listing_shows_everything_and_names_every_subject() {
    let (own, other, _) = world().await;
    set(&*other, "/primary_node", "node1").await;
    let mirror = Mirror::start(own);
    assert!(!mirror.synced());
    let mut changes = mirror.changes(|_, _| true);
    mirror.ready().await;
    assert!(mirror.synced());
    let view = mirror.view();
    assert_eq!((view.nodes.len(), view.vms.len(), view.networks.len()), (1, 2, 0));
    assert_eq!(view.primary_node.value, Some(name(1)));
    assert_eq!(view.vm(id(1)).unwrap().xml_version, Some(0));
    let all =
        BTreeSet::from([Subject::Node(name(1)), Subject::Vm(id(1)), Subject::Vm(id(2)), Subject::Primary]);
    assert_eq!(subjects(&mut changes).await, all);
    assert_eq!(
        subjects(&mut mirror.changes(|_, _| true)).await,
        all,
        "who subscribes later learns of everything, too"
    );
}

#[tokio::test(start_paused = true)]
async fn a_change_is_shown_and_names_only_its_subject() {
    let (own, other, _) = world().await;
    let mirror = Mirror::start(own);
    mirror.ready().await;
    let mut changes = mirror.changes(|_, _| true);
    subjects(&mut changes).await;
    let before = mirror.view();

    set(&*other, &vm::key_path(id(1), VmKey::State), "start").await;
    assert_eq!(subjects(&mut changes).await, BTreeSet::from([Subject::Vm(id(1))]));
    let after = mirror.view();
    assert_eq!(state(&after, 1), Some(VmState::Start));
    assert!(Arc::ptr_eq(&before.vms[&id(2)], &after.vms[&id(2)]), "what did not change is shared");
    assert!(Arc::ptr_eq(&before.nodes, &after.nodes));

    set(&*other, &vm::xml_path(id(2)), "<domain><new/></domain>").await;
    assert_eq!(subjects(&mut changes).await, BTreeSet::from([Subject::Vm(id(2))]));
    assert_eq!(mirror.view().vm(id(2)).unwrap().xml_version, Some(1));

    vm::apply(&*other, &VmChange::Remove { id: id(2), expect: vec![] }).await.unwrap();
    assert_eq!(subjects(&mut changes).await, BTreeSet::from([Subject::Vm(id(2))]));
    assert!(!mirror.view().vms.contains_key(&id(2)));
}

/// The keys of a VM called `name`, below a key that spells its UUID so.
async fn define_as(store: &dyn Store, key: &str, name: &str) {
    let mut txn = Transaction::default();
    for (below, value) in [("", name), ("/state", "stop"), ("/node", "node1"), ("/xml", "<domain/>")] {
        txn.create(format!("{}/{key}{below}", vm::ROOT), value);
    }
    store.commit(txn).await.unwrap();
}

async fn delete(store: &dyn Store, key: &str) {
    let mut txn = Transaction::default();
    for below in ["/state", "/node", "/xml", ""] {
        txn.delete(format!("{}/{key}{below}", vm::ROOT), None);
    }
    store.commit(txn).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_vm_is_found_however_its_key_spells_the_uuid_and_never_twice() {
    let (own, other, _) = world().await;
    let id: VmId = "aaaaaaaa-0000-4000-8000-00000000000f".parse().unwrap();
    let (upper, lower, braced) = (id.key().to_uppercase(), id.key(), format!("{{{}}}", id.key()));
    define_as(&*other, &upper, "shouted").await;
    let mirror = Mirror::start(own);
    mirror.ready().await;
    let is = |key: &str, name: &str, strays: usize| {
        let (key, name) = (key.to_owned(), name.to_owned());
        move |view: &ClusterView| {
            let found = view.vm(id).map(|vm| (vm.id.key(), vm.name.to_string()));
            let spelled = view.vms.get_key_value(&id).map(|(id, _)| id.key());
            found == Some((key.clone(), name.clone()))
                && spelled.as_ref() == Some(&key)
                && view.strays.len() == strays
        }
    };
    shows(&mirror, "the VM", is(&upper, "shouted", 0)).await;
    let desired =
        VmChange::update(mirror.view().vm(id).unwrap(), &[VmKey::State], vec![VmSet::State(VmState::Start)]);
    vm::apply(&*other, &desired).await.unwrap();
    assert_eq!(other.get(&format!("{}/{upper}/state", vm::ROOT)).await.unwrap().unwrap().data, b"start");

    define_as(&*other, &braced, "braced").await;
    shows(&mirror, "the other key as a stray", is(&upper, "shouted", 1)).await;
    define_as(&*other, &lower, "quiet").await;
    shows(&mirror, "the usual spelling", is(&lower, "quiet", 2)).await;
    set(&*other, &format!("{}/{upper}/state", vm::ROOT), "shutdown").await;
    mirror.caught_up(SOON).await.unwrap();
    assert!(is(&lower, "quiet", 2)(&mirror.view()), "another key of its UUID says nothing about it");
    delete(&*other, &lower).await;
    shows(&mirror, "the first that is left", is(&upper, "shouted", 1)).await;
    delete(&*other, &upper).await;
    shows(&mirror, "the last", is(&braced, "braced", 0)).await;
    delete(&*other, &braced).await;
    shows(&mirror, "nothing", |view| view.vm(id).is_none() && view.strays.is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn a_claim_is_shown_with_its_vm_and_without_it() {
    let (own, other, tree) = world().await;
    let mirror = Mirror::start(own);
    mirror.ready().await;
    let mut changes = mirror.changes(|_, _| true);
    subjects(&mut changes).await;

    claim(&*other, 1, "node1").await;
    assert_eq!(subjects(&mut changes).await, [Subject::Vm(id(1))].into());
    assert!(mirror.view().vm(id(1)).unwrap().claim.value.is_only(&name(1)));

    vm::apply(&*other, &VmChange::Remove { id: id(1), expect: vec![] }).await.unwrap();
    shows(&mirror, "the claim alone", |view| !view.vms.contains_key(&id(1)) && view.orphan_claims.len() == 1)
        .await;
    assert!(subjects(&mut changes).await.contains(&Subject::Vm(id(1))));
    let shown = mirror.view();
    assert!(shown.orphan_claim(id(1)).unwrap().value.is_only(&name(1)));

    // Rubbish, and what nobody may read, is there and unreadable.
    let path = vm::key_path(id(1), VmKey::Claim);
    let problem = |view: &ClusterView| match view.orphan_claims.get(&id(1)).map(|entry| &**entry) {
        Some(Entry::Bad(problems)) => problems[0].to_string(),
        _ => String::new(),
    };
    set(&*other, &path, "a/b").await;
    shows(&mirror, "the rubbish", |view| problem(view).contains("a short host name")).await;
    tree.forbid(&path, true);
    set(&*other, &path, "node2").await;
    shows(&mirror, "the refusal", |view| problem(view).contains("refuses") && view.vms.len() == 1).await;
    tree.forbid(&path, false);
    shows(&mirror, "the claim", |view| view.orphan_claim(id(1)).is_some()).await;

    vm::apply(&*other, &define(1)).await.unwrap();
    shows(&mirror, "both", |view| {
        view.orphan_claims.is_empty() && view.vm(id(1)).is_some_and(|vm| vm.claim.value.is_only(&name(2)))
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_console_log_and_a_rewritten_value_change_nothing_but_versions() {
    let (own, other, _) = world().await;
    let mirror = Mirror::start(own);
    mirror.ready().await;
    let before = mirror.view();
    other.commit(vm::console_log(id(1), "login: ")).await.unwrap();
    set(&*other, "/primary_node", "none").await;
    set(&*other, "/nodes/node1/ipmipassword", "secret").await;
    // Something visible last: what came before it has been looked at.
    set(&*other, &vm::key_path(id(2), VmKey::State), "start").await;
    shows(&mirror, "the start", |view| state(view, 2) == Some(VmState::Start)).await;
    assert!(Arc::ptr_eq(&before.vms[&id(1)], &mirror.view().vms[&id(1)]));
    assert!(Arc::ptr_eq(&before.nodes, &mirror.view().nodes));
}

#[tokio::test(start_paused = true)]
async fn unreadable_objects_and_foreign_names_are_shown_with_their_problems() {
    let (own, other, _) = world().await;
    let mirror = Mirror::start(own);
    mirror.ready().await;
    set(&*other, &vm::key_path(id(1), VmKey::Node), "").await;
    set(&*other, "/primary_node", "two words").await;
    let create =
        |path: &str| Op::Create { path: path.into(), data: vec![], mode: crate::CreateMode::Persistent };
    let ops = vec![create("/domains/not-a-uuid"), create("/nodes/a.b"), create("/networks/100")];
    other.commit(Transaction { ops }).await.unwrap();
    shows(&mirror, "the network", |view| view.networks.len() == 1).await;
    shows(&mirror, "the strays", |view| view.strays.len() == 3).await;
    let view = mirror.view();
    let keys: Vec<&str> = view.strays.iter().map(|p| p.key.as_str()).collect();
    assert_eq!(keys, ["/domains/not-a-uuid", "/nodes/a.b", "/primary_node"]);
    let problems = view.vms[&id(1)].problems();
    assert_eq!(problems[0].key, vm::key_path(id(1), VmKey::Node));

    set(&*other, &vm::key_path(id(1), VmKey::Node), "node1").await;
    set(&*other, "/primary_node", "none").await;
    let ops = vec![Op::Delete { path: "/domains/not-a-uuid".into(), version: None }];
    other.commit(Transaction { ops }).await.unwrap();
    shows(&mirror, "the repair", |view| view.vms[&id(1)].problems().is_empty() && view.strays.len() == 1)
        .await;
    assert_eq!(mirror.view().vm(id(1)).unwrap().xml_version, Some(0), "the definition is known again");
}

#[tokio::test(start_paused = true)]
async fn a_fence_the_primarys_holder_and_maintenance_are_shown_with_their_subjects() {
    let (own, other, _) = world().await;
    let mirror = Mirror::start(own);
    mirror.ready().await;
    let mut changes = mirror.changes(|_, _| true);
    subjects(&mut changes).await;

    let seen = mirror.view().node(&name(1)).unwrap().clone();
    other.commit(fence::begin(&seen, &name(2), &job(FenceStep::Shooting))).await.unwrap();
    assert_eq!(
        subjects(&mut changes).await,
        [Subject::Node(name(1)), Subject::Fence(name(1))].into(),
        "the fence and the node that is dead"
    );
    let shown = mirror.view().fences[&name(1)].good().unwrap().clone();
    assert_eq!((shown.fencer.clone(), shown.job.step.clone()), (Some(name(2)), FenceStep::Shooting));

    other.commit(primary::take(&name(2), false)).await.unwrap();
    assert_eq!(subjects(&mut changes).await, [Subject::Primary].into());
    assert_eq!(mirror.view().primary_holder, Some(name(2)));

    maintenance::set(&*other, true).await.unwrap();
    assert_eq!(subjects(&mut changes).await, [Subject::Cluster].into());
    assert!(mirror.view().maintenance);
    set(&*other, maintenance::MAINTENANCE, "perhaps").await;
    shows(&mirror, "the problem", |view| view.maintenance && view.strays.len() == 1).await;

    // What hangs on the fencer's session goes with it, the record stays.
    other.expire();
    shows(&mirror, "the vacancy", |view| view.primary_holder.is_none()).await;
    shows(&mirror, "the orphaned fence", |view| {
        view.fences[&name(1)].good().is_some_and(|fence| fence.fencer.is_none())
    })
    .await;
    let orphan = mirror.view().fences[&name(1)].good().unwrap().clone();
    other.commit(fence::finish(&orphan)).await.unwrap();
    shows(&mirror, "no fence", |view| view.fences.is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn a_view_never_shows_a_placement_without_the_vm_that_was_placed() {
    let (own, other, _) = world().await;
    own.delay(Duration::from_millis(3));
    let mirror = Mirror::start(own);
    mirror.ready().await;
    let first = mirror.view().placement_version.expect("the key exists");
    let mut views = mirror.views();
    let placing = pvc_process::spawn(async move {
        for n in 0..300_i32 {
            // Until all that was before has been read.
            tokio::time::sleep(Duration::from_millis(20)).await;
            // Makes the mirror read the single keys, the placement's among them, when no VM has changed yet.
            set(&*other, "/primary_node", "none").await;
            tokio::time::sleep(Duration::from_millis(u64::from(n.unsigned_abs() % 5))).await;
            let reason = VmSet::FailedReason(format!("{}", first + n + 1));
            let change = VmChange::Update { id: id(1), expect: vec![], set: vec![reason] };
            placement::apply_placed(&*other, &change, Some(first + n)).await.unwrap();
        }
    });
    let mut seen = 0;
    while views.borrow_and_update().placement_version < Some(first + 300) {
        let view = views.borrow().clone();
        let placed: i32 = view.vm(id(1)).unwrap().failed_reason.value.parse().unwrap_or(first);
        let shown = view.placement_version.unwrap();
        assert!(placed >= shown, "the view shows placement {shown} and the VM as of {placed}");
        seen += 1;
        timeout(SOON, views.changed()).await.unwrap().unwrap();
    }
    placing.await.unwrap();
    assert!(seen > 50, "{seen} views are too few to have met a bad moment");
}

/// A fence begins and is called off again and again; no view shows the node dead without it.
async fn fences_come_and_go(delay: Duration, split: bool) {
    let (own, other, _) = world().await;
    let fencer = Mirror::start(other.clone());
    own.delay(delay);
    if split {
        own.split_reads();
    }
    let mirror = Mirror::start(own);
    mirror.ready().await;
    let mut views = mirror.views();
    let fencing = pvc_process::spawn(async move {
        for n in 0..2000_u64 {
            // As its fence begins, or ends because it has spoken, the mirror reads what was before, also the fence before this one.
            tokio::time::sleep(Duration::from_millis(n % 11)).await;
            if n % 3 == 0 {
                set(&*other, "/nodes/node1/staticdata", &format!("8 {n} GNU/Linux x86_64")).await;
                tokio::time::sleep(Duration::from_millis(n % 7)).await;
            }
            fencer.caught_up(SOON).await.unwrap();
            let view = fencer.view();
            let seen = view.node(&name(1)).unwrap();
            let change = match view.fences.get(&name(1)) {
                None => fence::begin(seen, &name(2), &job(FenceStep::Shooting)),
                Some(fence) => fence::call_off(fence.good().unwrap(), seen),
            };
            other.commit(change).await.unwrap();
        }
    });
    let (mut dead, mut finished) = (0, false);
    while !finished {
        finished = fencing.is_finished();
        let view = views.borrow_and_update().clone();
        if view.node(&name(1)).unwrap().daemon_state.value == DaemonState::Dead {
            dead += 1;
            assert!(view.fences.contains_key(&name(1)), "dead without a fence: proven dead");
        }
        let _quiet = timeout(Duration::from_secs(1), views.changed()).await;
    }
    fencing.await.unwrap();
    assert!(dead > 100, "{dead} views are too few to have met a bad moment");
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_declared_dead_is_never_shown_without_its_fence() {
    fences_come_and_go(Duration::from_millis(3), false).await;
}

#[tokio::test(start_paused = true)]
async fn nor_is_one_whose_keys_do_not_fit_into_one_request() {
    fences_come_and_go(Duration::from_micros(100), true).await;
}
