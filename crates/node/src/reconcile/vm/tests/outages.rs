//! libvirt or the store is away, or a server of the store lags behind.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_lost_answer_of_a_claim_is_looked_into() {
    let w = World::new().await;
    w.define(1, xml(1)).await;
    w.nodes[0].store.lose_answers(1);
    w.ask_for(1, VmState::Start).await;
    w.until("it runs", 30, async |w| w.runs(0, 1)).await;
    assert_eq!(w.nodes[0].hypervisor.counts().start, 1);
}

#[tokio::test(start_paused = true)]
async fn while_libvirt_is_away_nothing_is_concluded_and_then_the_desired_state_is_done() {
    let w = World::new().await;
    w.running(1).await;
    w.define(2, xml(2)).await;
    w.nodes[0].hypervisor.set_reach(Reach::Down);
    w.ask_for(2, VmState::Start).await;
    sleep(Duration::from_mins(2)).await;
    assert_eq!(w.vm(1).await.state.value, VmState::Start, "it is not taken for gone");
    let explained = schema::vm::read_explanation(&*w.operator, id(2)).await.unwrap().unwrap().unwrap();
    assert!(explained.because.contains("libvirt does not answer"), "{explained:?}");
    w.nodes[0].hypervisor.set_reach(Reach::Up);
    w.until("the desired state is reached", 5, async |w| w.runs(0, 2)).await;
    assert_eq!(w.nodes[0].hypervisor.counts().start, 2);
}

#[tokio::test(start_paused = true)]
async fn while_the_store_is_away_guests_run_on_and_then_the_desired_state_is_done() {
    let w = World::new().await;
    w.running(1).await;
    w.define(2, xml(2)).await;
    w.nodes[0].store.suspend();
    w.ask_for(2, VmState::Start).await;
    w.ask_for(1, VmState::Stop).await;
    sleep(Duration::from_mins(1)).await;
    assert!(w.runs(0, 1) && !w.runs(0, 2));
    w.nodes[0].store.resume();
    w.until("both desired states are reached", 5, async |w| !w.runs(0, 1) && w.runs(0, 2)).await;
}

#[tokio::test(start_paused = true)]
async fn a_lost_session_loses_no_guest_and_no_desired_state() {
    let w = World::new().await;
    w.running(1).await;
    w.nodes[0].store.suspend();
    w.nodes[0].store.expire();
    sleep(Duration::from_secs(30)).await;
    w.ask_for(1, VmState::Stop).await;
    w.nodes[0].store.resume();
    w.until("the desired state is reached", 5, async |w| !w.runs(0, 1)).await;
}

#[tokio::test(start_paused = true)]
async fn no_guest_is_ended_for_a_desired_state_or_claim_that_is_newer_at_another_server() {
    for (seen, newer) in [
        (vec![VmSet::State(VmState::Stop)], vec![VmSet::State(VmState::Start)]),
        (vec![VmSet::State(VmState::Shutdown)], vec![VmSet::State(VmState::Start)]),
        (vec![VmSet::Node("b".parse().unwrap())], vec![VmSet::Node("a".parse().unwrap())]),
    ] {
        let w = World::new().await;
        w.running(1).await;
        let node = &w.nodes[0];
        node.hypervisor.set_reach(Reach::Frozen);
        w.set(1, seen.clone()).await;
        sleep(Duration::from_millis(100)).await;
        node.store.fall_behind();
        w.set(1, newer).await;
        node.hypervisor.set_reach(Reach::Up);
        sleep(Duration::from_secs(30)).await;
        let counts = node.hypervisor.counts();
        assert_eq!((counts.power_off, counts.ask_to_shut_down), (0, 0), "{seen:?}");
        assert!(w.runs(0, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_came_while_its_server_lags_is_not_taken_for_the_survivor_of_a_fence() {
    let mut w = World::new().await;
    w.running(1).await;
    let guest = w.nodes[0].hypervisor.active().await.unwrap().remove(0);
    sleep(Duration::from_secs(1)).await;
    w.nodes[0].kill();
    w.nodes[1].store.fall_behind();
    w.nodes[0].hypervisor.vanish(id(1));
    let peer_state = w.nodes[1].name.clone();
    w.set(1, vec![VmSet::Claim(Claim::only(&peer_state)), VmSet::Node(peer_state)]).await;
    w.nodes[1].hypervisor.put(guest);
    sleep(Duration::from_secs(5)).await;
    assert!(w.runs(1, 1));
    assert_eq!(w.nodes[1].hypervisor.counts().power_off, 0);
}
