//! What a client that is shut out, or not any more, can do, and when OSDs know.

use pvc_core::model::ceph::ImageName;
use pvc_host::hypervisor::Activity;
use pvc_process::Scheduler;

use super::*;
use crate::checkers::testing::{TIMING, node, vm};

const S: fn(u64) -> Duration = Duration::from_secs;

fn image() -> ImageName {
    "vms/vm1".parse().unwrap()
}

/// One VM, one image, two machines; nobody writes by himself.
fn cluster() -> Arc<CephCluster> {
    let mut rng = Rng::new(1);
    let scheduler = Scheduler::new(move |wanting| rng.below(wanting));
    let world = scheduler.process("world");
    world.freeze();
    let journal = Arc::new(Journal::new(TIMING, false));
    let names = Arc::new(vec![node("a"), node("b")]);
    CephCluster::new([image()], names, journal, world, Rng::new(1))
}

/// A process that executes there, which has the lock if it can.
fn process(ceph: &Arc<CephCluster>, machine: Number) -> ClientAddress {
    ceph.prepare(machine, vm(1), [image()].into());
    ceph.turns(machine, vm(1), Some(Activity::Unstarted));
    ceph.turns(machine, vm(1), Some(Activity::Running));
    let state = ceph.lock_state();
    *state.clients.iter().max_by_key(|(_, client)| client.process).unwrap().0
}

/// Whether a write to an object lands that is sent now.
fn writes(ceph: &CephCluster, client: ClientAddress, object: usize) -> bool {
    assert!(ceph.send(client));
    let now = ceph.journal.now();
    let mut state = ceph.lock_state();
    state.images.get_mut(&image()).unwrap().wrote[object] = None;
    state.land(client, object, now).is_some()
}

fn has_lock(ceph: &CephCluster, client: ClientAddress) -> bool {
    matches!(ceph.lock(client), Locking::Has)
}

#[tokio::test(start_paused = true)]
async fn the_lock_alone_keeps_nobody_from_writing_and_the_blocklist_does() {
    let ceph = cluster();
    let old = process(&ceph, 0);
    assert!(has_lock(&ceph, old) && writes(&ceph, old, 1));
    ceph.freezes(0, true);
    tokio::time::advance(WATCH).await;
    assert!(ceph.users(&image(), &mut 0).unwrap().watchers.is_empty(), "it is not heard");
    ceph.lock_state().images.get_mut(&image()).unwrap().lock = None;
    let new = process(&ceph, 1);
    assert!(has_lock(&ceph, new) && writes(&ceph, new, 1));
    ceph.freezes(0, false);
    assert!(writes(&ceph, old, 1), "it was told nothing");
    ceph.blocklist(&node("b"), old);
    tokio::time::advance(S(10)).await;
    assert!(!writes(&ceph, old, 1) && writes(&ceph, new, 1));
    ceph.lift(old);
    tokio::time::advance(S(10)).await;
    assert!(writes(&ceph, old, 1), "it goes on where it stopped");
}

#[tokio::test(start_paused = true)]
async fn an_osd_with_an_old_map_takes_what_is_shut_out_until_somebody_knows_better() {
    let ceph = cluster();
    ceph.suffers(CephFault::OldMaps, true);
    let old = process(&ceph, 0);
    ceph.blocklist(&node("b"), old);
    assert!(writes(&ceph, old, 1) && writes(&ceph, old, 2));
    let new = process(&ceph, 1);
    assert!(writes(&ceph, new, 1));
    assert!(!writes(&ceph, old, 1), "its OSD has heard of it from the new one");
}

#[tokio::test(start_paused = true)]
async fn a_lock_is_handed_over_by_who_executes_and_taken_from_who_is_not_heard_for_a_while_only() {
    let ceph = cluster();
    let (first, second) = (process(&ceph, 0), process(&ceph, 1));
    assert!(has_lock(&ceph, first));
    assert!(!has_lock(&ceph, second) && has_lock(&ceph, second), "it asks, and is given it");
    ceph.freezes(1, true);
    assert!(!has_lock(&ceph, first), "nobody answers");
    tokio::time::advance(WATCH).await;
    ceph.suffers(CephFault::RefusesBlocklist, true);
    assert!(!has_lock(&ceph, first));
    ceph.suffers(CephFault::RefusesBlocklist, false);
    assert!(has_lock(&ceph, first));
    assert!(ceph.blocklisted().contains_key(&second));
    let taken_for = ceph.lock_state().taken_for;
    tokio::time::advance(taken_for).await;
    assert!(ceph.blocklisted().is_empty(), "that ends");
}

#[tokio::test(start_paused = true)]
async fn who_ends_in_order_closes_and_who_crashes_leaves_its_lock() {
    let ceph = cluster();
    for crashes in [false, true] {
        let client = process(&ceph, 0);
        assert!(has_lock(&ceph, client));
        if crashes {
            ceph.crashes(0, vm(1));
        }
        ceph.turns(0, vm(1), None);
        let users = ceph.users(&image(), &mut 0).unwrap();
        assert_eq!(users.addresses().any(|user| user == client), crashes);
    }
}
