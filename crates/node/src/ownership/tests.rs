//! Two daemons of one name, on the fake store, which has real sessions.

use pvc_core::model::{MachineId, Replaced, VmChange, VmId, VmKey, VmSet};
use pvc_core::plan::machine::Recorded;
use pvc_host::machine::FakeMachine;
use pvc_store::{
    memory::{MemoryStore, MemoryTree},
    schema::{node, vm},
};

use super::*;

async fn client(tree: &MemoryTree) -> Arc<MemoryStore> {
    let store = tree.client();
    pvc_store::schema::root::init(&*store).await.unwrap();
    store
}

fn process() -> Owner {
    this_process("host1".into()).unwrap()
}

fn ownership(store: &Arc<MemoryStore>, me: &Owner) -> Ownership {
    Ownership::new(store.clone(), Arc::new(ThisMachine), "node1".parse().unwrap(), me.clone())
}

#[tokio::test(start_paused = true)]
async fn a_second_daemon_on_the_same_machine_is_refused_at_once() {
    let tree = MemoryTree::new();
    let first = client(&tree).await;
    ownership(&first, &process()).take().await.unwrap();
    let error = ownership(&client(&tree).await, &process()).take().await.unwrap_err();
    let expected =
        format!("another pvcd (process {}) runs as node1 on this machine: stop it first", std::process::id());
    assert_eq!(error.to_string(), expected);
}

#[tokio::test(start_paused = true)]
async fn a_copied_configuration_on_another_machine_is_refused_when_the_first_does_not_go_away() {
    let tree = MemoryTree::new();
    let first = client(&tree).await;
    ownership(&first, &Owner { host: "host2".into(), boot: "another".into(), ..process() })
        .take()
        .await
        .unwrap();
    let began = Instant::now();
    let error = ownership(&client(&tree).await, &process()).take().await.unwrap_err();
    assert!(error.to_string().contains("on the machine host2"), "{error}");
    assert!(began.elapsed() >= first.session_timeout(), "its session could still have expired");
}

#[tokio::test(start_paused = true)]
async fn a_daemon_that_was_killed_does_not_hold_up_its_successor() {
    let tree = MemoryTree::new();
    let child = {
        #[allow(clippy::disallowed_methods, reason = "a process that dies, for the test")]
        std::process::Command::new("/bin/true").spawn()
    };
    let mut child = child.unwrap();
    child.wait().unwrap();
    let killed = client(&tree).await;
    ownership(&killed, &Owner { pid: child.id(), ..process() }).take().await.unwrap();
    let began = Instant::now();
    let (store, me) = (client(&tree).await, process());
    ownership(&store, &me).take().await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(1), "it waited {:?}", began.elapsed());
    killed.expire();
    let held = owner::read(&*store, &"node1".parse().unwrap()).await.unwrap().unwrap();
    assert_eq!(held.by, Some(me), "the end of the old session takes nothing away");
}

#[tokio::test(start_paused = true)]
async fn a_holder_of_another_boot_is_waited_for_until_its_session_ends() {
    let tree = MemoryTree::new();
    let first = client(&tree).await;
    ownership(&first, &Owner { boot: "before the reboot".into(), ..process() }).take().await.unwrap();
    let second = client(&tree).await;
    let waiting = pvc_process::spawn(async move { ownership(&second, &process()).take().await });
    sleep(Duration::from_secs(3)).await;
    assert!(!waiting.is_finished());
    first.expire();
    waiting.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_key_is_taken_anew_in_a_new_session_and_given_up_to_a_stranger() {
    let tree = MemoryTree::new();
    let (store, me) = (client(&tree).await, process());
    let owned = ownership(&store, &me);
    owned.take().await.unwrap();
    let keeping = pvc_process::spawn(async move { owned.keep().await });
    let node = "node1".parse().unwrap();
    let other = client(&tree).await;
    for _ in 0..3 {
        store.expire();
        store.resume();
        let until = Instant::now() + Duration::from_mins(1);
        while owner::read(&*other, &node).await.unwrap().is_none_or(|held| held.by != Some(me.clone())) {
            assert!(Instant::now() < until, "the key was not taken anew");
            sleep(Duration::from_millis(50)).await;
        }
    }
    let held = owner::read(&*other, &node).await.unwrap();
    let stranger = Owner { boot: "elsewhere".into(), instance: "another".into(), ..me };
    other.commit(owner::take(&node, &stranger, held.as_ref())).await.unwrap();
    let error = tokio::time::timeout(Duration::from_mins(2), keeping).await.unwrap().unwrap();
    assert!(matches!(error, OwnershipError::Elsewhere { .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_in_a_new_session_is_looked_at_again() {
    let tree = MemoryTree::new();
    let (store, me) = (client(&tree).await, process());
    let owned = ownership(&store, &me);
    owned.take().await.unwrap();
    let keeping = pvc_process::spawn(async move { owned.keep().await });
    sleep(Duration::from_secs(1)).await;
    store.expire();
    store.refuse(3);
    sleep(Duration::from_secs(5)).await;
    let held = owner::read(&*client(&tree).await, &"node1".parse().unwrap()).await.unwrap();
    assert_eq!(held.and_then(|held| held.by), Some(me));
    keeping.abort();
}

#[test]
fn only_a_process_of_this_boot_and_namespace_can_be_proven_dead() {
    let me = process();
    let owned = ownership(&MemoryTree::new().client(), &me);
    let held = |owner: Owner| Held { by: Some(Owner { instance: "another".into(), ..owner }), version: 0 };
    assert_eq!(owned.judge(&held(me.clone())), Holder::Alive(me.pid));
    assert_eq!(
        owned.judge(&held(Owner { started: me.started + 1, ..me.clone() })),
        Holder::Dead,
        "the id was used again"
    );
    for unknown in [
        Owner { boot: "another".into(), pid: u32::MAX, ..me.clone() },
        Owner { pid_namespace: "pid:[1]".into(), pid: u32::MAX, ..me.clone() },
    ] {
        assert!(matches!(owned.judge(&held(unknown)), Holder::Unknown(_)));
    }
    assert!(matches!(owned.judge(&Held { by: None, version: 0 }), Holder::Unknown(_)));
}

const VM: &str = "11111111-0000-4000-8000-000000000001";

/// A machine with its firmware's UUID and its machine-id, in a boot.
fn on(store: &Arc<MemoryStore>, uuid: &str, installation: &str, boot: &str) -> Ownership {
    let machine = FakeMachine {
        id: MachineId::of(Some(uuid), None, None, Some(installation)),
        ..FakeMachine::default()
    };
    let me = Owner { host: format!("host of {boot}"), boot: boot.into(), ..process() };
    Ownership::new(store.clone(), Arc::new(machine), "node1".parse().unwrap(), me)
}

const A: &str = "4c4c4544-0042-3510-8052-b4c04f564231";
const B: &str = "5d5d5655-1153-4621-9163-c5d15f675342";
const FIRST: &str = "3d1219c7c4c5404aaa1f6d2a48adfda4";
const ANEW: &str = "4e232ad8d5d6515bbb207e3b59beaeb5";

/// Node1 on machine A, in boot 1, claims a VM; then its session ends. Its guests run on.
async fn cut_off(tree: &MemoryTree) -> (Arc<MemoryStore>, Ownership) {
    let store = client(tree).await;
    let first = on(&store, A, FIRST, "boot 1");
    first.take().await.unwrap();
    let id: VmId = VM.parse().unwrap();
    let define = VmChange::Define {
        id,
        name: "web1".parse().unwrap(),
        node: "node1".parse().unwrap(),
        xml: "<domain/>".into(),
        rbd_images: Vec::new(),
    };
    vm::apply(&*store, &define).await.unwrap();
    claim(&*first.store(), "node1").await.unwrap();
    store.expire();
    (store, first)
}

async fn claim(store: &dyn Store, claim: &str) -> Result<(), CommitError> {
    let id = VM.parse().unwrap();
    let entry = vm::read(store, id).await.unwrap().unwrap();
    let set = vec![VmSet::Claim(claim.parse().unwrap())];
    vm::apply(store, &VmChange::update(entry.good().unwrap(), &[VmKey::Claim], set)).await.map(drop)
}

async fn recorded(store: &dyn Store) -> (String, Option<i32>) {
    let seen = machine::read(store, &"node1".parse().unwrap()).await.unwrap();
    let Recorded::Machine(machine) = seen.recorded else { panic!("{seen:?}") };
    (machine.boot, seen.version)
}

#[tokio::test(start_paused = true)]
async fn a_clone_is_refused_while_the_first_machine_may_run_what_the_name_claims() {
    let tree = MemoryTree::new();
    let (first, _) = cut_off(&tree).await;
    let began = Instant::now();
    let clone = client(&tree).await;
    let error = on(&clone, B, FIRST, "boot 9").take().await.unwrap_err();
    let expected = format!(
        "this machine may not run as node1: the name belongs to another machine, host of boot 1 (hardware {A}), and it claims \
         web1. If that machine is gone for good and its power is off, say so with `pvc node replace node1`; else give this one a \
         name of its own in pvcd.yaml (setting pvc.node)"
    );
    assert_eq!(error.to_string(), expected);
    assert!(began.elapsed() >= first.session_timeout(), "a refusal a second would fill logs");
    assert_eq!(recorded(&*clone).await.0, "boot 1");
    assert_eq!(owner::read(&*clone, &"node1".parse().unwrap()).await.unwrap(), None, "it took nothing");
}

#[tokio::test(start_paused = true)]
async fn another_machine_takes_the_name_as_soon_as_nothing_claims_it() {
    let tree = MemoryTree::new();
    let (_, _) = cut_off(&tree).await;
    let operator = client(&tree).await;
    let second = client(&tree).await;
    let waiting = pvc_process::spawn(async move { on(&second, B, ANEW, "boot 9").take().await });
    sleep(Duration::from_secs(3)).await;
    assert!(!waiting.is_finished());
    claim(&*operator, "").await.unwrap();
    waiting.await.unwrap().unwrap();
    assert_eq!(recorded(&*operator).await.0, "boot 9");
}

#[tokio::test(start_paused = true)]
async fn a_machine_comes_back_to_its_claims_after_a_reboot_and_installed_anew() {
    for (installation, boot) in [(FIRST, "boot 2"), (ANEW, "boot 2"), (FIRST, "boot 1")] {
        let tree = MemoryTree::new();
        let (_, _) = cut_off(&tree).await;
        let store = client(&tree).await;
        let began = Instant::now();
        on(&store, A, installation, boot).take().await.unwrap();
        assert!(began.elapsed() < Duration::from_secs(1), "{installation} {boot}");
        assert_eq!(recorded(&*store).await.0, boot);
    }
}

#[tokio::test(start_paused = true)]
async fn what_an_operator_says_is_gone_is_replaced_and_does_not_come_back_in_that_boot() {
    let tree = MemoryTree::new();
    let (_, _) = cut_off(&tree).await;
    let (operator, node) = (client(&tree).await, "node1".parse().unwrap());
    let seen = machine::read(&*operator, &node).await.unwrap();
    let Recorded::Machine(gone) = seen.recorded.clone() else { panic!("{seen:?}") };
    let word = Replaced { by: "an operator on desk".into(), at_unix_s: 7 };
    let gone = pvc_core::model::MachineRecord { replaced: Some(word), ..gone };
    operator.commit(machine::replace(&node, &gone, &seen)).await.unwrap();
    let error = on(&client(&tree).await, A, FIRST, "boot 1").take().await.unwrap_err();
    let expected = "this machine may not run as node1: an operator on desk has said that this machine is gone for good; it may come \
         back after a reboot";
    assert_eq!(error.to_string(), expected);
    let clone = client(&tree).await;
    on(&clone, B, FIRST, "boot 9").take().await.unwrap();
    assert_eq!(recorded(&*clone).await.0, "boot 9");
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_lost_its_name_writes_nothing_in_a_new_session_and_stops() {
    let tree = MemoryTree::new();
    let (store, first) = cut_off(&tree).await;
    let operator = client(&tree).await;
    claim(&*operator, "").await.unwrap();
    let clone = client(&tree).await;
    on(&clone, B, FIRST, "boot 9").take().await.unwrap();
    store.resume();
    let own = first.store();
    assert!(matches!(claim(&*own, "node1").await, Err(CommitError::Conflict { .. })));
    let node = "node1".parse().unwrap();
    let alive = own.commit(node::set_daemon_state(&node, pvc_core::model::DaemonState::Run)).await;
    assert!(matches!(alive, Err(CommitError::Conflict { .. })), "{alive:?}");
    assert!(
        matches!(vm::read(&*clone, VM.parse().unwrap()).await, Ok(Some(entry)) if entry.good().unwrap().claim.value.is_empty())
    );
    let began = Instant::now();
    let error = first.keep().await;
    assert!(matches!(error, OwnershipError::AnotherMachine { .. }), "{error}");
    assert!(error.to_string().contains("it has taken the name while this one was not heard of"), "{error}");
    assert!(began.elapsed() < Duration::from_secs(2), "it knew at once");
}

#[tokio::test(start_paused = true)]
async fn in_a_new_session_a_write_waits_until_the_name_is_taken_anew() {
    let tree = MemoryTree::new();
    let (store, first) = cut_off(&tree).await;
    let own = first.store();
    let (_, before) = recorded(&*client(&tree).await).await;
    store.resume();
    assert!(matches!(claim(&*own, "").await, Err(CommitError::Conflict { .. })), "nobody has the name now");
    let keeping = pvc_process::spawn(async move { first.keep().await });
    claim(&*own, "").await.unwrap();
    let (_, after) = recorded(&*store).await;
    assert!(after > before, "each taking is a new title");
    keeping.abort();
}

#[tokio::test(start_paused = true)]
async fn a_title_that_was_seen_before_its_machine_came_back_takes_nothing() {
    let tree = MemoryTree::new();
    let (store, first) = cut_off(&tree).await;
    let operator = client(&tree).await;
    claim(&*operator, "").await.unwrap();
    let node = "node1".parse().unwrap();
    // Another machine has looked: the key is free, and nothing claims the name. Then the first comes back for a moment.
    let seen = machine::read(&*operator, &node).await.unwrap();
    store.resume();
    first.take().await.unwrap();
    claim(&*first.store(), "node1").await.unwrap();
    store.expire();
    let clone = on(&operator, B, FIRST, "boot 9");
    let mut txn = owner::take(&node, &clone.me, None);
    txn.ops.extend(machine::write(&node, &clone.record(&seen), &seen).ops);
    assert!(matches!(operator.commit(txn).await, Err(CommitError::Conflict { .. })));
}

#[tokio::test(start_paused = true)]
async fn a_record_that_somebody_spoilt_is_written_again_by_the_daemon_that_has_the_name() {
    let tree = MemoryTree::new();
    let (store, other) = (client(&tree).await, client(&tree).await);
    let owned = on(&store, A, FIRST, "boot 1");
    owned.take().await.unwrap();
    let own = owned.store();
    let keeping = pvc_process::spawn(async move { owned.keep().await });
    for spoilt in ["rubbish", ""] {
        let path = machine::path(&"node1".parse().unwrap());
        let op = match spoilt {
            "" => pvc_store::Op::Delete { path, version: None },
            text => pvc_store::Op::Set { path, data: text.into(), version: None },
        };
        other.commit(pvc_store::Transaction { ops: vec![op] }).await.unwrap();
        sleep(Duration::from_secs(2)).await;
        assert_eq!(recorded(&*other).await.0, "boot 1");
        own.commit(pvc_store::Transaction::default()).await.unwrap();
    }
    assert!(!keeping.is_finished());
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_is_another_node_takes_no_second_name_while_that_one_claims_something() {
    let tree = MemoryTree::new();
    let (_, first) = cut_off(&tree).await;
    let operator = client(&tree).await;
    let misnamed =
        Ownership { node: "node7".parse().unwrap(), ..on(&client(&tree).await, A, FIRST, "boot 1") };
    assert_eq!(misnamed.claims_are_of().await.unwrap(), None, "nobody has that name");
    assert!(misnamed.is_called(&first.node).await.unwrap());
    let error = misnamed.take().await.unwrap_err().to_string();
    assert!(
        error.starts_with("this machine may not run as node7: this machine is node1, and it claims web1."),
        "{error}"
    );
    claim(&*operator, "").await.unwrap();
    misnamed.take().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn whose_the_claims_of_a_name_are() {
    let tree = MemoryTree::new();
    let (store, first) = cut_off(&tree).await;
    let operator = client(&tree).await;
    store.resume();
    assert_eq!(first.claims_are_of().await.unwrap(), None, "its own");
    let stranger = on(&operator, B, FIRST, "boot 9");
    let whose = stranger.claims_are_of().await.unwrap();
    assert_eq!(whose, Some(format!("host of boot 1 (hardware {A})")));
    claim(&*operator, "").await.unwrap();
    stranger.take().await.unwrap();
    assert_eq!(stranger.claims_are_of().await.unwrap(), None);
    assert_eq!(first.claims_are_of().await.unwrap(), Some(format!("host of boot 9 (hardware {B})")));
}
