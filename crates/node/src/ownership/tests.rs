//! Two daemons of one name, on the fake store, which has real sessions.

use pvc_store::memory::{MemoryStore, MemoryTree};

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
