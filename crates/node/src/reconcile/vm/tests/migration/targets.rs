//! Targets that cannot take a VM, or do not say so.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_target_that_takes_no_vms_is_waited_for_but_not_for_ever() {
    let w = World::new().await;
    w.running(1).await;
    let flushed = schema::node::set_domain_state(&w.nodes[1].name, DomainState::Flushed, None);
    w.operator.commit(flushed).await.unwrap();
    w.migrate(1, "b").await;
    sleep(20 * SECOND).await;
    assert!(w.explained().await.contains("takes no VMs: it is in state flushed"), "{}", w.explained().await);
    assert_eq!(w.vm(1).await.claim.value.to_string(), "a");
    w.until_at_home(0, 20).await;

    w.migrate(1, "b").await;
    sleep(10 * SECOND).await;
    let ready = schema::node::set_domain_state(&w.nodes[1].name, DomainState::Ready, None);
    w.operator.commit(ready).await.unwrap();
    w.until_at_home(1, 5).await;
}

#[tokio::test(start_paused = true)]
async fn a_target_whose_libvirt_is_silent_is_not_migrated_to() {
    for reach in [Reach::Down, Reach::Frozen] {
        let w = World::new().await;
        w.running(1).await;
        w.nodes[1].hypervisor.set_reach(reach);
        w.migrate(1, "b").await;
        w.until_at_home(0, 60).await;
        assert_eq!(w.nodes[0].hypervisor.counts().migrate, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_target_whose_daemon_has_no_session_is_not_migrated_to_until_it_has_one() {
    let w = World::new().await;
    w.running(1).await;
    let mut gone = pvc_store::Transaction::default();
    gone.ops.push(pvc_store::Op::Delete { path: schema::owner::path(&w.nodes[1].name), version: None });
    w.operator.commit(gone).await.unwrap();
    w.migrate(1, "b").await;
    sleep(20 * SECOND).await;
    assert!(w.explained().await.contains("its daemon has no session"), "{}", w.explained().await);
    assert_eq!(w.vm(1).await.claim.value.to_string(), "a");
    w.until_at_home(0, 20).await;
    let why = w.vm(1).await.failed_reason.value;
    assert!(why.contains("not migrated to b: b cannot take it: its daemon has no session"), "{why}");
    assert_eq!(w.nodes[0].hypervisor.counts().migrate, 0);

    w.migrate(1, "b").await;
    sleep(10 * SECOND).await;
    connect(&w.nodes[1].store, &w.nodes[1].name).await;
    w.until_at_home(1, 5).await;
}

#[tokio::test(start_paused = true)]
async fn no_guest_is_shut_down_for_a_target_that_could_not_start_it() {
    let fails = Outcome::Refused("cannot access storage file".into());
    for (method, journey) in
        [("shutdown", Journey::default()), ("none", Journey { outcome: fails, ..Journey::default() })]
    {
        let w = World::new().await;
        w.running(1).await;
        w.method(method).await;
        w.journey(0, journey);
        refuse_at(&w, 1, "no such bridge: br7");
        w.migrate(1, "b").await;
        w.until("it is answered", 30, async |w| w.vm(1).await.state.value == VmState::Start).await;
        let vm = w.vm(1).await;
        assert_eq!(vm.node.value.as_str(), "a");
        assert!(vm.failed_reason.value.contains("no such bridge: br7"), "{:?}", vm.failed_reason);
        let counts = w.nodes[0].hypervisor.counts();
        assert_eq!((counts.ask_to_shut_down, counts.power_off, counts.start), (0, 0, 1), "{method}");
        assert!(w.runs(0, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_guest_whose_target_says_nothing_stays() {
    let mut w = World::new().await;
    w.running(1).await;
    w.method("shutdown").await;
    w.nodes[1].kill();
    w.migrate(1, "b").await;
    w.until("it is answered", 40, async |w| w.vm(1).await.state.value == VmState::Start).await;
    let vm = w.vm(1).await;
    assert!(vm.failed_reason.value.contains("b has not said whether it could be started there"), "{vm:?}");
    assert_eq!(w.nodes[0].hypervisor.counts().ask_to_shut_down, 0);
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_was_shut_down_for_a_target_that_then_refuses_it_starts_at_home_again() {
    let w = World::new().await;
    for node in ["a", "b"].map(|n| n.parse().unwrap()) {
        let report = pvc_core::model::NodeReport { mem_total_mib: 1000, ..Default::default() };
        w.operator.commit(schema::node::report(&node, &report, None)).await.unwrap();
    }
    w.running(1).await;
    w.method("shutdown").await;
    let obeys = PowerButton::Obeyed(Duration::from_secs(5));
    w.nodes[0].hypervisor.behave(id(1), Behaviour { power_button: obeys, ..Behaviour::default() });
    w.migrate(1, "b").await;
    w.until("it is asked to go", 5, async |w| w.nodes[0].hypervisor.counts().ask_to_shut_down > 0).await;
    refuse_at(&w, 1, "no such bridge: br7");
    w.until("b has refused it", 20, async |w| w.nodes[1].hypervisor.counts().start > 0).await;
    w.until_at_home(0, 40).await;
    assert_eq!(w.vm(1).await.last_node.value, None, "it is at home");
}
