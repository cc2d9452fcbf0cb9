//! VMs that wait for room while their node's machine is on again, and its daemon is not heard.

use super::*;

/// `x` lost its power, and its VMs wait for room.
async fn lost_its_power() -> World {
    let w = world(SETTINGS).await;
    take_vms(&w, DomainState::Flushed).await;
    w.power.set_off("x-lom", Off::Works);
    w.power.plug("x-lom", false);
    waits(&w, Proof::PowerOff).await;
    w
}

/// `x` lost its power, has it again, and hangs; a VM of it was started there by hand. There was no room elsewhere all the while.
async fn boots_unheard(w: &World) {
    w.until("it is on again", 120, async |w| w.power.is_on("x-lom")).await;
    w.machine("x").hang();
    sleep(BOOT).await;
    w.start_by_hand("x", 1);
    take_vms(w, DomainState::Ready).await;
}

async fn waits(w: &World, proof: Proof) {
    w.until("it is proven dead, and its VMs wait", 120, async |w| {
        let proven = w.fence("x").await.is_some_and(|fence| fence.job.step.proof() == Some(proof));
        proven && schema::vm::read_explanation(&*w.eye, id(1)).await.unwrap().is_some()
    })
    .await;
}

async fn said_of_x(w: &World) -> String {
    let said = schema::node::read_explanation(&*w.eye, &name("x")).await.unwrap();
    said.and_then(Result::ok).map(|said| said.because).unwrap_or_default()
}

#[tokio::test(start_paused = true)]
async fn its_power_is_cut_again_before_they_start_elsewhere() {
    let w = lost_its_power().await;
    boots_unheard(&w).await;
    w.until("why they wait is told", 30, async |w| said_of_x(w).await.contains("its power is cut again"))
        .await;
    assert_eq!(w.runs_on(1), [name("x")]);
    assert!(!w.power.calls("x-lom").contains(&Call::Off), "it may be booting");
    recovered(&w, 6 * 60).await;
    assert_eq!(w.power.calls("x-lom").iter().filter(|call| **call == Call::Off).count(), 1);
    is_over(&w).await;
    sleep(BOOT + Duration::from_secs(10)).await;
    assert_eq!(w.node(&name("x")).await.daemon_state.value, DaemonState::Run, "it was powered on again");
    assert!(elsewhere(&w));
}

#[tokio::test(start_paused = true)]
async fn a_fencer_that_takes_over_knows_no_better() {
    let w = lost_its_power().await;
    w.until("it is on again", 120, async |w| w.power.is_on("x-lom")).await;
    for node in ["a", "b"] {
        w.machine(node).restart_fencing();
    }
    boots_unheard(&w).await;
    recovered(&w, 7 * 60).await;
    assert_eq!(w.power.calls("x-lom").iter().filter(|call| **call == Call::Off).count(), 1);
}

#[tokio::test(start_paused = true)]
async fn one_that_is_heard_in_time_keeps_them() {
    let w = lost_its_power().await;
    boots_unheard(&w).await;
    sleep(Duration::from_secs(100)).await;
    w.machine("x").wake();
    is_over(&w).await;
    w.until("they run there", 30, async |w| (1..4).all(|n| w.runs_on(n) == [name("x")])).await;
    assert!(!w.power.calls("x-lom").contains(&Call::Off));
}

async fn confirm_dead(w: &World) {
    w.until("an operator has said that it is dead", 10, async |w| {
        let (Some(fence), seen) = (w.fence("x").await, w.node(&name("x")).await) else { return false };
        let said = FenceJob { confirmed_dead: Some(word()), ..fence.job.clone() };
        let confirm = schema::fence::confirm_dead(&seen, Some(&fence), &said);
        pvc_store::Store::commit(&*w.eye, confirm).await.is_ok()
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn where_no_bmc_answers_an_operator_has_to_say_it_again() {
    let w = world(SETTINGS).await;
    take_vms(&w, DomainState::Flushed).await;
    w.power.plug("x-lom", false);
    w.power.set_reach("x-lom", Reach::Silent);
    w.until("its power could not be cut", 120, async |w| {
        w.fence("x").await.is_some_and(|fence| matches!(fence.job.step, FenceStep::Failed { .. }))
    })
    .await;
    confirm_dead(&w).await;
    waits(&w, Proof::Operator).await;
    sleep(Duration::from_mins(2)).await;
    w.power.plug("x-lom", true);
    boots_unheard(&w).await;
    w.until("what to do is told", 60, async |w| said_of_x(w).await.contains("confirm-dead")).await;
    sleep(Duration::from_mins(10)).await;
    assert_eq!((w.runs_on(1), w.starts(2)), (vec![name("x")], 1), "nothing is done");
    w.power.plug("x-lom", false);
    confirm_dead(&w).await;
    recovered(&w, 60).await;
}
