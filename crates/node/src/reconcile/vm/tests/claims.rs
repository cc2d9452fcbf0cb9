//! A client deletes a VM that executes, or starts what executes unknown to its claim: nothing runs twice.

use pvc_core::model::{DaemonState, NodeReport};

use super::*;

/// As clients of the 0.5 generation do, whether or not a daemon answers: each key by itself, then the VM.
async fn undefine_as_old_clients_do(w: &World, n: u8) {
    let vm = schema::vm::path(id(n));
    let keys = w.operator.children(&vm).await.unwrap().unwrap();
    for path in keys.into_iter().map(|key| format!("{vm}/{key}")).chain([vm.clone()]) {
        let ops = vec![pvc_store::Op::Delete { path, version: None }];
        w.operator.commit(pvc_store::Transaction { ops }).await.unwrap();
    }
}

async fn define_on(w: &World, n: u8, node: usize) {
    let node = w.nodes[node].name.clone();
    let define = VmChange::Define { id: id(n), name: name(n), node, xml: xml(n), rbd_images: vec![] };
    schema::vm::apply(&*w.operator, &define).await.unwrap();
}

async fn claim_key(w: &World, n: u8) -> Option<String> {
    let value = w.operator.get(&schema::vm::key_path(id(n), pvc_core::model::VmKey::Claim)).await.unwrap();
    value.map(|value| String::from_utf8(value.data).unwrap())
}

/// What a node's keepalive says that it executes.
async fn says(w: &World, node: usize, running: Vec<VmId>) {
    let report = NodeReport { running, ..NodeReport::default() };
    w.operator.commit(schema::node::report(&w.nodes[node].name, &report, None)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_vm_that_is_deleted_under_a_frozen_daemon_and_started_elsewhere_waits_for_it() {
    let mut w = World::new().await;
    w.running(1).await;
    w.nodes[0].kill();
    undefine_as_old_clients_do(&w, 1).await;
    define_on(&w, 1, 1).await;
    w.ask_for(1, VmState::Start).await;
    let mut minutes = 0;
    w.until("it waits", 600, async |_| {
        minutes += 1;
        minutes > 3000
    })
    .await;
    assert!(w.runs(0, 1) && !w.runs(1, 1));
    w.nodes[0].start();
    w.until("it runs there", 10, async |w| w.runs(1, 1)).await;
    assert!(!w.runs(0, 1) && w.vm(1).await.claim.value.is_only(&w.nodes[1].name));
}

#[tokio::test(start_paused = true)]
async fn a_vm_that_is_deleted_and_defined_again_while_it_runs_runs_on_where_it_is() {
    let w = World::new().await;
    w.running(1).await;
    undefine_as_old_clients_do(&w, 1).await;
    sleep(Duration::from_secs(5)).await;
    define_on(&w, 1, 1).await;
    w.until_state(1, VmState::Start, 5).await;
    let vm = w.vm(1).await;
    assert!(vm.node.value == w.nodes[0].name && vm.claim.value.is_only(&w.nodes[0].name), "{vm:?}");
    sleep(Duration::from_mins(3)).await;
    assert!(w.runs(0, 1) && !w.runs(1, 1), "the stop of a definition is no command");
    w.ask_for(1, VmState::Stop).await;
    w.until("a client's stop is one", 5, async |w| !w.runs(0, 1)).await;
}

#[tokio::test(start_paused = true)]
async fn the_claim_of_a_deleted_vm_ends_once_it_is_off_where_it_was() {
    let w = World::new().await;
    w.running(1).await;
    undefine_as_old_clients_do(&w, 1).await;
    sleep(Duration::from_mins(2)).await;
    assert_eq!((w.runs(0, 1), claim_key(&w, 1).await), (true, Some("a".into())), "the tree may be lost");
    w.nodes[0].hypervisor.vanish(id(1));
    w.until("it is forgotten", 70, async |w| claim_key(w, 1).await.is_none()).await;
}

#[tokio::test(start_paused = true)]
async fn an_empty_claim_without_a_vm_is_removed_by_the_primary() {
    let w = World::new().await;
    w.running(1).await;
    w.ask_for(1, VmState::Stop).await;
    w.until("it is off", 5, async |w| claim_key(w, 1).await.is_some_and(|claim| claim.is_empty())).await;
    undefine_as_old_clients_do(&w, 1).await;
    sleep(Duration::from_mins(2)).await;
    assert_eq!(claim_key(&w, 1).await, Some(String::new()));
    w.operator.commit(schema::primary::take(&w.nodes[1].name, false)).await.unwrap();
    w.until("it is removed", 70, async |w| claim_key(w, 1).await.is_none()).await;
}

#[tokio::test(start_paused = true)]
async fn what_another_node_says_it_executes_is_not_started_until_it_says_otherwise() {
    let mut w = World::new().await;
    // Started behind the back of a daemon that is down since: nobody claims it.
    w.nodes[0].kill();
    says(&w, 0, vec![id(1)]).await;
    define_on(&w, 1, 1).await;
    w.ask_for(1, VmState::Start).await;
    sleep(Duration::from_mins(5)).await;
    assert!(!w.runs(1, 1));
    let why = schema::vm::read_explanation(&*w.operator, id(1)).await.unwrap().unwrap().unwrap();
    assert!(why.because.contains("a may be executing it by its last word"), "{}", why.because);
    assert!(why.because.contains("pvc node confirm-dead a"), "{}", why.because);
    says(&w, 0, vec![]).await;
    w.until("it runs", 2, async |w| w.runs(1, 1)).await;
    // Its claim is younger than any word, so the next start waits for nobody.
    w.ask_for(1, VmState::Stop).await;
    w.until("it is off", 5, async |w| !w.runs(1, 1)).await;
    w.ask_for(1, VmState::Start).await;
    w.until("it runs again", 1, async |w| w.runs(1, 1)).await;
}

#[tokio::test(start_paused = true)]
async fn a_claim_is_not_written_when_a_node_has_said_something_new_meanwhile() {
    let w = World::new().await;
    define_on(&w, 1, 1).await;
    sleep(Duration::from_secs(1)).await;
    // The daemon sees the desired state, and not yet what was said after it.
    w.nodes[1].store.fall_behind();
    w.ask_for(1, VmState::Start).await;
    says(&w, 0, vec![id(1)]).await;
    sleep(Duration::from_secs(5)).await;
    assert!(!w.runs(1, 1));
    w.nodes[1].store.catch_up();
    sleep(Duration::from_secs(5)).await;
    assert!(!w.runs(1, 1) && claim_key(&w, 1).await.is_none());
    says(&w, 0, vec![]).await;
    w.until("it runs", 2, async |w| w.runs(1, 1)).await;
}

/// Says of a node what a fencer or its own keepalive says.
async fn is_said_to_be(w: &World, node: usize, state: DaemonState) {
    w.operator.commit(schema::node::set_daemon_state(&w.nodes[node].name, state)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_declared_dead_claims_nothing_before_it_has_said_that_it_lives() {
    let mut w = World::new().await;
    w.running(1).await;
    w.nodes[0].kill();
    is_said_to_be(&w, 0, DaemonState::Dead).await;
    // As a recovery does that waits for room, of a node whose BMC said that it was off.
    let vm = w.vm(1).await;
    let released = VmChange::update(&vm, &[], vec![VmSet::Claim(Claim::default())]);
    schema::vm::apply(&*w.operator, &released).await.unwrap();
    w.nodes[0].start();
    sleep(Duration::from_secs(30)).await;
    assert_eq!(claim_key(&w, 1).await, Some(String::new()));
    assert!(w.runs(0, 1));
    let why = schema::vm::read_explanation(&*w.operator, id(1)).await.unwrap().unwrap().unwrap();
    assert!(why.because.contains("holds this node for dead"), "{}", why.because);
    is_said_to_be(&w, 0, DaemonState::Run).await;
    w.until("it is adopted", 2, async |w| w.vm(1).await.claim.value.is_only(&w.nodes[0].name)).await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_does_not_know_yet_that_it_is_declared_dead_starts_nothing() {
    let w = World::new().await;
    w.running(1).await;
    w.nodes[0].store.fall_behind();
    is_said_to_be(&w, 0, DaemonState::Dead).await;
    w.nodes[0].hypervisor.vanish(id(1));
    sleep(Duration::from_secs(30)).await;
    assert!(!w.runs(0, 1));
    w.nodes[0].store.catch_up();
    is_said_to_be(&w, 0, DaemonState::Run).await;
    w.until("it runs again", 10, async |w| w.runs(0, 1)).await;
}
